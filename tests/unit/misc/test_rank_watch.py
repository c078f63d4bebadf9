"""A rank that fails or stays away, among two real ones that meet again and again."""

import re

import pytest

from tests.ranks import end_ranks

MEETINGS = """
import sys, time, torch
from rtdetrv2_pytorch.src.misc import distributed
from rtdetrv2_pytorch.src.misc.errors import DatasetError, RankError

distributed.init_from_environment(torch.device("cpu"), timeout_s=3)
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
print("met")
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
            r"rank 1 \(\S+, process \d+\): did not come to where the others wait within 3 s",
        ),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            r"rank 1 \(\S+, process \d+\): gone; killed",
        ),
    ],
)
def test_the_others_end_with_a_rank_and_say_why(trouble, message):
    results = end_ranks(MEETINGS.format(trouble=trouble))
    assert all(code != 0 for code, _, _ in results)
    assert not any("met" in output for _, output, _ in results)
    assert re.search(message, results[0][2]), results[0][2]
