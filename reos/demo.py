"""The demo data, as plain tables: change what you like, remove DATA_DIR (`make reset`) and run again.

`reos seed` reads them. What is not in a table (dates, who works on what, leads, the deals behind each listing) it makes
up, the same at each run for the same SEED, with dates relative to today.
"""

from __future__ import annotations

from typing import Any

SEED = 1
DAYS = 460  # how far back the data goes
CLOSED_DAYS = 350  # how far back the deals were won, one after the other

# Key below, name, slug, settings.
ORGANIZATIONS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("acme", "Acme Real Estate", "acme-real-estate", {"timezone": "America/Chicago", "currency": "USD"}),
    ("premium", "Premium Properties LLC", "premium-properties", {"timezone": "America/Denver", "currency": "USD"}),
]

# Organisation, role (Admin, Manager or Agent), first name, last name, phone, email, password. The first of each
# organisation is the Admin who founds it. The passwords are public, so they are for a try-out alone.
USERS = [
    ("acme", "Admin", "Alice", "Anderson", "+1 512 555 0101", "admin@acme-realestate.com", "Admin123!"),
    ("acme", "Manager", "Marcus", "Mendoza", "+1 512 555 0102", "manager@acme-realestate.com", "Manager123!"),
    ("acme", "Agent", "Mike", "Miller", "+1 512 555 0103", "mike@acme-realestate.com", "Agent123!"),
    ("acme", "Agent", "Sara", "Singh", "+1 512 555 0104", "sara@acme-realestate.com", "Agent123!"),
    ("acme", "Agent", "Leo", "Larsen", "+1 512 555 0105", "leo@acme-realestate.com", "Agent123!"),
    ("premium", "Admin", "Paula", "Price", "+1 303 555 0101", "admin@premium-properties.com", "Admin123!"),
]

# What is shown to somebody who tries the service: who, email, password.
LOGINS = [
    ("Admin", "admin@acme-realestate.com", "Admin123!"),
    ("Manager", "manager@acme-realestate.com", "Manager123!"),
    ("Agent", "mike@acme-realestate.com", "Agent123!"),
    ("Admin of another organisation", "admin@premium-properties.com", "Admin123!"),
]

# State, zip code, latitude and longitude of the middle.
TOWNS = {
    "Austin": ("TX", "78704", 30.2672, -97.7431),
    "Round Rock": ("TX", "78664", 30.5083, -97.6789),
    "Georgetown": ("TX", "78626", 30.6333, -97.6781),
    "Cedar Park": ("TX", "78613", 30.5052, -97.8203),
    "Pflugerville": ("TX", "78660", 30.4394, -97.6200),
    "San Marcos": ("TX", "78666", 29.8833, -97.9414),
    "New Braunfels": ("TX", "78130", 29.7030, -98.1245),
    "Dripping Springs": ("TX", "78620", 30.1902, -98.0867),
    "Lakeway": ("TX", "78734", 30.3680, -97.9797),
    "Bastrop": ("TX", "78602", 30.1105, -97.3153),
    "San Antonio": ("TX", "78209", 29.4241, -98.4936),
    "Fredericksburg": ("TX", "78624", 30.2752, -98.8720),
    "Denver": ("CO", "80206", 39.7392, -104.9903),
    "Boulder": ("CO", "80302", 40.0150, -105.2705),
    "Golden": ("CO", "80401", 39.7555, -105.2211),
    "Littleton": ("CO", "80120", 39.6133, -105.0166),
    "Aurora": ("CO", "80012", 39.7294, -104.8319),
    "Fort Collins": ("CO", "80521", 40.5853, -105.0844),
    "Evergreen": ("CO", "80439", 39.6333, -105.3172),
}

