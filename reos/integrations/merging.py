"""What a campaign says to one recipient: subject, HTML and text, from texts with merge fields.

The engine is Jinja2's immutable sandbox. It only ever sees what is made here of a parsed text: the fields, with every
brace of the text itself as a literal, so that nothing that somebody wrote or is called becomes part of a template.
While the HTML is worked on, a field stands as `\x01n\x02` and a link as `\x03n\x02`: control characters are refused in
texts, so nothing else looks like that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape, unescape
from html.parser import HTMLParser

from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from reos.schemas.merge_fields import MERGE_FIELDS, parse

MAX_TRACKED_URL = 2000  # characters; a longer link stays as it is, because not every server takes a longer address
FOOTER = '<p style="font-size: small"><a href="{{unsubscribe_url}}">Unsubscribe</a></p>'

_MARK = re.compile(r"([\x01\x03])(\d+)\x02")
_TAG = re.compile(r"<(?:[a-zA-Z][^<>]*|/[a-zA-Z][^<>]*|!--|!doctype)", re.IGNORECASE)
_HREF = re.compile(r"""(<a\b[^<>]*?\bhref\s*=\s*)("[^"<>]*"|'[^'<>]*')""", re.IGNORECASE)
_SCHEME = re.compile(r"\s*(?:https?|mailto|tel):", re.IGNORECASE)
_URL = re.compile(r"https?://[^\s<>\"'\x01-\x03]+[^\s<>\"'\x01-\x03.,;:!?)\]]", re.IGNORECASE)
_END = re.compile(r"</body\s*>|</html\s*>", re.IGNORECASE)
_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_UNSUBSCRIBE = MERGE_FIELDS.index("unsubscribe_url")

_HTML = ImmutableSandboxedEnvironment(autoescape=True, keep_trailing_newline=True)
_TEXT = ImmutableSandboxedEnvironment(autoescape=False, keep_trailing_newline=True)

Values = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Rendered:
    """What one recipient gets."""

    subject: str
    html: str
    text: str


@dataclass(frozen=True, slots=True)
class MailTemplate:
    """A subject and a content, ready for many recipients."""

    subject: Template
    html: Template
    text: Template
    links: tuple[Template | str, ...]  # what the links lead to; a plain string where it is the same for all

    def render(
        self, values: Values, *, track: Callable[[str], str] | None = None, pixel_url: str | None = None
    ) -> Rendered:
        """The mail for these merge fields (None: empty). `track` gives the address that stands in for a link's."""
        given = _filled(values)
        targets = [link if isinstance(link, str) else _harmless(link.render(given)) for link in self.links]
        if track is not None:
            targets = [track(url) if _is_tracked(url) else url for url in targets]
        return Rendered(
            subject=one_line(self.subject.render(given)),
            html=self.html.render(given, links=targets, pixel_url=pixel_url),
            text=self.text.render(given),
        )


def compile_mail(subject: str, content: str) -> MailTemplate:
    """The template of a mail. Raises MergeFieldError for a text that is none (which saving it refuses)."""
    html = _as_html(content)
    if f"\x01{_UNSUBSCRIBE}\x02" not in html:
        html = _before_end(html, _coded(FOOTER))
    text = _as_text(html)
    html, targets = _with_links(html)
    source = _source(_before_end(html, "\x03pixel\x02"))
    return MailTemplate(
        subject=_TEXT.from_string(_source(_coded(subject))),
        html=_HTML.from_string(source),
        text=_TEXT.from_string(_source(text)),
        links=tuple(_TEXT.from_string(_source(url)) if _MARK.search(url) else url for url in targets),
    )


def compile_text(content: str) -> Template:
    """The template of a text that is no mail (an SMS, a letter). Raises MergeFieldError as `compile_mail` does."""
    coded = _coded(content)
    return _TEXT.from_string(_source(_as_text(coded) if _TAG.search(coded) else coded))


def render_text(template: Template, values: Values) -> str:
    """The text for these merge fields (None: empty)."""
    return template.render(_filled(values)).strip()


def one_line(text: str) -> str:
    """The text without what could begin another header."""
    return _BREAKS.sub(" ", text).strip()


def _filled(values: Values) -> dict[str, str]:
    return {name: values.get(name) or "" for name in MERGE_FIELDS}


def _is_tracked(url: str) -> bool:
    return url.lower().startswith(("http://", "https://")) and len(url) <= MAX_TRACKED_URL and url.isprintable()


def _harmless(url: str) -> str:
    """The address that fields are part of, unless it leads elsewhere: what somebody is called must run no script."""
    return url if _SCHEME.match(url) else ""


# --- from a text to the source of a template ---------------------------------------------------------------------


