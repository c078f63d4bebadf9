"""The SDK's log: lines of the engine and the apps in it."""

import json
import logging

import pytest

from supervisely_integration.sdk.logs import attach_handlers


@pytest.fixture
def clean_loggers():
    """Restore the loggers after the test."""
    ours = [logging.getLogger(name) for name in ("rtdetrv2_pytorch", "supervisely_integration")]
    before = [(log, list(log.handlers), log.level, log.propagate) for log in ours]
    yield
    for log, handlers, level, propagate in before:
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(level)


def test_lines_of_the_engine_reach_the_handlers_once(clean_loggers):
    from supervisely.sly_logger import create_formatter

    written = []

    class Collector(logging.Handler):
        def emit(self, record):
            written.append(json.loads(self.format(record)))

    handler = Collector()
    handler.setFormatter(create_formatter())
    attach_handlers(iter([handler]))
    attach_handlers([handler])  # a second call adds nothing
    logging.getLogger("rtdetrv2_pytorch.src.solver.loop").info("epoch=%d", 3)
    logging.getLogger("supervisely_integration.train.project_splits").warning("left out")
    logging.getLogger("rtdetrv2_pytorch.src.core").debug("too much")
    assert [(x["message"], x["level"]) for x in written] == [
        ("epoch=3", "info"),
        ("left out", logging.getLevelName(logging.WARNING).lower()),
    ]
