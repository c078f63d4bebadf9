"""Failing, late and killed ranks, in two processes."""

import re

import pytest

from tests.ranks import end_ranks

SCRIPT = """
import sys, time, torch
from rtdetrv2_pytorch.src.misc import distributed
from rtdetrv2_pytorch.src.misc.errors import DatasetError
from rtdetrv2_pytorch.src.robustness.rank_watch import watch_ranks

distributed.init_from_environment(torch.device("cpu"), timeout_s=3, watch=watch_ranks)
begin = time.monotonic()
try:
    for step in range(3):
        if step == 2 and distributed.rank() == 1:
            {trouble}
        distributed.gather_numbers(step)
except Exception as error:
    reported = distributed.report_failure(error)
    print(type(reported).__name__, reported, file=sys.stderr)
    sys.stderr.flush()
    import os
    os._exit(2)
print("finished")
"""


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (
            "raise DatasetError('17.png: no image')",
            r"rank 1 \(\S+, process \d+\): DatasetError: 17.png: no image",
        ),
        (
            "time.sleep(60)",
            r"rank 1 \(\S+, process \d+\): did not reach the collective operation .* within 3 s",
        ),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            r"rank 1 \(\S+, process \d+\): not running or not reachable; killed",
        ),
    ],
)
def test_failure_of_one_rank_stops_all_ranks_with_its_message(trouble, message):
    results = end_ranks(SCRIPT.format(trouble=trouble))
    assert all(code != 0 for code, _, _ in results)
    assert not any("finished" in output for _, output, _ in results)
    assert re.search(message, results[0][2]), results[0][2]
