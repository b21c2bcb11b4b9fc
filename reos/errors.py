"""The exception hierarchy: each class carries its status and type, its docstring is the default message.

Nothing here knows HTTP machinery; `middleware/errors.py` renders every one of them in one place.
"""

from __future__ import annotations

from typing import Any


class ReosError(Exception):
    """Something went wrong."""

    status = 500

    def __init__(self, message: str | None = None, *, headers: dict[str, str] | None = None, **details: Any):
        self.message = message or (type(self).__doc__ or "").strip().split("\n")[0]
        self.details = details
        self.headers = headers or {}
        super().__init__(self.message)

    @property
    def type(self) -> str:
        """The stable name that clients switch on."""
        return type(self).__name__


class InvalidInputError(ReosError):
    """The request could not be understood."""

    status = 400


class AuthenticationError(ReosError):
    """Authentication is required."""

    status = 401


class InvalidCredentialsError(AuthenticationError):
    """The email address or the password is wrong."""


class InvalidTokenError(AuthenticationError):
    """The token is invalid."""


class TokenExpiredError(AuthenticationError):
    """The token has expired."""


class AuthorizationError(ReosError):
    """This is not allowed."""

    status = 403


class InsufficientPermissionsError(AuthorizationError):
    """A permission is missing."""


class AccountLockedError(AuthorizationError):
    """The account is locked after too many failed log-ins."""


class OrganizationNotActiveError(AuthorizationError):
    """The organisation is not active."""


class ResourceNotFoundError(ReosError):
    """The resource was not found."""

    status = 404


class MethodNotAllowedError(ReosError):
    """The method is not allowed here."""

    status = 405


class RequestTimeoutError(ReosError):
    """The request took too long to arrive."""

    status = 408


class ConflictError(ReosError):
    """The request conflicts with the present state."""

    status = 409


class ResourceAlreadyExistsError(ConflictError):
    """The resource already exists."""


class BusinessLogicError(ConflictError):
    """The present state does not allow this."""


class PropertyNotAvailableError(BusinessLogicError):
    """The property is not available."""


class LeadAlreadyConvertedError(BusinessLogicError):
    """The lead has already been converted."""


class CampaignAlreadySentError(BusinessLogicError):
    """The campaign has already been sent."""


class DealClosedError(BusinessLogicError):
    """The deal is closed."""


class ResourceDeletionError(BusinessLogicError):
    """The resource is still in use and cannot be deleted."""


class IdempotencyConflictError(BusinessLogicError):
    """A request with this Idempotency-Key is still running."""


class PreconditionFailedError(ReosError):
    """The resource is no longer what If-Match says."""

    status = 412


class FileTooLargeError(ReosError):
    """The request body is too large."""

    status = 413


class InvalidFileTypeError(ReosError):
    """The content type is not supported here."""

    status = 415


class ValidationError(ReosError):
    """Request validation failed"""

    status = 422

    @classmethod
    def of(cls, field: str, message: str, type: str) -> ValidationError:
        """The error for one field: its name, a sentence and a stable code."""
        return cls(errors=[{"field": field, "message": message, "type": type}])


class MissingRequiredFieldError(ValidationError):
    """A field that this action needs is missing"""


class IdempotencyKeyReusedError(ReosError):
    """This Idempotency-Key was used for another request."""

    status = 422


class RateLimitExceededError(ReosError):
    """Too many requests."""

    status = 429


class InternalServerError(ReosError):
    """An internal error occurred."""


class ExternalServiceError(ReosError):
    """An external service failed."""

    status = 502


class EmailServiceError(ExternalServiceError):
    """The mail server failed.

    `temporary` says whether trying again may help; `unknown` that the server may have taken the mail all the same;
    `concerns_recipient` that it is about this mail alone, and others may do better.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        temporary: bool = True,
        unknown: bool = False,
        concerns_recipient: bool = False,
    ):
        super().__init__(message)
        self.temporary = temporary
        self.unknown = unknown
        self.concerns_recipient = concerns_recipient


class SMSServiceError(ExternalServiceError):
    """The SMS provider failed.

    `temporary`, `unknown` and `concerns_recipient` as for mails.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        temporary: bool = True,
        unknown: bool = False,
        concerns_recipient: bool = False,
    ):
        super().__init__(message)
        self.temporary = temporary
        self.unknown = unknown
        self.concerns_recipient = concerns_recipient


class StorageServiceError(ReosError):
    """The file storage is not available."""

    status = 503


class DatabaseError(ReosError):
    """The database is not available."""

    status = 503


class OverloadedError(ReosError):
    """The service is busy; try again shortly."""

    status = 503

    @property
    def type(self) -> str:
        return "DatabaseError"


def from_constraint(name: str | None, error: Exception) -> ReosError | Exception:
    """The domain error of a broken constraint, by the constraint's name; the error itself for others."""
    known = {
        "login_identities_pkey": ResourceAlreadyExistsError("A user with this email address exists already."),
        "roles_name_key": ResourceAlreadyExistsError("A role with this name exists already."),
        "team_members_pkey": ResourceAlreadyExistsError("The user is a member of the team already."),
        "deals_holding_key": PropertyNotAvailableError("Another deal holds the property."),
        "suppressions_address_key": ResourceAlreadyExistsError("The address is suppressed already."),
        "organizations_slug_key": ResourceAlreadyExistsError("An organisation with this slug exists already."),
    }
    return known.get(name or "", error)
