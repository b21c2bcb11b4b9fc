"""The kinds of values that a client may send, each stated once: its check, its error codes, its JSON Schema.

Every kind is an `Annotated` type around a marker, so that pydantic, mypy and the OpenAPI document agree.
JSON numbers arrive as `int` or `Decimal` (see `common.parse_json`), values of a query string as `str`; the
latter are told apart by the validation context `FROM_TEXT`. No message repeats what was sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final, NoReturn
from urllib.parse import urlsplit

from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, PydanticKnownError, core_schema

INT4_MAX: Final = 2**31 - 1
INT8_MAX: Final = 2**63 - 1
TEXT_LIMIT: Final = 20_000  # characters of descriptions, notes and contents
METADATA_DEPTH: Final = 32  # levels of objects and arrays
FOREIGN_KEY_TYPE: Final = "foreign_key"
FOREIGN_KEY_MESSAGE: Final = "There is no such resource"  # the same for foreign, deleted, absent and impossible ids

FROM_TEXT: Final = {"from_text": True}  # the validation context of query strings and form fields

JsonSchema = dict[str, Any]
Info = core_schema.ValidationInfo

# Unicode category Cc, without and with what is welcome in free text.
_CONTROL = r"\x00-\x1f\x7f-\x9f"
_CONTROL_BUT_BREAKS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
# What neither UTF-8 nor Postgres can hold. A JSON escape can name half a pair, and pydantic lets it through.
_SURROGATES = "\\ud800-\\udfff"
_FORBIDDEN_IN_LINE = re.compile(f"[{_CONTROL}{_SURROGATES}]")
_FORBIDDEN_IN_TEXT = re.compile(f"[{_CONTROL_BUT_BREAKS}{_SURROGATES}]")

_INTEGER_TEXT = re.compile(r"-?[0-9]{1,40}")
_NUMBER_TEXT = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_NUMBER_TEXT_WITH_EXPONENT = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,6})?")


def field_error(field: str, message: str, type: str) -> PydanticCustomError:
    """The error of a model's own rule, told of the field that breaks it; to be raised in a model validator."""
    return PydanticCustomError(type, message, {"field": field})


def _is_from_text(info: Info) -> bool:
    return info.context is FROM_TEXT


# --- strings ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Text:
    """Trimmed text of `min_length` to `max_length` characters; `has_breaks` welcomes line breaks and tabs.

    Control characters are refused wherever they stand, also where trimming would take them away.
    """

    max_length: int
    min_length: int = 1
    has_breaks: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, core_schema.str_schema(strict=True))

    def _check(self, value: str) -> str:
        value = _check_characters(value, _FORBIDDEN_IN_TEXT if self.has_breaks else _FORBIDDEN_IN_LINE).strip()
        if len(value) < self.min_length:
            raise PydanticKnownError("string_too_short", {"min_length": self.min_length})
        if len(value) > self.max_length:
            raise PydanticKnownError("string_too_long", {"max_length": self.max_length})
        return value

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        forbidden = _CONTROL_BUT_BREAKS if self.has_breaks else _CONTROL
        lengths = {"minLength": self.min_length} if self.min_length else {}
        return {"type": "string", **lengths, "maxLength": self.max_length, "pattern": f"^[^{forbidden}]*$"}


def _check_characters(text: str, forbidden: re.Pattern[str]) -> str:
    if found := forbidden.search(text):
        if found.group() >= "\ud800":
            raise PydanticKnownError("string_unicode")
        raise PydanticCustomError("control_character", "Input should not hold control characters")
    return text


def line(max_length: int, min_length: int = 1) -> Any:
    """One line of text. `Annotated[str, Text(n)]` is the same and is understood by mypy."""
    return Annotated[str, Text(max_length, min_length)]


def free_text(max_length: int, min_length: int = 1) -> Any:
    """Text with line breaks and tabs."""
    return Annotated[str, Text(max_length, min_length, has_breaks=True)]


FreeText = Annotated[str, Text(TEXT_LIMIT, 0, has_breaks=True)]
Content = Annotated[str, Text(TEXT_LIMIT, has_breaks=True)]  # free text that must say something

# The package documents this list as the place to say which domains to refuse. None is: addresses below `.test`,
# `.local` and `.invalid` are what people try the service with.
SPECIAL_USE_DOMAIN_NAMES.clear()


