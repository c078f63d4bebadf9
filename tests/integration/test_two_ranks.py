"""Two processes train one network: on CPUs, through gloo."""

import json

import pytest

from rtdetrv2_pytorch.src.misc.weights import load_checkpoint
from tests.ranks import run_two_ranks
from tests.tiny import tiny_file

SCRIPT = """
from rtdetrv2_pytorch.tools.train import main
print(main(["-c", {path!r}]))
"""


def test_two_ranks_train_one_network_and_measure_what_they_save(tmp_path, digits):
    out = tmp_path / "out"
    path = tiny_file(
        tmp_path / "tiny.yml", out, digits, ema={"decay": 0.5, "warmups": 0}, report=True,
        pictures=True,
    )  # fmt: skip
    assert run_two_ranks(SCRIPT.format(path=str(path))) == [0, 0]
    events = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events].count("epoch") == 2
    assert [e["global_step"] for e in events if e["event"] == "step"] == [1, 2, 3, 4, 5, 6]
    end = events[-1]
    # Every rank evaluated its half of the images with the statistics of the main one.
    assert end["confirmed"]["val_loss"] == pytest.approx(end["best"]["val_loss"], rel=1e-6)
    assert end["confirmed"]["num_images"] == 4
    # The main rank alone looks at all of them.
    page = (out / "report.html").read_text()
    assert f"<b>{end['confirmed']['AP']:.3f}</b>" in page
    assert sorted(path.name for path in (out / "pictures").iterdir()) == [
        *(f"train_epoch0000_batch{i}.jpg" for i in (0, 1)),
        *(f"val_epoch000{i}.jpg" for i in (0, 1)),
    ]
    checkpoint = load_checkpoint(out / "last.pth")
    assert all(not key.startswith("module.") for key in checkpoint["model"])
    assert all(v.isfinite().all() for k, v in checkpoint["model"].items() if "anchors" not in k)
    assert checkpoint["model"].keys() == checkpoint["ema"]["module"].keys()


ONE_EPOCH = """
import json
from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.misc import distributed
from rtdetrv2_pytorch.src.solver import DetSolver
from rtdetrv2_pytorch.src.solver.checkpointing import CheckpointWriter
from rtdetrv2_pytorch.src.solver.events import SilentEvents
import time

class Stop(SilentEvents):
    def step_finished(self, report):
        if report.global_step == {stop_at}:
            solver.stop("by hand")

write = CheckpointWriter.save_best
def slow(self, state):
    time.sleep(0.5)  # the other rank must not look for the file before it is there
    write(self, state)
CheckpointWriter.save_best = slow

solver = DetSolver(YAMLConfig({path!r}), events=Stop())
result = solver.fit()
distributed.barrier()
distributed.shutdown()
print(json.dumps([result.last_epoch, result.stopped, result.confirmed is not None]))
"""


def test_all_ranks_confirm_the_best_weights_once_they_are_written(tmp_path, digits):
    path = tiny_file(tmp_path / "tiny.yml", tmp_path / "out", digits, epoches=1)
    assert run_two_ranks(ONE_EPOCH.format(path=str(path), stop_at=0)) == [[0, None, True]] * 2


def test_one_rank_that_is_asked_to_stop_stops_all(tmp_path, digits):
    path = tiny_file(tmp_path / "tiny.yml", tmp_path / "out", digits)
    results = run_two_ranks(ONE_EPOCH.format(path=str(path), stop_at=2))
    assert results == [[-1, "by hand", False], [-1, "asked on another rank", False]]
    assert load_checkpoint(tmp_path / "out" / "last.pth")["progress"]["step"] == 2