# Address, town, type, status, price in USD, bedrooms, bathrooms, living and lot area in square feet, year built.
# A listing that is sold, rented or under contract gets the deal that made it so.
Listing = tuple[str, str, str, str, int, int | None, float | None, int | None, int | None, int | None]
LISTINGS: dict[str, list[Listing]] = {
    "acme": [
        ("4616 Barton Hills Drive", "Austin", "single_family", "available", 874_000, 3, 3, 1610, 11_000, 2022),
        ("676 South Congress Avenue", "Austin", "condo", "available", 485_000, 2, 1.5, 930, None, 1957),
        ("105 Bouldin Avenue", "Austin", "townhouse", "rented", 690_000, 3, 1.5, 1520, 2800, 1964),
        ("3539 East 12th Street", "Austin", "single_family", "available", 1_244_000, 3, 2, 2600, 10_000, 1992),
        ("2650 Guadalupe Street", "Austin", "multi_family", "off_market", 1_530_000, 10, 5, 4210, 15_600, 1957),
        ("190 Windsor Road", "Austin", "single_family", "available", 815_000, 3, 2.5, 1700, 6900, 2009),
        ("3766 Exposition Boulevard", "Austin", "commercial", "available", 2_010_000, None, 2, 4750, 18_400, 1946),
        ("1844 Manor Road", "Austin", "townhouse", "sold", 774_000, 3, 1.5, 1680, 2800, 1992),
        ("922 West Mary Street", "Austin", "single_family", "available", 1_029_000, 3, 3, 2170, 5400, 1928),
        ("2528 Rainey Street", "Austin", "condo", "available", 579_900, 2, 1, 1200, None, 2016),
        ("1810 Burnet Road", "Austin", "land", "under_contract", 1_740_000, None, None, None, 77_000, None),
        ("4063 Airport Boulevard", "Austin", "single_family", "sold", 960_000, 3, 3, 2340, 9900, 1998),
        ("1971 Old Settlers Boulevard", "Round Rock", "mixed_use", "available", 1_464_900, 4, 4, 6650, 7300, 1978),
        ("3281 Palm Valley Boulevard", "Round Rock", "single_family", "available", 540_000, 5, 2, 1800, 13_200, 1998),
        ("994 Chisholm Trail", "Round Rock", "industrial", "available", 3_190_000, None, 3, 27_400, 50_000, 2022),
        ("2504 Gattis School Road", "Round Rock", "condo", "rented", 279_000, 2, 1, 1140, None, 1986),
        ("2396 Brushy Creek Lane", "Round Rock", "single_family", "available", 455_000, 5, 2, 1720, 8100, 1985),
        ("3752 Williams Drive", "Georgetown", "condo", "available", 174_000, 1, 1, 660, None, 1992),
        ("856 South Austin Avenue", "Georgetown", "townhouse", "available", 335_000, 2, 1.5, 1370, 2500, 1998),
        ("388 Shell Road", "Georgetown", "single_family", "sold", 610_000, 3, 2.5, 2240, 13_600, 2013),
        ("275 Scenic Drive", "Georgetown", "multi_family", "under_contract", 910_000, 8, 4, 5030, 15_900, 1928),
        ("717 Cypress Creek Road", "Cedar Park", "single_family", "under_contract", 895_000, 4, 2, 3270, 9100, 1957),
        ("2899 Discovery Boulevard", "Cedar Park", "commercial", "available", 1_470_000, None, 2, 5250, 15_400, 2020),
        ("348 Anderson Mill Road", "Cedar Park", "townhouse", "sold", 564_000, 2, 2.5, 1750, 1800, 2013),
        ("692 Little Elm Trail", "Cedar Park", "single_family", "sold", 835_000, 4, 2, 2990, 13_600, 2022),
        ("2805 Pecan Street", "Pflugerville", "condo", "available", 214_000, 1, 1, 780, None, 1997),
        ("3850 Kelly Lane", "Pflugerville", "land", "available", 723_000, None, None, None, 416_000, None),
        ("2642 Dessau Road", "Pflugerville", "single_family", "available", 415_000, 4, 3, 1610, 11_800, 2020),
        ("4174 Hopkins Street", "San Marcos", "mixed_use", "sold", 1_225_000, 4, 4, 7250, 5200, 1957),
        (
            "4347 Aquarena Springs Drive",
            "San Marcos",
            "single_family",
            "under_contract",
            480_000,
            3,
            2,
            2340,
            9000,
            2022,
        ),
        ("4183 Belvin Street", "San Marcos", "industrial", "available", 3_384_000, None, 3, 31_200, 83_500, 1985),
        ("1741 Gruene Road", "New Braunfels", "condo", "available", 344_000, 2, 1.5, 1490, None, 1998),
        ("4168 Seguin Avenue", "New Braunfels", "single_family", "available", 660_000, 4, 2, 2890, 9200, 1992),
        ("1486 Comal Street", "New Braunfels", "condo", "available", 204_900, 1, 1, 720, None, 2013),
        ("4360 Mercer Street", "Dripping Springs", "townhouse", "rented", 544_000, 3, 2, 1500, 2200, 1994),
        ("358 Creek Road", "Dripping Springs", "single_family", "available", 1_050_000, 5, 2.5, 3230, 13_100, 2022),
        ("2632 Fitzhugh Road", "Dripping Springs", "multi_family", "sold", 894_900, 10, 5, 3410, 15_600, 2001),
        ("2045 Lohmans Crossing Road", "Lakeway", "single_family", "sold", 814_900, 5, 2, 2430, 11_000, 1988),
        ("3758 Clara Van Street", "Lakeway", "commercial", "rented", 2_610_000, None, 2, 6850, 7200, 1978),
        ("1734 Lakeway Drive", "Lakeway", "townhouse", "available", 835_000, 3, 2.5, 1980, 2700, 1994),
        ("1568 Chestnut Street", "Bastrop", "single_family", "available", 765_000, 3, 2, 3220, 5300, 2022),
        ("3324 Pecan Street", "Bastrop", "condo", "sold", 310_000, 2, 1.5, 1330, None, 1998),
        ("3279 Broadway Street", "San Antonio", "land", "sold", 717_000, None, None, None, 84_000, None),
        ("3187 King William Street", "San Antonio", "single_family", "off_market", 500_000, 4, 2.5, 1900, 13_200, 1978),
        ("911 Austin Highway", "San Antonio", "mixed_use", "under_contract", 1_405_000, 4, 4, 7150, 9100, 2009),
        ("2246 Main Street", "Fredericksburg", "single_family", "sold", 844_900, 3, 2, 2390, 6300, 1964),
        (
            "2903 Llano Street",
            "Fredericksburg",
            "industrial",
            "under_contract",
            2_549_000,
            None,
            3,
            20_900,
            104_500,
            1998,
        ),
    ],
    "premium": [
        ("4701 Wynkoop Street", "Denver", "condo", "under_contract", 509_900, 1, 1, 1200, None, 2022),
        ("1806 South Pearl Street", "Denver", "single_family", "available", 1_119_000, 4, 3, 2830, 8400, 1985),
        ("3468 East Colfax Avenue", "Denver", "townhouse", "available", 780_000, 2, 2.5, 1820, 2400, 2005),
        ("4510 Larimer Street", "Denver", "commercial", "under_contract", 1_950_000, None, 2, 5000, 6100, 1964),
        ("1467 Steele Street", "Denver", "single_family", "sold", 1_040_000, 4, 2.5, 2790, 12_400, 1946),
        ("3411 West 32nd Avenue", "Denver", "land", "available", 813_000, None, None, None, 31_500, None),
        ("4401 Pearl Street", "Boulder", "single_family", "available", 1_544_000, 3, 2.5, 2660, 6800, 2001),
        ("2232 Mapleton Avenue", "Boulder", "mixed_use", "available", 2_310_000, 4, 4, 4850, 7400, 2009),
        ("197 Baseline Road", "Boulder", "multi_family", "rented", 1_375_000, 10, 5, 3310, 7400, 1978),
        ("960 Arapahoe Avenue", "Boulder", "condo", "available", 614_000, 2, 2, 1090, None, 2005),
        ("4445 Washington Avenue", "Golden", "single_family", "sold", 765_000, 5, 3, 1710, 11_700, 2022),
        ("4509 Illinois Street", "Golden", "condo", "available", 605_000, 2, 1.5, 1450, None, 2018),
        ("2006 West Main Street", "Littleton", "single_family", "available", 1_070_000, 5, 3, 3030, 7900, 1992),
        ("1888 South Prince Street", "Littleton", "townhouse", "under_contract", 750_000, 2, 2, 1920, 2600, 2013),
        ("1186 East Iliff Avenue", "Aurora", "commercial", "available", 1_610_000, None, 2, 7450, 8400, 1992),
        ("4551 South Parker Road", "Aurora", "single_family", "available", 484_000, 3, 2.5, 1640, 10_700, 1957),
        ("246 Mountain Avenue", "Fort Collins", "land", "sold", 467_000, None, None, None, 142_000, None),
        ("1046 Remington Street", "Fort Collins", "single_family", "available", 1_129_900, 3, 3, 3140, 9700, 1964),
        ("970 Upper Bear Creek Road", "Evergreen", "mixed_use", "sold", 2_519_000, 4, 4, 7400, 7400, 2009),
        ("1301 Meadow Drive", "Evergreen", "multi_family", "sold", 1_769_000, 6, 3, 6020, 14_800, 1928),
    ],
}

