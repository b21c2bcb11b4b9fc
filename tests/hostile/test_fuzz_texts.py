"""Random text through what takes it apart: templates, CSV, forms, settings. No server is needed.

What went in comes out, or is refused in one of our own words; nothing becomes markup, a header or a formula.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fuzzing import fuzz
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError, PydanticKnownError

from reos.errors import FileTooLargeError, InvalidInputError
from reos.handlers.exports import CsvPages
from reos.integrations.merging import Rendered, compile_mail, compile_text, render_text
from reos.middleware.bodies import Body, UploadedFile, _parse_multipart
from reos.queries.listing import PageRequest, Rows
from reos.schemas.common import Text
from reos.schemas.merge_fields import MERGE_FIELDS, MergeFieldError, parse
from reos.settings import Settings, SettingsError, load_settings

pytestmark = [pytest.mark.unit, pytest.mark.property, pytest.mark.slow]

# --- the template engine -----------------------------------------------------------------------------------------

# What content may hold: line breaks and tabs, and no other control character.
PLAIN = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")) | st.sampled_from("\n\t")
PIECES = st.sampled_from(
    (
        "{", "}", "{{", "}}", "{%", "%}", "{#", "#}", "{{{", "}}}", "-", "+", "|safe", "|", ".", "__class__", "[0]",
        "(", ")", "'", '"', "raw", "endraw", "{% raw %}", "{{first_name}}", "{{ email }}", "{{company", "{{-", "-}}",
        "{{unsubscribe_url}}", "{{ self }}", "{{config}}", "{{ 7*7 }}", "<a href=\"", "</a>", "<b>", "</body>", "<!--",
        "-->", "<script>", "&amp;", "&lt;", "http://x.test/", "javascript:", "\r\n", "\u2028", "\ufeff", "\u202e",
        "# ", "##", "$", "\\", "%", "\n\n",
    )
)  # fmt: skip
CONTENT = st.lists(st.text(PLAIN, max_size=8) | PIECES, max_size=14).map("".join)
HOSTILE_VALUE = st.lists(st.text(PLAIN, max_size=6) | PIECES, max_size=6).map("".join)
VALUES = st.fixed_dictionaries({name: st.none() | HOSTILE_VALUE for name in MERGE_FIELDS})


def is_template(text: str) -> bool:
    try:
        parse(text)
    except MergeFieldError:
        return False
    return True


@fuzz(150)
@given(subject=CONTENT, content=CONTENT, values=VALUES)
@example("{{first_name}}", "{{ first_name }}{{", {})
@example("a\r\nBcc: x@example.com", "<a href='{{company}}'>x</a>", {"company": "http://a.test/\r\nX: y"})
def test_any_text_is_refused_or_can_be_sent(subject: str, content: str, values: dict[str, str | None]) -> None:
    """Saving takes what `parse` does; from then on nothing may fail, whoever the recipient is."""
    if not (is_template(subject) and is_template(content)):
        with pytest.raises(MergeFieldError, match=r"\S"):
            compile_mail(subject, content)
        return
    template = compile_mail(subject, content)
    mail = template.render(values, track=lambda url: "https://mail.test/t/c/token", pixel_url="https://mail.test/t/o/x")
    assert "\r" not in mail.subject and "\n" not in mail.subject
    for text in (mail.subject, mail.html, mail.text):
        assert not {"\x01", "\x02", "\x03"} & set(text)


# What markup begins and ends with, and names that mean something in it.
MARKUP = st.lists(
    st.sampled_from(
        (
            "<", "<", "!", "[", "]", "-", "--", ">", ">", "?", "/", "=", "'", '"', "&#", "&", ";", " ", "\n", "x", "a",
            "p", "b", "CDATA", "if", "endif", "doctype", "html", "style", "title", "svg", "head", "template", "href",
            "1", "http://x.test/", "{{first_name}}",
        )
    ),
    max_size=24,
).map("".join)  # fmt: skip


@fuzz(400)
@given(content=MARKUP)
@example("<p>hi</p><![foo[bar]]>")
@example("<p>a</p><![")
@example("<![foo[bar]]>")
@example("<!doctype [<!x[")
@example("<head><p>x")
def test_no_markup_breaks_a_message_or_hides_how_to_stop_it(content: str) -> None:
    """Whatever begins and never ends is text, and so takes nothing with it."""
    mail = compile_mail("", content).render({"first_name": "<!--", "unsubscribe_url": "https://x.test/stop"})
    assert mail.text.endswith("Unsubscribe (https://x.test/stop)\n")
    text = render_text(compile_text(content), {"first_name": "<!--"})
    if not set("<>&") & set(content):
        assert text == content.replace("{{first_name}}", "<!--").strip()


@fuzz(150)
@given(parts=st.lists(st.sampled_from(MERGE_FIELDS) | CONTENT.map(lambda text: f"-{text}"), max_size=8), values=VALUES)
@example(["first_name", "-}}", "last_name"], {"first_name": "{{ email }}", "last_name": "{% raw %}"})
def test_a_text_says_what_was_written_and_no_more(parts: list[str], values: dict[str, str | None]) -> None:
    """Braces of the text, and of what people are called, are characters."""
    is_field = [part in MERGE_FIELDS for part in parts]
    source = "".join(f"{{{{{part}}}}}" if field else part[1:] for part, field in zip(parts, is_field, strict=True))
    assume(not any("<" in part for part, field in zip(parts, is_field, strict=True) if not field))
    try:
        read = parse(source)
    except MergeFieldError:
        assume(False)
    expected = "".join((values.get(text) or "") if kind == "field" else text for kind, text in read)
    assert render_text(compile_text(source), values) == expected.strip()


class Outline(HTMLParser):
    """The tags of a page with the names of their attributes, and how often a comment or declaration stands there."""

    def __init__(self, html: str):
        super().__init__()
        self.found: list[Any] = []
        self.links: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, [name for name, _ in attrs]))
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_endtag(self, tag: str) -> None:
        self.found.append(tag)

    def handle_comment(self, data: str) -> None:
        self.found.append("comment")

    def handle_decl(self, decl: str) -> None:
        self.found.append("declaration")


MAILS = (
    "Hello {{first_name}} {{last_name}},\n\nsee https://homes.test/?for={{email}} soon.\n\n{{agent_name}}",
    '<p title="{{company}}">{{first_name}}</p><a href="https://homes.test/?x={{email}}&amp;y=1">{{last_name}}</a>',
    "<h1>{{organization_name}}</h1><a href='{{unsubscribe_url}}'>no more</a><img alt=\"{{property_address}}\">",
)


@fuzz(60)
@given(content=st.sampled_from(MAILS), values=VALUES)
def test_no_name_becomes_markup(content: str, values: dict[str, str | None]) -> None:
    template = compile_mail("{{first_name}}: {{company}}", content)

    def render(given_values: dict[str, str | None]) -> Rendered:
        return template.render(given_values, track=lambda url: "https://mail.test/t/c/token")

    usual, hostile = render(dict.fromkeys(MERGE_FIELDS, "x")), render(values)
    assert Outline(hostile.html).found == Outline(usual.html).found
    assert "".join(hostile.subject.splitlines()) == hostile.subject


@fuzz(60)
@given(
    company=st.sampled_from(["https://a.test/", "HTTP://a.test", "mailto:a@a.test", "tel:+1", "javascript:alert(1)"])
    | st.sampled_from([" JavaScript:x", "java\tscript:x", "data:text/html,x", "vbscript:x", "//a.test", "x", ""])
    | HOSTILE_VALUE
)
def test_a_link_that_is_a_field_leads_nowhere_but_to_the_web_a_mail_or_a_telephone(company: str) -> None:
    template = compile_mail("Hello", "<a href='{{company}}'>x</a> <a href=\"{{company}}/x\">y</a>")
    links = Outline(template.render({"company": company}).html).links[:2]
    schemes = ("http:", "https:", "mailto:", "tel:")
    expected = [company.strip(), f"{company}/x".strip()] if company.strip().lower().startswith(schemes) else ["", ""]
    assert [link.strip() for link in links] == expected


# --- CSV ---------------------------------------------------------------------------------------------------------

FORMULA = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
CELL = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(PLAIN | st.sampled_from("\",\r\n;=+-@\t\uff1d\uff0b\uff0d\uff20'|"), max_size=12)
)


@fuzz(150)
@given(
    rows=st.lists(st.fixed_dictionaries({"a": CELL, "b": CELL, "c": CELL}), max_size=8),
    page_rows=st.integers(1, 4),
)
def test_a_csv_file_says_what_the_rows_say(rows: list[dict[str, Any]], page_rows: int) -> None:
    async def fetch(conn: Any, page: PageRequest) -> Rows:
        start = page.after[0] if page.after else 0
        part, rest = rows[start : start + page_rows], rows[start + page_rows :]
        return Rows(part, (start + page_rows,) if rest else None, len(rows))

    pages = CsvPages(("a", "b", "c"), (("a", False),), fetch)
    data = b"".join(read_all(pages))
    read = list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))
    assert read[0] == ["a", "b", "c"]
    assert len(read) == len(rows) + 1
    for row, cells in zip(rows, read[1:], strict=True):
        for value, cell in zip((row[name] for name in "abc"), cells, strict=True):
            assert cell.removeprefix("'") == ("" if value is None else str(value).removeprefix("'"))
            if isinstance(value, str):
                # Nothing that a spreadsheet would run, and a quote only where one is needed.
                assert cell[:1] not in tuple(FORMULA)
                assert cell == value or (cell == f"'{value}" and value[0] in FORMULA)


def read_all(pages: CsvPages) -> Iterator[bytes]:
    conn: Any = None
    while not pages.is_last:
        # It waits for nothing, because `fetch` does not.
        with pytest.raises(StopIteration):
            pages.read(conn).send(None)
        yield from pages.chunks()


# --- multipart ---------------------------------------------------------------------------------------------------

BOUNDARIES = st.text(st.sampled_from("0123456789abcXYZ'()+_,-./:=?"), min_size=1, max_size=70)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters='"\r\n\x00%\\'), min_size=1, max_size=12).filter(
    lambda name: name == name.strip()
)
FIELDS = st.lists(st.tuples(NAMES, st.text(st.characters(codec="utf-8"), max_size=30)), max_size=5)
FILES = st.none() | st.tuples(NAMES, st.binary(max_size=60))
MAX_FILE = 50


def framed(boundary: str, fields: list[tuple[str, str]], file: tuple[str, bytes] | None) -> bytes:
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{text}'.encode() for name, text in fields]
    if file is not None:
        head = f'content-disposition:form-data;  name=file; filename="{file[0]}"\r\nContent-Type: image/png\r\n\r\n'
        parts.append(head.encode() + file[1])
    framed = b"".join(b"--" + boundary.encode() + b"\r\n" + part + b"\r\n" for part in parts)
    return framed + b"--" + boundary.encode() + b"--\r\n"


@fuzz(200)
@given(boundary=BOUNDARIES, fields=FIELDS, file=FILES)
def test_a_form_is_read_as_it_was_sent(
    boundary: str, fields: list[tuple[str, str]], file: tuple[str, bytes] | None
) -> None:
    contents = [text.encode() for _, text in fields] + ([file[1]] if file else [])
    assume(not any(b"--" + boundary.encode() in content for content in contents))
    data = framed(boundary, fields, file)
    if file is not None and len(file[1]) > MAX_FILE:
        with pytest.raises(FileTooLargeError):
            _parse_multipart(data, boundary.encode(), MAX_FILE)
        return
    body = _parse_multipart(data, boundary.encode(), MAX_FILE)
    expected: dict[str, list[str]] = {}
    for name, text in fields:
        expected.setdefault(name, []).append(text)
    assert body.form == expected
    assert body.file == (None if file is None else UploadedFile(file[0], file[1], "image/png"))
    assert (
        body.fingerprint_parts()
        == _parse_multipart(framed("other", fields, file), b"other", MAX_FILE).fingerprint_parts()
    )


CUTS = st.lists(
    st.tuples(
        st.integers(0, 400),
        st.integers(0, 30),
        st.sampled_from(
            (b"", b"\r\n", b"\r\n\r\n", b"--b", b"\r\n--b", b"--", b"\x00", b"\xff", b'"', b";", b"=", b"\n")
        )
        | st.binary(max_size=5),
    ),
    min_size=1,
    max_size=4,
)


@fuzz(500)
@given(fields=FIELDS, file=FILES, cuts=CUTS)
def test_a_damaged_form_is_refused_or_read(
    fields: list[tuple[str, str]], file: tuple[str, bytes] | None, cuts: list[tuple[int, int, bytes]]
) -> None:
    data = framed("b", fields, file)
    for start, length, put in cuts:
        data = data[:start] + put + data[start + length :]
    check_form(data)


@fuzz(300)
@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader_of_forms(data: bytes) -> None:
    check_form(data)
    check_form(b"--b\r\n" + data + b"\r\n--b--")
    check_form(b"--b\r\nContent-Disposition: " + data + b"\r\n\r\nx\r\n--b--")


def check_form(data: bytes) -> None:
    try:
        body = _parse_multipart(data, b"b", MAX_FILE)
    except (InvalidInputError, FileTooLargeError):
        return
    assert isinstance(body, Body) and body.form is not None
    body.fingerprint_parts()


# --- strings of the API ------------------------------------------------------------------------------------------


@fuzz(300)
@given(text=st.text(max_size=12), has_breaks=st.booleans())
def test_a_text_is_trimmed_and_nothing_else(text: str, has_breaks: bool) -> None:
    kind = Text(8, has_breaks=has_breaks)
    try:
        taken = kind._check(text)
    except (PydanticKnownError, PydanticCustomError):
        return
    assert taken == text.strip() and 1 <= len(taken) <= 8
    assert taken.encode().decode() == taken and "\x00" not in taken


# --- the settings ------------------------------------------------------------------------------------------------

# What an environment can hold: any bytes but NUL, which Python shows as lone surrogates where they are no UTF-8.
ENVIRONMENT = st.binary(max_size=20).filter(lambda data: b"\x00" not in data).map(os.fsdecode) | st.sampled_from(
    (
        "true", "false", "maybe", "0", "-1", "1", "1.5", "1e3", "NaN", "inf", "1_0", "٣", "99999999999999999999", "[]",
        "{}", "[1]", '"a"', "null", "None", "5,30", ",", "http://", "https://x", "postgresql://", "redis://", "whsec_",
        "whsec_a", "whsec_\xe9", " ", "HS256", "local", "DEBUG", "debug", "a\nb", "\udcff", "9" * 5000, "{", "[", "::1",
    )
)  # fmt: skip
NAMES_OF_SETTINGS = sorted(name for name in Settings.model_fields if name != "data_dir")


@fuzz(400)
@given(given_values=st.dictionaries(st.sampled_from(NAMES_OF_SETTINGS), ENVIRONMENT, min_size=1, max_size=3))
def test_any_environment_is_taken_or_told_in_a_sentence(
    given_values: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        for name in Settings.model_fields:
            patch.delenv(name.upper(), raising=False)
        for name, value in given_values.items():
            patch.setenv(name.upper(), value)
        found = check_settings(tmp_path)
    if isinstance(found, str):
        assert any(name.upper() in found for name in given_values), found
    else:
        # What was taken can be worked with.
        assert found.base_url and found.jwt_secret_key.encode()
        repr(found).encode()


@fuzz(100)
@given(data=st.binary(max_size=60))
@example(data=b"PORT=\xff")
@example(data=b"\xff\xfeP\x00")
def test_any_env_file_is_taken_or_told_in_a_sentence(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    check_settings(tmp_path)


def check_settings(data_dir: Path) -> Settings | str:
    """The settings, or the sentence that says what is wrong."""
    try:
        return load_settings(data_dir=data_dir)
    except SettingsError as error:
        told = str(error)
    assert "\n" not in told and told.endswith(".") and len(told) < 400
    return told
