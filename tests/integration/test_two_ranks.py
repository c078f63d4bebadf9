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
    path = tiny_file(tmp_path / "tiny.yml", out, digits, ema={"decay": 0.5, "warmups": 0})
    assert run_two_ranks(SCRIPT.format(path=str(path))) == [0, 0]
    events = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events].count("epoch") == 2
    assert [e["global_step"] for e in events if e["event"] == "step"] == [1, 2, 3, 4, 5, 6]
    end = events[-1]
    # Every rank evaluated its half of the images with the statistics of the main one.
    assert end["confirmed"]["val_loss"] == pytest.approx(end["best"]["val_loss"], rel=1e-6)
    assert end["confirmed"]["num_images"] == 4
    checkpoint = load_checkpoint(out / "last.pth")
    assert all(not key.startswith("module.") for key in checkpoint["model"])
    assert all(v.isfinite().all() for k, v in checkpoint["model"].items() if "anchors" not in k)
    assert checkpoint["model"].keys() == checkpoint["ema"]["module"].keys()
