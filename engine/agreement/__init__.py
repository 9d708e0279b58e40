"""Does a shadow's output agree with the answer that was returned? Pure: functions are passed in."""

from engine.agreement.agree import Function, agree
from engine.agreement.errors import ComparisonFailed
from engine.agreement.sizes import CHARS_MAX, DEPTH_MAX, VALUES_MAX

__all__ = ["CHARS_MAX", "DEPTH_MAX", "VALUES_MAX", "ComparisonFailed", "Function", "agree"]
