"""What a comparison can raise."""

from __future__ import annotations


class ComparisonFailed(Exception):
    """The outputs could not be compared: they neither agree nor disagree."""
