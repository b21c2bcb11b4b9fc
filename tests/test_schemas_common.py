"""The building blocks of the request models against hostile values: what they let through is what was sent."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import jsonschema  # type: ignore[import-untyped]
import pytest
from pydantic import BaseModel, Field, model_validator

from reos import encoding
from reos.errors import InvalidInputError, ValidationError
from reos.schemas.common import (
    MAX_ERRORS,
    CommissionRate,
    DateOrTime,
    Email,
    ErrorEnvelope,
    HttpUrl,
    Id,
    Int4,
    Int64,
    Integer,
    ListQuery,
    Metadata,
    Money,
    MoneyText,
    Number,
    Page,
    Phone,
    RequestModel,
    ResponseModel,
    SignedMoney,
    SubListQuery,
    Text,
    Timestamp,
    absent,
    field_error,
    parse_json,
    parse_query,
    patch_of,
    query_args,
    to_date,
    validate,
)

pytestmark = pytest.mark.unit


class Everything(RequestModel):
    """One field of each kind."""

    line: Annotated[str, Text(10)] | None = None
    text: Annotated[str, Text(20, min_length=0, has_breaks=True)] | None = None
    email: Email | None = None
    url: HttpUrl | None = None
    phone: Phone | None = None
    id: Id | None = None
    small: Int4 | None = None
    large: Int64 | None = None
    score: Annotated[int, Integer(0, 100)] | None = None
    money: Money | None = None
    amount: SignedMoney | None = None
    rate: CommissionRate | None = None
    bathrooms: Annotated[Decimal, Number(3, 1, ge=0)] | None = None
    latitude: Annotated[Decimal, Number(10, 7, ge=-90, le=90)] | None = None
    metadata: Metadata | None = None
    at: Timestamp | None = None
    day: DateOrTime | None = None
    flag: bool | None = None
    kind: Literal["one", "two"] | None = None
    tags: Annotated[list[Annotated[str, Text(5)]], Field(max_length=3)] | None = None


def accept(field: str, raw: str) -> Any:
    """The field's value of a body in which the raw JSON stands."""
    body = f'{{"{field}": {raw}}}'.encode("utf-8", "surrogatepass")
    return getattr(validate(Everything, parse_json(body)), field)


def refuse(field: str, raw: str) -> str:
    """The stable code with which the raw JSON is refused."""
    with pytest.raises(ValidationError) as caught:
        accept(field, raw)
    errors = caught.value.details["errors"]
    assert errors[0]["field"].partition(".")[0] == field
    encoding.dumps(errors)
    return str(errors[0]["type"])


# --- bodies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"null",
        b'"x"',
        b"\xff",
        b'{"a": "\xed\xa0\x80"}',
        b"{}x",
        b"\xef\xbb\xbf{}",
        b"{'a': 1}",
    ],
)
def test_a_body_that_is_no_json_object_is_400(body: bytes) -> None:
    with pytest.raises(InvalidInputError):
        parse_json(body)


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"a":' * 200_000, b'{"metadata": ' + b"[" * 200_000])
def test_deep_nesting_is_400(body: bytes) -> None:
    with pytest.raises(InvalidInputError):
        parse_json(body)


def test_numbers_are_read_exactly() -> None:
    parsed = parse_json(b'{"a": 0.1, "b": 7, "c": 1e999, "d": 123456789012345678901234567890123456789012345678901}')
    assert parsed["a"] == Decimal("0.1") and isinstance(parsed["a"], Decimal)
    assert parsed["b"] == 7 and isinstance(parsed["b"], int)
    assert parsed["c"] == Decimal("1e999")
    assert parsed["d"] == Decimal(123456789012345678901234567890123456789012345678901)


HOSTILE_NUMBERS = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e999",
    "1e999999999",
    "1e99999999999999999999",
    "1" * 5000,
    "1" * 1_000_000,
    "9223372036854775808",
    "true",
    "false",
    "[]",
    "{}",
    '"x"',
    '"NaN"',
    '"1e5"',
    '"1_0"',
    '" 1"',
    '""',
    '"\\ud800"',
    '"\\u0000"',
    '"\\u0661"',
]


@pytest.mark.parametrize("raw", HOSTILE_NUMBERS, ids=lambda raw: raw[:24])
@pytest.mark.parametrize("field", ["id", "small", "score", "money", "amount", "rate", "bathrooms", "latitude"])
def test_numbers_refuse_hostile_values(field: str, raw: str) -> None:
    assert refuse(field, raw)


