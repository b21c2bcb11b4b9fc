"""The OpenAPI 3.1 document, made from the registry of endpoints and the models that they name.

What the registry does not hold (probes, public files) stands at the end. Nothing else is written by hand.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from reos.errors import ReosError
from reos.middleware.endpoint import CSV, JSON, PREFIX, PUBLIC, Endpoint
from reos.middleware.idempotency import MAX_KEY_LENGTH
from reos.schemas.common import ErrorEnvelope, Page
from reos.schemas.examples import EXAMPLES
from reos.schemas.health import ServiceHealth, ServiceStatus

OPENAPI_VERSION = "3.1.0"
TITLE = "Real Estate OS API"
DESCRIPTION = (
    "Errors of every kind have one envelope, `ErrorEnvelope`, whose `type` is stable. "
    "HEAD works wherever GET does. Strings are trimmed, unknown fields refused, and nothing is rounded silently."
)
MAX_ID = 2**63 - 1

# What each group of operations is about: the first part of their paths, or what those outside the API are.
TAGS = {
    "analytics": "What the organisation's records come to, in numbers, and its revenue as CSV.",
    "audit-logs": "Who did what, and when.",
    "auth": "Registration, log-in, tokens, passwords, and the user's own account and sessions.",
    "campaigns": "Mails, text messages and letters to many leads; their templates and recipients.",
    "deals": "Deals on their way through the stages, with their history and transactions.",
    "files": "Pictures, documents and exports, under addresses that nobody can guess.",
    "jobs": "The background jobs of the organisation.",
    "leads": "Leads with their activities, notes and documents, and what makes a deal of them.",
    "operations": "Whether the service is alive, ready, healthy.",
    "organization": "The organisation itself, with its time zone and currency.",
    "permissions": "All the rights that a role can give.",
    "portfolios": "Groups of properties.",
    "properties": "Listings with their pictures, valuations, notes and activities.",
    "roles": "Named sets of permissions.",
    "sse": "Live events: the stream, its tickets and its state.",
    "suppressions": "Addresses that campaigns never write to.",
    "teams": "Groups of users.",
    "users": "The people of the organisation.",
    "webhooks": "Where events are sent to, and what became of each delivery.",
}

Json = dict[str, Any]


class _Schemas(GenerateJsonSchema):
    """JSON Schema without a title for each field, which would only repeat its name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def build_document(endpoints: Sequence[Endpoint], version: str) -> Json:
    """The document of the given endpoints, as JSON; the same at every call. `version` is the service's."""
    refs, schemas = _components(endpoints)
    paths: dict[str, Json] = {}
    for endpoint in endpoints:
        operation = _operation(endpoint, refs, schemas)
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    _add_links(paths, schemas)
    for path, operation in _plain_operations(refs):
        paths.setdefault(path, {})["get"] = operation
    document = {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": TITLE,
            "version": version,
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "The service that this document comes from."}],
        "paths": paths,
        "tags": [{"name": name, "description": TAGS.get(name, name)} for name in _tags_of(paths)],
        "components": {
            "schemas": _used(schemas, paths),
            "responses": _error_responses(paths),
            "headers": _HEADERS,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The access token of log-in or registration.",
                },
                "ticket": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "ticket",
                    "description": "For clients that cannot send headers: good once, for 60 seconds.",
                },
            },
        },
    }
    flattened: Json = _flattened(document)
    return _with_names(flattened)


def operation_id(endpoint: Endpoint) -> str:
    """The handler's name; PATCH, which shares PUT's handler, says so."""
    if endpoint.method != "PATCH":
        return endpoint.name
    return f"patch_{endpoint.name.removeprefix('update_')}"


# --- schemas ---------------------------------------------------------------------------------------------------

Refs = dict[type[BaseModel], Json]


