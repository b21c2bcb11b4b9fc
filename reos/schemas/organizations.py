"""The organisation: what a client may send, and what it gets."""

from __future__ import annotations

import re
from datetime import datetime
from functools import cache
from typing import Annotated, Any
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticKnownError

from reos.schemas.common import Metadata, RequestModel, ResponseModel, Text, absent, field_error

# ISO 4217, list one, without metals, bond units and codes for tests.
_CODES = """
AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF
CHW CLF CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD
HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL
MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON
RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX
USD USN UYI UYU UYW UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG
"""
CURRENCIES = frozenset(_CODES.split())

# Entries of a time zone database that name no zone: what the machine's own is, and that nobody has set one.
_NO_ZONES = frozenset({"localtime", "Factory"})

# Field, message and code: what JSON Schema cannot say about `settings`.
TIME_ZONE_ERROR = ("settings.timezone", "Input should be a time zone's IANA name", "time_zone")
CURRENCY_ERROR = ("settings.currency", "Input should be a currency's ISO 4217 code", "currency")

SLUG = r"^[a-z0-9]+(-[a-z0-9]+)*$"

SETTINGS_SCHEMA = {
    "properties": {
        "timezone": {"type": ["string", "null"], "description": "IANA name, such as America/New_York."},
        "currency": {"type": ["string", "null"], "pattern": "^[A-Z]{3}$", "description": "ISO 4217 code."},
    }
}


@cache
def _time_zones() -> frozenset[str]:
    """All IANA names. Finding them reads a directory tree, so it is done once."""
    return frozenset(available_timezones()) - _NO_ZONES


def _check_slug(text: str) -> str:
    if not re.fullmatch(SLUG, text):
        raise PydanticKnownError("string_pattern_mismatch", {"pattern": SLUG})
    return text


Slug = Annotated[str, Text(100), AfterValidator(_check_slug), Field(json_schema_extra={"pattern": SLUG})]


class OrganizationUpdate(RequestModel):
    """What changes. Of `settings` too only what is sent: another key keeps its value, null removes one."""

    name: Annotated[str, Text(200)] = absent()
    slug: Slug = absent()
    settings: Annotated[Metadata, Field(json_schema_extra=SETTINGS_SCHEMA)] = absent()

    @model_validator(mode="after")
    def _check_settings(self) -> OrganizationUpdate:
        settings = self.settings or {}
        zone, currency = settings.get("timezone"), settings.get("currency")
        if zone is not None and (not isinstance(zone, str) or zone not in _time_zones()):
            raise field_error(*TIME_ZONE_ERROR)
        if currency is not None and (not isinstance(currency, str) or currency not in CURRENCIES):
            raise field_error(*CURRENCY_ERROR)
        return self


class Organization(ResponseModel):
    """The organisation."""

    id: int
    name: str
    slug: str
    settings: dict[str, Any]
    is_active: bool
    created_at: datetime
    updated_at: datetime