@pytest.mark.parametrize("raw", ["[]", "{}", "1", "1.5", "true", "NaN", '"' + "x" * 1_000_000 + '"', '"\\ud800"'])
@pytest.mark.parametrize("field", ["line", "text", "email", "url", "phone", "at", "day", "kind", "flag"])
def test_other_kinds_refuse_hostile_values(field: str, raw: str) -> None:
    if (field, raw) != ("flag", "true"):
        assert refuse(field, raw)


def test_unknown_fields_are_refused_and_their_names_are_made_harmless() -> None:
    with pytest.raises(ValidationError) as caught:
        validate(Everything, parse_json(b'{"' + b"x" * 5000 + b'": 1}'))
    [error] = caught.value.details["errors"]
    assert error["type"] == "extra_forbidden" and len(error["field"]) == 100
    with pytest.raises(ValidationError) as caught:
        validate(Everything, parse_json(b'{"\\ud800": 1}'))
    encoding.dumps(caught.value.details)


@pytest.mark.parametrize("count", [MAX_ERRORS + 1, 50_000])
def test_the_number_of_errors_is_bounded(count: int) -> None:
    body = json.dumps({f"k{n}": 1 for n in range(count)}).encode()
    with pytest.raises(ValidationError) as caught:
        validate(Everything, parse_json(body))
    assert len(caught.value.details["errors"]) == MAX_ERRORS


def test_the_names_of_very_many_unknown_fields_are_made_harmless() -> None:
    body = json.dumps({f"\ud800{n}": 1 for n in range(MAX_ERRORS + 1)}).encode()
    with pytest.raises(ValidationError) as caught:
        validate(Everything, parse_json(body))
    assert b"\\\\ud8000" in encoding.dumps(caught.value.details)


def test_the_number_of_errors_in_one_field_is_bounded() -> None:
    class Long(RequestModel):
        items: list[Int4]

    with pytest.raises(ValidationError) as caught:
        validate(Long, {"items": ["x"] * 1000})
    assert len(caught.value.details["errors"]) == MAX_ERRORS


def test_errors_do_not_repeat_what_was_sent() -> None:
    with pytest.raises(ValidationError) as caught:
        validate(Everything, parse_json(b'{"email": "s3cret", "kind": "s3cret", "at": "s3cret", "money": "s3cret"}'))
    assert len(caught.value.details["errors"]) == 4
    assert "s3cret" not in json.dumps(caught.value.details)


def test_a_rule_of_the_model_names_its_field() -> None:
    class Ruled(RequestModel):
        a: Int4 | None = None

        @model_validator(mode="after")
        def _check(self) -> Ruled:
            raise field_error("a", "is never right", "never_right")

    with pytest.raises(ValidationError) as caught:
        validate(Ruled, {})
    assert caught.value.details["errors"] == [{"field": "a", "message": "is never right", "type": "never_right"}]


# --- strings ---------------------------------------------------------------------------------------------------


def test_text_is_trimmed_and_measured_in_characters() -> None:
    assert accept("line", '"  abc "') == "abc"
    houses = "\U0001f3e0" * 10
    assert accept("line", f'" {houses} "') == houses
    assert refuse("line", '"12345678901"') == "string_too_long"
    assert refuse("line", '"   "') == "string_too_short"
    assert refuse("line", '""') == "string_too_short"
    assert accept("text", '""') == ""
    assert accept("text", '"\\n a\\r\\n\\tb \\n"') == "a\r\n\tb"


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0)])
def test_control_characters_are_refused(code: int) -> None:
    for form in (f"a{chr(code)}b", f"{chr(code)}ab", f"ab{chr(code)}"):
        raw = json.dumps(form)
        assert refuse("line", raw) == "control_character"
        if chr(code) in "\t\n\r":
            assert accept("text", raw) == form.strip()
        else:
            assert refuse("text", raw) == "control_character"


@pytest.mark.parametrize("field", ["line", "text", "email", "url", "phone"])
def test_lone_surrogates_are_refused(field: str) -> None:
    assert refuse(field, '"a\\ud800"') == "string_unicode"
    assert refuse(field, '"\\udc00\\ud800"') == "string_unicode"


