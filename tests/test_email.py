"""Mails: how they are made, sent by a real SMTP server and kept in the outbox."""

from __future__ import annotations

import asyncio
import os
import socket
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from mail_sink import PASSWORD, USER, MailSink, client_context

from reos.errors import EmailServiceError
from reos.integrations import email
from reos.integrations.email import (
    OutboxMailer,
    SmtpMailer,
    build_message,
    list_outbox,
    make_mailer,
    outbox_directory,
    read_outbox,
    render,
    tls_mode,
)
from reos.settings import Settings, SettingsError


def settings(**values: object) -> Settings:
    return Settings(**({"_env_file": None, "smtp_from_email": "crm@example.com"} | values))  # type: ignore[arg-type]


def message(
    to: str = "ann@example.org", subject: str = "Hello", text: str = "Hello\n", **values: object
) -> EmailMessage:
    return build_message(settings(**values), to=to, subject=subject, text=text, html="<p>Hello</p>\n")


def mailer(sink: MailSink, **values: object) -> SmtpMailer:
    given = {"smtp_host": "127.0.0.1", "smtp_port": sink.port, "smtp_tls": sink.tls}
    return SmtpMailer(settings(**(given | values)), client_context())


async def failure(way_out: SmtpMailer, mail: EmailMessage | None = None) -> EmailServiceError:
    with pytest.raises(EmailServiceError) as caught:
        await way_out.send(mail or message())
    return caught.value


# Making messages


@pytest.mark.unit
def test_a_message_has_its_headers_and_both_forms() -> None:
    parsed = BytesParser(policy=policy.default).parsebytes(
        build_message(
            settings(smtp_from_name="Häuser, Höfe & Co."),
            to="ann@example.org",
            subject="Grüße aus Köln " * 20,
            text="Grüße\n.\n" + "lang " * 500,
            html="<p>Grüße</p>\n",
            headers={"Auto-Submitted": "auto-generated"},
        ).as_bytes()
    )
    assert str(parsed["From"].addresses[0]) == '"Häuser, Höfe & Co." <crm@example.com>'
    assert parsed["To"] == "ann@example.org"
    assert str(parsed["Subject"]).strip() == ("Grüße aus Köln " * 20).strip()
    assert parsed["Date"].datetime.tzinfo is not None
    assert parsed["Message-ID"].endswith("@example.com>")
    assert parsed["Auto-Submitted"] == "auto-generated"
    assert parsed.get_content_type() == "multipart/alternative"
    text, html = (part.get_content().replace("\r\n", "\n") for part in parsed.iter_parts())
    assert text == "Grüße\n.\n" + "lang " * 500 + "\n"
    assert html == "<p>Grüße</p>\n"


@pytest.mark.unit
def test_a_message_is_seven_bit_and_its_lines_are_short() -> None:
    raw = message(text="ü" * 5000, smtp_from_name="ü" * 100).as_bytes()
    assert raw.isascii()
    assert max(map(len, raw.split(b"\r\n"))) <= 200
    assert b"\n" not in raw.replace(b"\r\n", b"")


@pytest.mark.unit
@pytest.mark.parametrize("end", ["\r\nBcc: eve@example.org", "\nBcc: eve", "\r", "\x00", "\x85", "\u2028", "\x0b"])
def test_nothing_can_begin_another_header(end: str) -> None:
    with pytest.raises(ValueError):
        message(subject=f"Hello{end}")
    with pytest.raises(ValueError):
        message(to=f"ann@example.org{end}")
    with pytest.raises(ValueError):
        message(smtp_from_name=f"CRM{end}")
    with pytest.raises(ValueError):
        build_message(settings(), to="a@b.org", subject="", text="", html="", headers={"X-Note": f"a{end}"})


@pytest.mark.unit
@pytest.mark.parametrize(
    "address", ["", "ann", "@example.org", "ann@", "a b@c.org", "a@b.org,c@d.org", "<a@b.org>", "a@b.org>", '"a"@b.org']
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError):
        message(to=address)


@pytest.mark.unit
def test_a_domain_is_written_as_the_dns_knows_it() -> None:
    assert message(to="ann@straße.example")["To"] == "ann@xn--strae-oqa.example"


@pytest.mark.unit
@pytest.mark.parametrize("template", ["verification", "welcome", "password_reset"])
def test_templates_name_people_and_links_safely(template: str) -> None:
    values = {"organization_name": "A & B", "service": "CRM", "hours": 1, "link": "https://crm.example/x?a=1&token=t"}
    text, html = render(template, first_name="<b>Ann</b>", **values)
    assert "<b>Ann</b>" in text
    assert values["link"] in text
    assert "A & B" in text
    assert "&lt;b&gt;Ann&lt;/b&gt;" in html
    assert 'href="https://crm.example/x?a=1&amp;token=t"' in html
    assert "A &amp; B" in html
    assert '<html lang="en">' in html
    assert "<title>" in html
    assert template == "verification" or "1 hours" not in text + html
    with pytest.raises(UndefinedError):
        render(template, **values)


