"""ETag, If-None-Match and If-Match."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from api import Api, Client

from reos.middleware.call import etag_of

pytestmark = pytest.mark.integration

LISTING = {"address": "1 Main St", "city": "Austin", "state": "TX", "zip_code": "78701", "property_type": "condo"}


async def add(client: Client, **fields: Any) -> tuple[str, str]:
    """A new property: its path and its tag."""
    response = await client.request("POST", "/properties", json=LISTING | fields)
    assert response.status_code == 201
    return f"/properties/{response.json()['id']}", response.headers["ETag"]


async def tag_of(client: Client, path: str, **options: Any) -> str:
    response = await client.request("GET", path, **options)
    assert response.status_code == 200
    return response.headers["ETag"]


# --- ETag ------------------------------------------------------------------------------------------------------


async def test_the_tag_is_strong_and_a_digest_of_the_body(api: Api) -> None:
    admin = await api.register()
    path, _ = await add(admin)
    for target in (path, "/properties", f"{path}/notes", "/properties?fields=id", "/auth/me", "/sse/status"):
        response = await admin.request("GET", target)
        assert response.headers["ETag"] == etag_of(response.content)
        assert response.headers["ETag"].startswith('"') and response.headers["ETag"].endswith('"')
        assert await tag_of(admin, target) == response.headers["ETag"]


async def test_writes_that_return_the_resource_carry_the_tag_of_its_get(api: Api) -> None:
    admin = await api.register()
    path, created = await add(admin, metadata={"b": 1, "a": [1.5, "ä"]}, bathrooms=2.5, price="1.10")
    tags = [created]
    assert await tag_of(admin, path) == created
    requests: list[tuple[str, str, Any]] = [
        ("PUT", path, {"price": 5}),
        ("PATCH", path, {"description": "x"}),
        ("PUT", path, {}),
        ("POST", f"{path}/restore", None),
    ]
    for method, target, body in requests:
        if target.endswith("restore"):
            await admin.delete(path)
        response = await admin.request(method, target, json=body)
        assert response.status_code == 200
        assert response.headers["ETag"] == await tag_of(admin, path)
        assert response.content == (await admin.request("GET", path)).content
        tags.append(response.headers["ETag"])
    assert tags[3] == tags[2]  # Nothing had changed.
    assert len(set(tags)) == 4


async def test_what_has_no_get_of_its_own_has_no_tag(api: Api) -> None:
    admin = await api.register()
    path, _ = await add(admin)
    bodies: dict[str, Any] = {
        "notes": {"content": "x"},
        "images": {"url": "https://example.com/a.png"},
        "valuations": {"value": 1, "valuation_date": "2024-01-01"},
        "activities": {"activity_type": "call", "description": "x"},
    }
    for name, body in bodies.items():
        response = await admin.request("POST", f"{path}/{name}", json=body)
        assert response.status_code == 201
        assert "ETag" not in response.headers
    assert "ETag" not in (await admin.request("DELETE", path)).headers
    assert "ETag" not in (await admin.request("GET", path)).headers


async def test_a_change_changes_the_tag_also_when_it_is_undone(api: Api) -> None:
    admin = await api.register()
    path, first = await add(admin, price=1)
    await admin.put(path, json={"price": 2})
    await admin.put(path, json={"price": 1})
    assert await tag_of(admin, path) != first


# --- If-None-Match ---------------------------------------------------------------------------------------------


async def test_304_for_what_is_known(api: Api) -> None:
    admin = await api.register()
    path, tag = await add(admin)
    await admin.post(f"{path}/notes", json={"content": "x"})
    for target in (path, "/properties", "/properties?search=main&page_size=5", f"{path}/notes", "/auth/me"):
        full = await admin.request("GET", target)
        tag = full.headers["ETag"]
        for known in (tag, f"W/{tag}", f'"other", {tag}', f'W/"a",{tag} , "b"', "*", " * "):
            for method in ("GET", "HEAD"):
                response = await admin.request(method, target, headers={"If-None-Match": known.strip()})
                assert response.status_code == 304, (target, known)
                assert response.content == b""
                assert response.headers["ETag"] == tag
                assert response.headers["Cache-Control"] == full.headers["Cache-Control"]
                assert response.headers["Vary"] == full.headers["Vary"]
                assert "Content-Type" not in response.headers
        for unknown in ('"other"', tag.strip('"'), f'"x{tag[1:]}', tag.upper(), '""', "x"):
            response = await admin.request("GET", target, headers={"If-None-Match": unknown})
            assert (response.status_code, response.content) == (200, full.content)


async def test_tags_may_come_in_several_lines(api: Api) -> None:
    admin = await api.register()
    path, tag = await add(admin)
    lines = [("Authorization", admin.headers["Authorization"]), ("If-None-Match", '"other"'), ("If-None-Match", tag)]
    assert (await api.http.get(f"/api/v1{path}", headers=lines)).status_code == 304
    lines[1:] = [("If-Match", '"other"'), ("If-Match", tag)]
    assert (await api.http.request("DELETE", f"/api/v1{path}", headers=lines)).status_code == 204


async def test_a_list_is_new_when_anything_in_it_is(api: Api) -> None:
    admin = await api.register()
    path, _ = await add(admin)
    tag = await tag_of(admin, "/properties")
    await admin.patch(path, json={"price": 7})
    assert (await admin.request("GET", "/properties", headers={"If-None-Match": tag})).status_code == 200
    tag = await tag_of(admin, f"{path}/notes")
    await admin.post(f"{path}/notes", json={"content": "x"})
    response = await admin.request("GET", f"{path}/notes", headers={"If-None-Match": tag})
    assert (response.status_code, response.headers["X-Total-Count"]) == (200, "1")


async def test_a_tag_opens_nothing_for_others(api: Api) -> None:
    admin, other = await api.register(), await api.register()
    path, tag = await add(admin)
    for known in (tag, "*"):
        assert (await other.request("GET", path, headers={"If-None-Match": known})).status_code == 404
        assert (await api.anonymous.request("GET", path, headers={"If-None-Match": known})).status_code == 401
        nobody = await api.add_user(admin)
        assert (await nobody.request("GET", path, headers={"If-None-Match": known})).status_code == 403


# --- If-Match --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_a_write_needs_the_present_tag(api: Api, method: str) -> None:
    admin = await api.register()
    path, tag = await add(admin)
    body = None if method == "DELETE" else {"price": 1}
    before = await admin.get(path)
    for stale in ('"other"', f"W/{tag}", tag.strip('"'), '"a", "b"', f'"{tag}"', '""'):
        error = await admin.error(method, path, status=412, json=body, headers={"If-Match": stale})
        assert error["type"] == "PreconditionFailedError"
    assert await admin.get(path) == before
    assert len(await api.audits(admin)) == len(await api.events(admin)) == 1
    response = await admin.request(method, path, json=body, headers={"If-Match": f'"a", {tag}'})
    assert response.status_code == (204 if method == "DELETE" else 200)
    if method != "DELETE":
        await admin.error(method, path, status=412, json=body, headers={"If-Match": tag})
        await admin.call(method, path, status=200, json=body, headers={"If-Match": response.headers["ETag"]})


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_a_star_means_that_it_exists(api: Api, method: str) -> None:
    admin = await api.register()
    path, _ = await add(admin)
    body = None if method == "DELETE" else {"price": 1}
    assert (await admin.request(method, path, json=body, headers={"If-Match": "*"})).status_code in (200, 204)
    for tag in ("*", '"x"'):
        await admin.error(method, "/properties/999999999", status=404, json=body, headers={"If-Match": tag})


async def test_a_stale_tag_is_refused_also_when_nothing_would_change(api: Api) -> None:
    admin = await api.register()
    path, tag = await add(admin, price=1)
    await admin.put(path, json={"price": 2})
    for body in ({}, {"price": 2}):
        await admin.error("PUT", path, status=412, json=body, headers={"If-Match": tag})


async def test_where_there_is_no_single_get_only_a_star_matches(api: Api) -> None:
    admin = await api.register()
    path, tag = await add(admin)
    image = (await admin.post(f"{path}/images", json={"url": "https://example.com/a.png"}))["id"]
    for stale in (tag, '"x"', await tag_of(admin, f"{path}/images")):
        await admin.error("DELETE", f"{path}/images/{image}", status=412, headers={"If-Match": stale})
        await admin.error("DELETE", f"{path}/images/999999999", status=404, headers={"If-Match": stale})
    assert len(await admin.get(f"{path}/images")) == 1
    await admin.delete(f"{path}/images/{image}", headers={"If-Match": "*"})


async def test_posts_ignore_if_match(api: Api) -> None:
    admin = await api.register()
    path, _ = await add(admin)
    await admin.post(f"{path}/notes", json={"content": "x"}, headers={"If-Match": '"x"'})
    await admin.delete(path)
    await admin.post(f"{path}/restore", status=200, headers={"If-Match": '"x"'})


async def test_of_two_writers_with_the_same_tag_one_succeeds(api: Api) -> None:
    """Many times: one 200, one 412, and what the winner wrote is what stands."""
    admin = await api.register()
    colleague = await api.add_user(admin, "Admin")
    path, tag = await add(admin)
    rounds = 60
    for turn in range(rounds):
        writers = ((admin, "PUT", turn * 2), (colleague, "PATCH", turn * 2 + 1))
        answers = await asyncio.gather(
            *(
                client.request(method, path, json={"price": price}, headers={"If-Match": tag})
                for client, method, price in writers
            )
        )
        assert sorted(answer.status_code for answer in answers) == [200, 412]
        winner = next(answer for answer in answers if answer.status_code == 200)
        assert (await admin.request("GET", path)).content == winner.content
        tag = winner.headers["ETag"]
    assert len(await api.audits(admin)) == len(await api.events(admin)) == rounds + 1
    changes = [json.loads(row["changes"])["price"] for row in (await api.audits(admin))[1:]]
    # Each change began with what the one before it had left.
    assert [before for before, _ in changes[1:]] == [after for _, after in changes[:-1]]


async def test_of_many_writers_and_removers_one_succeeds(api: Api) -> None:
    admin = await api.register()
    for turn in range(10):
        path, tag = await add(admin)
        answers = await asyncio.gather(
            *(
                admin.request("DELETE", path, headers={"If-Match": tag})
                if number % 2
                else admin.request("PUT", path, json={"price": number}, headers={"If-Match": tag})
                for number in range(turn, turn + 10)
            )
        )
        statuses = [answer.status_code for answer in answers]
        assert len([status for status in statuses if status < 300]) == 1
        assert set(statuses) - {200, 204} == ({412} if 200 in statuses else {404})