def _components(endpoints: Iterable[Endpoint]) -> tuple[Refs, Json]:
    """A reference for each model, and the schemas that those point to."""
    models: dict[type[BaseModel], Any] = dict.fromkeys((ErrorEnvelope, *_PROBE_MODELS), "serialization")
    for endpoint in endpoints:
        models |= dict.fromkeys(_models_in(endpoint.body), "validation")
        models |= dict.fromkeys(_models_in(endpoint.form), "validation")
        models |= dict.fromkeys(_models_in(endpoint.response), "serialization")
    found, definitions = models_json_schema(
        list(models.items()), ref_template="#/components/schemas/{model}", schema_generator=_Schemas
    )
    refs: Refs = {model: found[model, mode] for model, mode in models.items()}
    schemas: Json = definitions["$defs"]
    for model in models:
        if issubclass(model, Page):
            # pydantic would call it Page_PropertyItem_; nothing but an operation refers to a page.
            page = schemas[model.__name__] = schemas.pop(_name(refs[model]))
            refs[model] = {"$ref": f"#/components/schemas/{model.__name__}"}
            _allow_fields(schemas, page)
    for form in {endpoint.form for endpoint in endpoints if endpoint.form is not None}:
        _add_file(schemas[_name(refs[form])])
    return refs, schemas


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation is made of: itself, the members of a union, the items of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType, list):
        return [model for part in get_args(annotation) for model in _models_in(part)]
    return []


def _name(reference: Json) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _allow_fields(schemas: Json, page: Json) -> None:
    """With `fields=` the items of a page have only those, so that none is required."""
    items = page["properties"]["items"]
    name = _name(items["items"])
    partial = {key: value for key, value in schemas[name].items() if key != "required"}
    schemas[f"Partial{name}"] = partial | {"title": f"Partial{name}"}
    items["items"] = {"$ref": f"#/components/schemas/Partial{name}"}


def _add_file(form: Json) -> None:
    """The part of a multipart body that no model has; and none of its parts can be null."""
    form["properties"] = {name: _not_null(field) for name, field in form.get("properties", {}).items()}
    form["properties"]["file"] = {"type": "string", "format": "binary", "description": "The file."}
    form.setdefault("required", []).append("file")


def _used(schemas: Json, paths: Json) -> Json:
    """The schemas that something refers to, by name."""
    wanted = {"ErrorEnvelope"} | _referenced(paths)
    while more := {name for known in wanted for name in _referenced(schemas[known])} - wanted:
        wanted |= more
    return {name: schemas[name] for name in sorted(wanted)}


def _referenced(value: Any) -> set[str]:
    if isinstance(value, dict):
        target = value.get("$ref", "")
        found = {_name(value)} if str(target).startswith("#/components/schemas/") else set()
        return found.union(*(_referenced(item) for item in value.values()))
    if isinstance(value, list):
        return set().union(*(_referenced(item) for item in value))
    return set()


def _flattened(value: Any) -> Any:
    """The same with no `anyOf` directly inside another, which is how a nullable choice comes out."""
    if isinstance(value, list):
        return [_flattened(item) for item in value]
    if not isinstance(value, dict):
        return value
    flat = {key: _flattened(item) for key, item in value.items()}
    choices = flat.get("anyOf")
    if isinstance(choices, list) and any(choice.keys() <= {"anyOf", "description"} for choice in choices):
        flat["anyOf"] = []
        for choice in choices:
            is_choice = "anyOf" in choice and choice.keys() <= {"anyOf", "description"}
            flat["anyOf"] += choice["anyOf"] if is_choice else [choice]
            if is_choice and "description" in choice:
                flat.setdefault("description", choice["description"])
    return flat


def _with_names(document: Json) -> Json:
    """The same with a component for each choice that the schemas' modules name, and for free objects.

    Generated clients have one type for each of them then, and not one for each place where it stands.
    """
    named = _named_schemas()
    components = document["components"]["schemas"]
    found: dict[str, Json] = {}
    replaced: Json = _replaced(document, named, found)
    assert not found.keys() & components.keys()
    replaced["components"]["schemas"] = dict(sorted({**replaced["components"]["schemas"], **found}.items()))
    return replaced


FREE_OBJECT: Json = {"type": "object", "additionalProperties": True}


