"""The few pages for people: the front page, those that mails link to, and the outbox of a service without mail server.

They load nothing from elsewhere and run no script but `static/links.js`.
"""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from sanic import Blueprint, HTTPResponse, Request

import reos
from reos import demo
from reos.context import Context
from reos.db import plain_transaction
from reos.errors import ResourceNotFoundError
from reos.integrations.email import OutboxMail, list_outbox, outbox_directory, read_outbox
from reos.queries import demo as demo_queries
from reos.settings import Settings

bp = Blueprint("pages")

SERVICE = "Real Estate OS"
CONTENT_TYPE = "text/html; charset=utf-8"

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; frame-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A page that has opened one of ours, or that ours has opened, gets no hold of its window.
WINDOW_HEADERS = {"Cross-Origin-Opener-Policy": "same-origin"}
# Somebody else's HTML: it may look as it likes, but run, load and send nothing, wherever it is opened.
MAIL_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
)


@bp.route("/", methods=["GET", "HEAD"])
async def home(request: Request) -> HTTPResponse:
    """What this is, and where to go on."""
    context: Context = request.app.ctx.context
    async with plain_transaction(context.database) as conn:
        present = await demo_queries.list_present(conn, [email for _, email, _ in demo.LOGINS])
    logins = [login for login in demo.LOGINS if login[1] in present]
    return page(request, "home.html", base=context.settings.base_url, logins=logins, version=reos.__version__)


@bp.route("/verify-email", methods=["GET", "HEAD"])
async def verify_email(request: Request) -> HTTPResponse:
    """Where the verification mail leads. A GET never uses the token up: mail programs look at links by themselves."""
    return page(
        request,
        "verify_email.html",
        has_token=bool(request.args.get("token")),
        address="/api/v1/auth/verify-email",
        button="Confirm the address",
        done="Thank you, the address is confirmed. You can close this page.",
    )


@bp.route("/reset-password", methods=["GET", "HEAD"])
async def reset_password(request: Request) -> HTTPResponse:
    """Where the mail about a forgotten password leads."""
    return page(
        request,
        "reset_password.html",
        has_token=bool(request.args.get("token")),
        address="/api/v1/auth/password-reset-confirm",
        button="Set the password",
        done="The password is set. Log in with it; all other log-ins have ended. You can close this page.",
        policy=_policy(request.app.ctx.settings),
    )


@bp.route("/dev/outbox", methods=["GET", "HEAD"])
async def outbox(request: Request) -> HTTPResponse:
    """The mails that no mail server took, newest first."""
    mails = await asyncio.to_thread(list_outbox, _outbox_of(request))
    return page(request, "outbox.html", mails=mails, here="outbox")


@bp.route("/dev/outbox/<name>", methods=["GET", "HEAD"])
async def outbox_mail(request: Request, name: str) -> HTTPResponse:
    """One of them; with `part=html` its HTML alone, as the frame of the page shows it."""
    mail = await asyncio.to_thread(read_outbox, _outbox_of(request), name)
    if mail is None:
        raise ResourceNotFoundError
    if request.args.get("part") == "html":
        return _html_part(mail)
    return page(request, "mail.html", mail=mail)


def _has_outbox(settings: Settings) -> bool:
    """Whether anybody may see the mails: on a machine of one's own, never behind a proxy."""
    return settings.dev_outbox and not settings.proxies_count and not settings.smtp_host


def _outbox_of(request: Request) -> Path:
    settings: Settings = request.app.ctx.settings
    if not _has_outbox(settings):
        raise ResourceNotFoundError
    return outbox_directory(settings)


def _html_part(mail: OutboxMail) -> HTTPResponse:
    # In the frame a link could open nothing but the frame, and our pages refuse to be in one.
    body = mail.html.replace("<head>", '<head><base target="_blank">', 1)
    headers = {"Content-Security-Policy": MAIL_SECURITY_POLICY, "X-Frame-Options": "SAMEORIGIN"}
    return HTTPResponse(body, 200, headers, content_type=CONTENT_TYPE)


def _policy(settings: Settings) -> str:
    """What a password needs, as a sentence."""
    kinds = (
        (settings.password_require_uppercase, "a capital letter"),
        (settings.password_require_lowercase, "a small letter"),
        (settings.password_require_digits, "a digit"),
        (settings.password_require_special, "a special character"),
    )
    wanted = [name for is_wanted, name in kinds if is_wanted]
    listed = " and ".join([", ".join(wanted[:-1]), wanted[-1]]) if len(wanted) > 1 else "".join(wanted)
    return f"At least {settings.password_min_length} characters" + (f", with {listed}." if listed else ".")


def page(
    request: Request, template: str, *, content_policy: str = CONTENT_SECURITY_POLICY, **values: Any
) -> HTTPResponse:
    """A page of the service from a template of ours."""
    settings: Settings = request.app.ctx.settings
    # Behind a proxy the service may live below a path of PUBLIC_URL.
    standing = {"service": SERVICE, "root": urlsplit(settings.base_url).path, "has_outbox": _has_outbox(settings)}
    body = _templates().get_template(template).render({"here": "", **standing, **values})
    headers = {"Content-Security-Policy": content_policy, **WINDOW_HEADERS}
    return HTTPResponse(body, 200, headers, content_type=CONTENT_TYPE)


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
