"""Bottleneck of an epoch."""

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


def bottleneck_of(workers=4, device=CUDA, dtype=torch.bfloat16, cache="ram", **shares):
    rest = 1 - sum(shares.values())
    full = {**dict.fromkeys(SECTIONS, 0.0), "forward": rest, **shares}
    return bottleneck(
        full, num_workers=workers, cache=cache, device=device, precision=Precision(dtype)
    )


@pytest.mark.parametrize(
    ("workers", "data", "remedy"),
    [
        (4, 0.33, "2 more workers"),  # 4 / 0.67 = 5.97
        (4, 0.05, None),
        (4, 0.9, "4 more workers"),  # 40 would be needed; 8 cores
        (8, 0.5, "more or faster CPU cores"),
        (0, 0.6, "2 more workers"),  # 1.5 s of loading per second of training
    ],
)
def test_input_bound_training_names_the_missing_workers(workers, data, remedy):
    expected = "compute bound: the input keeps up" if remedy is None else f"input bound: {remedy}"
    assert bottleneck_of(workers, data=data) == expected


def test_cache_is_a_remedy_only_if_it_is_off():
    assert bottleneck_of(4, data=0.33, cache="none") == "input bound: 2 more workers, or cache: ram"
    assert bottleneck_of(7, data=0.12, cache="none") == "input bound: 1 more worker, or cache: ram"
    assert bottleneck_of(8, data=0.5, cache="none") == "input bound: cache: ram"


def test_waiting_time_is_a_share_of_the_training_without_evaluation():
    assert bottleneck_of(data=0.08, evaluation=0.45).startswith("input bound")
    assert bottleneck_of(data=0.04, evaluation=0.45).startswith("compute bound")


def test_ranks_of_a_machine_share_its_cores(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert bottleneck_of(4, data=0.5) == "input bound: more or faster CPU cores"


def test_no_spare_cores_when_training_on_a_cpu():
    assert bottleneck_of(2, CPU, data=0.5) == "input bound: more or faster CPU cores"


def test_other_bottlenecks():
    assert bottleneck_of(evaluation=0.6) == "evaluation bound: fewer validation images"
    assert bottleneck_of(transfer=0.2) == "transfer bound: pin_memory: true, or smaller images"
    assert bottleneck_of(2, CPU, transfer=0.2) == "transfer bound: smaller images"
    assert bottleneck_of(matching=0.4).startswith("matching bound")
    assert bottleneck_of(dtype=torch.float32) == (
        "compute bound: use_amp: true would compute in bfloat16"
    )
