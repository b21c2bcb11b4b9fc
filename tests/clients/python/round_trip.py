"""A round trip with the client that openapi-python-client has made: what a program of a user would look like.

`python round_trip.py URL` beside the package `reos_client`. It prints one line of JSON with what it has seen;
test_clients.py checks the types of all this with mypy, and then what was seen.
"""

from __future__ import annotations

import json
import sys
from http import HTTPStatus
from io import BytesIO
from pathlib import Path

from reos_client import AuthenticatedClient, Client
from reos_client.api.auth import register
from reos_client.api.deals import export_deals, get_deal
from reos_client.api.leads import convert_lead, create_lead, get_lead_stats
from reos_client.api.properties import (
    create_property,
    create_property_image,
    delete_property,
    get_property,
    list_properties,
    patch_property,
)
from reos_client.models import (
    Deal,
    DealCreate,
    DealTypeIn,
    ErrorEnvelope,
    Image,
    ImageUpload,
    Lead,
    LeadCreate,
    LeadSource,
    LeadStats,
    LoggedIn,
    Property,
    PropertyCreate,
    PropertyPage,
    PropertyStatus,
    PropertyType,
    PropertyUpdate,
    Registration,
)
from reos_client.types import UNSET, File, Unset


def log_in(url: str) -> AuthenticatedClient:
    """The client of a new organisation's Admin."""
    person = Registration(
        email="python@example.com", password="correct Horse 7", first_name="Pat", last_name="Lee", phone=None
    )
    answer = register.sync(client=Client(url), body=person)
    assert isinstance(answer, LoggedIn)
    return AuthenticatedClient(url, answer.access_token)


def create(client: AuthenticatedClient, number: int) -> Property:
    body = PropertyCreate(
        address=f"{number} Congress Avenue",
        city="Austin",
        state="TX",
        zip_code="78701",
        property_type=PropertyType.CONDO,
        price=f"{number}00000.00",
        bathrooms=1.5,
    )
    answer = create_property.sync(client=client, body=body, idempotency_key=f"python-{number}")
    assert isinstance(answer, Property)
    return answer


def all_ids(client: AuthenticatedClient) -> list[int]:
    """The condos of the city from the dearest down, a page at a time."""
    ids: list[int] = []
    cursor: str | Unset = UNSET
    while True:
        page = list_properties.sync(
            client=client,
            property_type=PropertyType.CONDO,
            city="austin",
            min_price="100000.00",
            sort="-price",
            page_size=2,
            cursor=cursor,
        )
        assert isinstance(page, PropertyPage)
        ids += [item.id for item in page.items if not isinstance(item.id, Unset)]
        if page.next_cursor is None:
            return ids
        cursor = page.next_cursor


def wrong_fields(client: AuthenticatedClient) -> dict[str, str]:
    """What a 422 says: each field with its code."""
    body = PropertyCreate(
        address="x" * 501, city="Austin", state="TX", zip_code="78701", property_type=PropertyType.LAND, price=-1
    )
    answer = create_property.sync(client=client, body=body)
    assert isinstance(answer, ErrorEnvelope)
    errors = answer.error.details.errors
    assert not isinstance(errors, Unset)
    return {error.field: error.type_ for error in errors}


def race(client: AuthenticatedClient, listing: Property) -> tuple[str | None, str]:
    """A change with the tag of what was read, and one more with the old tag."""
    tag = get_property.sync_detailed(listing.id, client=client).headers["etag"]
    first = patch_property.sync(listing.id, client=client, body=PropertyUpdate(price="150000.00"), if_match=tag)
    assert isinstance(first, Property)
    assert first.city == listing.city
    second = patch_property.sync(listing.id, client=client, body=PropertyUpdate(description="late"), if_match=tag)
    assert isinstance(second, ErrorEnvelope)
    return first.price, second.error.type_


def upload(client: AuthenticatedClient, listing: Property, picture: bytes) -> Image:
    body = ImageUpload(file=File(BytesIO(picture), "house.png", "image/png"), title="Front", is_primary=True)
    answer = create_property_image.sync(listing.id, client=client, body=body)
    assert isinstance(answer, Image)
    return answer


def convert(client: AuthenticatedClient, listing: Property) -> Deal:
    lead = create_lead.sync(
        client=client, body=LeadCreate(first_name="Grace", last_name="Park", source=LeadSource.REFERRAL)
    )
    assert isinstance(lead, Lead)
    body = DealCreate(property_id=listing.id, deal_type=DealTypeIn.SALE, value="140000.00")
    deal = convert_lead.sync(lead.id, client=client, body=body)
    assert isinstance(deal, Deal)
    read = get_deal.sync(deal.id, client=client)
    assert read == deal
    return deal


def main() -> None:
    client = log_in(sys.argv[1])
    listings = [create(client, number) for number in (1, 2, 3)]
    again = create(client, 3)
    price, refused = race(client, listings[0])
    image = upload(client, listings[0], Path(sys.argv[2]).read_bytes())
    deal = convert(client, listings[1])
    stats = get_lead_stats.sync(client=client)
    assert isinstance(stats, LeadStats)
    exported = export_deals.sync(client=client)
    assert isinstance(exported, str)
    pages = all_ids(client)
    deleted = delete_property.sync_detailed(listings[2].id, client=client)
    gone = get_property.sync_detailed(listings[2].id, client=client)
    assert listings[0].status is PropertyStatus.AVAILABLE
    print(
        json.dumps(
            {
                "is_repeated": again.id == listings[2].id,
                "pages": [[listing.id for listing in listings].index(id) for id in pages],
                "price": price,
                "refused": refused,
                "fields": wrong_fields(client),
                "image": [image.title, image.is_primary, image.thumbnail_url is not None],
                "deal": [deal.deal_type.value, deal.stage.value, deal.value, deal.lead_id is not None],
                "converted": stats.by_status["converted"],
                "exported": exported.splitlines()[1].startswith(f"{deal.id},"),
                "deleted": deleted.status_code == HTTPStatus.NO_CONTENT,
                "gone": gone.parsed.error.type_ if isinstance(gone.parsed, ErrorEnvelope) else None,
            }
        )
    )


if __name__ == "__main__":
    main()
