"""The language of subjects and contents: text with `{{first_name}}` and its like, and nothing else of a template."""

from __future__ import annotations

from typing import Annotated

from jinja2 import Environment, TemplateSyntaxError
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from reos.schemas.fields import Content, Text

MERGE_FIELDS = (
    "first_name",
    "last_name",
    "email",
    "company",
    "property_address",
    "organization_name",
    "agent_name",
    "unsubscribe_url",
)
UNKNOWN_MERGE_FIELD = "unknown_merge_field"

_LEXER = Environment(keep_trailing_newline=True, autoescape=True)
_MAX_SHOWN = 50  # characters of what is wrong, in a message


class MergeFieldError(ValueError):
    """A text holds something of a template that is no merge field; the message says what."""


def parse(source: str) -> list[tuple[str, str]]:
    """The text as parts in their order: ("text", what it says) and ("field", the name of a merge field).

    Raises MergeFieldError for an unknown field and for all else that begins as a template does.
    """
    try:
        tokens = list(_LEXER.lexer.tokeniter(source, None))
    except TemplateSyntaxError as error:
        raise MergeFieldError(error.message or "not a merge field") from None
    parts: list[tuple[str, str]] = []
    names: list[str] | None = None  # what stands between the braces that are open
    for _, kind, value in tokens:
        if kind == "data":
            parts.append(("text", value))
        elif kind == "variable_begin":
            names = []
        elif kind == "variable_end" and names is not None:
            parts.append(("field", _known(names)))
            names = None
        elif names is None:
            raise MergeFieldError(f"{value.strip()[:_MAX_SHOWN]} is not allowed here")
        elif kind != "whitespace":
            names.append(value)
    if names is not None:
        raise MergeFieldError("the braces are not closed")
    return parts


def _known(names: list[str]) -> str:
    if len(names) == 1 and names[0] in MERGE_FIELDS:
        return names[0]
    raise MergeFieldError(f"{' '.join(names)[:_MAX_SHOWN] or 'nothing'} is no merge field")


def _check(text: str) -> str:
    try:
        parse(text)
    except MergeFieldError:
        allowed = ", ".join(MERGE_FIELDS)
        raise PydanticCustomError(
            "unknown_merge_field",
            "Input should hold no {%, no {#, and no other fields in double braces than: {allowed}",
            {"allowed": allowed},
        ) from None
    return text


MergeSubject = Annotated[str, Text(500), AfterValidator(_check)]
MergeContent = Annotated[Content, AfterValidator(_check)]
