"""What a campaign says to one recipient: subject, HTML and text, from texts with merge fields.

The engine is Jinja2's immutable sandbox. It only ever sees what is made here of a parsed text: the fields, with every
brace of the text itself as a literal, so that nothing that somebody wrote or is called becomes part of a template.
While the HTML is worked on, a field stands as `\x01n\x02` and a link as `\x03n\x02`: control characters are refused in
texts, so nothing else looks like that.

A text is HTML when it holds a tag that HTML has, and else plain text. In HTML, a `<` that begins no markup stands for
itself, in `<https://example.com>` as in `a<b`: what somebody wrote is to be read, and is not for a parser to swallow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import escape, unescape
from typing import NamedTuple

from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from reos.schemas.merge_fields import MERGE_FIELDS, parse

MAX_TRACKED_URL = 2000  # characters; a longer link stays as it is, because not every server takes a longer address
FOOTER = '<p style="font-size: small"><a href="{{unsubscribe_url}}">Unsubscribe</a></p>'

_MARK = re.compile(r"([\x01\x03])(\d+)\x02")
_HREF = re.compile(
    r"""(<a\b(?:[^<>"']|"[^"<>]*"|'[^'<>]*')*?(?<=[\s"'/])href\s*=\s*)("[^"<>]*"|'[^'<>]*'|[^\s"'<>]+)""", re.IGNORECASE
)
_SCHEME = re.compile(r"\s*(?:https?|mailto|tel):", re.IGNORECASE)
_END = re.compile(r"</body\s*>|</html\s*>", re.IGNORECASE)
_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_UNSUBSCRIBE = MERGE_FIELDS.index("unsubscribe_url")
# An address in plain text, with the fields that it holds; only the one for unsubscribing is an address of its own.
_URL_FIELD = rf"\x01(?!{_UNSUBSCRIBE}\x02)\d+\x02"
_URL = re.compile(
    rf"""https?://[^\s<>"'\x01-\x03](?:[^\s<>"'\x01-\x03]|{_URL_FIELD})*(?:[^\s<>"'\x01-\x03.,;:!?)\]]|{_URL_FIELD})""",
    re.IGNORECASE,
)

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
    if not _shows_unsubscribe(html):
        html = _before_end(html, _coded(FOOTER))
    text = _as_text(_pieces(html))
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
    pieces = list(_pieces(coded))
    return _TEXT.from_string(_source(_as_text(pieces) if _is_html(pieces) else coded))


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
    pieces = list(_pieces(coded))
    if _is_html(pieces):
        return "".join(_visible(piece.source) if piece.kind == "text" else piece.source for piece in pieces)
    unsubscribe = f"\x01{_UNSUBSCRIBE}\x02"
    linked, done = "", 0
    # Addresses are found before the text is escaped: what ends one, as the > of <https://…> does, would be part of it.
    for found in _URL.finditer(coded):
        linked += escape(coded[done : found.start()], quote=False) + _link(found.group())
        done = found.end()
    linked += escape(coded[done:], quote=False)
    linked = linked.replace(unsubscribe, f'<a href="{unsubscribe}">{unsubscribe}</a>')
    paragraphs = [part.strip("\n").replace("\n", "<br>\n") for part in re.split(r"\n[ \t]*\n", linked) if part.strip()]
    body = "\n".join(f"<p>{part}</p>" for part in paragraphs)
    return f'<!doctype html>\n<html>\n<head><meta charset="utf-8"></head>\n<body>\n{body}\n</body>\n</html>\n'


def _visible(text: str) -> str:
    """The text of HTML with its angle brackets as characters. Its & are its own: it may well say &nbsp;."""
    return text.replace("<", "&lt;").replace(">", "&gt;")


def _link(url: str) -> str:
    url = escape(url)
    return f'<a href="{url}">{url}</a>'


def _shows_unsubscribe(html: str) -> bool:
    """Whether the address for unsubscribing is anywhere but in what nobody gets to see."""
    mark = f"\x01{_UNSUBSCRIBE}\x02"
    return any(mark in piece.source for piece in _pieces(html) if piece.kind not in ("comment", "raw"))


def _before_end(html: str, addition: str) -> str:
    """The HTML with something more at the end of its body."""
    ends = list(_END.finditer(html))
    place = min((found.start() for found in ends[-2:]), default=len(html))
    return html[:place] + addition + html[place:]


