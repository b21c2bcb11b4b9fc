"""What the tests that walk the routes share: for each endpoint a request that works, and the ids that it names.

All of it is read from the registry of endpoints and from the models: bodies are made from their JSON Schema, and a
resource for the id of a path comes from the endpoint that creates such a resource. So a new route is walked without a
line here, unless its resource is created by no endpoint (RECIPES) or it takes a value that no schema tells (VALUES).
A route that cannot be walked makes the tests fail, with the name of what is missing.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from io import BytesIO
from typing import Any, get_args
from uuid import uuid4

import asyncpg
from api import Api, Client
from PIL import Image
from pydantic import BaseModel

import reos.app  # noqa: F401  It fills the registry of endpoints.
from reos.db import tenant_transaction
from reos.middleware.endpoint import ENDPOINTS, PREFIX, PUBLIC, Endpoint
from reos.queries import jobs
from reos.queries.references import KINDS
from reos.schemas.fields import Id

ABSENT = 8_000_000_000_000_000_000  # an id that no row will have
PASSWORD = "Correct-Horse-7"
# What no path id is. All of it is the same 404 as an id that does not exist.
MALFORMED = (
    "0", "-1", "+1", "01", "1.5", "1e3", "abc", "9223372036854775808", "99999999999999999999", "%00", "%201", "1%20",
    "1_0", "0x1", "%EF%BC%91", "null", "true", "NaN", "1,2", "%FF", "'", "9" * 400,
)  # fmt: skip

_ID_MARK = type(get_args(Id)[1])

Json = dict[str, Any]


class NotCoveredError(AssertionError):
    """The walk lacks something that a new route needs; the message says what."""


# --- routes ------------------------------------------------------------------------------------------------------


def label(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path.removeprefix(PREFIX)}"


def path_ids(path: str) -> list[str]:
    """The names of the ids in a path, in their order."""
    return re.findall(r"{(\w+)}", path)


def fill(path: str, ids: dict[str, Any]) -> str:
    """The path with its ids, which are put in as they are."""
    return re.sub(r"{(\w+)}", lambda found: str(ids[found.group(1)]), path)


def find(method: str, path: str) -> Endpoint | None:
    return next((entry for entry in ENDPOINTS if entry.method == method and entry.path == path), None)


def home_of(path: str, name: str) -> str:
    """Where what an id of a path names is at home: `/api/v1/properties/{property_id}` for a property's notes.

    A path that only links what exists (a team's member) is not its home; that is the one at the top then.
    """
    own = path[: path.index(f"/{{{name}}}")] + f"/{{{name}}}"
    if find("POST", own) is None:
        return own
    paths = (entry.path for entry in ENDPOINTS if entry.path.endswith(f"/{{{name}}}"))
    return next((home for home in paths if path_ids(home) == [name]), own)


def maker_of(path: str, name: str) -> Endpoint | None:
    """The endpoint that creates what an id of a path names: the POST on the collection around it."""
    return find("POST", home_of(path, name).removesuffix(f"/{{{name}}}"))


# --- bodies ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Leaf:
    """A field of a body, also one inside another or of a list's items: its path and its schema."""

    path: tuple[str | int, ...]
    schema: Json
    is_required: bool

    @property
    def name(self) -> str:
        return ".".join(map(str, self.path))


def schema_of(model: type[BaseModel]) -> Json:
    """The model's JSON Schema without references."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolve(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                rest = {key: part for key, part in value.items() if key != "$ref"}
                return {**resolve(definitions[value["$ref"].rpartition("/")[2]]), **rest}
            return {key: resolve(part) for key, part in value.items()}
        return [resolve(part) for part in value] if isinstance(value, list) else value

    resolved: Json = resolve(schema)
    return resolved


@cache
def leaves(model: type[BaseModel]) -> tuple[Leaf, ...]:
    """All fields of a body, objects and lists before what is in them."""
    return tuple(_leaves(schema_of(model), ()))


def _leaves(schema: Json, path: tuple[str | int, ...]) -> Iterator[Leaf]:
    for name, described in schema.get("properties", {}).items():
        leaf = Leaf((*path, name), _plain(described), name in schema.get("required", []))
        yield leaf
        yield from _leaves(leaf.schema, leaf.path)
        if items := leaf.schema.get("items"):
            yield Leaf((*leaf.path, 0), _plain(items), False)


def _plain(schema: Json) -> Json:
    """The first choice that is not null."""
    choices = [choice for choice in schema.get("anyOf", []) if choice != {"type": "null"}]
    return {**schema, **_plain(choices[0])} if choices and "type" not in schema else schema


# Strings for patterns and formats that a schema names; the first that fits is taken. The service goes to some of the
# URLs, so they lead nowhere.
_TEXTS: tuple[Callable[[], str], ...] = (
    lambda: f"x{uuid4().hex[:8]}",
    lambda: "https://example.invalid/picture.jpg",
    lambda: "x",
    lambda: "1.00",
    lambda: "USD",
)
# By name, where the schema does not say enough. A function of nothing, so that each use may be another value.
VALUES: dict[str, Callable[[], Any]] = {"event_types": lambda: ["lead.created"]}


def example(leaf: Leaf) -> Any:
    """A value for a field that is no id."""
    schema, name = leaf.schema, str(leaf.path[-1])
    if name in VALUES:
        return VALUES[name]()
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "string":
            return _text(leaf)
        case "integer" | "number":
            return max(schema.get("minimum", 0), min(1, schema.get("maximum", 1)))
        case "boolean":
            return False
        case "array":
            return []
        case "object":
            return {}
    raise NotCoveredError(f"route_walk.example knows no value for {leaf.name}: {schema}")


def _text(leaf: Leaf) -> str:
    schema = leaf.schema
    match schema.get("format"):
        case "email":
            return f"{uuid4().hex}@example.com"
        case "password":
            return PASSWORD
        case "uri":
            return "https://example.invalid/picture.jpg"
    if {"type": "string", "format": "date"} in schema.get("anyOf", []):
        return "2026-03-04"
    for make in _TEXTS:
        text = make()
        is_short = schema.get("minLength", 0) <= len(text) <= schema.get("maxLength", 10**6)
        if is_short and re.search(schema.get("pattern", ""), text):
            return text
    raise NotCoveredError(f"route_walk._TEXTS holds no text for {leaf.name}: {schema}")


@dataclass(frozen=True)
class IdField:
    """A field that names another resource by its id (or, as a list, several), and what the id is called in paths."""

    path: tuple[str | int, ...]
    kind: str
    is_list: bool

    @property
    def name(self) -> str:
        return ".".join(map(str, self.path))


def id_fields(model: type[BaseModel] | None, path: tuple[str | int, ...] = ()) -> list[IdField]:
    """The id fields of a body or a query."""
    found: list[IdField] = []
    for name, described in model.model_fields.items() if model else ():
        marks = list(_parts((described.annotation, *described.metadata)))
        if any(isinstance(part, _ID_MARK) for part in marks):
            found.append(IdField((*path, name), _kind_of(name), list in marks))
        for part in marks:
            if isinstance(part, type) and issubclass(part, BaseModel):
                found += id_fields(part, (*path, name))
    return found


def _parts(annotation: Any) -> Iterator[Any]:
    """Everything that an annotation is made of."""
    if isinstance(annotation, tuple):
        for part in annotation:
            yield from _parts(part)
        return
    yield getattr(annotation, "__origin__", annotation)
    for part in get_args(annotation):
        yield from _parts(part)
    for part in getattr(annotation, "__metadata__", ()):
        yield part


def _kind_of(name: str) -> str:
    """The name that ids of the same kind have in paths."""
    if name == "resource_id":
        return "property_id"  # Of any kind; this one will do.
    if name in KINDS:
        return f"{KINDS[name]}_id"
    return name.removesuffix("s") if name.endswith("_ids") else name


def put_in(body: Json, path: tuple[str | int, ...], value: Any) -> Json:
    """The body with a value at a path; objects and lists on the way are made."""
    first, *rest = path
    if rest and isinstance(rest[0], int):
        assert len(rest) == 1
        return {**body, first: [value]}
    return {**body, first: put_in(body.get(str(first)) or {}, tuple(rest), value) if rest else value}


BOUNDARY = "a-boundary-of-the-walk"


def multipart(fields: dict[str, bytes], file: bytes | None) -> tuple[str, bytes]:
    """The content type and the bytes of a form with a file."""
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + text for name, text in fields.items()]
    if file is not None:
        parts.append(b'Content-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + file)
    framed = b"".join(b"--" + BOUNDARY.encode() + b"\r\n" + part + b"\r\n" for part in parts)
    return f"multipart/form-data; boundary={BOUNDARY}", framed + b"--" + BOUNDARY.encode() + b"--\r\n"


def form_fields(endpoint: Endpoint) -> dict[str, bytes]:
    """What the form of an upload needs beside its file."""
    assert endpoint.form is not None
    return {leaf.name: str(example(leaf)).encode() for leaf in leaves(endpoint.form) if leaf.is_required}


@cache
def picture() -> bytes:
    """A file that every upload takes."""
    buffer = BytesIO()
    Image.new("RGB", (2, 2), "green").save(buffer, "PNG")
    return buffer.getvalue()


# --- organisations that make what is needed ----------------------------------------------------------------------


@dataclass
class Request:
    """A request, ready to be sent."""

    method: str
    path: str  # with its ids
    body: Json | None

    def options(self) -> dict[str, Any]:
        return {} if self.body is None else {"json": self.body}


@dataclass
class World:
    """An organisation, and its Admin who makes resources for the ids of paths and bodies."""

    api: Api
    admin: Client
    _kept: dict[str, int] = field(default_factory=dict)

    async def ids(self, path: str) -> dict[str, int]:
        """New resources for all ids of a path, each below the one before it."""
        found: dict[str, int] = {}
        for name in path_ids(path):
            found[name] = await self.make(path, name, found)
        return found

    async def make(self, path: str, name: str, above: dict[str, int]) -> int:
        """A new resource for an id of a path; `above` are the ids before it."""
        if name in RECIPES:
            return await RECIPES[name](self, above)
        maker = maker_of(path, name)
        if maker is None:
            raise NotCoveredError(f"no endpoint creates what {name} of {path} names: route_walk.RECIPES wants one")
        request = await self.request(maker, above if path_ids(maker.path) else {})
        made = await self.admin.call(
            request.method, request.path.removeprefix(PREFIX), status=maker.status, **request.options()
        )
        number: int = made["id"]
        return number

    async def make_kind(self, kind: str) -> int:
        """A new resource by what its id is called in paths, the plainest of these."""
        paths = sorted((entry.path for entry in ENDPOINTS if f"{{{kind}}}" in entry.path), key=lambda p: p.count("{"))
        if not paths:
            raise NotCoveredError(f"no path has a {kind}, so route_walk does not know what that is")
        return (await self.ids(paths[0]))[kind]

    async def kept_kind(self, kind: str) -> int:
        """The same, but one for all."""
        if kind not in self._kept:
            self._kept[kind] = await self.make_kind(kind)
        return self._kept[kind]

    async def delete(self, path: str, name: str, ids: dict[str, int]) -> bool:
        """Delete what an id of a path names. False where that is not possible, or leaves it readable (users)."""
        home = home_of(path, name)
        if find("DELETE", home) is None:
            return False
        target = fill(home, ids).removeprefix(PREFIX)
        await self.admin.delete(target)
        is_readable = find("GET", home) is not None and (await self.admin.request("GET", target)).status_code == 200
        assert not is_readable or name == "user_id", f"{home} is still there after it was deleted"
        return not is_readable

    # --- requests that work

    async def request(self, endpoint: Endpoint, ids: dict[str, int] | None = None) -> Request:
        """A request that the endpoint answers with success when the Admin sends it; `ids` of its path may be given."""
        found = dict(ids or {})
        for name in path_ids(endpoint.path):
            if name not in found:
                found[name] = await self.make(endpoint.path, name, found)
        await self._prepare(endpoint, found)
        return Request(endpoint.method, fill(endpoint.path, found), await self.body(endpoint))

    async def _prepare(self, endpoint: Endpoint, ids: dict[str, int]) -> None:
        """What has to be so for the request: deleted before a restore, linked before the link is removed."""
        if prepare := PREPARATIONS.get(endpoint.name):
            await prepare(self, ids)
        if endpoint.path.endswith("/restore"):
            await self.admin.delete(fill(endpoint.path.removesuffix("/restore"), ids).removeprefix(PREFIX))
        linking = find("POST", endpoint.path)
        if endpoint.method == "DELETE" and linking is not None:
            request = await self.request(linking, ids)
            await self.admin.call("POST", request.path.removeprefix(PREFIX), status=linking.status, **request.options())

    async def body(self, endpoint: Endpoint) -> Json | None:
        """The smallest body that the model takes: what is required, and what it finds missing beyond that."""
        model = endpoint.json_model
        if model is None:
            return None
        ids = {entry.path: entry for entry in id_fields(model)}
        body: Json = {}
        for leaf in leaves(model):
            if leaf.is_required and len(leaf.path) == 1:
                body = put_in(body, leaf.path, await self._value(leaf, ids.get(leaf.path)))
        for leaf in leaves(model):
            # A rule of the whole model, such as one of two fields, is met by the first that it lets through.
            if _is_valid(model, body):
                return body
            if len(leaf.path) == 1 and leaf.path[0] not in body:
                tried = put_in(body, leaf.path, await self._value(leaf, ids.get(leaf.path)))
                if _is_valid(model, tried):
                    return tried
        if not _is_valid(model, body):
            raise NotCoveredError(f"route_walk makes no body that {model.__name__} takes: {body}")
        return body

    async def _value(self, leaf: Leaf, reference: IdField | None) -> Any:
        if reference is None:
            return example(leaf)
        number = await self.make_kind(reference.kind)
        return [number] if reference.is_list else number


def _is_valid(model: type[BaseModel], body: Json) -> bool:
    from reos.errors import ValidationError
    from reos.schemas.common import validate

    try:
        validate(model, body)
    except ValidationError:
        return False
    return True


# --- resources that no endpoint creates --------------------------------------------------------------------------


Ids = dict[str, int]


async def _make_session(world: World, above: Ids) -> int:
    """Another session of the Admin, as a log-in opens it."""
    number: int = await world.api.value(
        "insert into sessions (organization_id, user_id, expires_at) values ($1, $2, now() + interval '1 day')"
        " returning id",
        world.admin.organization_id,
        world.admin.user_id,
    )
    return number


async def _find_permission(world: World, above: Ids) -> int:
    """Permissions are the same for all organisations, and nobody creates them."""
    number: int = (await world.admin.get("/permissions"))[0]["id"]
    return number


async def _make_failed_job(world: World, above: Ids) -> int:
    """A job that could be retried."""
    async with tenant_transaction(world.api.database, world.admin.organization_id) as conn:
        job_id = await jobs.defer(conn, "send_welcome_email", {"user_id": world.admin.user_id})
    assert job_id is not None
    conn = await asyncpg.connect(world.api.owner_dsn)
    try:
        await conn.execute("set role reos_owner; set search_path = procrastinate, public")
        for status in ("doing", "failed"):
            await conn.execute("update procrastinate_jobs set status = $2 where id = $1", job_id, status)
    finally:
        await conn.close()
    return job_id


async def _upload_document(world: World, above: Ids) -> int:
    """A document that can be downloaded, which one that lies elsewhere cannot."""
    path = f"/leads/{above['lead_id']}/documents"
    made = await world.admin.post(path, data={"title": "Contract"}, files={"file": ("contract.txt", b"Sold.")})
    number: int = made["id"]
    return number


async def _make_failed_delivery(world: World, above: Ids) -> int:
    """A delivery that could be repeated; events make them."""
    number: int = await world.api.value(
        "insert into webhook_logs (organization_id, webhook_endpoint_id, event_type, data, status, next_attempt_at)"
        " values ($1, $2, 'lead.created', '{}', 'failed', null) returning id",
        world.admin.organization_id,
        above["webhook_id"],
    )
    return number


RECIPES: dict[str, Callable[[World, Ids], Awaitable[int]]] = {
    "session_id": _make_session,
    "permission_id": _find_permission,
    "job_id": _make_failed_job,
    "document_id": _upload_document,
    "delivery_id": _make_failed_delivery,
}

__all__ = ["ABSENT", "MALFORMED", "PUBLIC", "World", "label"]


# --- what has to be so before a request --------------------------------------------------------------------------


async def _be_sendable(world: World, ids: Ids) -> None:
    """A campaign with all that it needs, and somebody to write to."""
    await world.admin.patch(f"/campaigns/{ids['campaign_id']}", json={"subject": "Hello"})
    lead = {"first_name": "A", "last_name": "B", "source": "other", "email": f"{uuid4().hex}@example.com"}
    await world.admin.post("/leads", json=lead)


async def _be_scheduled(world: World, ids: Ids) -> None:
    await _be_sendable(world, ids)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    body = {"send_now": False, "send_at": tomorrow}
    await world.admin.post(f"/campaigns/{ids['campaign_id']}/send", json=body, status=200)


async def _be_paused(world: World, ids: Ids) -> None:
    await _be_scheduled(world, ids)
    await world.admin.post(f"/campaigns/{ids['campaign_id']}/pause", status=200)


async def _be_exported(world: World, ids: Ids) -> None:
    """What the job leaves of a campaign that the service does not send itself."""
    await world.api.value(
        "with file as (insert into stored_files (organization_id, storage_key, content_type, size_bytes, is_public,"
        "  is_pending) values ($1, 'x', 'text/csv', 1, false, false) returning id)"
        " update campaigns set export_file_id = file.id from file where organization_id = $1 and campaigns.id = $2",
        world.admin.organization_id,
        ids["campaign_id"],
    )


PREPARATIONS: dict[str, Callable[[World, Ids], Awaitable[None]]] = {
    "send_campaign": _be_sendable,
    "pause_campaign": _be_scheduled,
    "resume_campaign": _be_paused,
    "cancel_campaign": _be_scheduled,
    "export_campaign": _be_exported,
}