def _named_schemas() -> dict[str, tuple[str, Json]]:
    """Name and component by the schema's JSON: every module-level `Literal` of the schemas, and the free object."""
    free = {"title": "FreeObject", "description": "An object with whatever keys and values a client likes."}
    named = {json.dumps(FREE_OBJECT): ("FreeObject", {**FREE_OBJECT, **free})}
    modules = [module for name, module in sorted(sys.modules.items()) if name.startswith("reos.schemas.")]
    for name, value in ((name, value) for module in modules for name, value in sorted(vars(module).items())):
        choice = get_args(value)[0] if get_origin(value) is Annotated else value
        if get_origin(choice) is Literal:
            schema = {"type": "string", "enum": list(get_args(choice))}
            named.setdefault(json.dumps(schema), (name, {**schema, "title": name}))
    return named


def _replaced(value: Any, named: dict[str, tuple[str, Json]], found: dict[str, Json]) -> Any:
    """The same with a reference for each schema that has a name; those that stand somewhere are put into `found`."""
    if isinstance(value, list):
        return [_replaced(item, named, found) for item in value]
    if not isinstance(value, dict):
        return value
    core = {key: value[key] for key in ("type", "enum", "additionalProperties") if key in value}
    others = {key: item for key, item in value.items() if key not in core}
    # The names of an object's keys are strings without saying so.
    name, component = named.get(json.dumps({"type": "string", **core}), ("", {}))
    if not name or others.keys() - {"description", "default"}:
        return {key: _replaced(item, named, found) for key, item in value.items()}
    found[name] = component
    return {"$ref": f"#/components/schemas/{name}", **others}


def _not_null(schema: Json) -> Json:
    """The schema of a parameter, which is left out instead of being null."""
    choices = [choice for choice in schema.get("anyOf", []) if choice != {"type": "null"}]
    others = {key: value for key, value in schema.items() if key != "anyOf"}
    if not choices:
        return schema
    return {**choices[0], **others} if len(choices) == 1 else {"anyOf": choices, **others}


# --- operations ------------------------------------------------------------------------------------------------


def _operation(endpoint: Endpoint, refs: Refs, schemas: Json) -> Json:
    summary, _, details = (endpoint.handler.__doc__ or endpoint.name).strip().partition("\n")
    names = " and ".join(f"`{name}`" for name in endpoint.permissions)
    needs = {
        PUBLIC: "Needs no log-in.",
        None: "Needs a log-in.",
    }.get(endpoint.permission, f"Needs the permission{'s' if ' and ' in names else ''} {names}.")
    operation: Json = {
        "operationId": operation_id(endpoint),
        "summary": summary.strip().rstrip(".").replace("`", ""),  # It is plain text; only a description is Markdown.
        "description": "\n\n".join(filter(None, [" ".join(details.split()), needs])),
        "tags": [endpoint.path.removeprefix(PREFIX).split("/")[1]],
        "security": _security(endpoint),
    }
    if parameters := [
        *_path_parameters(endpoint),
        *_query_parameters(endpoint, schemas),
        *_header_parameters(endpoint),
    ]:
        operation["parameters"] = parameters
    if content := _body_content(endpoint, refs):
        operation["requestBody"] = {"required": not endpoint.takes_body_optionally, "content": content}
    operation["responses"] = _responses(endpoint, refs)
    return operation


def _security(endpoint: Endpoint) -> list[Json]:
    if endpoint.permission == PUBLIC:
        return []
    return [{"bearer": []}, {"ticket": []}] if endpoint.is_stream else [{"bearer": []}]


def _path_parameters(endpoint: Endpoint) -> list[Json]:
    schema = {"type": "integer", "format": "int64", "minimum": 1, "maximum": MAX_ID}
    names = re.findall(r"{(\w+)}", endpoint.path)
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name in names]


def _query_parameters(endpoint: Endpoint, schemas: Json) -> list[Json]:
    if endpoint.query is None:
        return []
    model = endpoint.query.model_json_schema(
        ref_template="#/components/schemas/{model}", schema_generator=_Schemas, mode="validation"
    )
    schemas.update(model.get("$defs", {}))
    parameters = []
    for name, field in model.get("properties", {}).items():
        schema = _not_null(_flattened(field))
        parameter: Json = {"name": name, "in": "query", "required": name in model.get("required", [])}
        if description := schema.pop("description", ""):
            parameter["description"] = description
        parameters.append({**parameter, "schema": schema})
    return parameters