def _coded(source: str) -> str:
    """The text with marks for its fields."""
    return "".join(
        f"\x01{MERGE_FIELDS.index(value)}\x02" if kind == "field" else value for kind, value in parse(source)
    )


def _source(coded: str) -> str:
    """The source for the engine: marks become fields, braces literals."""
    parts = re.split(r"([\x01\x03])(\w+)\x02", coded)
    pieces = [_literal(parts[0])]
    for kind, what, literal in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        if what == "pixel":
            pieces.append(_PIXEL)
        elif kind == "\x01":
            pieces.append("{{ " + MERGE_FIELDS[int(what)] + " }}")
        else:
            pieces.append("{{ links[" + what + "] }}")
        pieces.append(_literal(literal))
    return "".join(pieces)


_PIXEL = '{% if pixel_url %}<img src="{{ pixel_url }}" width="1" height="1" alt="">{% endif %}'


def _literal(text: str) -> str:
    return re.sub(r"[{}]+", lambda found: "{{ '" + found.group() + "'|safe }}", text)


# --- HTML --------------------------------------------------------------------------------------------------------


def _as_html(content: str) -> str:
    """The content as coded HTML. Plain text becomes paragraphs, its addresses links."""
    coded = _coded(content)
    if _TAG.search(coded):
        return coded
    unsubscribe = f"\x01{_UNSUBSCRIBE}\x02"
    linked = re.sub(_URL.pattern, _link, escape(coded, quote=False), flags=re.IGNORECASE)
    linked = linked.replace(unsubscribe, f'<a href="{unsubscribe}">{unsubscribe}</a>')
    paragraphs = [part.strip("\n").replace("\n", "<br>\n") for part in re.split(r"\n[ \t]*\n", linked) if part.strip()]
    body = "\n".join(f"<p>{part}</p>" for part in paragraphs)
    return f'<!doctype html>\n<html>\n<head><meta charset="utf-8"></head>\n<body>\n{body}\n</body>\n</html>\n'


def _link(found: re.Match[str]) -> str:
    return f'<a href="{found.group()}">{found.group()}</a>'


def _before_end(html: str, addition: str) -> str:
    """The HTML with something more at the end of its body."""
    ends = list(_END.finditer(html))
    place = min((found.start() for found in ends[-2:]), default=len(html))
    return html[:place] + addition + html[place:]


def _with_links(html: str) -> tuple[str, list[str]]:
    """The HTML with marks for what its links lead to, and those, as coded texts. Unsubscribing is no tracked link."""
    targets: list[str] = []

    def mark(found: re.Match[str]) -> str:
        url = unescape(found.group(2)[1:-1]).strip()
        if f"\x01{_UNSUBSCRIBE}\x02" in url or not re.match(r"https?://|\x01", url, re.IGNORECASE):
            return found.group()
        targets.append(url)
        return f'{found.group(1)}"\x03{len(targets) - 1}\x02"'

    return _HREF.sub(mark, html), targets


class _Reader(HTMLParser):
    """Collects what a person would read."""

    blocks = frozenset({
        "p", "div", "section", "article", "header", "footer", "table", "tr", "ul", "ol", "blockquote", "h1", "h2",
        "h3", "h4", "h5", "h6", "pre", "hr",
    })  # fmt: skip
    unread = frozenset({"head", "style", "script", "title", "template"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.links: list[tuple[str, int]] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        if tag in self.unread:
            self.hidden += 1
        elif tag in self.blocks:
            self.pieces.append("\n\n")
        elif tag == "br":
            self.pieces.append("\n")
        elif tag == "li":
            self.pieces.append("\n- ")
        elif tag in ("td", "th"):
            self.pieces.append(" ")
        elif tag == "img":
            self.pieces.append(dict(attrs).get("alt") or "")
        elif tag == "a":
            self.links.append((dict(attrs).get("href") or "", len(self.pieces)))

    def handle_endtag(self, tag: str) -> None:
        if tag in self.unread:
            self.hidden = max(0, self.hidden - 1)
        elif tag in self.blocks:
            self.pieces.append("\n\n")
        elif tag == "a" and self.links:
            url, start = self.links.pop()
            label = "".join(self.pieces[start:]).strip()
            if url and not url.startswith("#") and label != url:
                self.pieces.append(f" ({url})" if label else url)

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.pieces.append(re.sub(r"[ \t\r\n]+", " ", data))


def _as_text(html: str) -> str:
    """Coded text of coded HTML: what a mail program shows that shows no HTML."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    lines = [line.strip(" ") for line in "".join(reader.pieces).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(re.sub(r" {2,}", " ", line) for line in lines)).strip("\n") + "\n"
