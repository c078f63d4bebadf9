"""The SDK's log: the apps' own lines in it, and the errors that only it reports."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import supervisely as sly

_OUR_LOGGERS = ("rtdetrv2_pytorch", "supervisely_integration")


def attach_handlers(handlers: Iterable[logging.Handler]) -> None:
    """Send the logs of the engine and of the apps to these handlers, each line once.

    The page's log window shows what the handlers of `supervisely.logger` receive.
    """
    chosen = list(handlers)
    for name in _OUR_LOGGERS:
        ours = logging.getLogger(name)
        ours.setLevel(min(ours.getEffectiveLevel(), logging.INFO))
        for handler in chosen:
            if handler not in ours.handlers:
                ours.addHandler(handler)
        ours.propagate = False  # the root logger would write every line a second time


def flush() -> None:
    """Flush the SDK's handlers, before the process exits without cleanup."""
    for handler in sly.logger.handlers:
        handler.flush()


class _ErrorCollector(logging.Handler):
    """Collects the reasons of logged errors."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.reasons: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.reasons.append((str(error) or repr(error)) if error else record.getMessage())


@contextmanager
def collect_errors() -> Iterator[list[str]]:
    """Collect the errors that the SDK logs within a `with` block.

    `TrainApp._run_model_benchmark` (supervisely/nn/training/train_app.py) logs the error that
    prevents the evaluation report, and returns as if there had been none.

    Yields:
        The reasons, filled while errors are logged.
    """
    collector = _ErrorCollector()
    sly.logger.addHandler(collector)
    try:
        yield collector.reasons
    finally:
        sly.logger.removeHandler(collector)