# Settings


@pytest.mark.unit
@pytest.mark.parametrize(
    ("values", "mode"),
    [
        ({}, "none"),
        ({"smtp_port": 465}, "tls"),
        ({"smtp_port": 465, "smtp_user": "u"}, "tls"),
        ({"smtp_port": 587}, "starttls"),
        ({"smtp_user": "u"}, "starttls"),
        ({"smtp_port": 2525, "smtp_tls": "tls"}, "tls"),
        ({"smtp_port": 465, "smtp_tls": "none"}, "none"),
        ({"smtp_user": "u", "smtp_tls": "none", "smtp_host": "127.0.0.1"}, "none"),
        ({"smtp_user": "u", "smtp_tls": "none", "smtp_host": "LocalHost"}, "none"),
        ({"smtp_user": "u", "smtp_tls": "none", "smtp_host": "[::1]"}, "none"),
    ],
)
def test_tls_by_default(values: dict[str, object], mode: str) -> None:
    assert tls_mode(settings(**({"smtp_host": "mail.example.com"} | values))) == mode


@pytest.mark.unit
@pytest.mark.parametrize("host", ["mail.example.com", "10.0.0.1", "localhost.example.com", "128.0.0.1"])
def test_no_log_in_over_plain_text_to_another_host(host: str) -> None:
    with pytest.raises(SettingsError, match=r"^SMTP_TLS: "):
        make_mailer(settings(smtp_host=host, smtp_user="u", smtp_tls="none"))


# A mail server


@pytest.mark.integration
async def test_a_mail_arrives_as_it_was_sent() -> None:
    async with MailSink() as sink:
        way_out = mailer(sink)
        await way_out.send(message(subject="Grüße", text="Grüße\n.\n..\nEnde\n"))
        (mail,) = sink.mails
        assert (mail.sender, mail.recipient) == ("crm@example.com", "ann@example.org")
        assert mail.message["Subject"] == "Grüße"
        assert mail.text == "Grüße\n.\n..\nEnde\n"
        assert not mail.is_encrypted
        await way_out.close()


@pytest.mark.integration
async def test_connections_are_held_and_replaced_when_the_server_hung_up() -> None:
    async with MailSink() as sink:
        way_out = mailer(sink)
        for _ in range(3):
            await way_out.send(message())
        assert sink.connections == 1
        await asyncio.gather(*(way_out.send(message()) for _ in range(8)))
        assert len(way_out._idle) == email.MAX_IDLE
        sink.hang_up()
        opened = sink.connections
        await way_out.send(message())
        assert sink.connections == opened + 1
        assert len(sink.mails) == 12
        await way_out.close()
        assert not way_out._idle


@pytest.mark.integration
@pytest.mark.parametrize("tls", ["starttls", "tls"])
async def test_mail_goes_encrypted_and_with_a_log_in(tls: str) -> None:
    async with MailSink(tls=tls, needs_login=True) as sink:
        way_out = mailer(sink, smtp_user=USER, smtp_password=PASSWORD)
        await way_out.send(message())
        assert sink.mails[0].is_encrypted
        assert sink.mails[0].user == USER
        await way_out.close()


@pytest.mark.integration
@pytest.mark.parametrize("tls", ["starttls", "tls"])
async def test_a_server_that_nobody_vouches_for_gets_nothing(tls: str) -> None:
    async with MailSink(tls=tls) as sink:
        strangers = SmtpMailer(settings(smtp_host="127.0.0.1", smtp_port=sink.port, smtp_tls=tls))
        error = await failure(strangers)
        assert error.temporary
        assert not sink.mails


@pytest.mark.integration
async def test_without_starttls_on_offer_nothing_is_sent() -> None:
    async with MailSink() as sink:
        error = await failure(mailer(sink, smtp_tls="starttls", smtp_user=USER, smtp_password=PASSWORD))
        assert error.temporary
        assert error.message == "The mail server does not offer what SMTP_TLS or SMTP_USER needs."
        assert not sink.mails


@pytest.mark.integration
async def test_a_refused_log_in_may_be_mended() -> None:
    async with MailSink(tls="starttls", needs_login=True) as sink:
        error = await failure(mailer(sink, smtp_user=USER, smtp_password="wrong"))
        assert error.temporary
        assert error.message == "The mail server refused the log-in (535)."
        assert error.status == 502
        assert error.type == "EmailServiceError"


