"""What a reactor runs: every reaction, each of which leads under a lease of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

from events.jetstream import JetStream
from events.log import ALL_TRAFFIC
from handlers.commands import CommandHandler
from handlers.judging import Judging
from handlers.reactions.alerts import Alerts
from handlers.reactions.liveness import Liveness
from handlers.reactions.rollouts import Rollouts
from handlers.reactions.swaps import Swaps
from handlers.routing import Routing
from switchback.settings import Settings


def reactions(
    *,
    routing: Routing,
    commands: CommandHandler,
    judging: Judging,
    jetstream: JetStream,
    settings: Settings,
    now: Callable[[], datetime],
) -> Mapping[str, Callable[[], Awaitable[None]]]:
    """Name -> the work, which goes on until it is cancelled."""
    timers, traffic = jetstream.timers, jetstream.traffic
    swaps = Swaps(routing=routing, commands=commands, timers=timers, now=now)
    rollouts = Rollouts(
        routing=routing,
        commands=commands,
        judging=judging,
        traffic=traffic,
        timers=timers,
        now=now,
    )
    alerts = Alerts(
        routing=routing,
        commands=commands,
        traffic=traffic,
        timers=timers,
        quiet_s=settings.alert_quiet_s,
        watched=ALL_TRAFFIC if settings.burst_alerts else None,
        now=now,
    )
    liveness = Liveness(routing=routing, commands=commands, leases=jetstream.leases, now=now)
    return {
        "swaps": swaps.run,
        "rollouts": rollouts.run,
        "alerts": alerts.run,
        "liveness": liveness.run,
    }
