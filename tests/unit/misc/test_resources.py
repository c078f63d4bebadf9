"""Memory that a process keeps after freeing it, measured with mallinfo2."""

import ctypes
import platform
import subprocess
import sys
import textwrap

import pytest

from tests.conftest import ROOT

# Allocates and frees six tensors of 20 MiB. By default, glibc keeps at most 64 MiB.
PROGRAM = """
    import ctypes, torch
    from rtdetrv2_pytorch.src.misc.resources import keep_freed_memory

    class MallInfo(ctypes.Structure):  # struct mallinfo2, see mallinfo(3)
        _fields_ = [(name, ctypes.c_size_t) for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )]

    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = MallInfo

    def held():
        books = mallinfo2()
        return books.arena + books.hblkhd

    {call}
    tensors = [torch.ones(5 * 2**20) for _ in range(6)]
    before = held()
    tensors.clear()
    print(before, held())
"""


def held(call):
    program = textwrap.dedent(PROGRAM).format(call=call)
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return map(int, run.stdout.split())


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="no glibc of 2.33 or newer",
)
def test_freed_memory_is_kept():
    full, freed = held("pass")
    assert full - freed > 40 * 2**20
    full, freed = held("keep_freed_memory()")
    assert full >= 120 * 2**20
    assert freed == full