# Of each type of property: sentences that describe it, and what it may have.
DESCRIPTIONS = {
    "single_family": [
        "A quiet family home with a large garden, ten minutes from the middle of {town}.",
        "Light rooms, a new kitchen and a shaded porch. The schools of {town} are within walking distance.",
        "A well-kept house on a corner lot. Roof and windows were renewed a few years ago.",
    ],
    "condo": [
        "A bright flat with a balcony, close to the shops and restaurants of {town}.",
        "A compact home with a view over {town}; the fee covers water, the gym and the roof terrace.",
    ],
    "townhouse": [
        "Three floors, a small yard and a garage, in a row of twelve near the centre of {town}.",
        "An end unit with windows on three sides and a roof terrace. {town} station is close.",
    ],
    "multi_family": ["A building with flats that have been let without a gap for years. Good access from {town}."],
    "land": ["Level land at the edge of {town}, with water and power at the road.", "A building plot near {town}."],
    "commercial": ["Shop and office space on a busy road of {town}, with parking behind the house."],
    "industrial": ["A hall with loading docks and offices, on the ring road of {town}."],
    "mixed_use": ["Shops on the ground floor and flats above them, in the old centre of {town}."],
}
FEATURES = {
    "single_family": ["garage", "garden", "fireplace", "porch", "solar panels", "pool", "hardwood floors"],
    "condo": ["balcony", "elevator", "gym", "doorman", "roof terrace", "storage room"],
    "townhouse": ["garage", "patio", "roof terrace", "hardwood floors", "new kitchen"],
    "multi_family": ["laundry", "parking", "separate meters", "new roof"],
    "land": ["road access", "water", "power", "surveyed"],
    "commercial": ["parking", "corner lot", "air conditioning", "large windows"],
    "industrial": ["loading docks", "three-phase power", "fenced yard", "sprinklers"],
    "mixed_use": ["parking", "separate meters", "large windows", "new roof"],
}

