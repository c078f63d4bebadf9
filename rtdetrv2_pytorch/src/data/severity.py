"""Severity of findings, and how the trainer handles them."""

from enum import StrEnum


class Action(StrEnum):
    """How the trainer handles a finding."""

    USES = "uses"
    CLIPS = "clips"
    SKIPS = "skips"
    REFUSES = "refuses"


class Severity(StrEnum):
    """Severity of a finding."""

    ERROR = "error"  # training cannot start
    WARNING = "warning"  # data are lost, or metrics are misleading
    NOTE = "note"
