"""Campaigns, templates and suppressions through the API; what is sent is in test_campaign_sending."""

from __future__ import annotations

from typing import Any

import pytest
from api import Api, Client
from crm import add_deal, add_lead, add_property, audited, happened

from reos.schemas.merge_fields import MERGE_FIELDS

pytestmark = pytest.mark.integration

LETTER: dict[str, Any] = {
    "name": "Spring",
    "campaign_type": "email",
    "subject": "Hello {{first_name}}",
    "content": "<p>Dear {{first_name}} {{last_name}}, see {{property_address}}.</p>",
}
TEMPLATE: dict[str, Any] = {"name": "Basic", "campaign_type": "email", "subject": "S", "content": "Hello"}


async def add_campaign(client: Client, **fields: Any) -> dict[str, Any]:
    created: dict[str, Any] = await client.post("/campaigns", json=LETTER | fields)
    return created


# Campaigns


async def test_a_campaign_is_a_draft_and_comes_back_whole(api: Api) -> None:
    admin = await api.register()
    template = await admin.post("/campaigns/templates", json=TEMPLATE)
    fields = LETTER | {"description": "All of them", "template_id": template["id"], "metadata": {"a": [1]}}
    response = await admin.request("POST", "/campaigns", json=fields)
    assert response.status_code == 201
    created = response.json()
    assert response.headers["location"] == f"/api/v1/campaigns/{created['id']}"
    assert fields.items() <= created.items()
    assert (created["status"], created["total_recipients"], created["started_at"]) == ("draft", 0, None)
    assert await admin.get(f"/campaigns/{created['id']}") == created
    assert created["created_by"] == admin.user_id
    (action, resource, number, changes), *_ = await audited(api, admin, "campaign")
    assert (action, resource, number) == ("create", "campaign", created["id"])
    assert changes["name"] == [None, "Spring"]


async def test_changes_are_made_and_told(api: Api) -> None:
    admin = await api.register()
    campaign = await add_campaign(admin)
    path = f"/campaigns/{campaign['id']}"
    changed = await admin.patch(path, json={"name": "Summer", "description": None, "status": "draft"})
    assert changed["name"] == "Summer"
    assert changed | {"name": "Spring", "updated_at": campaign["updated_at"]} == campaign
    assert (await admin.put(path, json={"campaign_type": "sms", "subject": None}))["campaign_type"] == "sms"
    assert (await admin.error("PATCH", path, status=409, json={"status": "completed"}))["type"] == "BusinessLogicError"
    assert await admin.fields_refused("PATCH", path, json={"name": None}) == {"name": "string_type"}
    told = [changes for action, *_, changes in await audited(api, admin, "campaign") if action == "update"]
    assert told == [
        {"name": ["Spring", "Summer"]},
        {"campaign_type": ["email", "sms"], "subject": [LETTER["subject"], None]},
    ]


async def test_of_two_writers_with_the_same_tag_one_wins(api: Api) -> None:
    admin = await api.register()
    path = f"/campaigns/{(await add_campaign(admin))['id']}"
    tag = {"If-Match": (await admin.request("GET", path)).headers["etag"]}
    await admin.patch(path, json={"name": "One"}, headers=tag)
    await admin.error("PATCH", path, status=412, json={"name": "Two"}, headers=tag)


@pytest.mark.parametrize("status", ["in_progress", "completed", "cancelled"])
async def test_what_is_under_way_or_over_is_not_changed(api: Api, status: str) -> None:
    admin = await api.register()
    campaign = await add_campaign(admin)
    await api.value("update campaigns set status = $2 where id = $1", campaign["id"], status)
    path = f"/campaigns/{campaign['id']}"
    assert (await admin.error("PATCH", path, status=409, json={"name": "X"}))["type"] == "BusinessLogicError"
    if status == "in_progress":
        assert (await admin.error("DELETE", path, status=409))["type"] == "ResourceDeletionError"
    else:
        await admin.delete(path)


@pytest.mark.parametrize("status", ["scheduled", "paused"])
async def test_what_waits_is_changed_but_not_its_type(api: Api, status: str) -> None:
    admin = await api.register()
    campaign = await add_campaign(admin)
    await api.value("update campaigns set status = $2 where id = $1", campaign["id"], status)
    path = f"/campaigns/{campaign['id']}"
    assert (await admin.patch(path, json={"content": "Other"}))["content"] == "Other"
    await admin.error("PATCH", path, status=409, json={"campaign_type": "sms"})


