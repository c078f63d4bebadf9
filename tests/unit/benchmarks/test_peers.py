"""Predictions of other packages are scored by our evaluator, against numbers computed by hand."""

import json
import subprocess

import pytest

from benchmarks.accuracy import peers
from benchmarks.accuracy.jobs import Experiment, Job
from benchmarks.accuracy.peer_scripts.common import Recorder, Request, row
from benchmarks.accuracy.processes import RunError
from benchmarks.accuracy.scoring import average_precision, score_predictions
from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from rtdetrv2_pytorch.src.data.splits import Split, find_splits
from tests.accuracy_results import dataset


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return make_digits_dataset(tmp_path_factory.mktemp("data"), num_train=4, num_val=4)


@pytest.fixture(scope="module")
def val(digits, tmp_path_factory):
    return find_splits(digits, tmp_path_factory.mktemp("work")).val


def perfect(split):
    boxes = json.loads(split.ann_file.read_text())["annotations"]
    return [
        {key: each[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        for each in boxes
    ]


def test_perfect_predictions_have_ap_1(val):
    assert score_predictions(val, perfect(val)).stats["AP"] == pytest.approx(1.0)
    assert score_predictions(val, []).stats["AP"] == 0.0


def test_detections_beyond_the_limit_do_not_count(tmp_path):
    boxes = [[10 * (i % 20), 10 * (i // 20), 8, 8] for i in range(150)]
    rows = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9} for box in boxes]
    truth = [{**r, "id": i + 1, "area": 64, "iscrowd": 0} for i, r in enumerate(rows)]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 200, "height": 200}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": truth,
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    # A recall of 100 / 150 covers 67 of 101 recall thresholds.
    assert average_precision(path, rows, 100) == pytest.approx(67 / 101, abs=1e-4)
    assert average_precision(path, rows, 500) == 1.0


class Script:
    """Replaces the process of a peer: writes two evaluations, the first one perfect."""

    def __init__(self, val: Split, evaluations: int = 2):
        self.val, self.evaluations = val, evaluations

    def __call__(self, command, log, *, on_poll):
        log.write_text("done\n")
        request = Request(command[-1])
        recorder = Recorder(request, {"max_steps": 8})
        for i in range(self.evaluations):
            recorder.write([] if i else perfect(self.val), epoch=i + 1, steps=4 * (i + 1))
        on_poll()


@pytest.fixture
def job(digits):
    return Job(dataset=dataset("digits", digits), recipe="transformers", seed=3)


def run(job, tmp_path, monkeypatch, script):
    monkeypatch.setattr(peers, "build_environment", lambda peer: "python")
    monkeypatch.setattr(peers, "run_logged", script)
    experiment = Experiment(results=tmp_path / "results", work=tmp_path / "work")
    return peers.run(job, experiment, 2.0, lambda share: None)


def test_result_of_a_peer(job, val, tmp_path, monkeypatch):
    found = run(job, tmp_path, monkeypatch, Script(val))
    assert [point.AP for point in found.curve] == [pytest.approx(1.0), 0.0]
    assert (found.best["AP"], found.steps, found.kind) == (pytest.approx(1.0), 8, "peer")
    assert (found.settings["minutes"], found.settings["learning_rate"]) == (2.0, 5e-5)
    assert not (tmp_path / "work" / "runs" / "cpu-none" / job.name).exists()


def test_peer_without_predictions_fails(job, val, tmp_path, monkeypatch):
    with pytest.raises(RunError, match="wrote no predictions"):
        run(job, tmp_path, monkeypatch, Script(val, evaluations=0))


def test_line_that_is_being_written_is_not_read(tmp_path):
    (tmp_path / "evaluations.jsonl").write_text('{"minutes": 1}\n{"minu')
    assert peers.read_stamps(tmp_path) == [{"minutes": 1}]


def test_row():
    assert row(7, 2, [10.0, 20.0, 15.5, 40.0], 0.25) == {
        **{"image_id": 7, "category_id": 2, "bbox": [10.0, 20.0, 5.5, 20.0], "score": 0.25}
    }


def test_failed_installation_names_the_packages(tmp_path, monkeypatch):
    def fail(command, **options):
        options["stdout"].write(b"no such version\n")
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(peers, "ROOT", tmp_path)
    monkeypatch.setattr(peers, "WORK", tmp_path)
    monkeypatch.setattr(peers.shutil, "which", lambda name: name)
    monkeypatch.setattr(peers.subprocess, "run", fail)
    with pytest.raises(RunError, match=r"cannot install libreyolo==.*\n.*no such version"):
        peers.build_environment(peers.PEERS["libreyolo"])