def _with_links(html: str) -> tuple[str, list[str]]:
    """The HTML with marks for what its links lead to, and those, as coded texts. Unsubscribing is no tracked link."""
    targets: list[str] = []

    def mark(found: re.Match[str]) -> str:
        value = found.group(2)
        is_quoted = value[0] in ("'", '"')
        url = unescape(value[1:-1] if is_quoted else value).strip()
        if f"\x01{_UNSUBSCRIBE}\x02" in url or not re.match(r"https?://|\x01", url, re.IGNORECASE):
            return found.group()
        targets.append(url)
        quote = '"' if is_quoted or _MARK.search(url) else ""
        return f"{found.group(1)}{quote}\x03{len(targets) - 1}\x02{quote}"

    return _HREF.sub(mark, html), targets


# --- what HTML consists of ---------------------------------------------------------------------------------------

# The elements of the HTML standard, with the old ones that mails are still made of. Not <plaintext>, which makes text
# of all that follows, the link to unsubscribe among it.
_ELEMENTS = frozenset({
    "a", "abbr", "acronym", "address", "applet", "area", "article", "aside", "audio", "b", "base", "basefont", "bdi",
    "bdo", "bgsound", "big", "blink", "blockquote", "body", "br", "button", "canvas", "caption", "center", "cite",
    "code", "col", "colgroup", "data", "datalist", "dd", "del", "details", "dfn", "dialog", "dir", "div", "dl", "dt",
    "em", "embed", "fieldset", "figcaption", "figure", "font", "footer", "form", "frame", "frameset", "h1", "h2", "h3",
    "h4", "h5", "h6", "head", "header", "hgroup", "hr", "html", "i", "iframe", "image", "img", "input", "ins",
    "isindex", "kbd", "keygen", "label", "legend", "li", "link", "listing", "main", "map", "mark", "marquee", "math",
    "menu", "menuitem", "meta", "meter", "multicol", "nav", "nextid", "nobr", "noembed", "noframes", "noscript",
    "object", "ol", "optgroup", "option", "output", "p", "param", "picture", "pre", "progress", "q", "rb", "rp", "rt",
    "rtc", "ruby", "s", "samp", "script", "search", "section", "select", "selectedcontent", "slot", "small", "source",
    "spacer", "span", "strike", "strong", "style", "sub", "summary", "sup", "svg", "table", "tbody", "td", "template",
    "textarea", "tfoot", "th", "thead", "time", "title", "tr", "track", "tt", "u", "ul", "var", "video", "wbr", "xmp",
})  # fmt: skip
# Tags that HTML has nothing of and that are no text either: what office programs write, and elements of one's own.
_FOREIGN = re.compile(r"xml|(?:[a-z]|st[0-9]):[a-z][a-z0-9]*|[a-z][a-z0-9]*(?:-[a-z0-9]+)+")
# A tag is closed. A > in a quoted value closes none, and a < outside of one shows that it is no tag. Whether a tag is
# closed is looked for in so many attributes and no more, so that what never closes takes a time that does not grow with
# the square of its length.
_TAG = re.compile(
    r"""<(/?)([a-zA-Z][a-zA-Z0-9:-]*+)(?=[ \t\n\r\f/>])"""
    r"""[^<>=]*+(?:=\s*+(?:"[^"]*+"|'[^']*+'|(?!["']))[^<>=]*+){0,200}+>""",
    re.ASCII,
)
_ATTRIBUTE = re.compile(r"""([^\s/>=]++)(?:\s*+=\s*+("[^"]*+"|'[^']*+'|[^\s>]*+))?""", re.ASCII)
_BEGINNING = re.compile(r"<!(?:--|doctype)", re.IGNORECASE)
_COMMENT_END = re.compile(r"--!?>")
# Elements whose content is nothing to read. It is left as it is: there a < is their own affair up to their end.
_RAW_END = {
    name: re.compile(rf"</{name}(?=[ \t\n\r\f/>])", re.IGNORECASE)
    for name in ("iframe", "math", "noembed", "noframes", "script", "style", "svg", "template", "title")
}


class _Piece(NamedTuple):
    """A part of HTML: text, a comment, the start or the end of an element, or a raw element from its start to its end.

    A doctype, a processing instruction and a marked section are comments, as they are to a browser.
    """

    kind: str
    name: str  # of the element, in small letters
    source: str


def _pieces(html: str) -> Iterator[_Piece]:
    """The whole of the HTML in its order. What is not closed, or is no markup at all, is text."""
    missing: set[str] = set()  # what is known to end nowhere further on
    last = html.rfind(">")
    done = at = 0
    while 0 <= (at := html.find("<", at)) < last:
        piece = _markup_at(html, at, missing)
        if piece is None:
            at += 1
            continue
        if done < at:
            yield _Piece("text", "", html[done:at])
        yield piece
        done = at = at + len(piece.source)
    if done < len(html):
        yield _Piece("text", "", html[done:])