def _header_parameters(endpoint: Endpoint) -> list[Json]:
    parameters = []
    if endpoint.is_read and endpoint.produces == JSON:
        parameters.append(_header("If-None-Match", "Answer 304 if the answer would have one of these tags."))
    if endpoint.method in ("PUT", "PATCH", "DELETE"):
        parameters.append(_header("If-Match", "Write only if the resource still has one of these tags."))
    if endpoint.takes_idempotency_key:
        key = _header("Idempotency-Key", "The same key gives the same answer again, for 24 hours.")
        key["schema"] |= {"minLength": 1, "maxLength": MAX_KEY_LENGTH, "pattern": "^[!-~]([ -~]*[!-~])?$"}
        parameters.append(key)
    return parameters


def _header(name: str, description: str) -> Json:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"}}


def _body_content(endpoint: Endpoint, refs: Refs) -> Json:
    models = [model for model in _models_in(endpoint.body) if model is not endpoint.form]
    content: Json = {}
    if models:
        choices = [refs[model] for model in models]
        content[JSON] = {"schema": choices[0] if len(choices) == 1 else {"anyOf": choices}}
        if models[0] in EXAMPLES:
            content[JSON]["example"] = EXAMPLES[models[0]]
    if endpoint.form is not None:
        content["multipart/form-data"] = {"schema": refs[endpoint.form]}
    return content


# --- responses -------------------------------------------------------------------------------------------------

_HEADERS: Json = {
    name: {"description": description, "schema": {"type": kind}}
    for name, kind, description in (
        ("ETag", "string", "A digest of what GET gives, for If-Match and If-None-Match."),
        ("Location", "string", "Where the new resource is."),
        ("Content-Disposition", "string", "`attachment` with a name for the file, or `inline` for a picture."),
        ("X-Total-Count", "integer", "How many items there are on all pages."),
        ("Idempotency-Replayed", "string", "`true` when this is an earlier answer again."),
        ("Retry-After", "integer", "Seconds until it is worth trying again."),
        ("WWW-Authenticate", "string", "`Bearer`."),
        ("X-Request-ID", "string", "What the log knows the request by."),
        ("X-RateLimit-Limit", "integer", "Requests that the tightest window allows."),
        ("X-RateLimit-Remaining", "integer", "Requests that are left in it."),
        ("X-RateLimit-Reset", "integer", "When it is full again, in seconds since 1970."),
        ("RateLimit", "string", "The same as draft-ietf-httpapi-ratelimit-headers has it."),
        ("RateLimit-Policy", "string", "All windows, each with its limit."),
    )
}
_RATE_LIMIT_HEADERS = (
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "RateLimit",
    "RateLimit-Policy",
)


def _headers(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*names, "X-Request-ID", *_RATE_LIMIT_HEADERS)}


def _responses(endpoint: Endpoint, refs: Refs) -> Json:
    names = []
    if endpoint.is_tagged and endpoint.response is not None:
        names.append("ETag")
    if endpoint.status == 201 and endpoint.has_transaction:
        names.append("Location")
    if get_origin(endpoint.response) is list:
        names.append("X-Total-Count")
    if endpoint.takes_idempotency_key:
        names.append("Idempotency-Replayed")
    if endpoint.produces == CSV:
        names.append("Content-Disposition")
    success: Json = {"description": "Done.", "headers": _headers(*names)}
    if content := _answer_content(endpoint, refs):
        success["content"] = content
    responses: Json = {str(endpoint.status): success}
    if endpoint.is_read and endpoint.produces == JSON:
        responses["304"] = {
            "description": "It still has the tag that If-None-Match names.",
            "headers": _headers("ETag"),
        }
    for status in _error_statuses(endpoint):
        responses[str(status)] = {"$ref": f"#/components/responses/Error{status}"}
    return responses