class _Email:
    """An address as RFC 5321 and 5322 have it, with a dot in its domain; kept as it was sent, trimmed.

    Whether the domain exists is not asked.
    """

    _text = Text(255)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, core_schema.str_schema(strict=True))

    def _check(self, value: str) -> str:
        value = self._text._check(value)
        try:
            validate_email(value, check_deliverability=False, strict=True)
        except EmailNotValidError:
            raise PydanticCustomError("value_error.email", "Input should be a valid email address") from None
        return value

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return {"type": "string", "format": "email", "maxLength": self._text.max_length}


class _HttpUrl:
    """An http or https URL with a host."""

    _text = Text(1000)
    _pattern = r"^[Hh][Tt][Tt][Pp][Ss]?://[^\s/?#\\]+[^\s\\]*$"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, core_schema.str_schema(strict=True))

    def _check(self, value: str) -> str:
        value = self._text._check(value)
        if not (re.search(self._pattern, value) and _has_host(value)):
            raise PydanticCustomError("url_parsing", "Input should be a valid http or https URL")
        return value

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return {"type": "string", "format": "uri", "maxLength": self._text.max_length, "pattern": self._pattern}


def _has_host(url: str) -> bool:
    """Whether there is a host, and a port that is none or one."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


Email = Annotated[str, _Email()]
HttpUrl = Annotated[str, _HttpUrl()]
Phone = Annotated[str, Text(20)]


# --- numbers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Integer:
    """A JSON integer (1.0 is one, true and "1" are not) from `ge` to `le`, both included."""

    ge: int
    le: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(self._check)

    def _check(self, value: Any, info: Info) -> int:
        number = _as_integer(value, _is_from_text(info))
        if number < self.ge:
            raise PydanticKnownError("greater_than_equal", {"ge": self.ge})
        if number > self.le:
            raise PydanticKnownError("less_than_equal", {"le": self.le})
        return int(number)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return {"type": "integer", "minimum": self.ge, "maximum": self.le}


def _as_integer(value: Any, is_from_text: bool) -> int | Decimal:
    """The integer that a value is. A Decimal stays one, because 1e999999999 must not become digits."""
    if is_from_text and isinstance(value, str):
        if not _INTEGER_TEXT.fullmatch(value):
            raise PydanticKnownError("int_parsing")
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise PydanticKnownError("int_type")
    if isinstance(value, int):
        return value
    number = Decimal(value)
    if not number.is_finite():
        raise PydanticKnownError("finite_number")
    if number != number.to_integral_value():
        raise PydanticKnownError("int_from_float")
    return number


def int_range(ge: int, le: int) -> Any:
    """An integer from `ge` to `le`. `Annotated[int, Integer(ge, le)]` is the same and is understood by mypy."""
    return Annotated[int, Integer(ge, le)]


class _Id:
    """The id of a resource in a body: whatever cannot be one is told as an id that does not exist is."""

    _range = Integer(1, INT8_MAX)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(self._check)

    def _check(self, value: Any, info: Info) -> int:
        try:
            return self._range._check(value, info)
        except PydanticKnownError:
            raise PydanticCustomError(FOREIGN_KEY_TYPE, FOREIGN_KEY_MESSAGE) from None

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return self._range.__get_pydantic_json_schema__(schema, handler)


Id = Annotated[int, _Id()]
Count = Annotated[int, Integer(0, INT4_MAX)]
Int4 = Annotated[int, Integer(-INT4_MAX - 1, INT4_MAX)]
Int64 = Annotated[int, Integer(-INT8_MAX - 1, INT8_MAX)]


@dataclass(frozen=True, slots=True)
class Number:
    """An exact decimal of `max_digits` digits, `places` of them behind the point, as Postgres' numeric has it.

    Nothing is rounded: 0.005 with two places is an error, 1.500 is not, since its zeros change nothing. What
    comes out has exactly `places` places. `takes_strings` is for money and rates, which JSON carries as strings.
    """

    max_digits: int
    places: int
    ge: Decimal | int | None = None
    le: Decimal | int | None = None
    takes_strings: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(self._check)

    def _check(self, value: Any, info: Info) -> Decimal:
        number = self._exact(_as_decimal(value, self.takes_strings, _is_from_text(info)))
        if self.ge is not None and number < self.ge:
            raise PydanticKnownError("greater_than_equal", {"ge": _plain(self.ge)})
        if self.le is not None and number > self.le:
            raise PydanticKnownError("less_than_equal", {"le": _plain(self.le)})
        return number

    def _exact(self, number: Decimal) -> Decimal:
        unit = Decimal(1).scaleb(-self.places)
        if number.is_zero():
            # Without its sign and its exponent, which may be a thousand million.
            return unit - unit
        whole_digits = self.max_digits - self.places
        if number.adjusted() >= whole_digits:
            raise PydanticKnownError("decimal_whole_digits", {"whole_digits": whole_digits})
        try:
            rounded = number.quantize(unit)
        except InvalidOperation:
            rounded = None
        if rounded != number:
            raise PydanticKnownError("decimal_max_places", {"decimal_places": self.places})
        return rounded

    @property
    def largest(self) -> Decimal:
        """The largest number that the digits can hold."""
        return Decimal(10**self.max_digits - 1).scaleb(-self.places)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        low = -self.largest if self.ge is None else max(Decimal(self.ge), -self.largest)
        high = self.largest if self.le is None else min(Decimal(self.le), self.largest)
        number: JsonSchema = {"type": "number", "minimum": _plain(low), "maximum": _plain(high)}
        description = f"Decimal places: at most {self.places}."
        if not self.takes_strings:
            return {**number, "description": description}
        sign = "" if low >= 0 else "-?"
        pattern = rf"^{sign}0*\d{{1,{self.max_digits - self.places}}}(\.\d{{1,{self.places}}}0*)?$"
        return {"anyOf": [number, {"type": "string", "pattern": pattern}], "description": description}


def _as_decimal(value: Any, takes_strings: bool, is_from_text: bool) -> Decimal:
    if isinstance(value, str) and (takes_strings or is_from_text):
        form = _NUMBER_TEXT_WITH_EXPONENT if is_from_text else _NUMBER_TEXT
        if not form.fullmatch(value):
            raise PydanticKnownError("decimal_parsing")
        return Decimal(value)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise PydanticKnownError("decimal_type")
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not number.is_finite():
        raise PydanticKnownError("finite_number")
    return number


def _plain(value: Decimal | int) -> int | float:
    """The bound as JSON and pydantic's messages have it."""
    return int(value) if value == int(value) else float(value)