@pytest.mark.parametrize(
    "address",
    [
        "ann@example.com",
        "Ann.O'Brien+tag@Example.COM",
        "a@company.test",
        "a@reos.local",
        "a_b@sub.domain.co.uk",
        "jürgen@münchen.de",
    ],
)
def test_addresses_are_kept_as_they_were_sent(address: str) -> None:
    assert accept("email", json.dumps(f" {address} ")) == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ann",
        "ann@",
        "@example.com",
        "ann@localhost",
        "a b@example.com",
        "ann@exam ple.com",
        "a@b@example.com",
        "Ann <ann@example.com>",
        "ann@example..com",
        "ann@-example.com",
        "ann@[127.0.0.1]",
        ".ann@example.com",
        "a" * 65 + "@example.com",
        "a@" + "b" * 300 + ".com",
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    assert refuse("email", json.dumps(address)) in ("value_error.email", "string_too_short", "string_too_long")


def test_the_code_of_a_wrong_address() -> None:
    assert refuse("email", '"ann"') == "value_error.email"


@pytest.mark.parametrize(
    "url",
    [
        "http://a",
        "https://example.com/a?b=c#d",
        "HTTPS://Example.com:8443/",
        "http://[::1]:80/x",
        "https://münchen.de/ä",
    ],
)
def test_urls_are_kept_as_they_were_sent(url: str) -> None:
    assert accept("url", json.dumps(url)) == url


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com",
        "javascript:alert(1)",
        "//example.com",
        "example.com",
        "http://",
        "http:///x",
        "http://:80",
        "http://a:99999",
        "http://a:x",
        "http://[::1",
        "http://a b",
        "http://a\\b",
        "https:/a",
        "http://a/" + "b" * 1000,
    ],
)
def test_what_is_no_http_url_is_refused(url: str) -> None:
    assert refuse("url", json.dumps(url)) in ("url_parsing", "string_too_long")


def test_enumerations_have_one_code() -> None:
    assert accept("kind", '"one"') == "one"
    assert refuse("kind", '"three"') == "enum"


# --- numbers ---------------------------------------------------------------------------------------------------


def test_integers() -> None:
    assert accept("small", "-2147483648") == -(2**31)
    assert accept("large", "9223372036854775807") == 2**63 - 1
    assert accept("small", "1.0") == 1 and isinstance(accept("small", "1.0"), int)
    assert accept("small", "1e2") == 100
    assert refuse("small", "2147483648") == "less_than_equal"
    assert refuse("large", "9223372036854775808") == "less_than_equal"
    assert refuse("large", "-9223372036854775809") == "greater_than_equal"
    assert refuse("small", "1.5") == "int_from_float"
    assert refuse("small", "1e-999999999") == "int_from_float"
    assert refuse("small", "true") == "int_type"
    assert refuse("small", "NaN") == "finite_number"


@pytest.mark.parametrize("raw", ["0", "-1", "9223372036854775808", "1.5", '"7"', "true", "[]", "NaN"])
def test_an_impossible_id_is_told_like_one_that_does_not_exist(raw: str) -> None:
    assert refuse("id", raw) == "foreign_key"
    assert accept("id", "7") == 7


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("750000", "750000.00"),
        ('"750000.00"', "750000.00"),
        ("1.500", "1.50"),
        ('"1.500"', "1.50"),
        ("0", "0.00"),
        ("-0.0", "0.00"),
        ("0e999999999", "0.00"),
        ("9999999999.99", "9999999999.99"),
        ("1E2", "100.00"),
        ('"007.1"', "7.10"),
    ],
)
def test_money_is_exact(raw: str, value: str) -> None:
    assert encoding.dumps(accept("money", raw)) == f'"{value}"'.encode()


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ("0.005", "decimal_max_places"),
        ('"0.005"', "decimal_max_places"),
        ("1e-999999999", "decimal_max_places"),
        ("10000000000", "decimal_whole_digits"),
        ("9999999999.995", "decimal_max_places"),
        ("-0.01", "greater_than_equal"),
        ("NaN", "finite_number"),
        ("true", "decimal_type"),
        ('"abc"', "decimal_parsing"),
        ('"+1"', "decimal_parsing"),
        ('"1."', "decimal_parsing"),
        ('".5"', "decimal_parsing"),
        ('"Infinity"', "decimal_parsing"),
        ("0." + "1" * 100_000, "decimal_max_places"),
    ],
)
def test_money_rounds_nothing(raw: str, code: str) -> None:
    assert refuse("money", raw) == code