def _markup_at(html: str, at: int, missing: set[str]) -> _Piece | None:
    """The markup that begins at this <, if it does, where a > follows somewhere."""
    if html.startswith("<!--", at):
        return _comment_at(html, at, missing)
    if html.startswith(("<!", "<?"), at):
        return _Piece("comment", "", html[at : html.index(">", at) + 1])
    tag = _TAG.match(html, at)
    if tag is None:
        return None
    name = tag[2].lower()
    if name not in _ELEMENTS and not _FOREIGN.fullmatch(name):
        return None
    if tag[1]:
        return _Piece("end", name, tag[0])
    if name not in _RAW_END or (name in ("math", "svg") and tag[0].endswith("/>")):
        return _Piece("start", name, tag[0])
    found = None if name in missing else _RAW_END[name].search(html, tag.end())
    end = -1 if found is None else html.find(">", found.end())
    if end < 0:
        # A browser would take all that follows for its content, and show none of it.
        missing.add(name)
        return None
    return _Piece("raw", name, html[at : end + 1])


def _comment_at(html: str, at: int, missing: set[str]) -> _Piece | None:
    for empty in ("<!-->", "<!--->"):
        if html.startswith(empty, at):
            return _Piece("comment", "", empty)
    end = None if "-->" in missing else _COMMENT_END.search(html, at + 4)
    if end is None:
        missing.add("-->")
        return None
    return _Piece("comment", "", html[at : end.end()])


def _is_html(pieces: list[_Piece]) -> bool:
    """Whether they are HTML, and not a plain text that has angle brackets."""
    first = next((piece for piece in pieces if piece.source.strip()), None)
    if first is not None and first.kind == "comment" and _BEGINNING.match(first.source):
        return True
    return any(piece.name in _ELEMENTS for piece in pieces)


# --- from HTML to text -------------------------------------------------------------------------------------------


class _Reader:
    """Collects what a person would read."""

    blocks = frozenset({
        "p", "div", "section", "article", "header", "footer", "table", "tr", "ul", "ol", "blockquote", "h1", "h2",
        "h3", "h4", "h5", "h6", "pre", "hr",
    })  # fmt: skip

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.links: list[tuple[str, int]] = []
        self.in_head = False

    def read(self, piece: _Piece) -> None:
        if piece.kind == "text" and not self.in_head:
            self.pieces.append(re.sub(r"[ \t\r\n]+", " ", unescape(piece.source)))
        elif piece.kind == "start":
            self.start(piece)
        elif piece.kind == "end":
            self.end(piece.name)

    def start(self, piece: _Piece) -> None:
        name = piece.name
        if name == "body" or name in self.blocks:
            self.in_head = False  # its own end may be left out
        if name == "head":
            self.in_head = True
        elif name in self.blocks:
            self.pieces.append("\n\n")
        elif name == "br":
            self.pieces.append("\n")
        elif name == "li":
            self.pieces.append("\n- ")
        elif name in ("td", "th"):
            self.pieces.append(" ")
        elif name == "img":
            self.pieces.append(_attribute(piece, "alt"))
        elif name == "a":
            self.links.append((_attribute(piece, "href"), len(self.pieces)))

    def end(self, name: str) -> None:
        if name == "head":
            self.in_head = False
        elif name in self.blocks:
            self.pieces.append("\n\n")
        elif name == "a" and self.links:
            url, start = self.links.pop()
            label = "".join(self.pieces[start:]).strip()
            if url and not url.startswith("#") and label != url:
                self.pieces.append(f" ({url})" if label else url)


def _attribute(piece: _Piece, name: str) -> str:
    """The value of the tag's attribute; empty where it has none."""
    for found in _ATTRIBUTE.finditer(piece.source, len("<") + len(piece.name)):
        if found[1].lower() == name:
            value = found[2] or ""
            return unescape(value[1:-1] if value[:1] in ("'", '"') else value)
    return ""


def _as_text(pieces: Iterable[_Piece]) -> str:
    """Coded text of coded HTML: what a mail program shows that shows no HTML."""
    reader = _Reader()
    for piece in pieces:
        reader.read(piece)
    lines = [line.strip(" ") for line in "".join(reader.pieces).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(re.sub(r" {2,}", " ", line) for line in lines)).strip("\n") + "\n"
