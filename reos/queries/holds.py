"""How a property's status follows its deals.

A deal in one of the holding stages has its property under contract; one that is won has it sold, or rented. The
property names that deal (`status_deal_id`), under its own lock, so of two deals that want it one comes first. A deal
that lets go leaves it available, unless its status has been set by hand since.

Locks are taken in the order deal, lead, property, and several properties in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reos.db import Connection, Record
from reos.errors import PropertyNotAvailableError
from reos.queries import properties
from reos.schemas.deals import CLOSED_STAGES, HOLDING_STAGES

RENTING_TYPES = frozenset({"lease", "rental"})
UNSALEABLE = frozenset({"sold", "off_market"})

Deal = Mapping[str, Any]  # what of a deal matters here: property_id, stage, deal_type
Change = tuple[Record, Record]  # a property before and after


def status_given(deal: Deal) -> str | None:
    """The status that a deal gives its property; None in the stages that leave it alone."""
    if deal["stage"] in HOLDING_STAGES:
        return "under_contract"
    if deal["stage"] == "closed_won":
        return "rented" if deal["deal_type"] in RENTING_TYPES else "sold"
    return None


def concern_properties(before: Deal, after: Deal) -> bool:
    """Whether a change of a deal has to lock its properties: no change does that is between two early stages."""
    if before["property_id"] != after["property_id"]:
        return True
    return before["stage"] in CLOSED_STAGES or status_given(before) != status_given(after)


class Plan:
    """What a change of a deal does to its properties, decided before anything is written."""

    def __init__(self, locked: Mapping[int, Record]):
        self.locked = locked
        self.statuses: dict[int, tuple[str, bool]] = {}  # the new status, and whether the deal gives it

    async def carry_out(self, conn: Connection, deal_id: int) -> list[Change]:
        """Write the new statuses; the properties before and after, in the order of their ids."""
        wanted = [
            {"id": property_id, "status": status, "deal_id": deal_id if is_given else None}
            for property_id, (status, is_given) in sorted(self.statuses.items())
        ]
        if not wanted:
            return []
        after = await properties.set_statuses(conn, wanted)
        return sorted(((self.locked[row["id"]], row) for row in after), key=lambda change: int(change[1]["id"]))


async def plan(conn: Connection, deal_id: int | None, before: Deal | None, after: Deal | None) -> Plan:
    """Lock the properties of a deal before and after a change, and decide what becomes of them.

    `before` is None for a new or restored deal (`deal_id` is None for a new one), `after` for a deleted one.
    Raises PropertyNotAvailableError when the property is deleted, or another's when this deal wants it.
    """
    plan = Plan(await properties.lock_all(conn, [deal["property_id"] for deal in (before, after) if deal]))
    if before is not None:
        held = plan.locked[before["property_id"]]
        if held["status_deal_id"] == deal_id:
            plan.statuses[held["id"]] = ("available", False)
    if after is not None:
        _take(plan, deal_id, after)
    return plan


def _take(plan: Plan, deal_id: int | None, deal: Deal) -> None:
    wanted = plan.locked[deal["property_id"]]
    status = status_given(deal)
    if wanted["deleted_at"] is not None and deal["stage"] != "closed_lost":
        raise PropertyNotAvailableError("The property of the deal is deleted.")
    if status is None:
        return
    is_ours = deal_id is not None and wanted["status_deal_id"] == deal_id
    if not is_ours and wanted["status"] != "available":
        raise PropertyNotAvailableError(f"The property is not available but {wanted['status']}.")
    if is_ours and wanted["status"] == status:
        plan.statuses.pop(wanted["id"], None)
    else:
        plan.statuses[wanted["id"]] = (status, True)


def refuse_unsaleable(plan: Plan, property_id: int) -> None:
    """Raises PropertyNotAvailableError for a property that no deal may begin with: sold or off the market."""
    status = plan.locked[property_id]["status"]
    if status in UNSALEABLE:
        raise PropertyNotAvailableError(f"There is no new deal on a property that is {status}.")