def test_other_decimals() -> None:
    assert accept("amount", "-12.5") == Decimal("-12.5")
    assert accept("rate", '"100"') == 100
    assert refuse("rate", "100.01") == "less_than_equal"
    assert accept("bathrooms", "99.9") == Decimal("99.9")
    assert refuse("bathrooms", "2.25") == "decimal_max_places"
    assert refuse("bathrooms", "100") == "decimal_whole_digits"
    assert refuse("bathrooms", '"2.5"') == "decimal_type"
    assert accept("latitude", "-90.0000000") == -90
    assert refuse("latitude", "-90.0000001") == "greater_than_equal"
    assert refuse("latitude", "1.00000001") == "decimal_max_places"


# --- free objects ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        "{}",
        '{"a": 0.1, "b": -0.5, "c": 5e-324, "d": 1.7976931348623157e308}',
        '{"a": 9007199254740992}',
        '{"": null}',
        '{"a": 1152921504606846976, "b": 100000000000000000000}',
        '{"a": [true, false, null, {"b": "\\n\\r\\t"}]}',
        '{"\U0001f3e0": "\U0001f3e0"}',
        '{"a": 1.0}',
    ],
)
def test_metadata_comes_back_as_it_was_sent(raw: str) -> None:
    assert json.loads(encoding.dumps(accept("metadata", raw))) == json.loads(raw)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ("[]", "dict_type"),
        ("1", "dict_type"),
        ('"{}"', "dict_type"),
        ('{"a": NaN}', "number_not_exact"),
        ('{"a": 1e999}', "number_not_exact"),
        ('{"a": 9007199254740993}', "number_not_exact"),
        ('{"a": [0.1234567890123456789]}', "number_not_exact"),
        ('{"a": 1e-999}', "number_not_exact"),
        ('{"a": ' + "1" * 100_000 + "}", "number_not_exact"),
        ('{"a": "\\u0000"}', "control_character"),
        ('{"\\u0001": 1}', "control_character"),
        ('{"a": ["\\ud800"]}', "string_unicode"),
        ('{"\\udfff": 1}', "string_unicode"),
        ('{"a":' * 33 + "1" + "}" * 33, "nested_too_deeply"),
        ('{"a":' + "[" * 500 + "]" * 500 + "}", "nested_too_deeply"),
    ],
)
def test_metadata_refuses_what_would_not_come_back(raw: str, code: str) -> None:
    assert refuse("metadata", raw) == code


# --- times -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-02-29T12:30:15Z", datetime(2024, 2, 29, 12, 30, 15, tzinfo=UTC)),
        ("2024-02-29T12:30:15.123456+02:00", datetime(2024, 2, 29, 10, 30, 15, 123456, tzinfo=UTC)),
        ("2024-02-29T12:30:15.120000000Z", datetime(2024, 2, 29, 12, 30, 15, 120000, tzinfo=UTC)),
        ("2024-02-29t12:30:15.5-00:30", datetime(2024, 2, 29, 13, 0, 15, 500000, tzinfo=UTC)),
        ("2024-02-29 12:30", datetime(2024, 2, 29, 12, 30, tzinfo=UTC)),
        ("2024-02-29", datetime(2024, 2, 29, tzinfo=UTC)),
        ("0001-01-01", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31", datetime(9999, 12, 31, tzinfo=UTC)),
    ],
)
def test_times_are_utc(text: str, moment: datetime) -> None:
    parsed = accept("at", json.dumps(text))
    assert parsed == moment and parsed.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "0000-01-01",
        "10000-01-01",
        "2023-02-29",
        "2024-13-01",
        "2024-01-01T24:00:00Z",
        "2024-01-01T23:59:60Z",
        "2024-01-01T00:00:00+24:00",
        "2024-01-01T00:00:00+00:60",
        "2024-01-01T00:00:00+0200",
        "2024-01-01T",
        "20240101",
        "2024-01-01T00:00:00.1234567Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "1704067200",
        "2024-W01-1",
        "٢٠٢٤-01-01",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    assert refuse("at", json.dumps(text)) == "datetime_parsing"
    assert refuse("day", json.dumps(text)) == "datetime_parsing"


def test_a_time_is_a_string() -> None:
    assert refuse("at", "1704067200") == "datetime_type"
    assert refuse("day", "true") == "datetime_type"


