"""The label radar after a training of the app: names, failures and stops."""

import json
import logging
from types import SimpleNamespace

import pytest

from rtdetrv2.analysis.radar.radar import RadarStopped
from rtdetrv2_pytorch.src.misc.errors import DatasetError
from rtdetrv2_pytorch.src.solver.events import TrainingEvents
from rtdetrv2_pytorch.src.solver.stopping import StopFlag
from supervisely_integration.train.data_check import Origins
from supervisely_integration.train.label_radar import search
from supervisely_integration.train.label_radar.search import FoundErrors, search_labels


def test_list_has_the_names_of_the_project(tmp_path, monkeypatch):
    path = tmp_path / "label_radar.json"
    suspicions = [{"file_name": "train_img_1.jpg"}, {"file_name": "val_img_2.png"}]
    path.write_text(json.dumps({"suspicions": suspicions}))
    origins = Origins({"train_img_1": 'a/b/"one".jpg', "val_img_2": "c/two\\.png"})
    monkeypatch.setattr(search, "write_report", lambda source: source / "report.html")
    found = FoundErrors(SimpleNamespace(path=path, source=tmp_path))
    (tmp_path / "result").mkdir()
    assert found.write(tmp_path / "result", origins.restore) == tmp_path / "report.html"
    written = json.loads((tmp_path / "result" / "label_radar.json").read_text())
    names = [each["file_name"] for each in written["suspicions"]]
    assert names == ['a/b/"one".jpg', "c/two\\.png"]
    assert json.loads(path.read_text())["suspicions"] == suspicions


@pytest.mark.parametrize(
    ("error", "level", "message"),
    [
        (RadarStopped("Stop button: incomplete"), logging.WARNING, "Stop button: incomplete"),
        (DatasetError("no boxes"), logging.ERROR, "the training is complete without it: no boxes"),
        (OSError("disk full"), logging.ERROR, "disk full"),
    ],
)
def test_failure_keeps_the_training(monkeypatch, tmp_path, caplog, error, level, message):
    def fail(run, options, **_):
        assert (run, options.device) == (tmp_path, "cpu")
        raise error

    monkeypatch.setattr(search, "find_label_errors", fail)
    assert search_labels(tmp_path, "cpu", TrainingEvents(), StopFlag()) is None
    record = caplog.records[-1]
    assert (record.levelno, message in record.getMessage()) == (level, True)