VALUATION_SOURCES = ["County appraisal", "Broker opinion", "Bank appraisal", "Comparable sales"]

PROPERTY_NOTES = [
    "The owner is away on weekdays; call before coming.",
    "The key is in the office, board two.",
    "The neighbours asked about the fence; see the survey before answering.",
    "Flexible about the date of the handover.",
    "Would take less for a buyer who pays in cash.",
    "The inspection of last year found nothing worth mentioning.",
]

# Type and description.
PROPERTY_ACTIVITIES = [
    ("showing", "Showed the place to a couple from out of town; they liked the light."),
    ("open_house", "Open house on Sunday: fourteen visitors, three of them serious."),
    ("inspection", "The inspector was there; the report comes next week."),
    ("photos", "New pictures were taken."),
    ("price_change", "The asking price was discussed with the owner."),
    ("call", "The owner called and asked how many people had looked at it."),
]

# How many leads each organisation has; their names come from the tables below.
LEADS = {"acme": 130, "premium": 40}
FIRST_NAMES = [
    "Ada", "Amir", "Bianca", "Carlos", "Chloe", "Daniel", "Elena", "Ethan", "Fatima", "Grace", "Hannah",
    "Hugo", "Isaac", "Jasmin", "Jonas", "Keiko", "Liam", "Lucia", "Malik", "Maya", "Nina", "Noah", "Olga",
    "Omar", "Priya", "Quinn", "Rosa", "Samuel", "Tara", "Victor", "Wendy", "Yusuf", "Zoe",
]  # fmt: skip
LAST_NAMES = [
    "Adams", "Baker", "Castillo", "Chen", "Diaz", "Evans", "Fischer", "Garcia", "Hughes", "Ibrahim", "Jensen", "Kim",
    "Lopez", "Moreau", "Nguyen", "O'Brien", "Patel", "Quintero", "Rossi", "Schmidt", "Taylor", "Usman", "Vargas",
    "Walker", "Young", "Zhang",
]  # fmt: skip
COMPANIES = [
    "Bluebonnet Holdings",
    "Hill Country Dental",
    "Lone Star Coffee",
    "Front Range Climbing",
    "Cedar & Pine LLC",
]

# Source, and how often.
LEAD_SOURCES = {
    "website": 28, "referral": 22, "social_media": 12, "email": 8, "phone": 8, "walk_in": 8, "event": 6,
    "advertisement": 6, "other": 2,
}  # fmt: skip

