"""The document of the running service: complete, valid, and the same as its routes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from api import Api
from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import validate

from reos.middleware.endpoint import ENDPOINTS, PREFIX
from reos.openapi import TAGS
from reos.schemas.common import parse_json
from reos.schemas.common import validate as validate_model
from reos.schemas.examples import EXAMPLES
from reos.schemas.health import ServiceHealth, ServiceStatus

pytestmark = pytest.mark.integration

METHODS = {"get", "post", "put", "patch", "delete"}


async def document_of(api: Api) -> dict[str, Any]:
    response = await api.http.get("/openapi.json")
    assert response.status_code == 200
    document: dict[str, Any] = response.json()
    return document


async def test_the_document_is_valid(api: Api) -> None:
    validate(await document_of(api))


async def test_it_lists_the_routes_that_are_served(api: Api) -> None:
    document = await document_of(api)
    described = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in METHODS & set(operations)
        if path.startswith(PREFIX)
    }
    served = {
        (method, "/" + re.sub(r"<(\w+)(:\w+)?>", r"{\1}", route.path))
        for route in api.app.router.routes
        for method in route.methods - {"HEAD", "OPTIONS"}
        if f"/{route.path}".startswith(PREFIX)
    }
    assert described == served == {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}


async def test_operations_have_names_of_their_own_and_a_summary(api: Api) -> None:
    document = await document_of(api)
    operations = [
        operation for path in document["paths"].values() for method, operation in path.items() if method in METHODS
    ]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    assert all(operation["summary"] for operation in operations)


async def test_what_only_some_operations_take_is_told(api: Api) -> None:
    document = await document_of(api)
    log_in = document["paths"][f"{PREFIX}/auth/login"]["post"]
    create = document["paths"][f"{PREFIX}/properties"]["post"]

    def headers_of(operation: dict[str, Any]) -> set[str]:
        return {entry["name"] for entry in operation.get("parameters", []) if entry["in"] == "header"}

    assert "Idempotency-Key" in headers_of(create)
    assert "Idempotency-Key" not in headers_of(log_in)
    assert log_in["security"] == []
    assert create["security"] == [{"bearer": []}]
    stream = document["paths"][f"{PREFIX}/sse/stream"]["get"]
    assert stream["security"] == [{"bearer": []}, {"ticket": []}]
    ticket = document["components"]["securitySchemes"]["ticket"]
    assert (ticket["in"], ticket["name"]) == ("query", "ticket")


async def test_groups_are_described(api: Api) -> None:
    tags = {tag["name"]: tag["description"] for tag in (await document_of(api))["tags"]}
    assert tags == {name: TAGS[name] for name in tags}
    assert set(tags) == set(TAGS)


def schemas_in(value: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of the document with the way to it."""
    if isinstance(value, dict):
        yield where, value
        for key, item in value.items():
            yield from schemas_in(item, f"{where}/{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from schemas_in(item, f"{where}/{index}")


async def test_choices_and_objects_have_names(api: Api) -> None:
    """A generator makes one type of each, under the same name in every client and version."""
    document = await document_of(api)
    for where, schema in schemas_in(document):
        is_component = re.fullmatch(r"/components/schemas/\w+", where) is not None
        assert "enum" not in schema or is_component, where
        # The settings of the organisation say what two of their keys are; nothing else is like them.
        is_object = "properties" in schema and schema.get("type") == "object"
        assert not is_object or is_component or where.endswith("OrganizationUpdate/properties/settings"), where


async def test_links_lead_from_an_id_to_what_takes_it(api: Api) -> None:
    document = await document_of(api)
    operations = {
        operation["operationId"]: (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    links = {
        (source, target): link["parameters"]
        for source, (_, _, operation) in operations.items()
        for response in operation["responses"].values()
        for target, link in response.get("links", {}).items()
        if link["operationId"] == target
    }
    assert links["create_lead", "get_lead"] == {"lead_id": "$response.body#/id"}
    assert links["create_lead_document", "download_lead_document"] == {
        "lead_id": "$request.path.lead_id",
        "document_id": "$response.body#/id",
    }
    assert links["delete_lead", "restore_lead"] == {"lead_id": "$request.path.lead_id"}
    assert links["list_jobs", "retry_job"] == {"job_id": "$response.body#/items/0/id"}
    assert links["create_property", "add_portfolio_property"] == {"property_id": "$response.body#/id"}
    assert ("create_lead", "update_deal") not in links
    for (source, target), parameters in links.items():
        taken = {entry["name"] for entry in operations[target][2]["parameters"] if entry["in"] == "path"}
        assert parameters.keys() <= taken, (source, target)
        for expression in parameters.values():
            known = f"{{{expression.rpartition('.')[2]}}}" in operations[source][1]
            assert known or expression.startswith("$response.body#/"), (source, target)
    led_to = {target for _, target in links}
    assert [name for name, (_, path, _) in operations.items() if f"{PREFIX}/" in path and "{" in path] == [
        name for name in operations if name in led_to
    ]


async def test_every_body_has_an_example_that_is_taken(api: Api) -> None:
    document = await document_of(api)
    models = {endpoint.json_model for endpoint in ENDPOINTS if endpoint.json_model is not None}
    assert set(EXAMPLES) == models
    for model, example in EXAMPLES.items():
        validate_model(model, parse_json(json.dumps(example).encode()))
        schema = {"$ref": f"#/components/schemas/{model.__name__}", "components": document["components"]}
        Draft202012Validator(schema, format_checker=FormatChecker()).validate(example)
    shown = [
        content["application/json"]["example"]
        for operations in document["paths"].values()
        for operation in operations.values()
        if (content := operation.get("requestBody", {}).get("content", {})) and "application/json" in content
    ]
    assert len(shown) == sum(endpoint.json_model is not None for endpoint in ENDPOINTS)


async def test_the_probes_answer_what_is_documented(api: Api) -> None:
    for path, model in (("healthz", ServiceStatus), ("live", ServiceStatus), ("ready", ServiceStatus)):
        model.model_validate_json((await api.http.get(f"/{path}")).content)
    ServiceHealth.model_validate_json((await api.http.get("/health")).content)
