"""Notifications: events for one user alone."""

from __future__ import annotations

from reos.middleware.call import Call


def notify_other(call: Call, user_id: int | None, type: str, message: str) -> None:
    """Tell a user what somebody else has done; nobody is told what they did themselves.

    The message is a sentence for people. It names resources by their ids, because not all users may read all.
    """
    if user_id is not None and user_id != call.user_id:
        call.publish("notification", None, {"user_id": user_id, "message": message, "type": type})
