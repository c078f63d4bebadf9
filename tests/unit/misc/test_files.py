"""Atomic replacement of files, and locks on folders."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rtdetrv2_pytorch.src.misc.errors import ConfigError
from rtdetrv2_pytorch.src.misc.files import FolderLock, remove_partial_files, replacing, write_text

ROOT = Path(__file__).parents[3]
HOLDER = """
import sys
from pathlib import Path
from rtdetrv2_pytorch.src.misc.files import FolderLock
with FolderLock(Path(sys.argv[1]), remedy="wait"):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_failed_body_keeps_the_file_and_no_partial_file(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "old")
    with pytest.raises(OSError, match="full"), replacing(path, suffix=".onnx") as partial:
        partial.write_text("ne")
        assert partial.suffix == ".onnx"
        assert path.read_text() == "old"
        raise OSError("full")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text() == "old"


def test_two_writers_never_publish_a_broken_file(tmp_path):
    """Both writers interleave in one process: a shared temporary name would mix their contents."""
    path = tmp_path / "last.pth"
    contents = {letter: letter * 200_000 for letter in "ab"}

    def write(letter):
        for _ in range(60):
            write_text(path, contents[letter])

    write("a")
    writers = [threading.Thread(target=write, args=[letter]) for letter in "ab"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert path.read_text() in contents.values()
    assert [p.name for p in tmp_path.iterdir()] == ["last.pth"]


def test_partial_files_of_killed_writers_are_removed(tmp_path):
    for name in (".last.pth.7-ab.partial", "last.pth", ".partial"):
        (tmp_path / name).touch()
    remove_partial_files(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".partial", "last.pth"]


def test_lock_names_the_process_that_holds_it_and_ends_with_it(tmp_path):
    folder = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout.readline() == "locked\n"
        for _ in range(2):  # a refused attempt does not change the lock
            with (
                pytest.raises(ConfigError, match=f"out: in use by process {holder.pid} on .*; go"),
                FolderLock(folder, remedy="go elsewhere"),
            ):
                pass
        holder.kill()
        holder.wait()
    with FolderLock(folder, remedy=""), FolderLock(folder, remedy=""):  # nested
        pass
