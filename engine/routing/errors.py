"""What can be wrong with a policy, a receipt, or a question about either."""

from __future__ import annotations


class RoutingError(Exception):
    """The root of every error of this package."""


class PolicyInvalid(RoutingError):
    """The policy has no meaning. `field` is the path of the offending member."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class MalformedReceipt(RoutingError):
    """The text cannot be a receipt: wrong length, alphabet or shape."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a receipt: {reason}")
        self.reason = reason


class ForgedReceipt(RoutingError):
    """The text has the form of a receipt, but was not signed with this secret."""

    def __init__(self) -> None:
        super().__init__("the receipt's signature does not fit")


class KeyNotUsed(RoutingError):
    """The policy in force is not sticky: no key decides between `versions`."""

    def __init__(self, versions: tuple[str, ...]) -> None:
        super().__init__(f"not sticky: any request may get any of {', '.join(versions)}")
        self.versions = versions
