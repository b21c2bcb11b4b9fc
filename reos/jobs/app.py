"""The Procrastinate application: every declared task under its name, the scheduled ones with their schedule."""

from __future__ import annotations

from procrastinate import App

from reos.jobs import campaigns, mails, notification_mails, reports, retention, upkeep, webhooks
from reos.jobs.connector import AsyncpgConnector
from reos.jobs.task import TASKS, make_runner
from reos.metrics import JOBS_LOST

# The modules that declare tasks; a new one is added here.
MODULES = (campaigns, mails, notification_mails, reports, retention, upkeep, webhooks)


def make_app(connector: AsyncpgConnector) -> App:
    """An application that runs the declared tasks on the connector's database."""
    app = App(connector=connector)
    # Procrastinate's own clean-up task has neither a retry strategy nor a timeout; `upkeep` does its work.
    app.tasks.clear()
    for task in TASKS.values():
        registered = app.task(
            name=task.name,
            retry=task.retry,
            pass_context=True,
            priority=task.priority,
            # A scheduled job that nobody has got round to is not queued twice.
            queueing_lock=task.name if task.cron else None,
        )(make_runner(task))
        JOBS_LOST.labels(task.name)  # 0 from the beginning: of a count that first shows up as 1 nobody sees an increase
        if task.cron:
            app.periodic(cron=task.cron)(registered)
    return app
