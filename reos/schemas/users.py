"""Users: what a client may send, and what it gets."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticKnownError

from reos.schemas.common import Email, Id, ListQuery, Page, Phone, RequestModel, ResponseModel, Text, absent

MAX_ROLE_IDS = 100

FirstName = Annotated[str, Text(100)]
LastName = Annotated[str, Text(100)]

# The policy names each rule that a new password breaks; a wrong one is simply wrong. So no length here.
PasswordText = Annotated[str, Field(json_schema_extra={"format": "password"})]


def _check_false(value: bool) -> bool:
    if value:
        raise PydanticKnownError("literal_error", {"expected": "false"})
    return value


# Not Literal[False], which takes the number 0 for it.
Unlocked = Annotated[bool, AfterValidator(_check_false), Field(json_schema_extra={"const": False})]

RoleIds = Annotated[list[Id], Field(max_length=MAX_ROLE_IDS)]


class UserCreate(RequestModel):
    """A new user of the organisation. A role that is named twice is given once."""

    email: Email
    password: PasswordText
    first_name: FirstName
    last_name: LastName
    phone: Phone | None = None
    role_ids: RoleIds = Field(default_factory=list)


class UserUpdate(RequestModel):
    """What changes; `role_ids` are all the roles that the user has afterwards.

    `is_active` false does what DELETE does, true lets the user in again. `is_locked` can only be false: it ends a
    lock-out and forgets the failed log-ins.
    """

    email: Email = absent()
    password: PasswordText = absent()
    first_name: FirstName = absent()
    last_name: LastName = absent()
    phone: Phone | None = None
    role_ids: RoleIds = absent()
    is_active: bool = absent()
    is_locked: Unlocked = absent()


class User(ResponseModel):
    """A user as log-in and registration give it."""

    id: int
    organization_id: int
    email: str
    first_name: str
    last_name: str
    phone: str | None
    is_active: bool
    is_verified: bool
    is_locked: bool
    is_superuser: bool
    last_login: datetime | None
    created_at: datetime
    updated_at: datetime


class UserRole(ResponseModel):
    """A role that a user has."""

    id: int
    name: str


class OrganizationUser(User):
    """A user with roles."""

    roles: list[UserRole]


UserPage = Page[OrganizationUser]


class UserQuery(ListQuery):
    """The list's filters. Deactivated users are in it unless `is_active` is true."""

    search: Annotated[str, Text(200, 0)] | None = None
    is_active: bool | None = None
    role_id: Id | None = None