@pytest.mark.integration
@pytest.mark.parametrize(
    ("command", "answer", "temporary", "text"),
    [
        ("RCPT", "450 greylisted ann@example.org", True, "The mail server put off the mail (450)."),
        ("RCPT", "550 no such user ann@example.org", False, "The mail server refused the mail (550)."),
        ("DATA", "451 try again", True, "The mail server put off the mail (451)."),
        ("DATA", "554 spam", False, "The mail server refused the mail (554)."),
        ("MAIL", "553 not your address", True, "The mail server refused SMTP_FROM_EMAIL (553)."),
    ],
)
async def test_answers_tell_whether_to_try_again(command: str, answer: str, temporary: bool, text: str) -> None:
    async with MailSink() as sink:
        way_out = mailer(sink)
        sink.answers[command] = answer
        error = await failure(way_out)
        assert (error.temporary, error.unknown, error.message) == (temporary, False, text)
        sink.answers.clear()
        await way_out.send(message())
        assert len(sink.mails) == 1
        assert sink.connections == 1, "a refusal leaves the connection usable"
        await way_out.close()


@pytest.mark.integration
async def test_a_connection_cut_before_the_answer_leaves_the_outcome_unknown() -> None:
    async with MailSink() as sink:
        sink.hang_up_after_data = True
        error = await failure(mailer(sink))
        assert (error.temporary, error.unknown) == (True, True)
        assert len(sink.mails) == 1


@pytest.mark.integration
async def test_a_server_that_is_away_is_a_temporary_failure() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        error = await failure(SmtpMailer(settings(smtp_host="127.0.0.1", smtp_port=port)))
    assert (error.temporary, error.unknown) == (True, False)
    assert str(port) not in error.message


@pytest.mark.integration
async def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(email, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = await failure(SmtpMailer(settings(smtp_host="127.0.0.1", smtp_port=silent.getsockname()[1])))
    assert (error.temporary, error.unknown) == (True, False)


@pytest.mark.integration
@pytest.mark.parametrize("smtputf8", [True, False])
async def test_an_address_beyond_ascii_needs_a_server_that_takes_it(smtputf8: bool) -> None:
    async with MailSink(smtputf8=smtputf8) as sink:
        way_out, mail = mailer(sink), message(to="jürgen@example.org")
        if smtputf8:
            await way_out.send(mail)
            assert sink.mails[0].recipient == "jürgen@example.org"
            assert sink.mails[0].message["To"] == "jürgen@example.org"
        else:
            assert not (await failure(way_out, mail)).temporary
        await way_out.close()


# The outbox


@pytest.mark.unit
async def test_the_outbox_keeps_mails_and_shows_the_newest_first(tmp_path: Path) -> None:
    given = settings(data_dir=tmp_path)
    directory = outbox_directory(given)
    assert list_outbox(directory) == []
    way_out = make_mailer(given)
    assert isinstance(way_out, OutboxMailer)
    for number in range(3):
        await way_out.send(message(subject=f"Grüße {number}", text=f"Text {number}\n"))
    listed = list_outbox(directory)
    assert [mail.subject for mail in listed] == ["Grüße 2", "Grüße 1", "Grüße 0"]
    assert {mail.recipient for mail in listed} == {"ann@example.org"}
    mail = read_outbox(directory, listed[1].name)
    assert mail is not None
    assert (mail.subject, mail.text, mail.html) == ("Grüße 1", "Text 1\n", "<p>Hello</p>\n")
    assert {path.suffix for path in directory.iterdir()} == {".eml"}
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
    assert directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.unit
async def test_the_outbox_lists_a_bounded_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(email, "MAX_LISTED", 2)
    way_out = OutboxMailer(tmp_path)
    for number in range(3):
        await way_out.send(message(subject=str(number)))
    assert [mail.subject for mail in list_outbox(tmp_path)] == ["2", "1"]


@pytest.mark.unit
@pytest.mark.parametrize("name", ["../secret", "secret", "", ".", "20260101T000000000000-0123456789ab.eml", "a\x00b"])
def test_the_outbox_shows_nothing_but_its_mails(tmp_path: Path, name: str) -> None:
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox" / "secret").write_text("Subject: secret\n\nsecret")
    (tmp_path / "secret").write_text("Subject: secret\n\nsecret")
    assert read_outbox(tmp_path / "outbox", name) is None
    assert list_outbox(tmp_path / "outbox") == []


@pytest.mark.unit
async def test_an_outbox_that_cannot_be_written_is_a_failed_mail(tmp_path: Path) -> None:
    way_out = OutboxMailer(tmp_path / "outbox")
    os.rmdir(tmp_path / "outbox")
    with pytest.raises(EmailServiceError):
        await way_out.send(message())
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"^DATA_DIR: "):
        OutboxMailer(tmp_path / "file" / "outbox")