@pytest.mark.parametrize(
    ("text", "zone", "day"),
    [
        ("2024-03-10", "America/New_York", date(2024, 3, 10)),
        ("2024-03-10T00:00:00+13:00", "America/New_York", date(2024, 3, 10)),
        ("2024-03-10T00:00:00Z", "America/New_York", date(2024, 3, 10)),
        ("2024-03-10T00:00:00", "America/New_York", date(2024, 3, 10)),
        ("2024-03-10T01:00:00Z", "America/New_York", date(2024, 3, 9)),
        ("2024-03-10T23:30:00-05:00", "Europe/Berlin", date(2024, 3, 11)),
        ("2024-03-10T00:00:00.000001Z", "America/New_York", date(2024, 3, 9)),
        ("9999-12-31", "Pacific/Auckland", date(9999, 12, 31)),
    ],
)
def test_the_day_of_a_date_field(text: str, zone: str, day: date) -> None:
    assert to_date(accept("day", json.dumps(text)), ZoneInfo(zone)) == day


# --- updates ---------------------------------------------------------------------------------------------------


class Update(RequestModel):
    """A field that may be cleared, and one that may not."""

    name: Annotated[str, Text(10)] = absent()
    note: Annotated[str, Text(10)] | None = None


def test_an_update_tells_absent_from_null() -> None:
    assert patch_of(validate(Update, {})) == {}
    assert patch_of(validate(Update, {"note": None})) == {"note": None}
    assert patch_of(validate(Update, {"name": " x "})) == {"name": "x"}
    with pytest.raises(ValidationError):
        validate(Update, {"name": None})


def test_the_schema_of_an_update_has_no_null_default() -> None:
    schema = Update.model_json_schema()
    assert "required" not in schema
    assert all("default" not in field for field in schema["properties"].values())


# --- query strings ---------------------------------------------------------------------------------------------


class Filters(ListQuery):
    """A list with filters of each kind."""

    search: Annotated[str, Text(20, min_length=0)] | None = None
    city: Annotated[str, Text(20)] | None = None
    min_price: Money | None = None
    beds: Int4 | None = None
    baths: Annotated[Decimal, Number(3, 1, ge=0)] | None = None
    is_active: bool | None = None
    kind: Literal["one", "two"] | None = None


def query(text: str) -> Filters:
    return parse_query(Filters, query_args(text))


def test_a_query_is_read_strictly() -> None:
    found = query("min_price=1.5&beds=-2&baths=2.5&is_active=false&kind=one&city=%20a%2Bb&updated_since=2024-01-01")
    assert found.active_filters() == {
        "city": "a+b",
        "min_price": Decimal("1.50"),
        "beds": -2,
        "baths": Decimal("2.5"),
        "is_active": False,
        "kind": "one",
        "updated_since": datetime(2024, 1, 1, tzinfo=UTC),
    }


@pytest.mark.parametrize("text", ["", "search=", "search=%20"])
def test_an_empty_search_is_none(text: str) -> None:
    found = query(text)
    assert found.active_filters() == {} and found.include_total
    assert (found.effective_limit, found.effective_offset) == (50, 0)


@pytest.mark.parametrize(
    ("text", "field", "code"),
    [
        ("page=0", "page", "greater_than_equal"),
        ("page=x", "page", "int_parsing"),
        ("page=", "page", "int_parsing"),
        ("page=1.0", "page", "int_parsing"),
        ("page=%D9%A1", "page", "int_parsing"),
        ("page=1e3", "page", "int_parsing"),
        ("page=9223372036854775808", "page", "less_than_equal"),
        ("page=" + "9" * 5000, "page", "int_parsing"),
        ("page_size=101", "page_size", "less_than_equal"),
        ("limit=0", "limit", "greater_than_equal"),
        ("skip=-1", "skip", "greater_than_equal"),
        ("page=1&skip=0", "skip", "conflicting_parameters"),
        ("page=1&cursor=x", "cursor", "conflicting_parameters"),
        ("limit=1&page_size=1", "limit", "conflicting_parameters"),
        ("page=1&page=1", "page", "duplicate_parameter"),
        ("nothing=1", "nothing", "extra_forbidden"),
        ("include_total=1", "include_total", "bool_type"),
        ("is_active=yes", "is_active", "bool_type"),
        ("is_active=", "is_active", "bool_type"),
        ("beds=true", "beds", "int_parsing"),
        ("min_price=NaN", "min_price", "decimal_parsing"),
        ("min_price=", "min_price", "decimal_parsing"),
        ("baths=1e999999", "baths", "decimal_whole_digits"),
        ("city=", "city", "string_too_short"),
        ("city=a%00", "city", "control_character"),
        ("kind=", "kind", "enum"),
        ("city=%FF", "query", "query_parsing"),
        ("city=%ED%A0%80", "query", "query_parsing"),
        ("a=1&" * 101, "query", "query_parsing"),
        ("fields=", "fields", "field_names"),
        ("fields=a,,b", "fields", "field_names"),
        ("updated_since=0000-01-01", "updated_since", "datetime_parsing"),
        ("search=" + "x" * 21, "search", "string_too_long"),
    ],
)
def test_a_wrong_parameter_is_named(text: str, field: str, code: str) -> None:
    with pytest.raises(ValidationError) as caught:
        query(text)
    [error] = caught.value.details["errors"]
    assert (error["field"], error["type"]) == (field, code)