async def test_deleted_is_hidden_until_restored(api: Api) -> None:
    admin = await api.register()
    campaign = await add_campaign(admin)
    path = f"/campaigns/{campaign['id']}"
    await admin.error("POST", f"{path}/restore", status=404)
    await admin.delete(path)
    await admin.error("GET", path, status=404)
    await admin.error("POST", f"{path}/preview", status=404)
    assert (await admin.get("/campaigns"))["items"] == []
    assert (await admin.get("/campaigns", params={"search": "spring"}))["items"] == []
    assert (await admin.get("/campaigns/stats"))["total_campaigns"] == 0
    restored = await admin.post(f"{path}/restore", status=200)
    assert restored | {"updated_at": campaign["updated_at"]} == campaign
    assert [action for action, *_ in await audited(api, admin, "campaign")] == ["create", "delete", "restore"]
    assert await happened(api, admin) == [], "campaigns have events when they are sent only"


async def test_lists_filter_search_and_sort(api: Api) -> None:
    admin = await api.register()
    await add_campaign(admin, name="Alpha", description="for the harbour")
    await add_campaign(admin, name="Beta", campaign_type="sms")
    gamma = await add_campaign(admin, name="Gamma", subject="Harbour view")
    await api.value("update campaigns set status = 'paused' where id = $1", gamma["id"])

    async def names(**params: Any) -> list[str]:
        return [item["name"] for item in (await admin.get("/campaigns", params=params))["items"]]

    assert await names() == ["Gamma", "Beta", "Alpha"]
    assert await names(sort="name") == ["Alpha", "Beta", "Gamma"]
    assert await names(sort="scheduled_at,-name") == ["Gamma", "Beta", "Alpha"]
    assert await names(search="HARB") == ["Gamma", "Alpha"]
    assert await names(campaign_type="sms") == ["Beta"]
    assert await names(status="paused") == ["Gamma"]
    assert await names(status="paused", campaign_type="sms") == []
    first = await admin.get("/campaigns", params={"page_size": 2, "fields": "id,name"})
    assert [set(item) for item in first["items"]] == [{"id", "name"}] * 2
    rest = await admin.get("/campaigns", params={"page_size": 2, "cursor": first["next_cursor"]})
    assert [item["name"] for item in rest["items"]] == ["Alpha"]
    assert await admin.fields_refused("GET", "/campaigns", params={"status": "sent"}) == {"status": "enum"}


async def test_stats_count_by_every_status_and_type(api: Api) -> None:
    admin = await api.register()
    empty = await admin.get("/campaigns/stats")
    assert empty["by_status"] == dict.fromkeys(
        ("draft", "scheduled", "in_progress", "completed", "paused", "cancelled"), 0
    )
    assert empty["by_type"] == dict.fromkeys(("email", "sms", "direct_mail", "social_media"), 0)
    assert (empty["total_campaigns"], empty["delivery_rate"]) == (0, 0)
    for sent, delivered, opened, clicked in ((8, 7, 3, 1), (1, 1, 0, 0)):
        campaign = await add_campaign(admin)
        await api.value(
            "update campaigns set status = 'completed', sent_count = $2, delivered_count = $3, opened_count = $4,"
            " clicked_count = $5 where id = $1",
            campaign["id"], sent, delivered, opened, clicked,
        )  # fmt: skip
    await add_campaign(admin, campaign_type="sms")
    stats = await admin.get("/campaigns/stats")
    assert {name: value for name, value in stats.items() if not name.startswith("by_")} == {
        "total_campaigns": 3,
        "total_sent": 9,
        "total_delivered": 8,
        "total_opened": 3,
        "total_clicked": 1,
        "delivery_rate": 88.89,
        "open_rate": 37.5,
        "click_rate": 33.33,
    }
    assert (stats["by_status"]["completed"], stats["by_status"]["draft"]) == (2, 1)
    assert (stats["by_type"]["email"], stats["by_type"]["sms"]) == (2, 1)