# Status of a lead that has no deal, how often, and the range of its score.
LEAD_STATUSES = {
    "new": (22, 5, 40), "contacted": (20, 20, 55), "qualified": (14, 55, 90), "nurturing": (14, 35, 70),
    "unqualified": (8, 0, 25), "lost": (8, 5, 40),
}  # fmt: skip
LEAD_TIMELINES = ["as soon as possible", "within three months", "this year", "next year", "no hurry"]
LEAD_NOTES = [
    "Looks for a place with a garden for two dogs.",
    "Has sold their flat and needs something by the end of the lease.",
    "Works from home; wants fibre and a room with a door.",
    "Has a letter of the bank, good for ninety days.",
    "Would like to stay in the school district.",
    "Buys for a parent who moves here from another state.",
]

# How each lead began, by its source: the note of the day on which it came.
LEAD_BEGINNINGS = {
    "website": "Wrote through the form on the website.",
    "referral": "Sent to us by somebody who bought here last year.",
    "social_media": "Asked under the pictures of an open house.",
    "email": "Wrote a mail and asked for the list of houses.",
    "phone": "Called the office.",
    "walk_in": "Came in from the street.",
    "event": "Left a card at our stand.",
    "advertisement": "Answered the advertisement in the paper.",
    "other": "Met at a neighbour's house.",
}

# Type, subject, description, outcome.
LEAD_ACTIVITIES = [
    ("call", "First call", "Asked what they look for and by when.", "reached"),
    ("call", "Call back", "Left a message on the machine.", "no answer"),
    ("email", "Listings that may fit", "Sent four listings with pictures and plans.", "answered"),
    ("email", "Financing", "Sent the list of papers that the bank wants to see.", "sent"),
    ("meeting", "Meeting in the office", "Went through budget, towns and schools.", "interested"),
    ("meeting", "Viewing", "Saw two places; the second one was liked.", "wants a second viewing"),
    ("sms", None, "Reminded them of the viewing tomorrow.", "confirmed"),
    ("note", None, "Prefers to be called after six.", None),
]

# What a deal costs on the way: description, and its share of the price.
DEAL_EXPENSES = [("Photographs and floor plan", 0.0006), ("Staging", 0.003), ("Advertisement", 0.0012)]

DEAL_NOTES = [
    "Both sides know each other from the first viewing.",
    "The buyer waits for the bank.",
    "Price agreed, the date of the handover is still open.",
    "Needs a word about the repairs that the inspection named.",
]

# Organisation, name, description, addresses.
PORTFOLIOS = [
    (
        "acme",
        "Austin homes",
        "Houses and flats in the city, for buyers who want to walk to work.",
        [
            "4616 Barton Hills Drive", "676 South Congress Avenue", "3539 East 12th Street", "190 Windsor Road",
            "922 West Mary Street", "2528 Rainey Street",
        ],
    ),
    (
        "acme",
        "Shops and halls",
        "What earns rent.",
        [
            "3766 Exposition Boulevard", "994 Chisholm Trail", "2899 Discovery Boulevard", "4183 Belvin Street",
            "3758 Clara Van Street",
        ],
    ),
    ("acme", "Land", "Plots to build on.", ["1810 Burnet Road", "3850 Kelly Lane"]),
    (
        "premium",
        "Boulder and Golden",
        "Along the foothills.",
        ["4401 Pearl Street", "2232 Mapleton Avenue", "960 Arapahoe Avenue", "4509 Illinois Street"],
    ),
]  # fmt: skip

# Organisation, name, description, campaign type, subject, content. What stands in double braces is filled in for each
# lead; a mail without {{unsubscribe_url}} gets a line with it at its end.
TEMPLATES: list[tuple[str, str, str, str, str | None, str]] = [
    (
        "acme",
        "New listings",
        "What came in this month, to everybody who looks for a home.",
        "email",
        "{{first_name}}, new homes around Austin",
        """<p>Hello {{first_name}},</p>
<p>eleven places have come in this month, from a flat on Rainey Street to a house with a garden in Lakeway. The pictures
are on <a href="https://www.acme-realestate.com/new">our page of new listings</a>.</p>
<p>Would you like to see one? Answer this mail, or call me.</p>
<p>{{agent_name}}<br>{{organization_name}}</p>
<p style="font-size: small"><a href="{{unsubscribe_url}}">No more of these mails</a></p>
""",
    ),
    (
        "acme",
        "Open house",
        "An invitation for the weekend.",
        "email",
        "Open house on Sunday",
        """Hello {{first_name}},

on Sunday from two to five the doors are open at 4616 Barton Hills Drive and 922 West Mary Street. There is coffee, and
the plans of both houses to take home: https://www.acme-realestate.com/open-house

See you there,
{{agent_name}}, {{organization_name}}
""",
    ),
    (
        "acme",
        "Viewing tomorrow",
        "A reminder of the day before.",
        "sms",
        None,
        "Hello {{first_name}}, see you tomorrow at {{property_address}}. {{agent_name}}, {{organization_name}}",
    ),
    (
        "acme",
        "A year in your home",
        "A letter to those who bought.",
        "direct_mail",
        None,
        """Dear {{first_name}} {{last_name}},

a year ago you moved into {{property_address}}. We hope that you are well there. If you wonder what it is worth today,
we say so gladly, and for nothing.

{{agent_name}}, {{organization_name}}
""",
    ),
    (
        "premium",
        "Along the foothills",
        "New listings of Boulder and Golden.",
        "email",
        "What is new along the foothills",
        """Hello {{first_name}},

four places between Boulder and Golden have come in. Tell me which you would like to see.

{{agent_name}}, {{organization_name}}
""",
    ),
]

