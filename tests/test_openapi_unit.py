"""The OpenAPI document that is made from endpoints, and the pages that show it."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pytest
from openapi_spec_validator import validate
from pydantic import Field

import reos
from reos.middleware.endpoint import PREFIX, PUBLIC, Endpoint
from reos.openapi import build_document, operation_id
from reos.schemas.common import (
    Email,
    Id,
    ListQuery,
    Metadata,
    Money,
    MoneyText,
    Page,
    RequestModel,
    ResponseModel,
    SubListQuery,
    Text,
    Timestamp,
)
from reos.schemas.leads import LeadSource

pytestmark = pytest.mark.unit

STATIC = Path(reos.__file__).parent / "static"


class Inner(RequestModel):
    """A part of a body."""

    name: Annotated[str, Text(10)]


class ThingCreate(RequestModel):
    """A new thing."""

    name: Annotated[str, Text(10)]
    owner_id: Id
    price: Money | None = None
    email: Email | None = None
    due: Timestamp | None = None
    inner: Inner | None = None
    source: LeadSource | None = None
    metadata: Metadata = Field(default_factory=dict)


class ThingUpload(RequestModel):
    """The fields beside a file."""

    title: Annotated[str, Text(10)] | None = None


class Thing(ResponseModel):
    """A thing."""

    id: int
    price: MoneyText | None
    kind: Literal["a", "b"]


class ThingItem(Thing):
    """A thing in a list."""

    distance_km: float | None = None


class ThingQuery(ListQuery):
    """Filters."""

    kind: Literal["a", "b"] | None = None
    min_price: Money | None = None


async def create_thing() -> None:
    """Create a thing.

    With all that
    belongs to it.
    """


async def list_things() -> None:
    """List things."""


async def get_thing() -> None:
    """Get a thing."""


async def update_thing() -> None:
    """Change a thing."""


async def delete_thing() -> None:
    """Delete a thing."""


async def turn_thing() -> None:
    """Turn a thing."""


async def list_thing_parts() -> None:
    """List the parts."""


async def add_thing_file() -> None:
    """Add a file."""


async def enter() -> None:
    """Log in."""


def endpoint(method: str, path: str, handler: Any, permission: str | None, **options: Any) -> Endpoint:
    values: dict[str, Any] = {
        "status": {"POST": 201, "DELETE": 204}.get(method, 200),
        "response": None,
        "body": None,
        "form": None,
        "query": None,
        "prepare": None,
        "has_transaction": True,
        "is_tagged": method in ("GET", "PUT", "PATCH"),
        "is_secret": False,
        "takes_body_optionally": False,
    }
    return Endpoint(method, PREFIX + path, handler, permission, **(values | options))


ENDPOINTS = [
    endpoint("POST", "/things", create_thing, "thing:create", response=Thing, body=ThingCreate, is_tagged=True),
    endpoint("GET", "/things", list_things, "thing:read", response=Page[ThingItem], query=ThingQuery),
    endpoint("GET", "/things/{thing_id}", get_thing, "thing:read", response=Thing),
    endpoint("PUT", "/things/{thing_id}", update_thing, "thing:update", response=Thing, body=ThingCreate),
    endpoint("PATCH", "/things/{thing_id}", update_thing, "thing:update", response=Thing, body=ThingCreate),
    endpoint("DELETE", "/things/{thing_id}", delete_thing, None),
    endpoint("POST", "/things/{thing_id}/turn", turn_thing, "thing:update part:create", response=Thing),
    endpoint("GET", "/things/{thing_id}/parts", list_thing_parts, None, response=list[Thing], query=SubListQuery),
    endpoint(
        "POST",
        "/things/{thing_id}/files",
        add_thing_file,
        "thing:update",
        response=Thing,
        body=ThingCreate | ThingUpload,
        form=ThingUpload,
    ),
    endpoint("POST", "/enter", enter, PUBLIC, status=200, body=Inner, has_transaction=False),
]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return build_document(ENDPOINTS, "1.2.3")


def names_in(operation: dict[str, Any], place: str) -> set[str]:
    return {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == place}


def test_it_is_valid_openapi(document: dict[str, Any]) -> None:
    validate(document)
    assert document["openapi"] == "3.1.0"
    assert document["info"]["version"] == "1.2.3"


def test_it_is_the_same_at_every_call(document: dict[str, Any]) -> None:
    assert json.dumps(build_document(ENDPOINTS, "1.2.3")) == json.dumps(document)


def test_every_reference_leads_to_something_and_nothing_is_left_over(document: dict[str, Any]) -> None:
    references = set(re.findall(r'"#/components/([^"]+)"', json.dumps(document)))
    present = {f"{group}/{name}" for group in ("schemas", "responses") for name in document["components"][group]}
    assert references - {f"headers/{name}" for name in document["components"]["headers"]} <= present
    schemas = {name for name in present if name.startswith("schemas/")}
    assert schemas <= references


def test_operation_ids_are_unique_and_stable(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))
    assert [operation_id(endpoint) for endpoint in ENDPOINTS] == [
        "create_thing",
        "list_things",
        "get_thing",
        "update_thing",
        "patch_thing",
        "delete_thing",
        "turn_thing",
        "list_thing_parts",
        "add_thing_file",
        "enter",
    ]


def test_an_operation_says_what_it_does_and_needs(document: dict[str, Any]) -> None:
    things = document["paths"]["/api/v1/things"]
    assert things["post"]["summary"] == "Create a thing"
    assert things["post"]["description"] == "With all that belongs to it.\n\nNeeds the permission `thing:create`."
    turn = document["paths"]["/api/v1/things/{thing_id}/turn"]["post"]
    assert turn["description"] == "Needs the permissions `thing:update` and `part:create`."
    assert things["post"]["tags"] == ["things"]
    assert things["post"]["security"] == [{"bearer": []}]
    assert document["paths"]["/api/v1/things/{thing_id}"]["delete"]["security"] == [{"bearer": []}]
    assert document["paths"]["/api/v1/enter"]["post"]["security"] == []
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


def test_headers_are_parameters_where_they_apply(document: dict[str, Any]) -> None:
    thing = document["paths"]["/api/v1/things/{thing_id}"]
    assert names_in(thing["get"], "header") == {"If-None-Match"}
    for method in ("put", "patch", "delete"):
        assert names_in(thing[method], "header") == {"If-Match", "Idempotency-Key"}
    assert names_in(document["paths"]["/api/v1/things"]["post"], "header") == {"Idempotency-Key"}
    assert names_in(document["paths"]["/api/v1/enter"]["post"], "header") == set()


def test_statuses_are_those_that_apply(document: dict[str, Any]) -> None:
    things, thing = document["paths"]["/api/v1/things"], document["paths"]["/api/v1/things/{thing_id}"]
    assert set(things["get"]["responses"]) == {"200", "304", "401", "403", "413", "422", "429", "500", "503"}
    assert {"201", "400", "401", "403", "409", "413", "415", "422", "429"} <= set(things["post"]["responses"])
    assert "404" not in things["post"]["responses"]
    assert {"204", "404", "412", "422"} <= set(thing["delete"]["responses"])
    assert "content" not in thing["delete"]["responses"]["204"]
    assert {"304", "404"} <= set(thing["get"]["responses"])
    assert {"401", "403"} <= set(document["paths"]["/api/v1/enter"]["post"]["responses"])


def test_every_error_is_the_envelope(document: dict[str, Any]) -> None:
    for name, response in document["components"]["responses"].items():
        assert response["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorEnvelope"}, name
    assert "`PreconditionFailedError`" in document["components"]["responses"]["Error412"]["description"]
    assert "Retry-After" in document["components"]["responses"]["Error429"]["headers"]
    assert "WWW-Authenticate" in document["components"]["responses"]["Error401"]["headers"]


def test_path_ids_are_64_bit(document: dict[str, Any]) -> None:
    [parameter] = [
        parameter
        for parameter in document["paths"]["/api/v1/things/{thing_id}"]["get"]["parameters"]
        if parameter["in"] == "path"
    ]
    assert parameter["name"] == "thing_id"
    assert parameter["required"]
    assert parameter["schema"] == {"type": "integer", "format": "int64", "minimum": 1, "maximum": 2**63 - 1}


def test_query_parameters_are_never_null(document: dict[str, Any]) -> None:
    operation = document["paths"]["/api/v1/things"]["get"]
    parameters = {parameter["name"]: parameter for parameter in operation["parameters"]}
    assert parameters["kind"]["schema"] == {"enum": ["a", "b"], "type": "string"}
    assert parameters["page_size"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 100}
    assert {choice["type"] for choice in parameters["min_price"]["schema"]["anyOf"]} == {"number", "string"}
    assert "null" not in json.dumps([parameter["schema"] for parameter in operation["parameters"]])


def test_a_nullable_choice_is_one_choice(document: dict[str, Any]) -> None:
    price = document["components"]["schemas"]["ThingCreate"]["properties"]["price"]
    assert [choice["type"] for choice in price["anyOf"]] == ["number", "string", "null"]


def test_pages_are_named_and_let_fields_be_left_out(document: dict[str, Any]) -> None:
    content = document["paths"]["/api/v1/things"]["get"]["responses"]["200"]["content"]
    assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/ThingPage"}
    schemas = document["components"]["schemas"]
    items = schemas["ThingPage"]["properties"]["items"]
    assert items == {"type": "array", "items": {"$ref": "#/components/schemas/PartialThingItem"}}
    assert "required" not in schemas["PartialThingItem"]
    assert set(schemas["Thing"]["required"]) == {"id", "price", "kind"}


def test_plain_arrays_tell_their_count(document: dict[str, Any]) -> None:
    success = document["paths"]["/api/v1/things/{thing_id}/parts"]["get"]["responses"]["200"]
    assert success["content"]["application/json"]["schema"]["type"] == "array"
    assert "X-Total-Count" in success["headers"]


def test_a_choice_that_the_schemas_name_is_a_component(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["ThingCreate"]["properties"]["source"]["anyOf"][0] == {"$ref": "#/components/schemas/LeadSource"}
    assert schemas["ThingCreate"]["properties"]["metadata"] == {"$ref": "#/components/schemas/FreeObject"}
    assert schemas["LeadSource"]["enum"] == list(get_args(LeadSource))
    # One that they do not name stays where it is.
    assert schemas["Thing"]["properties"]["kind"] == {"type": "string", "enum": ["a", "b"]}


def test_an_upload_is_multipart_with_its_file(document: dict[str, Any]) -> None:
    operation = document["paths"]["/api/v1/things/{thing_id}/files"]["post"]
    content = operation["requestBody"]["content"]
    assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/ThingCreate"}
    assert content["multipart/form-data"]["schema"] == {"$ref": "#/components/schemas/ThingUpload"}
    form = document["components"]["schemas"]["ThingUpload"]
    assert form["required"] == ["file"]
    assert set(form["properties"]) == {"title", "file"}
    assert form["properties"]["title"]["type"] == "string"


@pytest.mark.parametrize("page", ["swagger", "redoc"])
def test_the_pages_load_only_what_lies_here(page: str) -> None:
    html = (STATIC / f"{page}.html").read_text()
    addresses = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert addresses
    for address in addresses:
        name = address.removeprefix("/static/")
        assert (STATIC / name).is_file() or (STATIC / f"{name}.gz").is_file(), address
    script = (STATIC / f"{page}.js").read_text()
    assert '"/openapi.json"' in script
    assert "http" not in re.sub(r'"http://www\.w3\.org/[^"]*"', "", html + script)
    # What is inline would be refused by the pages' policy.
    assert "<script>" not in html


def test_the_vendored_files_ask_no_other_host_for_anything() -> None:
    redoc = gzip.decompress((STATIC / "redoc.standalone.js.gz").read_bytes()).decode()
    swagger = gzip.decompress((STATIC / "swagger-ui-bundle.js.gz").read_bytes()).decode()
    styles = gzip.decompress((STATIC / "swagger-ui.css.gz").read_bytes()).decode()
    assert "cdn." not in redoc
    assert "fonts.googleapis" not in redoc + swagger + styles
    assert not re.search(r"url\(\s*[\"']?https?:", styles)
    assert "validatorUrl: null" in (STATIC / "swagger.js").read_text()
