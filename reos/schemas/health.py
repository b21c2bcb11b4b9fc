"""What the probes answer. Their handlers make it by hand; this documents it, and tests compare the two."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from reos.schemas.common import ResponseModel

HealthStatus = Literal["healthy", "degraded", "unhealthy"]


class ServiceStatus(ResponseModel):
    """A word: `ok` or `ready`, or why not (`starting`, `draining`, `unavailable`)."""

    status: str


class ServiceCheck(ResponseModel):
    """The state of one part. The details never hold an address or a secret."""

    status: HealthStatus
    response_time_ms: float
    details: dict[str, Any]


class ServiceHealth(ResponseModel):
    """The state of the service and of each of its parts."""

    status: HealthStatus
    timestamp: datetime
    service: str
    version: str
    checks: dict[str, ServiceCheck]
    response_time_ms: float
