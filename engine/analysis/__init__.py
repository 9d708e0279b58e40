"""Windows of traffic -> evidence -> judgement, valid at every look. Pure, standard library only."""

from engine.analysis.comparison import Comparison, Difference, Summary, compare
from engine.analysis.evidence import Evidence, Judgement
from engine.analysis.shadow_report import ShadowSummary, shadow_report

__all__ = [
    "Comparison",
    "Difference",
    "Evidence",
    "Judgement",
    "ShadowSummary",
    "Summary",
    "compare",
    "shadow_report",
]
