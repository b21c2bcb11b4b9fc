"""What content becomes: whether it is HTML or plain text, and that nothing of what it says is lost."""

from __future__ import annotations

from html import escape

import pytest
from api import Api

from reos.integrations.merging import Rendered, compile_mail, compile_text, render_text

VALUES = {"first_name": "Ann", "email": "ann@example.com", "unsubscribe_url": "https://reos.test/stop"}
STOP = "Unsubscribe (https://reos.test/stop)\n"

unit = pytest.mark.unit


def mail_of(content: str) -> Rendered:
    return compile_mail("Hello", content).render(VALUES)


def text_of(content: str) -> str:
    return render_text(compile_text(content), VALUES)


@pytest.mark.integration
@pytest.mark.parametrize("content", ["<p>hi</p><![foo[bar]]>", "<p>hi</p><![", "<![foo[bar]]>hi"])
@pytest.mark.parametrize("kind", ["email", "sms"])
async def test_what_is_saved_can_be_previewed(api: Api, content: str, kind: str) -> None:
    admin = await api.register()
    fields = {"name": "Spring", "campaign_type": kind, "subject": "Hello", "content": content}
    campaign = await admin.post("/campaigns", json=fields)
    shown = await admin.post(f"/campaigns/{campaign['id']}/preview", status=200)
    assert "hi" in shown["text"]


@unit
@pytest.mark.parametrize(
    ("content", "html"),
    [
        (
            "New deal: <https://a.test/?a=1&b=2> call now",
            '<p>New deal: &lt;<a href="https://a.test/?a=1&amp;b=2">https://a.test/?a=1&amp;b=2</a>&gt; call now',
        ),
        (
            "Mail me <me@example.com>\n\nsecond paragraph",
            "<p>Mail me &lt;me@example.com&gt;</p>\n<p>second paragraph</p>",
        ),
        (
            "Buy if price a<b today\n\nsecond paragraph",
            "<p>Buy if price a&lt;b today</p>\n<p>second paragraph</p>",
        ),
        ("<b@example.com> or <a.b>", "<p>&lt;b@example.com&gt; or &lt;a.b&gt;</p>"),
        ("I </3 <Ann Lee> <unknown></unknown>", "<p>I &lt;/3 &lt;Ann Lee&gt; &lt;unknown&gt;&lt;/unknown&gt;</p>"),
        ("a <!-- no comment --> b", "<p>a &lt;!-- no comment --&gt; b</p>"),
        ("<!-- never closed", "<p>&lt;!-- never closed</p>"),
        ("<![foo[bar]]>", "<p>&lt;![foo[bar]]&gt;</p>"),
        ("<p never closed", "<p>&lt;p never closed</p>"),
        ("<style>is never closed", "<p>&lt;style&gt;is never closed</p>"),
    ],
)
def test_plain_text_may_have_angle_brackets(content: str, html: str) -> None:
    mail = mail_of(content)
    assert html in mail.html
    assert mail.text == f"{content}\n\n{STOP}"
    assert text_of(content) == content


@unit
def test_a_field_in_angle_brackets_is_plain_text() -> None:
    mail = mail_of("{{first_name}} <{{email}}>: <{{unsubscribe_url}}>")
    stop = '<a href="https://reos.test/stop">https://reos.test/stop</a>'
    assert f"<p>Ann &lt;ann@example.com&gt;: &lt;{stop}&gt;</p>" in mail.html
    assert mail.text == "Ann <ann@example.com>: <https://reos.test/stop>\n"


@unit
@pytest.mark.parametrize(
    ("content", "url"),
    [
        ("See {}.", "https://a.test/?u={{email}}&x=1"),
        ("({})", "https://a.test/{{first_name}}"),
        ("{}{{{{unsubscribe_url}}}}", "https://a.test/?to="),
    ],
)
def test_a_field_is_part_of_the_address_that_it_stands_in(content: str, url: str) -> None:
    mail = mail_of(content.format(url))
    address = escape(url.replace("{{email}}", "ann@example.com").replace("{{first_name}}", "Ann"))
    assert f'<a href="{address}">{address}</a>' in mail.html


