"""What a process keeps of the memory that it frees: counted by the system, page by page."""

import platform
import subprocess
import sys
import textwrap

import pytest

from tests.conftest import ROOT

# Faults of ten rounds that fill and free 60 MB: three tensors of 20 MB that exist at once.
PROGRAM = """
    import resource, torch
    from rtdetrv2_pytorch.src.misc.resources import keep_freed_memory

    {call}

    def round():
        return [torch.ones(5 * 2**20) for _ in range(3)][0][0]

    for _ in range(10):
        round()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        round()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(call):
    program = textwrap.dedent(PROGRAM).format(call=call)
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc")
def test_freed_memory_is_used_again_and_not_cleared_anew():
    pages = 10 * 3 * 20 * 2**20 // 4096
    usual, kept = faults("pass"), faults("keep_freed_memory()")
    assert usual > pages / 4
    assert kept < usual / 10