def decimal_number(
    max_digits: int,
    places: int,
    ge: Decimal | int | None = None,
    le: Decimal | int | None = None,
    *,
    takes_strings: bool = False,
) -> Any:
    """A decimal as `Number` has it. `Annotated[Decimal, Number(…)]` is the same and is understood by mypy."""
    return Annotated[Decimal, Number(max_digits, places, ge, le, takes_strings)]


Money = Annotated[Decimal, Number(12, 2, ge=0, takes_strings=True)]
SignedMoney = Annotated[Decimal, Number(12, 2, takes_strings=True)]
CommissionRate = Annotated[Decimal, Number(5, 2, ge=0, le=100, takes_strings=True)]  # percent


# --- free objects ----------------------------------------------------------------------------------------------


class _Metadata:
    """A free JSON object that comes back as it was sent: every number in it survives a double unchanged."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def _check(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise PydanticKnownError("dict_type")
        checked: dict[str, Any] = _check_free(value, METADATA_DEPTH)
        return checked

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return {"type": "object", "additionalProperties": True}


def _check_free(value: Any, depth: int) -> Any:
    """The value as the encoder and jsonb take it: no Decimal, no NUL, no lone surrogate, not too deep."""
    if isinstance(value, dict | list):
        if depth == 0:
            raise PydanticCustomError(
                "nested_too_deeply", "Input should have at most {levels} levels", {"levels": METADATA_DEPTH}
            )
        if isinstance(value, list):
            return [_check_free(item, depth - 1) for item in value]
        return {_check_characters(key, _FORBIDDEN_IN_TEXT): _check_free(item, depth - 1) for key, item in value.items()}
    if isinstance(value, str):
        return _check_characters(value, _FORBIDDEN_IN_TEXT)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float | Decimal):
        return _check_double(value)
    raise PydanticKnownError("json_type")


def _check_double(value: float | Decimal) -> int | float:
    """The number, if IEEE 754 binary64 holds it: exactly, or as the shortest decimal that names the double."""
    number = Decimal(value)
    # float() of a long Decimal is exact; of one with a huge exponent it is infinite or zero.
    double = float(number)
    is_exact = Decimal(double) == number or Decimal(repr(double)) == number
    if not number.is_finite() or not is_exact:
        raise PydanticCustomError("number_not_exact", "Input should hold only numbers that a double can hold exactly")
    return value if isinstance(value, int) and abs(value) <= INT8_MAX else double


Metadata = Annotated[dict[str, Any], _Metadata()]


# --- times -----------------------------------------------------------------------------------------------------

# RFC 3339, section 5.6; the time, its seconds and its offset may be left out.
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ]([0-9]{2}:[0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,12}))?)?([Zz]|[+-][0-9]{2}:[0-9]{2})?)?"
)
# So far from the years 1 and 9999 that there is a date in every time zone.
_EARLIEST = datetime.min + timedelta(days=2)  # noqa: DTZ901
_LATEST = datetime.max - timedelta(days=2)  # noqa: DTZ901


def _refuse_time(reason: str) -> NoReturn:
    raise PydanticKnownError("datetime_parsing", {"error": reason})


def _parse_time(value: Any) -> tuple[date, datetime | None]:
    """The day, and the moment unless it is a day alone. Naive times are UTC.

    Raises PydanticKnownError: not a string, not a time, a fraction finer than a microsecond, or a moment so close
    to the years 1 and 9999 that it has no date in some time zone.
    """
    if not isinstance(value, str):
        raise PydanticKnownError("datetime_type")
    found = _TIME.fullmatch(value.strip())
    if not found:
        _refuse_time("not a time as in RFC 3339")
    day_text, clock, seconds, fraction, offset = found.groups()
    if fraction and fraction[6:].strip("0"):
        _refuse_time("finer than a microsecond")
    try:
        day = date.fromisoformat(day_text)
        if clock is None:
            return day, None
        moment = datetime.fromisoformat(f"{day_text}T{clock}:{seconds or '00'}.{(fraction or '0')[:6]:0<6}")
        moment = moment.replace(tzinfo=_parse_offset(offset))
    except ValueError:
        _refuse_time("no such date, time or offset")
    if not _EARLIEST < moment.replace(tzinfo=None) < _LATEST:
        _refuse_time("out of range")
    return day, moment


def _parse_offset(text: str | None) -> tzinfo:
    """The offset as a time zone; none and Z are UTC. Raises ValueError."""
    if text is None or text in "Zz":
        return UTC
    hours, minutes = int(text[1:3]), int(text[4:6])
    if hours > 23 or minutes > 59:
        raise ValueError("no such offset")
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if text[0] == "-" else offset)


# Not one string with a choice of formats, of which generators of clients make a value of any type.
_TIME_SCHEMA: Final[JsonSchema] = {
    "anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "format": "date"}]
}


class _Timestamp:
    """A moment (RFC 3339), in UTC afterwards. A naive time is taken as UTC, a date alone is midnight UTC."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def _check(self, value: Any) -> datetime:
        day, moment = _parse_time(value)
        return datetime(day.year, day.month, day.day, tzinfo=UTC) if moment is None else moment.astimezone(UTC)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return dict(_TIME_SCHEMA)


@dataclass(frozen=True, slots=True)
class DayOrMoment:
    """What a date field was given; `to_date` says which day that is."""

    day: date
    moment: datetime | None = None


class _DateOrTime:
    """A day, or a moment that is on one."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def _check(self, value: Any) -> DayOrMoment:
        day, moment = _parse_time(value)
        # Midnight in its own offset is how many clients write a day.
        is_midnight = moment is not None and moment.time() == datetime.min.time()
        return DayOrMoment(day, None if is_midnight else moment)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return dict(_TIME_SCHEMA)


Timestamp = Annotated[datetime, _Timestamp()]
DateOrTime = Annotated[DayOrMoment, _DateOrTime()]


def to_date(value: DayOrMoment, zone: tzinfo) -> date:
    """The day that a date field means; a moment is on the day that it is in the organisation's time zone."""
    return value.day if value.moment is None else value.moment.astimezone(zone).date()