def _answer_content(endpoint: Endpoint, refs: Refs) -> Json:
    if endpoint.response is not None:
        return {JSON: {"schema": _response_schema(endpoint.response, refs)}}
    if endpoint.produces == JSON:
        return {}
    # A schema of the stream would be taken for that of each event, and an event is no JSON.
    return {endpoint.produces.partition(";")[0]: {} if endpoint.is_stream else {"schema": {"type": "string"}}}


def _response_schema(response: Any, refs: Refs) -> Json:
    if get_origin(response) is list:
        return {"type": "array", "items": _response_schema(get_args(response)[0], refs)}
    choices = [refs[model] for model in _models_in(response)]
    if not choices:
        return {}
    return choices[0] if len(choices) == 1 else {"anyOf": choices}


def _error_statuses(endpoint: Endpoint) -> list[int]:
    """The errors that the endpoint may answer; those of a log-in apply to the public ones that check something."""
    is_writing = not endpoint.is_read
    has_body = endpoint.body is not None
    applies = {
        400: has_body,
        401: endpoint.permission != PUBLIC or is_writing,
        403: endpoint.permission != PUBLIC or is_writing,
        404: "{" in endpoint.path,
        408: is_writing,
        409: is_writing,
        412: endpoint.method in ("PUT", "PATCH", "DELETE"),
        413: True,  # also for a head that is too long
        415: has_body,
        422: has_body or endpoint.query is not None or endpoint.takes_idempotency_key,
        429: True,
        500: True,
        503: True,
    }
    return [status for status, does in applies.items() if does]


def _error_types() -> dict[int, list[str]]:
    """The types of the error hierarchy by status."""
    types: dict[int, set[str]] = {}
    waiting: list[type[ReosError]] = [ReosError]
    while waiting:
        error = waiting.pop()
        waiting += error.__subclasses__()
        if error is not ReosError:
            types.setdefault(error.status, set()).add(error().type)
    return {status: sorted(names) for status, names in sorted(types.items())}


def _error_responses(paths: Json) -> Json:
    """The responses that operations refer to, by name."""
    statuses = {
        int(status)
        for operations in paths.values()
        for operation in operations.values()
        for status, response in operation["responses"].items()
        if "$ref" in response
    }
    return {f"Error{status}": _error_response(status) for status in sorted(statuses)}


def _error_response(status: int) -> Json:
    names = {401: ["WWW-Authenticate"], 403: ["Retry-After"], 409: ["Retry-After"], 429: ["Retry-After"]}
    names[503] = ["Retry-After"]
    types = ", ".join(f"`{name}`" for name in _error_types()[status])
    return {
        "description": f"{types}.",
        "headers": _headers(*names.get(status, [])),
        "content": {JSON: {"schema": {"$ref": "#/components/schemas/ErrorEnvelope"}}},
    }


def _tags_of(paths: Json) -> list[str]:
    tags = (tag for operations in paths.values() for operation in operations.values() for tag in operation["tags"])
    return list(dict.fromkeys(tags))


# --- links -----------------------------------------------------------------------------------------------------


def _add_links(paths: dict[str, Json], schemas: Json) -> None:
    """From the answer that tells an id to every operation that takes it.

    That answer is the one of the POST that creates such a resource or, where none does, of the list, whose first item
    it is then. What was deleted can be restored, under the id of the request.
    """
    for collection, name in _collections(paths):
        source = _source_of(paths.get(collection, {}), schemas)
        if source is None:
            continue
        response, expression = source
        above = {other: f"$request.path.{other}" for other in re.findall(r"{(\w+)}", collection)}
        for target in _taking(paths, name, collection):
            response.setdefault("links", {})[target] = _link(target, {**above, name: expression})
    for path, operations in paths.items():
        if restoring := paths.get(f"{path}/restore"):
            target = restoring["post"]["operationId"]
            names = {name: f"$request.path.{name}" for name in re.findall(r"{(\w+)}", path)}
            operations["delete"]["responses"]["204"]["links"] = {target: _link(target, names)}


