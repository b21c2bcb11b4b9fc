"""An example of each JSON body, for the API's document. Ids stand for those of one's own resources."""

from __future__ import annotations

from typing import Any, Final

from reos.schemas.auth import (
    EmailVerification,
    Login,
    MeUpdate,
    PasswordChange,
    PasswordReset,
    PasswordResetRequest,
    Refresh,
    Registration,
)
from reos.schemas.campaign_templates import CampaignTemplateCreate, CampaignTemplateUpdate
from reos.schemas.campaigns import CampaignCreate, CampaignPreviewRequest, CampaignSend, CampaignUpdate
from reos.schemas.common import RequestModel
from reos.schemas.deals import DealCreate, DealUpdate
from reos.schemas.leads import (
    LeadActivityCreate,
    LeadAssignment,
    LeadCreate,
    LeadDocumentCreate,
    LeadNoteCreate,
    LeadUpdate,
)
from reos.schemas.organizations import OrganizationUpdate
from reos.schemas.portfolios import PortfolioCreate, PortfolioUpdate
from reos.schemas.properties import (
    ActivityCreate,
    ImageCreate,
    NoteCreate,
    PropertyCreate,
    PropertyUpdate,
    ValuationCreate,
)
from reos.schemas.roles import RoleCreate, RoleUpdate
from reos.schemas.suppressions import SuppressionCreate
from reos.schemas.teams import MemberCreate, TeamCreate, TeamUpdate
from reos.schemas.transactions import TransactionCreate, TransactionUpdate
from reos.schemas.users import UserCreate, UserUpdate
from reos.schemas.webhooks import WebhookCreate, WebhookUpdate

EXAMPLES: Final[dict[type[RequestModel], dict[str, Any]]] = {
    # The user and the tokens
    Registration: {
        "email": "ann@example.com",
        "password": "correct Horse 7",
        "first_name": "Ann",
        "last_name": "Lee",
        "organization_name": "Lee Realty",
    },
    Login: {"email": "ann@example.com", "password": "correct Horse 7"},
    Refresh: {"refresh_token": "the one that came last"},
    MeUpdate: {"phone": "+1 512 555 0100", "preferences": {"daily_report": True}},
    PasswordChange: {"current_password": "correct Horse 7", "new_password": "Battery staple 8"},
    PasswordResetRequest: {"email": "ann@example.com"},
    PasswordReset: {"token": "from the mail", "new_password": "Battery staple 8"},
    EmailVerification: {"token": "from the mail"},
    # Properties
    PropertyCreate: {
        "address": "1 Congress Avenue",
        "city": "Austin",
        "state": "TX",
        "zip_code": "78701",
        "latitude": 30.2641,
        "longitude": -97.7447,
        "property_type": "condo",
        "price": "750000.00",
        "bedrooms": 2,
        "bathrooms": 1.5,
        "square_feet": 1150,
        "year_built": 2016,
        "features": ["balcony", "parking"],
    },
    PropertyUpdate: {"price": "735000.00", "description": None},
    ImageCreate: {"url": "https://example.com/front.jpg", "title": "Front", "is_primary": True},
    ValuationCreate: {"value": "742000.00", "valuation_date": "2026-03-31", "source": "appraiser"},
    NoteCreate: {"content": "The keys are with the neighbour."},
    ActivityCreate: {"activity_type": "viewing", "description": "Two visitors, both liked the balcony."},
    # Leads
    LeadCreate: {
        "first_name": "Grace",
        "last_name": "Park",
        "email": "grace@example.com",
        "source": "website",
        "budget": "800000.00",
        "score": 70,
    },
    LeadUpdate: {"status": "qualified", "score": 85},
    LeadAssignment: {"user_id": 1},
    LeadActivityCreate: {
        "activity_type": "call",
        "subject": "First call",
        "description": "Looks for two bedrooms near the river.",
        "outcome": "interested",
    },
    LeadNoteCreate: {"content": "Calls back on Friday.", "is_pinned": True},
    LeadDocumentCreate: {"title": "Pre-approval", "file_path": "https://example.com/pre-approval.pdf"},
    # Deals
    DealCreate: {
        "property_id": 1,
        "lead_id": 1,
        "deal_type": "sell",
        "value": "740000.00",
        "commission_rate": "3.00",
        "expected_close_date": "2026-06-30",
    },
    DealUpdate: {"stage": "negotiation", "probability": 60},
    TransactionCreate: {"transaction_type": "commission", "amount": "22200.00", "transaction_date": "2026-06-30"},
    TransactionUpdate: {"description": "First half"},
    PortfolioCreate: {"name": "Downtown", "property_ids": [1]},
    PortfolioUpdate: {"description": "South of the river"},
    # Campaigns
    CampaignTemplateCreate: {
        "name": "Monthly letter",
        "campaign_type": "email",
        "subject": "News from {{organization_name}}",
        "content": "<p>Dear {{first_name}}, …</p>",
    },
    CampaignTemplateUpdate: {"is_active": False},
    CampaignCreate: {
        "name": "Open house",
        "campaign_type": "email",
        "subject": "Come and see, {{first_name}}",
        "content": "<p>Sunday at ten.</p><p><a href='{{unsubscribe_url}}'>No more of these</a></p>",
    },
    CampaignUpdate: {"subject": "Sunday at ten, {{first_name}}"},
    CampaignSend: {"filters": {"status": "qualified", "min_score": 50}, "send_at": "2030-01-31T09:00:00-06:00"},
    CampaignPreviewRequest: {"lead_id": 1},
    SuppressionCreate: {"email": "grace@example.com", "reason": "asked by telephone"},
    # The organisation and its people
    OrganizationUpdate: {"settings": {"timezone": "America/Chicago", "currency": "USD"}},
    UserCreate: {
        "email": "bob@example.com",
        "password": "correct Horse 7",
        "first_name": "Bob",
        "last_name": "Ray",
        "role_ids": [1],
    },
    UserUpdate: {"role_ids": [1, 2], "is_locked": False},
    RoleCreate: {"name": "Assistant", "permission_ids": [1, 2]},
    RoleUpdate: {"description": "Reads everything"},
    TeamCreate: {"name": "North"},
    TeamUpdate: {"description": "North of the river"},
    MemberCreate: {"role": "leader"},
    # Webhooks
    WebhookCreate: {"url": "https://example.com/hook", "event_types": ["property.created", "deal.stage_changed"]},
    WebhookUpdate: {"is_active": False},
}
