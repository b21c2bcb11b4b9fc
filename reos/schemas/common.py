"""What the models of all resources share: reading JSON and query strings, lists, the envelopes of answers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from functools import cache
from types import UnionType
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin
from urllib.parse import parse_qsl

import pydantic
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema
from pydantic_core import ErrorDetails as FoundError

from reos.errors import InvalidInputError, ValidationError
from reos.schemas.fields import (
    FOREIGN_KEY_MESSAGE,
    FOREIGN_KEY_TYPE,
    FROM_TEXT,
    CommissionRate,
    Content,
    Count,
    DateOrTime,
    DayOrMoment,
    Email,
    FreeText,
    HttpUrl,
    Id,
    Int4,
    Int64,
    Integer,
    JsonSchema,
    Metadata,
    Money,
    Number,
    Phone,
    SignedMoney,
    Text,
    Timestamp,
    decimal_number,
    field_error,
    free_text,
    int_range,
    line,
    to_date,
)

MAX_ERRORS = 100  # in one answer
MAX_QUERY_PARAMETERS = 100
MAX_NAME_LENGTH = 100  # of a field in an error
MAX_PAGE = 10**12  # so that page times page_size, skip and the row after them stay within 64 bits
MAX_SKIP = 10**14
DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 100

Model = TypeVar("Model", bound=BaseModel)
Item = TypeVar("Item")


# --- reading ---------------------------------------------------------------------------------------------------


def parse_json(data: bytes) -> dict[str, Any]:
    """Parse a request body: an object in strict UTF-8, its numbers exact (`int` or `Decimal`).

    NaN and Infinity are read as what they say, so that the field that holds one is refused with 422 like any
    other number out of range. Raises InvalidInputError (400).
    """
    try:
        value = _DECODER.decode(data.decode())
    except UnicodeDecodeError:
        raise InvalidInputError("The body is not UTF-8.") from None
    except RecursionError:
        raise InvalidInputError("The body is nested too deeply.") from None
    except ValueError:
        raise InvalidInputError("The body is not JSON.") from None
    if not isinstance(value, dict):
        raise InvalidInputError("The body is not a JSON object.")
    return value


def _parse_int(text: str) -> int | Decimal:
    # Python refuses to convert, and takes quadratic time for, very long integers.
    return int(text) if len(text) <= 40 else Decimal(text)


def _parse_float(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        # The exponent has more than 18 digits: no field can hold such a number.
        return Decimal("Infinity")


_DECODER = json.JSONDecoder(parse_int=_parse_int, parse_float=_parse_float, parse_constant=Decimal)


def validate(model: type[Model], data: Any) -> Model:
    """The model of a parsed body. Raises ValidationError (422) with one entry for each wrong field."""
    unknown = _unknown_fields(model, data)
    if len(unknown) > MAX_ERRORS:
        # Judged here, because pydantic would describe each of perhaps a hundred thousand.
        raise ValidationError(errors=[_extra_field(name) for name in unknown[:MAX_ERRORS]])
    return _validate(model, data, None)


def parse_query(model: type[Model], args: Mapping[str, Sequence[str]]) -> Model:
    """The model of a query string or of form fields, whose values are text.

    Integers, decimals and true or false (also True, False) are read strictly; each name may occur once, unknown ones
    are refused. Raises ValidationError (422).
    """
    twice = [name for name, values in args.items() if len(values) != 1]
    if twice:
        raise ValidationError(
            errors=[
                _error(name, "Parameter should be given once", "duplicate_parameter") for name in twice[:MAX_ERRORS]
            ]
        )
    flags = _flags_of(model)
    data: dict[str, Any] = {}
    for name, (value,) in args.items():
        data[name] = _FLAGS.get(value, value) if name in flags else value
    return _validate(model, data, FROM_TEXT)


# Clients that are generated for Python write the flags of a form with a capital.
_FLAGS = {"true": True, "false": False, "True": True, "False": False}


def query_args(query_string: str) -> dict[str, list[str]]:
    """The parameters of a query string, empty values too. Raises ValidationError for what is not UTF-8."""
    args: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(query_string, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_PARAMETERS)
    except ValueError:
        raise ValidationError.of(
            "query", f"Query should be UTF-8 and have at most {MAX_QUERY_PARAMETERS} parameters", "query_parsing"
        ) from None
    for name, value in pairs:
        args.setdefault(name, []).append(value)
    return args


@cache
def _flags_of(model: type[BaseModel]) -> frozenset[str]:
    """The names of the boolean fields: the only ones whose text is converted before validation."""
    return frozenset(name for name, field in model.model_fields.items() if _is_flag(field.annotation))


def _is_flag(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, UnionType):
        return any(_is_flag(part) for part in get_args(annotation))
    return annotation is bool


def _validate(model: type[Model], data: Any, context: dict[str, bool] | None) -> Model:
    try:
        return model.model_validate(data, context=context)
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise ValidationError(errors=[_described(entry) for entry in found[:MAX_ERRORS]]) from None


def _described(entry: FoundError) -> dict[str, str]:
    # A rule of the whole model names its field in the context (`field_error`).
    field = ".".join(str(part) for part in entry["loc"]) or entry.get("ctx", {}).get("field", "")
    return _error(field, entry["msg"], entry["type"])


def _unknown_fields(model: type[BaseModel], data: Any) -> list[str]:
    if not isinstance(data, dict) or len(data) <= MAX_ERRORS:
        return []
    return [name for name in data if name not in model.model_fields]


def _extra_field(name: str) -> dict[str, str]:
    return _error(name, "Extra inputs are not permitted", "extra_forbidden")


def _error(field: str, message: str, type: str) -> dict[str, str]:
    # The name of an unknown field is the client's: it may be long and hold lone surrogates.
    field = field[:MAX_NAME_LENGTH].encode("utf-8", "backslashreplace").decode()
    return {"field": field, "message": message, "type": "enum" if type == "literal_error" else type}


def absent(description: str | None = None) -> Any:
    """The default of a field of an update that may be left out but not cleared: null is refused for it."""
    return Field(default=None, description=description)


def patch_of(body: BaseModel) -> dict[str, Any]:
    """What a partial update changes: the fields that were sent, with null where one is cleared."""
    return body.model_dump(exclude_unset=True)


# --- models ----------------------------------------------------------------------------------------------------


def _drop_null_defaults(schema: JsonSchema) -> None:
    """Leave out `default: null`: in an update an absent field keeps its value, which null would clear."""
    for field in schema.get("properties", {}).values():
        if field.get("default", ...) is None:
            del field["default"]


def exactly_one_field(schema: JsonSchema) -> None:
    """What the JSON Schema of a body says whose fields are names of one thing, of which one has to be given."""
    _drop_null_defaults(schema)
    schema |= {"minProperties": 1, "maxProperties": 1}


class RequestModel(BaseModel):
    """What a client may send: no unknown field, no conversion from one JSON type to another."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        hide_input_in_errors=True,
        json_schema_extra=_drop_null_defaults,
        protected_namespaces=(),
    )


