"""Ranks: one process, and two real processes."""

import logging

import pytest
import torch

from rtdetrv2_pytorch.src.misc import distributed
from rtdetrv2_pytorch.src.misc.errors import ConfigError
from tests.ranks import run_ranks

SCRIPT = """
import json, logging, torch
from rtdetrv2_pytorch.src.misc import distributed as d

device = d.init_from_environment(torch.device("cpu"))
again = d.init_from_environment(torch.device("cpu"))  # the second call has no effect
mine = torch.tensor([1.0, 10.0]) * (d.rank() + 1)
total = d.sum_over_ranks(mine)
numbers = d.gather_numbers(d.rank(), 7)
means = [d.mean_over_ranks(v) for v in ({"a": 1.0 + 2 * d.rank()}, {"b": 3.0} if d.rank() else {})]
with d.single_process():  # the other rank does not take part
    own = [d.rank(), d.world_size(), d.gather_numbers(5)] if d.rank() == 0 else None
d.barrier()
levels = [
    level for level in (logging.INFO, logging.WARNING, logging.ERROR)
    if d.MainRankFilter().filter(logging.makeLogRecord({"levelno": level}))
]
result = {
    "place": [d.rank(), d.world_size(), d.is_main(), d.is_distributed(), str(device), str(again)],
    "total": total.tolist(),
    "numbers": numbers,
    "means": means,
    "own": own,
    "mine": mine.tolist(),
    "gathered": d.all_gather_objects({"rank": d.rank(), "files": ["a"] * d.rank()}),
    "levels": levels,
}
d.shutdown()
result["after"] = [d.rank(), d.world_size(), d.is_distributed()]
print(json.dumps(result))
"""


def test_world_size_is_1_without_a_process_group(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    device = distributed.init_from_environment(torch.device("cuda"))
    assert device == torch.device("cuda")  # no process group was initialized
    assert not distributed.is_distributed()
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    value = torch.tensor([3.0])
    assert distributed.sum_over_ranks(value) is value
    assert distributed.gather_numbers(3, 4) == [[3, 4]]
    assert distributed.mean_over_ranks({"a": 1.0}) == {"a": 1.0}
    assert distributed.all_gather_objects({"a": 1}) == [{"a": 1}]
    distributed.barrier()
    distributed.shutdown()
    assert not distributed.is_distributed()


def test_rank_without_gpu_is_rejected(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match=r"^device = 'cuda:2': torch sees 2 GPUs here"):
        distributed.init_from_environment(torch.device("cuda"))


def test_world_size_1_creates_no_process_group(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert distributed.init_from_environment(torch.device("cpu")) == torch.device("cpu")
    assert not distributed.is_distributed()


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO, logging.ERROR])
def test_main_rank_logs_all_levels(level):
    record = logging.makeLogRecord({"levelno": level})
    assert distributed.MainRankFilter().filter(record)


def test_collectives_of_two_ranks():
    first, second = run_ranks(SCRIPT)
    assert first["place"] == [0, 2, True, True, "cpu", "cpu"]
    assert second["place"] == [1, 2, False, True, "cpu", "cpu"]
    for rank, result in enumerate((first, second)):
        assert result["total"] == [3.0, 30.0]
        assert result["numbers"] == [[0, 7], [1, 7]]
        assert result["means"] == [{"a": 2.0}, {"b": 3.0}]
        assert result["mine"] == [1.0 * (rank + 1), 10.0 * (rank + 1)]  # not modified
        assert result["gathered"] == [
            {"rank": 0, "files": []},
            {"rank": 1, "files": ["a"]},
        ]
        assert result["after"] == [0, 1, False]
    assert first["own"] == [0, 1, [[5]]]
    assert first["levels"] == [logging.INFO, logging.WARNING, logging.ERROR]
    assert second["levels"] == [logging.WARNING, logging.ERROR]
