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


async def scrape(api: Api) -> Scrape:
    """What the service tells now, not what it told half a second ago."""
    api.context.scraper._made_at = float("-inf")
    response = await api.http.get("/metrics")
    assert response.status_code == 200
    return parse(response.text)
