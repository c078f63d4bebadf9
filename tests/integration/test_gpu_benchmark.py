"""The GPU benchmark, run on a CPU."""

from types import SimpleNamespace

import pytest
import torch

from benchmarks.gpu import Plan, busy_seconds, measure, targets_met
from benchmarks.profiling import by_kind, profile_step
from rtdetrv2.analysis.timing import commit
from rtdetrv2_pytorch.src.robustness.precision import has_bfloat16
from tests.tiny import NETWORK


@pytest.mark.slow
def test_dry_run_measures_both_sides():
    results = measure(Plan.tiny(torch.device("cpu")))
    assert results["not measured"] == {}
    assert set(results["training"]) == {"r18, batch 2, ours", "r18, batch 2, transformers"}
    for way in ("eager float32", "eager bfloat16", "transformers float32"):
        row = results["inference"][f"r18, batch 1, {way}"]
        assert row["images_s"] > 0
    for run in results["whole run"].values():
        assert sum(run["shares"].values()) == pytest.approx(1)
    [(target, ratio)] = results["targets"].items()
    assert target == "r18, batch 2, ours: images/s against transformers, at least 2"
    times = {name: row["seconds"] for name, row in results["training"].items()}
    expected = times["r18, batch 2, transformers"] / times["r18, batch 2, ours"]
    assert ratio == pytest.approx(expected)


def test_commit_without_git(monkeypatch, tmp_path):
    assert len(commit()) >= 7
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit() == ""


def test_targets():
    row = {"images_s": 100.0, "peak_gib": 10.0}
    results = {
        "training": {
            "r18, batch 16, ours": {"images_s": 210.0, "peak_gib": 8.0},
            "r18, batch 16, ours compiled": {"images_s": 250.0, "peak_gib": 9.0},
            "r18, batch 16, transformers": row,
            "r50, batch 64, ours": row,  # transformers ran out of memory
        },
        "inference": {
            "r18, batch 1, eager bfloat16": {"seconds": 0.010},
            "r18, batch 1, CUDA graph bfloat16": {"seconds": 0.002},
        },
        "whole run": {"r18, batch 16, cache none": {"gpu_busy": 0.93}},
    }
    assert targets_met(results) == pytest.approx(
        {
            "r18, batch 16, ours: images/s against transformers, at least 2": 2.1,
            "r18, batch 16, ours: memory against transformers, at most 1": 0.8,
            "r18, batch 16, ours compiled: images/s against transformers, at least 2": 2.5,
            "r18, batch 16, ours compiled: memory against transformers, at most 1": 0.9,
            "r18, batch 1, CUDA graph bfloat16: against eager, at least 3": 5.0,
            "r18, batch 16, cache none: GPU busy, at least 0.9": 0.93,
        }
    )


def test_overlapping_kernels_count_once():
    def event(start, end, device="CUDA"):
        return SimpleNamespace(
            time_range=SimpleNamespace(start=start, end=end),
            device_type=getattr(torch.autograd.DeviceType, device),
        )

    events = [event(0, 10), event(5, 20), event(6, 7), event(100, 130), event(0, 500, "CPU")]
    assert busy_seconds(SimpleNamespace(events=lambda: events)) == pytest.approx(50e-6)


def test_kinds_of_operators():
    times = {
        "aten::convolution_backward": 40,
        "aten::mkldnn_convolution": 20,
        "aten::native_batch_norm_backward": 10,
        "aten::_native_batch_norm_legit": 5,
        "aten::addmm": 10,
        "aten::grid_sampler_2d_backward": 8,
        "aten::copy_": 4,
        "aten::add_": 2,
        "aten::nonzero": 1,
    }
    assert by_kind(times.items()) == pytest.approx(
        {
            "convolutions, backward": 0.40,
            "convolutions, forward": 0.20,
            "norms": 0.15,
            "matrix products": 0.10,
            "sampling of the deformable attention": 0.08,
            "copies and casts": 0.04,
            "sums of gradients": 0.02,
            "other": 0.01,
        }
    )


def test_profile_of_a_step():
    result = profile_step("r18", size=64, batch=2, device=torch.device("cpu"), steps=1, **NETWORK)
    in_training = "bfloat16" if has_bfloat16(torch.device("cpu")) else "float32"
    assert result["precision"] == in_training
    assert set(result["sections"]) == {"transfer", "forward", "matching", "backward", "optimizer"}
    assert sum(result["sections"].values()) == pytest.approx(1)
    assert sum(result["kinds"].values()) == pytest.approx(1)
    assert result["kinds"]["convolutions, backward"] == pytest.approx(
        result["operators"]["aten::convolution_backward"]
    )