@pytest.mark.parametrize(
    "text",
    [
        "{{phone}}", "{{ first_name.upper() }}", "{{first_name|upper}}", "{% if 1 %}x{% endif %}", "{{ 7*7 }}",
        "{{first_name", "{{}}", "{{ ''.__class__ }}", "{# note #}", "{{ 'x' }}", "{% raw %}x{% endraw %}",
        "{{first_name last_name}}", "{{ First_Name }}", "{{ self }}", "{% include 'x' %}", "{{first_name[0]}}",
    ],
)  # fmt: skip
async def test_an_unknown_merge_field_is_refused_at_save(api: Api, text: str) -> None:
    admin = await api.register()
    path = f"/campaigns/{(await add_campaign(admin))['id']}"
    template = f"/campaigns/templates/{(await admin.post('/campaigns/templates', json=TEMPLATE))['id']}"
    for field in ("subject", "content"):
        wrong = {field: text}
        expected = {field: "unknown_merge_field"}
        assert await admin.fields_refused("POST", "/campaigns", json=LETTER | wrong) == expected
        assert await admin.fields_refused("PATCH", path, json=wrong) == expected
        assert await admin.fields_refused("POST", "/campaigns/templates", json=TEMPLATE | wrong) == expected
        assert await admin.fields_refused("PUT", template, json=wrong) == expected


async def test_a_refusal_names_what_is_refused_without_double_braces(api: Api) -> None:
    admin = await api.register()
    for text in ("{% if first_name %}", "<style>@media print{#logo{width:1px}}</style><p>x</p>"):
        error = await admin.error("POST", "/campaigns", status=422, json=LETTER | {"content": text})
        (told,) = error["details"]["errors"]
        assert told["message"].startswith("Input should hold no {%, no {#, and no other fields in double braces than: ")


async def test_all_merge_fields_are_taken_in_any_spacing(api: Api) -> None:
    admin = await api.register()
    content = " ".join(f"{{{{{name}}}}} {{{{  {name} }}}}" for name in MERGE_FIELDS) + " { } }} %} 100% #1"
    assert (await add_campaign(admin, content=content))["content"] == content


async def test_fields_are_checked(api: Api) -> None:
    admin = await api.register()
    for wrong, expected in (
        ({"name": ""}, "string_too_short"),
        ({"name": "x" * 201}, "string_too_long"),
        ({"subject": "x" * 501}, "string_too_long"),
        ({"subject": "Hello\r\nBcc: all@example.com"}, "control_character"),
        ({"content": ""}, "string_too_short"),
        ({"campaign_type": "fax"}, "enum"),
        ({"status": "completed"}, "enum"),
        ({"template_id": 2**62}, "foreign_key"),
        ({"sent_count": 1}, "extra_forbidden"),
    ):
        refused = await admin.fields_refused("POST", "/campaigns", json=LETTER | wrong)
        assert refused == dict.fromkeys(wrong, expected)
    assert await admin.fields_refused("POST", "/campaigns", json={}) == dict.fromkeys(
        ("name", "campaign_type", "content"), "missing"
    )


# Previews


async def test_a_preview_shows_what_a_lead_would_get(api: Api) -> None:
    admin = await api.register()
    lead = await add_lead(admin, first_name="<b>Ann</b>", last_name="O'Hara & Co", email="ann@example.com")
    house = await add_property(admin, address="1 Sea Road")
    await add_deal(admin, house["id"], lead_id=lead["id"])
    content = (
        "<p>{{first_name}} {{last_name}} {{company}}|{{property_address}}|{{agent_name}}</p>"
        '<a href="https://example.com/?a=1&amp;b={{email}}">Look</a> <a href="{{unsubscribe_url}}">Stop</a>'
    )
    campaign = await add_campaign(admin, content=content)
    shown = await admin.post(f"/campaigns/{campaign['id']}/preview", status=200, json={"lead_id": lead["id"]})
    assert shown["subject"] == "Hello <b>Ann</b>", "a subject is no HTML"
    assert "<p>&lt;b&gt;Ann&lt;/b&gt; O&#39;Hara &amp; Co |1 Sea Road|Ada Admin</p>" in shown["html"]
    assert '<a href="https://example.com/?a=1&amp;b=ann@example.com">Look</a>' in shown["html"]
    assert "<b>Ann</b> O'Hara & Co |1 Sea Road|Ada Admin" in shown["text"]
    assert "Look (https://example.com/?a=1&b=ann@example.com)" in shown["text"]
    stop = f"{api.settings.base_url}/t/u/preview"
    assert f"Stop ({stop})" in shown["text"]
    assert "<img" not in shown["html"], "a preview is not counted"