def test_pages_and_their_aliases() -> None:
    assert (query("page=3&page_size=20").effective_limit, query("page=3&page_size=20").effective_offset) == (20, 40)
    assert (query("skip=7&limit=5").effective_limit, query("skip=7&limit=5").effective_offset) == (5, 7)
    farthest = query("page=1000000000000&page_size=100")
    assert farthest.effective_offset + farthest.effective_limit < 2**63
    assert query("fields=id,address").fields == ("id", "address")
    assert parse_query(SubListQuery, {"page": ["2"]}).offset == 50


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("True", True), ("False", False)])
def test_flags(text: str, value: bool) -> None:
    """With a capital too, as generated Python clients write them into forms."""
    assert query(f"is_active={text}").is_active is value


# --- schemas ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "raw"),
    [
        ("line", '"abc"'),
        ("text", '"a\\nb"'),
        ("email", '"a@example.com"'),
        ("url", '"https://a/b"'),
        ("id", "1"),
        ("score", "100"),
        ("score", "1.0"),
        ("money", "1.5"),
        ("money", '"1.500"'),
        ("money", '"0001.1"'),
        ("amount", '"-1"'),
        ("rate", "100"),
        ("bathrooms", "99.9"),
        ("latitude", "-90"),
        ("metadata", '{"a": 1}'),
        ("at", '"2024-01-01T00:00:00Z"'),
        ("day", '"2024-01-01"'),
        ("kind", '"one"'),
        ("tags", '["a"]'),
        ("money", "null"),
    ],
)
def test_the_schema_states_what_is_accepted(field: str, raw: str) -> None:
    accept(field, raw)
    jsonschema.Draft202012Validator(Everything.model_json_schema()).validate({field: json.loads(raw)})


@pytest.mark.parametrize(
    ("field", "raw"),
    [
        ("line", '"a\\nb"'),
        ("line", '"12345678901"'),
        ("line", '""'),
        ("text", '"\\u0000"'),
        ("url", '"ftp://a"'),
        ("id", "0"),
        ("id", '"1"'),
        ("score", "101"),
        ("score", "1.5"),
        ("score", "true"),
        ("money", "-1"),
        ("money", '"0.005"'),
        ("money", '"-1"'),
        ("money", '"12345678901"'),
        ("money", "10000000000"),
        ("rate", "101"),
        ("bathrooms", "100"),
        ("bathrooms", '"1"'),
        ("latitude", "91"),
        ("metadata", "[]"),
        ("at", "1"),
        ("kind", '"x"'),
        ("tags", '["a","b","c","d"]'),
        ("tags", '["123456"]'),
        ("flag", "1"),
        ("unknown", "1"),
    ],
)
def test_the_schema_states_what_is_refused(field: str, raw: str) -> None:
    assert refuse(field, raw)
    assert not jsonschema.Draft202012Validator(Everything.model_json_schema()).is_valid({field: json.loads(raw)})


class Thing(ResponseModel):
    """A resource."""

    id: int
    price: MoneyText


def test_pages_have_names_of_their_own() -> None:
    page: type[BaseModel] = Page[Thing]
    assert page.__name__ == "ThingPage"
    content = {
        "items": [{"id": 1, "price": "1.00"}],
        "total": 1,
        "page": 1,
        "page_size": 50,
        "pages": 1,
        "has_more": False,
    }
    page.model_validate({**content, "next_cursor": None})
    with pytest.raises(ValueError, match="extra"):
        page.model_validate({**content, "next_cursor": None, "extra": 1})


def test_the_error_envelope() -> None:
    error = {"type": "ValidationError", "message": "m", "details": {"errors": []}, "request_id": "r"}
    assert ErrorEnvelope.model_validate({"error": error}).error.type == "ValidationError"
