"""Properties and what belongs to them: what a client may send, and what it gets."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from reos.schemas.common import (
    Content,
    Count,
    DateOrTime,
    FreeText,
    HttpUrl,
    Integer,
    ListQuery,
    Metadata,
    Money,
    MoneyText,
    Number,
    Page,
    RequestModel,
    ResponseModel,
    RowsQuery,
    Text,
    absent,
    field_error,
)

PropertyType = Literal[
    "single_family", "multi_family", "condo", "townhouse", "land", "commercial", "industrial", "mixed_use"
]
PropertyStatus = Literal["available", "under_contract", "sold", "rented", "off_market"]

Address = Annotated[str, Text(500)]
City = Annotated[str, Text(100)]
State = Annotated[str, Text(50)]
ZipCode = Annotated[str, Text(20)]
Country = Annotated[str, Text(50)]
Latitude = Annotated[Decimal, Number(10, 7, ge=-90, le=90)]
Longitude = Annotated[Decimal, Number(10, 7, ge=-180, le=180)]
Bathrooms = Annotated[Decimal, Number(3, 1, ge=0)]
YearBuilt = Annotated[int, Integer(1800, 2100)]
Features = Annotated[list[Annotated[str, Text(200)]], Field(max_length=200)]


class PropertyCreate(RequestModel):
    """A new property."""

    address: Address
    city: City
    state: State
    zip_code: ZipCode
    country: Country = "USA"
    latitude: Latitude | None = None
    longitude: Longitude | None = None
    property_type: PropertyType
    status: PropertyStatus = "available"
    price: Money | None = None
    bedrooms: Count | None = None
    bathrooms: Bathrooms | None = None
    square_feet: Count | None = None
    lot_size: Count | None = None
    year_built: YearBuilt | None = None
    description: FreeText | None = None
    features: Features = Field(default_factory=list)
    metadata: Metadata = Field(default_factory=dict)


class PropertyUpdate(RequestModel):
    """What changes; a field that is absent keeps its value, null clears a nullable one."""

    address: Address = absent()
    city: City = absent()
    state: State = absent()
    zip_code: ZipCode = absent()
    country: Country = absent()
    latitude: Latitude | None = None
    longitude: Longitude | None = None
    property_type: PropertyType = absent()
    status: PropertyStatus = absent()
    price: Money | None = None
    bedrooms: Count | None = None
    bathrooms: Bathrooms | None = None
    square_feet: Count | None = None
    lot_size: Count | None = None
    year_built: YearBuilt | None = None
    description: FreeText | None = None
    features: Features = absent()
    metadata: Metadata = absent()


class Property(ResponseModel):
    """A property as every answer and event gives it."""

    id: int
    organization_id: int
    address: str
    city: str
    state: str
    zip_code: str
    country: str
    latitude: float | None
    longitude: float | None
    property_type: PropertyType
    status: PropertyStatus
    price: MoneyText | None
    bedrooms: int | None
    bathrooms: float | None
    square_feet: int | None
    lot_size: int | None
    year_built: int | None
    description: str | None
    features: list[str]
    metadata: dict[str, Any]
    created_by: int | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


class PropertyItem(Property):
    """A property in a list; with `near` it tells its distance."""

    distance_km: float | None = None


PropertyPage = Page[PropertyItem]


class PropertyFilters(RequestModel):
    """Which properties: all that each filter lets through."""

    search: Annotated[str, Text(200, 0)] | None = None
    city: City | None = None
    state: State | None = None
    zip_code: ZipCode | None = None
    property_type: PropertyType | None = None
    status: PropertyStatus | None = None
    min_price: Money | None = None
    max_price: Money | None = None
    min_bedrooms: Count | None = None
    max_bedrooms: Count | None = None
    min_bathrooms: Bathrooms | None = None
    min_square_feet: Count | None = None
    max_square_feet: Count | None = None
    near: Annotated[str, Text(60)] | None = Field(None, description="latitude,longitude")
    radius_km: Annotated[Decimal, Number(8, 3, ge=0, le=20040)] | None = None

    @model_validator(mode="after")
    def _radius_needs_near(self) -> PropertyFilters:
        if self.radius_km is not None and self.near is None:
            raise field_error("radius_km", "Input should come with near", "radius_without_near")
        return self


class PropertyQuery(ListQuery, PropertyFilters):
    """The list's filters."""


class PropertyExportQuery(RowsQuery, PropertyFilters):
    """The filters of the list, and its sort."""


class ImageCreate(RequestModel):
    """A picture that lies elsewhere."""

    url: HttpUrl
    title: Annotated[str, Text(200)] | None = None
    description: FreeText | None = None
    order: Count = 0
    is_primary: bool = False


class ImageUpload(RequestModel):
    """The fields beside the file of an uploaded picture."""

    title: Annotated[str, Text(200)] | None = None
    description: FreeText | None = None
    order: Count = 0
    is_primary: bool = False


class Image(ResponseModel):
    """A picture of a property."""

    id: int
    property_id: int
    url: str
    thumbnail_url: str | None
    title: str | None
    description: str | None
    order: int
    is_primary: bool
    created_by: int | None
    created_at: datetime


class ValuationCreate(RequestModel):
    """What a property is said to be worth."""

    value: Money
    valuation_date: DateOrTime
    source: Annotated[str, Text(100)] | None = None
    notes: FreeText | None = None


class Valuation(ResponseModel):
    """A valuation."""

    id: int
    property_id: int
    value: MoneyText
    valuation_date: date
    source: str | None
    notes: str | None
    created_by: int | None
    created_at: datetime


class NoteCreate(RequestModel):
    """A note on a property."""

    content: Content


class Note(ResponseModel):
    """A note."""

    id: int
    property_id: int
    content: str
    created_by: int | None
    created_at: datetime


class ActivityCreate(RequestModel):
    """Something that happened around a property."""

    activity_type: Annotated[str, Text(50)]
    description: Content
    metadata: Metadata = Field(default_factory=dict)


class Activity(ResponseModel):
    """An activity."""

    id: int
    property_id: int
    activity_type: str
    description: str
    metadata: dict[str, Any]
    created_by: int | None
    created_at: datetime
