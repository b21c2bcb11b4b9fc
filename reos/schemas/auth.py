"""Registration, log-in, the user's own account and sessions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from reos.schemas.common import Email, Phone, RequestModel, ResponseModel, Text, absent
from reos.schemas.users import FirstName, LastName, PasswordText, User

Token = Annotated[str, Field(max_length=4096)]


class Registration(RequestModel):
    """A new organisation and its first user."""

    email: Email
    password: PasswordText
    first_name: FirstName
    last_name: LastName
    phone: Phone | None = None
    organization_name: Annotated[str, Text(200)] | None = None


class Login(RequestModel):
    """Who logs in."""

    email: Annotated[str, Text(255)]
    password: PasswordText


class Refresh(RequestModel):
    """The refresh token that is to be exchanged."""

    refresh_token: Token


class Tokens(ResponseModel):
    """An access token, the seconds for which it is good, and the token that gets the next."""

    access_token: str
    refresh_token: str
    token_type: str
    expires_in: int


class LoggedIn(Tokens):
    """Tokens, and whose they are."""

    user: User


class Preferences(ResponseModel):
    """What the user wants to be told by mail."""

    email_notifications: bool
    daily_report: bool


class OwnOrganization(ResponseModel):
    """The user's organisation."""

    id: int
    name: str
    slug: str
    settings: dict[str, Any]


class OwnRole(ResponseModel):
    """A role that the user has."""

    id: int
    name: str
    description: str | None


class Me(User):
    """The user with all that hangs on it."""

    organization: OwnOrganization
    roles: list[OwnRole]
    permissions: list[str]
    preferences: Preferences


class PreferencesUpdate(RequestModel):
    """The preferences that change."""

    email_notifications: bool = absent()
    daily_report: bool = absent()


class MeUpdate(RequestModel):
    """What changes of the user's own account."""

    first_name: FirstName = absent()
    last_name: LastName = absent()
    phone: Phone | None = None
    preferences: PreferencesUpdate = absent()


class PasswordChange(RequestModel):
    """The present password and the next."""

    current_password: PasswordText
    new_password: PasswordText


class PasswordResetRequest(RequestModel):
    """Whose password is forgotten."""

    email: Email


class PasswordReset(RequestModel):
    """The token of the mail and the new password."""

    token: Token
    new_password: PasswordText


class EmailVerification(RequestModel):
    """The token of the mail."""

    token: Token


class Session(ResponseModel):
    """A log-in that still lives."""

    id: int
    ip_address: str | None
    user_agent: str | None
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    is_current: bool
