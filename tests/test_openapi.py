"""The document of the running service: complete, valid, and the same as its routes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from api import Api
from openapi_spec_validator import validate

from reos.middleware.endpoint import ENDPOINTS, PREFIX

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