async def test_a_preview_needs_neither_lead_nor_body(api: Api) -> None:
    admin = await api.register()
    campaign = await add_campaign(admin, subject=None)
    shown = await admin.post(f"/campaigns/{campaign['id']}/preview", status=200)
    assert shown["subject"] is None
    assert "Dear Grace Hopper, see 12 Oak Street." in shown["text"]
    path = f"/campaigns/{campaign['id']}/preview"
    assert await admin.fields_refused("POST", path, json={"lead_id": 2**62}) == {"lead_id": "foreign_key"}
    text = await add_campaign(admin, campaign_type="sms", content="{{first_name}} <3")
    assert await admin.post(f"/campaigns/{text['id']}/preview", status=200) == {
        "subject": None,
        "html": None,
        "text": "Grace <3",
    }


async def test_plain_text_becomes_simple_html(api: Api) -> None:
    admin = await api.register()
    campaign = await add_campaign(admin, content="Dear {{first_name}},\n\na < b & c:\nhttps://example.com/x?a=1&b=2.\n")
    shown = await admin.post(f"/campaigns/{campaign['id']}/preview", status=200)
    assert "<p>Dear Grace,</p>" in shown["html"]
    link = '<a href="https://example.com/x?a=1&amp;b=2">https://example.com/x?a=1&amp;b=2</a>'
    assert f"<p>a &lt; b &amp; c:<br>\n{link}.</p>" in shown["html"]
    assert shown["text"].startswith("Dear Grace,\n\na < b & c:\nhttps://example.com/x?a=1&b=2.\n")
    assert "Unsubscribe" in shown["html"], "a mail always says how to stop it"
    assert "Unsubscribe" in shown["text"]


async def test_nothing_in_a_text_becomes_a_template_later(api: Api) -> None:
    admin = await api.register()
    lead = await add_lead(admin, first_name="{{ 7*7 }}", last_name="{% raw %}", email="a@example.com")
    campaign = await add_campaign(
        admin, content="<p>&#123;&#123; 7*7 &#125;&#125; {{first_name}} {{last_name}} {x: {y}} '{'</p>"
    )
    shown = await admin.post(f"/campaigns/{campaign['id']}/preview", status=200, json={"lead_id": lead["id"]})
    assert "{{ 7*7 }} {{ 7*7 }} {% raw %} {x: {y}} '{'" in shown["text"]
    assert "49" not in shown["html"]


# Templates


async def test_templates_are_kept_changed_deleted_and_restored(api: Api) -> None:
    admin = await api.register()
    template = await admin.post("/campaigns/templates", json=TEMPLATE | {"description": "D"})
    path = f"/campaigns/templates/{template['id']}"
    assert template["is_active"] is True
    assert await admin.get(path) == template
    changed = await admin.patch(path, json={"is_active": False, "subject": None})
    assert (changed["is_active"], changed["subject"]) == (False, None)
    campaign = await add_campaign(admin, template_id=template["id"])
    await admin.delete(path)
    await admin.error("GET", path, status=404)
    assert await admin.fields_refused("POST", "/campaigns", json=LETTER | {"template_id": template["id"]}) == {
        "template_id": "foreign_key"
    }
    assert (await admin.get(f"/campaigns/{campaign['id']}"))["template_id"] == template["id"]
    assert (await admin.post(f"{path}/restore", status=200))["name"] == "Basic"
    actions = [action for action, *_ in await audited(api, admin, "campaign_template")]
    assert actions == ["create", "update", "delete", "restore"]


async def test_templates_are_listed_as_an_array(api: Api) -> None:
    admin = await api.register()
    for number, kind, is_active in ((1, "email", True), (2, "sms", True), (3, "email", False)):
        fields = {"name": f"T{number}", "campaign_type": kind, "is_active": is_active}
        await admin.post("/campaigns/templates", json=TEMPLATE | fields)

    async def listed(**params: Any) -> tuple[list[str], str]:
        response = await admin.request("GET", "/campaigns/templates", params=params)
        assert response.status_code == 200, response.text
        return [item["name"] for item in response.json()], response.headers["x-total-count"]

    assert await listed() == (["T3", "T2", "T1"], "3")
    assert await listed(campaign_type="email") == (["T3", "T1"], "2")
    assert await listed(is_active="true") == (["T2", "T1"], "2")
    assert await listed(campaign_type="email", is_active="false") == (["T3"], "1")
    assert await listed(page=2, page_size=2) == (["T1"], "3")
    assert await listed(page=9) == ([], "3")