# Organisation, name, description, the template that subject and content come from, how many days ago it was sent to
# all leads that there were then (None: it is a draft), and how many days before that it was written.
CAMPAIGNS: list[tuple[str, str, str, str, int | None, int]] = [
    ("acme", "New homes, last month", "The monthly mail to all leads.", "New listings", 38, 2),
    ("acme", "Open house on Sunday", "Goes out when the second house is confirmed.", "Open house", None, 3),
]

# What became of a campaign's mails, as parts of those that were handed to the mail server. Who clicked or unsubscribed
# had opened it.
CAMPAIGN_PARTS = {"failed": 0.015, "bounced": 0.03, "opened": 0.46, "clicked": 0.17, "unsubscribed": 0.02}
OPENED_HOURS = 9  # after the sending, on average
MAILS_PER_SECOND = 20
BOUNCE_REASONS = ["550 5.1.1 There is no such mailbox.", "550 5.2.1 The mailbox is disabled."]

# Organisation, reason, days ago: an Admin has noted that a lead does not want to be written to. Who was noted before a
# campaign got nothing from it.
SUPPRESSIONS = [
    ("acme", "Asked on the phone not to get any mails.", 120),
    ("acme", "Has moved abroad.", 75),
    ("acme", "Writes that they have found a place.", 6),
    ("premium", "Asked not to be written to.", 90),
]

# --- the volume of `reos seed --scale` --------------------------------------------------------------------------

SCALE_DAYS = 420  # how far back it goes: the last twelve months have sales in each
SCALE_PASSWORD = "Scale123!"  # noqa: S105 - of all who are made for it; public, as those above
SCALE_AGENTS = 4  # of each organisation, besides its Admin
SCALE_CONVERTED = 0.6  # the part of the deals that come from a lead

# How often a town comes; those that are not named, once.
SCALE_TOWNS = {
    "Austin": 9,
    "Denver": 8,
    "San Antonio": 7,
    "Aurora": 4,
    "Fort Collins": 3,
    "Round Rock": 3,
    "Boulder": 2,
}

# Type: how often, the range of the price in USD, of bedrooms, and of the living area in square feet.
SCALE_TYPES: dict[str, tuple[int, int, int, int | None, int | None, int | None, int | None]] = {
    "single_family": (42, 240_000, 1_900_000, 2, 6, 1100, 4800),
    "condo": (22, 130_000, 950_000, 1, 3, 520, 1900),
    "townhouse": (13, 210_000, 1_100_000, 2, 4, 1000, 2600),
    "multi_family": (6, 480_000, 3_200_000, 6, 16, 3000, 14_000),
    "land": (7, 45_000, 1_800_000, None, None, None, None),
    "commercial": (5, 390_000, 6_500_000, None, None, 1500, 30_000),
    "industrial": (2, 900_000, 9_000_000, None, None, 8000, 90_000),
    "mixed_use": (3, 600_000, 5_000_000, 2, 12, 3000, 20_000),
}

# How often a deal stands in a stage, and is of a type.
SCALE_STAGES = {
    "lead": 12, "qualified": 10, "proposal": 9, "negotiation": 8, "contract": 5, "inspection": 4, "financing": 4,
    "closing": 4, "closed_won": 28, "closed_lost": 16,
}  # fmt: skip
SCALE_DEAL_TYPES = {"sell": 50, "buy": 20, "rental": 12, "lease": 6, "flip": 7, "wholesale": 5}
