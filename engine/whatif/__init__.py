"""What a recorded log would have led to under another policy. Pure: a log in, a report out."""

from engine.whatif.accounts import recorded_course
from engine.whatif.course import Act, Course, Served, WhatIf
from engine.whatif.record import RecordedRollout, Recording, read_recording
from engine.whatif.rerun import rerun
from engine.whatif.serving import VersionServed, WouldServe, would_serve

__all__ = [
    "Act",
    "Course",
    "RecordedRollout",
    "Recording",
    "Served",
    "VersionServed",
    "WhatIf",
    "WouldServe",
    "read_recording",
    "recorded_course",
    "rerun",
    "would_serve",
]
