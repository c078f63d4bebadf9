"""One sentence on what limits the speed."""

import pytest
import torch

from rtdetrv2_pytorch.src.robustness.precision import Precision
from rtdetrv2_pytorch.src.solver import bottleneck as module
from rtdetrv2_pytorch.src.solver.bottleneck import bottleneck
from rtdetrv2_pytorch.src.solver.stopwatch import SECTIONS

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    monkeypatch.setattr(module.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(module, "has_bfloat16", lambda device: True)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)


def judge(workers=4, device=CUDA, dtype=torch.bfloat16, cache="ram", **shares):
    rest = 1 - sum(shares.values())
    full = {**dict.fromkeys(SECTIONS, 0.0), "forward": rest, **shares}
    return bottleneck(
        full, num_workers=workers, cache=cache, device=device, precision=Precision(dtype)
    )


@pytest.mark.parametrize(
    ("workers", "data", "said"),
    [
        (4, 0.33, "2 more workers"),  # 4 / 0.67 = 5.97
        (4, 0.05, None),
        (4, 0.9, "4 more workers"),  # 40 would be needed; 8 cores
        (8, 0.5, "more or faster processor cores"),
        (0, 0.6, "2 more workers"),  # 1.5 s of loading for every second of training
    ],
)
def test_waiting_for_data(workers, data, said):
    expected = "compute bound: the input keeps up" if said is None else f"input bound: {said}"
    assert judge(workers, data=data) == expected


def test_a_cache_is_named_where_there_is_none():
    assert judge(4, data=0.33, cache="none") == "input bound: 2 more workers, or cache: ram"
    assert judge(7, data=0.12, cache="none") == "input bound: 1 more worker, or cache: ram"
    assert judge(8, data=0.5, cache="none") == "input bound: cache: ram"


def test_the_wait_is_compared_with_the_training_not_with_the_evaluation():
    assert judge(data=0.08, evaluation=0.45).startswith("input bound")
    assert judge(data=0.04, evaluation=0.45).startswith("compute bound")


def test_cores_are_shared_by_the_ranks_of_a_machine(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert judge(4, data=0.5) == "input bound: more or faster processor cores"


def test_on_a_cpu_the_network_needs_the_cores():
    assert judge(2, CPU, data=0.5) == "input bound: more or faster processor cores"


def test_the_other_bottlenecks():
    assert judge(evaluation=0.6) == "evaluation bound: fewer validation images"
    assert judge(transfer=0.2) == "transfer bound: pin_memory: true, or smaller images"
    assert judge(2, CPU, transfer=0.2) == "transfer bound: smaller images"
    assert judge(matching=0.4).startswith("matching bound")
    assert judge(dtype=torch.float32) == ("compute bound: use_amp: true would compute in bfloat16")
