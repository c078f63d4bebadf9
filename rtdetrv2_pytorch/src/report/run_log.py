"""Read `log.jsonl` of a run, including runs that were resumed."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Event = Mapping[str, Any]


@dataclass
class RunLog:
    """Events of a run; an epoch repeated after a resume replaces its earlier events."""

    plan: Event = field(default_factory=dict)
    epochs: list[Event] = field(default_factory=list)
    steps: list[Event] = field(default_factory=list)
    end: Event | None = None

    def numbers(self, *path: str) -> list[tuple[int, float]]:
        """Return (epoch, value) of all epochs with a number under these keys, for example "AP"."""
        found = []
        for event in self.epochs:
            value: Any = event
            for key in path:
                value = value.get(key) if isinstance(value, Mapping) else None
            if isinstance(value, int | float) and not isinstance(value, bool):
                found.append((int(event["epoch"]), float(value)))
        return found

    @property
    def best(self) -> Event | None:
        """Event of the epoch with the highest AP."""
        measured = [event for event in self.epochs if isinstance(event.get("AP"), int | float)]
        return max(measured, key=lambda event: event["AP"], default=None)


def read_run_log(path: Path) -> RunLog:
    """Read a log, without incomplete lines; a missing file gives an empty log."""
    log = RunLog()
    for event in _events(path):
        kind = event.get("event")
        if kind == "plan":
            first = int(event.get("first_epoch") or 0)
            log.plan, log.end = event, None
            log.epochs = [e for e in log.epochs if e["epoch"] < first]
            log.steps = [e for e in log.steps if e["epoch"] < first]
        elif kind == "step" and "epoch" in event:
            log.steps.append(event)
        elif kind == "epoch" and "epoch" in event:
            log.epochs.append(event)
        elif kind == "end":
            log.end = event
    return log


def _events(path: Path) -> Iterator[Event]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event
