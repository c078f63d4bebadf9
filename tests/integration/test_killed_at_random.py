"""Twenty deaths at random moments: what is relaunched ends as if there had been none.

The moments are drawn with fixed seeds, five in each of four runs, so that a run dies in every one
of its epochs. An upload that is killed is tested with the app (tests/app).
"""

import random
import signal
from collections import Counter

import pytest
import torch

from rtdetrv2_pytorch.src.misc.weights import load_checkpoint
from rtdetrv2_pytorch.src.solver import DetSolver
from tests.integration.killed_training import KINDS, launch
from tests.integration.test_resume import RUN, curve
from tests.tiny import tiny_config, tiny_file

EPOCHS = 5
LONG = {**RUN, "epoches": EPOCHS, "keep_last": 2}
RUNS = 4


def moments(run):
    """What the run is doing when it is killed, epoch by epoch; one of each kind and one more."""
    rng = random.Random(run)
    kinds = [*KINDS, rng.choice(KINDS)]
    rng.shuffle(kinds)
    if kinds[-1] == "anytime":  # in the last epoch the run could be faster
        kinds.reverse()
    if kinds[-1] == "anytime":
        kinds[-1] = "write"
    return kinds


def test_the_moments_are_twenty_and_of_all_kinds():
    counts = Counter(kind for run in range(RUNS) for kind in moments(run))
    assert sum(counts.values()) == 20
    assert min(counts[kind] for kind in KINDS) >= 3


@pytest.fixture(scope="module")
def whole(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp("whole")
    DetSolver(tiny_config(folder, digits, **LONG)).fit()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("run", range(RUNS))
def test_a_run_that_dies_in_every_epoch_ends_with_equal_results(whole, tmp_path, digits, run):
    out = tmp_path / "out"
    path = str(tiny_file(tmp_path / "run.yml", out, digits, **LONG))
    last = out / "last.pth"

    def resume():
        return str(last) if last.is_file() else None

    untold = set()  # epochs whose death came between last.pth and the line of the log
    for epoch, kind in enumerate(moments(run)):
        code = launch(path, resume(), kind, epoch, 100 * run + epoch)
        assert code == -signal.SIGKILL, kind
        for file in out.glob("*.pth"):  # whatever has a name can be read
            load_checkpoint(file)
        reached = load_checkpoint(last)["progress"]["epoch"] if last.is_file() else 0
        assert epoch <= reached <= epoch + 1
        if kind != "anytime":
            assert reached == epoch
        elif reached > epoch:
            untold.add(epoch)
    assert launch(path, resume(), "never", -1, 0) == 0

    steps, epochs = curve(out)
    expected_steps, expected_epochs = curve(whole)
    assert steps == pytest.approx(expected_steps, rel=1e-6)
    assert expected_epochs.keys() - epochs.keys() <= untold
    for epoch, values in epochs.items():
        assert values == pytest.approx(expected_epochs[epoch], rel=1e-5)
    ours, theirs = load_checkpoint(last), load_checkpoint(whole / "last.pth")
    assert ours["progress"] == theirs["progress"]
    for part in ("model", "ema"):
        a, b = (c[part]["module"] if part == "ema" else c[part] for c in (ours, theirs))
        for key in a:
            torch.testing.assert_close(a[key], b[key], rtol=1e-5, atol=1e-7, msg=f"{part} {key}")
    assert sorted(p.name for p in out.glob("*.pth")) == sorted(p.name for p in whole.glob("*.pth"))
    assert not list(out.glob(".*partial"))  # half files are cleared away