class ResponseModel(BaseModel):
    """What the service answers. It documents the API and the tests check every answer against it."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


MoneyText = Annotated[str, WithJsonSchema({"type": "string", "pattern": r"^-?\d+\.\d{2}$"})]


class Page(ResponseModel, Generic[Item]):
    """A page of a list. A page by cursor has no number; without `include_total` there is no count."""

    items: list[Item]
    total: int | None
    page: int | None
    page_size: int
    pages: int | None
    has_more: bool
    next_cursor: str | None

    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        """`PropertyPage` for `Page[PropertyItem]`: the name of the component in the OpenAPI document."""
        name = getattr(params[0], "__name__", "Any")
        return f"{name.removesuffix('Item')}Page"


class FieldError(ResponseModel):
    """What is wrong with one field, by a stable code."""

    field: str
    message: str
    type: str


class ErrorDetails(ResponseModel):
    """What some types of errors say besides their message."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_drop_null_defaults)

    errors: list[FieldError] = absent("Of a 422: what is wrong with which field.")
    required_permission: str = absent("Of a 403: the permission that is missing.")
    limit: int = absent("Of a 429: requests in the window. Of a 413: bytes, or pixels of a picture.")
    window: int = absent("Of a 429: the seconds of the window.")
    retry_after: int = absent("Of a 429: the seconds until it is worth trying again.")


class ErrorBody(ResponseModel):
    """An error by its stable type."""

    type: str
    message: str
    details: ErrorDetails
    request_id: str


class ErrorEnvelope(ResponseModel):
    """What every error answers."""

    error: ErrorBody


# --- lists -----------------------------------------------------------------------------------------------------


