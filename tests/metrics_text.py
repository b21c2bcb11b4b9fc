"""Reading what /metrics tells."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field

from api import Api
from prometheus_client.parser import text_string_to_metric_families

Labels = dict[str, str]


@dataclass
class Scrape:
    """The samples by name, and the kinds of the metrics as their TYPE lines name them."""

    kinds: dict[str, str]
    samples: defaultdict[str, list[tuple[Labels, float]]] = field(default_factory=lambda: defaultdict(list))

    def value(self, name: str, **labels: str) -> float:
        """The value with exactly these labels; 0 without one."""
        found = [value for given, value in self.samples[name] if given == labels]
        assert len(found) <= 1, f"{name} {labels} is told {len(found)} times"
        return found[0] if found else 0.0

    def families(self) -> dict[str, tuple[str, set[str]]]:
        """Each metric's kind and labels."""
        return {name: (kind, self.labels(name) - {"le"}) for name, kind in self.kinds.items()}

    def labels(self, name: str) -> set[str]:
        """The names of the labels that a metric's samples have."""
        names = (name, f"{name}_bucket") if self.kinds.get(name) == "histogram" else (name,)
        return {label for part in names for labels, _ in self.samples[part] for label in labels}


def parse(text: str) -> Scrape:
    scrape = Scrape(dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE)))
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            scrape.samples[sample.name].append((sample.labels, sample.value))
    return scrape


# --- expressions ------------------------------------------------------------------------------------------------

_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"(?<![\w:])([a-zA-Z_:][\w:]*)\s*(?:\{([^}]*)\})?(?!\s*\()(?!\w)")
_MATCHER = re.compile(r"(\w+)\s*(=~|!~|!=|=)\s*\"([^\"]*)\"")
_WORDS = {"and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring", "group_left", "group_right"}
_DURATION = re.compile(r"\[[^\]]*\]")


@dataclass(frozen=True)
class Selector:
    """A metric that an expression names, and its matchers: label, operator, value."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]


def selectors(expression: str) -> list[Selector]:
    """The metrics of a PromQL expression. Whatever is no function, keyword, number or label is one."""
    text = _GROUPING.sub(" ", _DURATION.sub(" ", expression))
    matches = [match for match in _SELECTOR.finditer(text) if match[1] not in _WORDS]
    return [Selector(match[1], tuple(_MATCHER.findall(match[2] or ""))) for match in matches]


def groupings(expression: str) -> set[str]:
    """The labels that an expression groups or joins by."""
    return {label.strip() for labels in _GROUPING.findall(expression) for label in labels.split(",") if label.strip()}


async def scrape(api: Api) -> Scrape:
    """What the service tells now, not what it told half a second ago."""
    api.context.scraper._made_at = float("-inf")
    response = await api.http.get("/metrics")
    assert response.status_code == 200
    return parse(response.text)