@unit
@pytest.mark.parametrize(
    "content",
    [
        '<a data-href="#x" href="https://a.test/">Look</a>',
        "<a href=https://a.test/>Look</a>",
        "<a class=b\thref='https://a.test/'>Look</a>",
    ],
)
def test_the_link_is_what_is_tracked(content: str) -> None:
    mail = compile_mail("Hello", content).render(VALUES, track=lambda url: f"https://reos.test/c?{url}")
    assert mail.html.count("https://reos.test/c?https://a.test/") == 1
    assert mail.html.count("reos.test/c?") == 1


@unit
@pytest.mark.parametrize(
    "content",
    [
        "<p>x</p><!-- {{unsubscribe_url}} -->",
        "<title>{{unsubscribe_url}}</title><p>x</p>",
        "<style>a::after{content:'{{unsubscribe_url}}'}</style><p>x</p>",
    ],
)
def test_what_nobody_reads_is_no_way_to_stop_the_mails(content: str) -> None:
    mail = mail_of(content)
    assert '<a href="https://reos.test/stop">Unsubscribe</a>' in mail.html
    assert mail.text.endswith(STOP)


@unit
@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("<b>x</b>", "x"),
        ("one<br>two", "one\ntwo"),
        ("one<BR/>two", "one\ntwo"),
        ("<center><font color=red>x</font></center>", "x"),
        ("a</p>", "a"),
        ("<!-- hidden --> x", " x"),
        ("<!DOCTYPE html>x", "x"),
        ("<img alt='a > b' src=x>", "a > b"),
        ('<a\nhref="https://example.com/?a=1&amp;b=2">Look</a>', "Look (https://example.com/?a=1&b=2)"),
        ("<a href=https://example.com/>Look</a>", "Look (https://example.com/)"),
        ("<style>a<b{}</style><script>if (a<b) c()</script><title>t<b</title><p>x", "x"),
        ("<html><head><meta charset=utf-8><body>x", "x"),
        ("<head>hidden<p>x", "x"),
        ("<svg viewBox='0 0 1 1'><path d='M0'/></svg><p>x</p>", "x"),
    ],
)
def test_a_tag_of_html_makes_html(content: str, text: str) -> None:
    mail = mail_of(content)
    assert content in mail.html, "it is sent as it was written"
    assert mail.text.removesuffix(STOP).strip("\n") == text.strip()
    assert text_of(content) == text.strip()


@unit
@pytest.mark.parametrize(
    ("piece", "html"),
    [
        ("<https://example.com/deal/1>", "&lt;https://example.com/deal/1&gt;"),
        ("<me@example.com>", "&lt;me@example.com&gt;"),
        ("<Ann Lee>", "&lt;Ann Lee&gt;"),
        ("a<b and more", "a&lt;b and more"),
        ("a < b > c", "a &lt; b &gt; c"),
        ("</3", "&lt;/3"),
        ("<!-- never closed", "&lt;!-- never closed"),
        ("<a href='x", "&lt;a href='x"),
        ("<plaintext>", "&lt;plaintext&gt;"),
        ("<script>", "&lt;script&gt;"),
        ("<template>", "&lt;template&gt;"),
    ],
)
def test_what_is_no_markup_stays_visible_in_html(piece: str, html: str) -> None:
    content = f"<p>one {piece} <b>two</b></p><p>three</p>"
    mail = mail_of(content)
    assert f"<p>one {html} <b>two</b></p><p>three</p>" in mail.html
    assert mail.text == f"one {piece} two\n\nthree\n\n{STOP}"
    assert text_of(content) == f"one {piece} two\n\nthree"


@unit
@pytest.mark.parametrize(
    "piece",
    [
        "<![foo[bar]]>",
        "<![if !mso]>",
        "<![endif]>",
        "<![]>",
        "<!>",
        "<!x y>",
        "<?xml version='1.0'?>",
        "<!-->",
        "<!--->",
        "<!-- <b> -->",
        "<!-- a --!>",
        "<!--[if mso]><v:rect><![endif]-->",
        "<o:p></o:p>",
        "<my-tag a=b>",
    ],
)
def test_what_a_browser_does_not_show_is_left_and_not_read(piece: str) -> None:
    content = f"<p>one{piece} two</p>"
    mail = mail_of(content)
    assert content in mail.html
    assert mail.text == f"one two\n\n{STOP}"
