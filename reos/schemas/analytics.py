"""What an organisation's records come to, in numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, WithJsonSchema

from reos.schemas.common import DateOrTime, MoneyText, RequestModel, ResponseModel
from reos.schemas.deals import DealStage, DealType
from reos.schemas.leads import LeadSource, LeadStatus
from reos.schemas.properties import PropertyStatus, PropertyType
from reos.schemas.transactions import Transaction

Month = Annotated[str, WithJsonSchema({"type": "string", "pattern": r"^\d{4}-\d{2}$"})]


class RangeQuery(RequestModel):
    """From which day to which, both of them whole, in the organisation's time zone."""

    start_date: DateOrTime | None = Field(None, description="The first day; from the beginning unless given.")
    end_date: DateOrTime | None = Field(None, description="The last day; without an end unless given.")


class PropertyBlock(ResponseModel):
    """The properties of the dashboard."""

    total: int
    by_status: dict[PropertyStatus, int]
    total_value: MoneyText = Field(description="The sum of their prices.")


class LeadBlock(ResponseModel):
    """The leads of the dashboard."""

    total: int
    by_status: dict[LeadStatus, int]


class DealBlock(ResponseModel):
    """The deals of the dashboard."""

    total: int
    by_stage: dict[DealStage, int]
    total_value: MoneyText


class RevenueBlock(ResponseModel):
    """The money of the dashboard; the transactions of deleted deals do not count."""

    total_commissions: MoneyText = Field(description="All transactions of the type commission.")
    this_month: MoneyText = Field(
        description="The revenue (sale, commission, income) of the present month, whatever the range."
    )


class Dashboard(ResponseModel):
    """Everything at a glance. The range applies to when things were created, and to the days of transactions."""

    total_properties: int
    total_leads: int
    total_deals: int
    total_deal_value: MoneyText
    active_campaigns: int = Field(description="Scheduled or in progress.")
    properties_by_status: dict[PropertyStatus, int]
    leads_by_status: dict[LeadStatus, int]
    deals_by_stage: dict[DealStage, int]
    recent_activity_count: int = Field(
        description=(
            "Of the last 7 days, whatever the range: activities of properties and of leads, and moves of deals to"
            " another stage."
        )
    )
    properties: PropertyBlock
    leads: LeadBlock
    deals: DealBlock
    revenue: RevenueBlock


class CityCount(ResponseModel):
    """How many properties a city has."""

    city: str
    count: int


class PropertyAnalytics(ResponseModel):
    """The properties that were created in the range."""

    total_properties: int
    by_type: dict[PropertyType, int]
    by_status: dict[PropertyStatus, int]
    avg_price: MoneyText = Field(description="Of those that have a price.")
    total_value: MoneyText = Field(description="The sum of their prices.")
    cities: list[CityCount] = Field(description="The ten with the most properties; of equal ones the first by name.")


class LeadAnalytics(ResponseModel):
    """The leads that were created in the range."""

    total_leads: int
    by_status: dict[LeadStatus, int]
    by_source: dict[LeadSource, int]
    avg_score: float
    conversion_rate: float = Field(description="Percent of all that are converted.")
    new_leads_last_30_days: int = Field(description="Created in the 30 days before now, whatever the range.")


class DealAnalytics(ResponseModel):
    """The deals that were created in the range."""

    total_deals: int
    by_stage: dict[DealStage, int]
    by_type: dict[DealType, int]
    total_value: MoneyText
    avg_value: MoneyText
    win_rate: float = Field(description="Percent of the closed ones that were won.")
    expected_revenue: MoneyText = Field(description="The values of the open ones, each times its probability.")
    avg_days_in_stage: float = Field(
        description=(
            "How many days a deal stays in an open stage: the average of all stays, those that go on counted until"
            " now. How long deals have been closed does not count."
        )
    )
    avg_days_by_stage: dict[DealStage, float] = Field(description="The same for each stage; 0 for the closed ones.")


class CampaignAnalytics(ResponseModel):
    """The campaigns that were created in the range. Rates are percents."""

    total_campaigns: int
    active_campaigns: int = Field(description="Scheduled or in progress.")
    total_sent: int
    total_delivered: int
    total_opened: int
    delivery_rate: float = Field(description="Delivered of sent.")
    open_rate: float = Field(description="Opened of delivered.")
    click_rate: float = Field(description="Clicked of opened.")


class MonthRevenue(ResponseModel):
    """The revenue of a month."""

    month: Month
    revenue: MoneyText


class RevenueAnalytics(ResponseModel):
    """The transactions whose day is in the range; those of deleted deals do not count.

    Revenue is what sales, commissions and income come to; purchases, leases and deposits are neither revenue nor
    expenses.
    """

    total_revenue: MoneyText
    total_expenses: MoneyText
    net_revenue: MoneyText
    revenue_by_month: list[MonthRevenue] = Field(
        description=(
            "Every month of the range, also those without revenue. Where the range has no beginning or no end, from the"
            " first or to the last month with revenue. Of more than a hundred years only the months with revenue."
        )
    )
    revenue_by_deal_type: dict[DealType, MoneyText]


class RevenueTransaction(Transaction):
    """A transaction in the export, with the type of its deal."""

    deal_type: DealType
