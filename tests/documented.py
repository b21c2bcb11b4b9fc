"""Whether answers are what the API's document says: every answer that the tests get is checked against its model."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import httpx
from pydantic import TypeAdapter

from reos.middleware.endpoint import ENDPOINTS, Endpoint
from reos.schemas.common import ErrorEnvelope


@cache
def _patterns() -> list[tuple[re.Pattern[str], Endpoint]]:
    """Endpoints by their paths; those without ids first, as in the router."""
    ordered = sorted(ENDPOINTS, key=lambda endpoint: endpoint.path.count("{"))
    return [(re.compile(re.sub(r"{\w+}", "[^/]+", endpoint.path) + "/?"), endpoint) for endpoint in ordered]


def endpoint_of(method: str, path: str) -> Endpoint | None:
    """The endpoint that answers a request; HEAD is answered by GET's."""
    wanted = "GET" if method == "HEAD" else method
    for pattern, endpoint in _patterns():
        if endpoint.method == wanted and pattern.fullmatch(path):
            return endpoint
    return None


@cache
def _adapter(response: Any) -> TypeAdapter[Any]:
    return TypeAdapter(response)


def check(method: str, response: httpx.Response) -> None:
    """Fails unless the answer has the form that its endpoint promises."""
    content_type = response.headers.get("content-type", "")
    endpoint = endpoint_of(method, response.request.url.path)
    if method == "HEAD" or not content_type.startswith("application/json"):
        return
    if response.status_code >= 400:
        _adapter(ErrorEnvelope).validate_json(response.content)
    elif endpoint is not None and "fields" not in response.request.url.params:
        assert response.status_code == endpoint.status, f"{endpoint.name} answers {response.status_code}"
        assert endpoint.response is not None, f"{endpoint.name} answers a body that is not documented"
        _adapter(endpoint.response).validate_json(response.content)