class _FieldNames:
    """A comma list of field names, as a tuple."""

    _pattern = r"[a-z][a-z0-9_]*(,[a-z][a-z0-9_]*)*"
    _max_length = 1000

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def _check(self, value: Any) -> tuple[str, ...]:
        if not isinstance(value, str) or len(value) > self._max_length or not re.fullmatch(self._pattern, value):
            raise PydanticCustomError("field_names", "Input should be names of fields, separated by commas")
        return tuple(value.split(","))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return {"type": "string", "maxLength": self._max_length, "pattern": f"^{self._pattern}$"}


class RowsQuery(RequestModel):
    """Which rows of a list, and in what order; a resource's own adds its filters."""

    sort: Annotated[str, Text(200)] | None = Field(
        None, description="Sort keys, separated by commas; a minus sign in front sorts downwards."
    )
    updated_since: Timestamp | None = Field(None, description="Only what changed then or later.")

    def active_filters(self) -> dict[str, Any]:
        """The filters that were given, with `updated_since`; an empty search is none."""
        given = self.model_fields_set - _LIST_CONTROLS
        filters = {name: getattr(self, name) for name in type(self).model_fields if name in given} if given else {}
        return {name: value for name, value in filters.items() if value is not None and value != ""}


class ListQuery(RowsQuery):
    """The parameters of every list; a resource's own adds its filters."""

    page: Annotated[int, Integer(1, MAX_PAGE)] | None = Field(None, description="The page, from 1.")
    page_size: Annotated[int, Integer(1, MAX_PAGE_SIZE)] | None = Field(
        None, description=f"Items on a page; {DEFAULT_PAGE_SIZE} unless given."
    )
    skip: Annotated[int, Integer(0, MAX_SKIP)] | None = Field(None, description="Items to pass over, instead of page.")
    limit: Annotated[int, Integer(1, MAX_PAGE_SIZE)] | None = Field(None, description="Another name of page_size.")
    cursor: Annotated[str, Text(4096)] | None = Field(None, description="A page's next_cursor, instead of page.")
    include_total: bool = Field(True, description="Whether to count all items.")
    fields: Annotated[tuple[str, ...], _FieldNames()] | None = Field(
        None, description="The only fields that the items shall have, separated by commas."
    )

    @model_validator(mode="after")
    def _check_one_way(self) -> ListQuery:
        if sum(value is not None for value in (self.page, self.skip, self.cursor)) > 1:
            name = "skip" if self.cursor is None else "cursor"
            raise field_error(name, "Only one of page, skip and cursor may be given", "conflicting_parameters")
        if self.page_size is not None and self.limit is not None:
            raise field_error("limit", "Only one of page_size and limit may be given", "conflicting_parameters")
        return self

    @property
    def effective_limit(self) -> int:
        """Items on a page."""
        return self.page_size or self.limit or DEFAULT_PAGE_SIZE

    @property
    def effective_offset(self) -> int:
        """Items before the page."""
        return self.skip if self.skip is not None else ((self.page or 1) - 1) * self.effective_limit


_LIST_CONTROLS = frozenset(ListQuery.model_fields) - {"updated_since"}


class SubListQuery(RequestModel):
    """The parameters of a list that is a plain array."""

    page: Annotated[int, Integer(1, MAX_PAGE)] = Field(1, description="The page, from 1.")
    page_size: Annotated[int, Integer(1, MAX_PAGE_SIZE)] = Field(DEFAULT_PAGE_SIZE, description="Items on a page.")

    @property
    def limit(self) -> int:
        """Items on a page."""
        return self.page_size

    @property
    def offset(self) -> int:
        """Items before the page."""
        return (self.page - 1) * self.page_size


__all__ = [
    "FOREIGN_KEY_MESSAGE",
    "FOREIGN_KEY_TYPE",
    "CommissionRate",
    "Content",
    "Count",
    "DateOrTime",
    "DayOrMoment",
    "Email",
    "ErrorBody",
    "ErrorDetails",
    "ErrorEnvelope",
    "FieldError",
    "FreeText",
    "HttpUrl",
    "Id",
    "Int4",
    "Int64",
    "Integer",
    "ListQuery",
    "Metadata",
    "Money",
    "MoneyText",
    "Number",
    "Page",
    "Phone",
    "RequestModel",
    "ResponseModel",
    "RowsQuery",
    "SignedMoney",
    "SubListQuery",
    "Text",
    "Timestamp",
    "absent",
    "decimal_number",
    "exactly_one_field",
    "field_error",
    "free_text",
    "int_range",
    "line",
    "parse_json",
    "parse_query",
    "patch_of",
    "query_args",
    "to_date",
    "validate",
]