# Suppressions


async def test_an_address_is_suppressed_once_and_let_go(api: Api) -> None:
    admin = await api.register()
    by_mail = await admin.post("/suppressions", json={"email": "Ann@Example.com", "reason": "asked by phone"})
    by_phone = await admin.post("/suppressions", json={"phone": "+1 (512) 555-0100"})
    assert (by_mail["email"], by_mail["phone"], by_mail["reason"]) == ("Ann@Example.com", None, "asked by phone")
    for twice in ({"email": "ann@example.COM"}, {"phone": "1 512 555 0100"}):
        assert (await admin.error("POST", "/suppressions", status=409, json=twice))["type"] == (
            "ResourceAlreadyExistsError"
        )
    other = await api.register()
    await other.post("/suppressions", json={"email": "ann@example.com"})
    assert [item["id"] for item in (await admin.get("/suppressions"))["items"]] == [by_phone["id"], by_mail["id"]]
    for params, expected in (({"email": "ANN@example.com"}, by_mail), ({"phone": "15125550100"}, by_phone)):
        assert (await admin.get("/suppressions", params=params))["items"] == [expected]
    await other.error("DELETE", f"/suppressions/{by_mail['id']}", status=404)
    await admin.delete(f"/suppressions/{by_mail['id']}")
    await admin.error("DELETE", f"/suppressions/{by_mail['id']}", status=404)
    await admin.post("/suppressions", json={"email": "ann@example.com"})


async def test_an_address_is_suppressed_however_its_letters_were_composed(api: Api) -> None:
    admin = await api.register()
    composed, decomposed = "é@example.com", "E\u0301@example.com"
    suppression = await admin.post("/suppressions", json={"email": composed})
    await admin.error("POST", "/suppressions", status=409, json={"email": decomposed})
    assert (await admin.get("/suppressions", params={"email": decomposed}))["items"] == [suppression]
    lead = await add_lead(admin, email=decomposed)
    assert lead["email"] == decomposed
    await add_lead(admin, email=composed)
    campaign = await add_campaign(admin)
    sent = await admin.post(f"/campaigns/{campaign['id']}/send", status=200, json={})
    assert (sent["total_recipients"], sent["suppressed_count"]) == (1, 1)


async def test_a_suppression_is_of_one_address(api: Api) -> None:
    admin = await api.register()
    for body, expected in (
        ({}, {"email": "missing"}),
        ({"email": "a@example.com", "phone": "1"}, {"phone": "conflicting_fields"}),
        ({"email": "nobody"}, {"email": "value_error.email"}),
        ({"phone": "none"}, {"phone": "phone_number"}),
        ({"phone": "1" * 21}, {"phone": "string_too_long"}),
    ):
        assert await admin.fields_refused("POST", "/suppressions", json=body) == expected


@pytest.mark.auth
async def test_each_route_needs_its_permission(api: Api) -> None:
    admin = await api.register()
    reader = await api.add_user_with(admin, ["campaign:read"])
    campaign = await add_campaign(admin)
    assert (await reader.get(f"/campaigns/{campaign['id']}"))["id"] == campaign["id"]
    assert await reader.get("/campaigns/templates") == []
    assert (await reader.get("/suppressions"))["items"] == []
    await reader.post(f"/campaigns/{campaign['id']}/preview", json={}, status=200)
    for method, path, body, permission in (
        ("POST", "/campaigns", LETTER, "campaign:create"),
        ("PATCH", f"/campaigns/{campaign['id']}", {}, "campaign:update"),
        ("DELETE", f"/campaigns/{campaign['id']}", None, "campaign:delete"),
        ("POST", "/campaigns/templates", TEMPLATE, "campaign:create"),
        ("POST", "/suppressions", {"phone": "1"}, "campaign:create"),
        ("DELETE", "/suppressions/1", None, "campaign:delete"),
        # It would tell of a lead, whether there is one or not.
        ("POST", f"/campaigns/{campaign['id']}/preview", {"lead_id": 1}, "lead:read"),
    ):
        error = await reader.error(method, path, status=403, **({} if body is None else {"json": body}))
        assert error["details"]["required_permission"] == permission