def _collections(paths: Iterable[str]) -> list[tuple[str, str]]:
    """The beginnings of paths that an id follows, each with the name of the id."""
    found = ((path[: match.start()], match.group(1)) for path in paths for match in re.finditer(r"/{(\w+)}", path))
    return list(dict.fromkeys(found))


def _link(target: str, parameters: Json) -> Json:
    return {"operationId": target, "parameters": parameters}


def _source_of(operations: Json, schemas: Json) -> tuple[Json, str] | None:
    """The answer on a collection that tells an id, and the expression for it."""
    for method, status in (("post", "201"), ("get", "200")):
        response = operations.get(method, {}).get("responses", {}).get(status, {})
        schema = response.get("content", {}).get(JSON, {}).get("schema", {})
        where = ""
        if "$ref" in schema and "items" in schemas[_name(schema)].get("properties", {}):
            schema, where = schemas[_name(schema)]["properties"]["items"], "/items"
        if schema.get("type") == "array":
            schema, where = schema["items"], f"{where}/0"
        if "$ref" in schema and "id" in schemas[_name(schema)].get("properties", {}):
            return response, f"$response.body#{where}/id"
    return None


def _taking(paths: dict[str, Json], name: str, collection: str) -> list[str]:
    """The operations with an id of that name in their paths; of a part of something else, those below it alone."""
    is_part = "{" in collection
    wanted = [path for path in paths if f"{{{name}}}" in path and (path.startswith(f"{collection}/") or not is_part)]
    return [operation["operationId"] for path in wanted for operation in paths[path].values()]


# --- what is not in the registry -------------------------------------------------------------------------------


_PROBE_MODELS = (ServiceStatus, ServiceHealth)


def _plain_operations(refs: Refs) -> list[tuple[str, Json]]:
    """The public GETs outside the API: probes and files. They are outside the rate limit too."""
    status, health = (refs[model] for model in _PROBE_MODELS)
    alive = "Looks at nothing else, so that a database that is away restarts no process."
    ready = "503 while the service starts, drains before its end, or has no database."
    parts = "A part that is away makes it degraded, the database unhealthy, which is 503."
    return [
        ("/healthz", _probe("healthz", "Whether the process answers", alive, status, {200})),
        ("/live", _probe("live", "Whether the process answers, under another name", alive, status, {200})),
        ("/ready", _probe("ready", "Whether traffic may come", ready, status, {200, 503})),
        ("/health", _probe("health", "Every part with its state", parts, health, {200, 503})),
        ("/metrics", _metrics_operation()),
        ("/files/{token}", _file_operation()),
    ]


def _probe(name: str, summary: str, description: str, schema: Json, statuses: set[int]) -> Json:
    answer = {"description": "The state.", "content": {JSON: {"schema": schema}}}
    return {
        "operationId": name,
        "summary": summary,
        "description": f"{description} Needs no log-in.",
        "tags": ["operations"],
        "security": [],
        "responses": {str(status): answer for status in sorted(statuses)},
    }


def _metrics_operation() -> Json:
    text = {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {
        "operationId": "get_metrics",
        "summary": "What all processes have counted, for Prometheus",
        "description": "`docs/metrics.md` lists it. Needs no log-in.",
        "tags": ["operations"],
        "security": [],
        "responses": {"200": text},
    }


def _file_operation() -> Json:
    errors = {str(status): {"$ref": f"#/components/responses/Error{status}"} for status in (404, 413, 500, 503)}
    # The type is the file's own. Clients that are generated know what to do with the first, which stands for all.
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {
        "operationId": "get_file",
        "summary": "A file under its unguessable address",
        "description": (
            "A picture for good; a document or an export until its link expires. The API gives out the whole"
            " address, which may also be one of the file storage itself. Needs no log-in."
        ),
        "tags": ["files"],
        "security": [],
        "parameters": [
            {"name": "token", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}},
            _header("If-None-Match", "Answer 304 if the file has this tag."),
        ],
        "responses": {
            "200": {
                "description": "The file.",
                "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in ("ETag", "Content-Disposition")},
                "content": {"application/octet-stream": binary, "*/*": binary},
            },
            "304": {"description": "It still has the tag that If-None-Match names."},
            **errors,
        },
    }
