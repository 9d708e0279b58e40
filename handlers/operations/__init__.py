"""What can be asked to be done: commands together with the facts about other entities they need.

HTTP and the NATS command services both end here, so a command means the same however it comes in.
"""

from __future__ import annotations

from handlers.operations.models import ModelOperations
from handlers.operations.nodes import NodeOperations
from handlers.operations.rollouts import RolloutOperations
from handlers.operations.tenants import TenantOperations


class Operations(TenantOperations, ModelOperations, RolloutOperations, NodeOperations):
    """All of them. Methods raise Refused, LogError, and what they name themselves."""


__all__ = ["Operations"]
