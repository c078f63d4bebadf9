"""The command line: output, files and exit status."""

import shlex
import shutil
import subprocess
import sys

import pytest
from rich.console import Console

from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from supervisely_integration.local.emulator.store import Store
from supervisely_integration.local.instance import LocalInstance
from supervisely_integration.local.launcher import cli
from supervisely_integration.local.launcher.commands import get_command
from supervisely_integration.local.launcher.results import write_experiment
from supervisely_integration.paths import ROOT


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    store = Store(root)
    store.files.put_path(1, "/experiments/1 [x]/a.txt", b"aaa")
    store.files.put_path(1, "/experiments/1 [x]/sub/b.bin", b"b" * 3_000_000)
    store.files.put_path(1, "/top.txt", b"top")
    store.close()
    return root


@pytest.fixture
def run(root, capsys):
    def call(command, *arguments):
        code = cli.main([command, "--root", str(root), *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


def test_ls(run):
    code, out, _ = run("ls")
    assert code == 0
    assert [line.split("  ")[-1] for line in out.splitlines()] == ["/experiments/", "/top.txt"]
    assert out.split()[0] == "3,000,003"
    _, out, _ = run("ls", "/experiments", "-r")
    assert [line.split("  ")[-1] for line in out.splitlines()] == [
        "/experiments/1 [x]/a.txt",
        "/experiments/1 [x]/sub/b.bin",
    ]


def test_log_level_of_the_sdk(run, monkeypatch):
    monkeypatch.setenv("LOG_LEVEL", "TRACE")
    assert run("ls")[0] == 0


def test_ls_missing_path(run, root):
    code, out, error = run("ls", "/no such")
    assert (code, out) == (1, "")
    assert error == f"InvalidRequestError: /no such is not in Team Files of {root}; see `ls /`\n"


def test_closed_pipe(root):
    done = subprocess.Popen(
        [sys.executable, "-m", "supervisely_integration.local", "ls", "-r", "--root", str(root)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    done.stdout.close()
    assert done.stderr.read() == ""
    assert done.wait(240) == 1


def test_get_file(run, tmp_path):
    code, out, _ = run("get", "/experiments/1 [x]/a.txt", tmp_path)
    assert (code, out.strip()) == (0, str(tmp_path / "a.txt"))
    assert (tmp_path / "a.txt").read_text() == "aaa"
    run("get", "/top.txt", tmp_path / "new" / "name.txt")
    assert (tmp_path / "new" / "name.txt").read_text() == "top"


def test_experiment_is_written_to_a_folder(root):
    store = Store(root)
    for _ in range(2):  # replaces the files of the first time
        folder = write_experiment(store, "/experiments/1 [x]")
    assert folder == root / "experiments" / "1 [x]"
    assert (folder / "a.txt").read_text() == "aaa"
    large = folder / "sub" / "b.bin"
    assert large.stat().st_nlink == 2  # a hard link
    # Changes of small files do not reach Team Files.
    (folder / "a.txt").write_text("changed")
    record = store.files.info_by_path(1, "/experiments/1 [x]/a.txt")
    assert store.files.contents(record).read_text() == "aaa"


def test_import_ends_with_the_command_that_trains(run, root, tmp_path):
    code, out, _ = run("import", make_digits_dataset(tmp_path / "digits", num_train=2, num_val=1))
    *_, headline, command = out.splitlines()
    assert (code, headline) == (0, "Next train on this project")
    python, *words = shlex.split(command)
    assert shutil.which(python)
    module = ["-m", "supervisely_integration.local"]
    assert words == [*module, "train", "--project", "1", "--root", str(root)]


def test_get_folder(run, tmp_path):
    code, out, _ = run("get", "/experiments/1 [x]/", tmp_path)
    assert code == 0
    assert len(out.splitlines()) == 2
    assert (tmp_path / "1 [x]" / "a.txt").read_text() == "aaa"
    assert (tmp_path / "1 [x]" / "sub" / "b.bin").stat().st_size == 3_000_000
    run("get", "/experiments/1 [x]", tmp_path / "other")
    assert (tmp_path / "other" / "sub" / "b.bin").exists()
    assert list(tmp_path.rglob("*.part")) == []


def test_get_shows_progress_of_large_copies(run, root, tmp_path, monkeypatch):
    monkeypatch.setattr(get_command, "_PROGRESS_FROM_BYTES", 1_000_000)
    monkeypatch.setattr(
        get_command,
        "open_console",
        lambda **kwargs: Console(**kwargs, force_terminal=True, width=100),
    )
    _, _, error = run("get", "/experiments", tmp_path)
    assert "3.0/3.0 MB" in error
    monkeypatch.undo()
    _, _, error = run("get", "/top.txt", tmp_path)
    assert error == ""


def test_get_missing_or_unwritable(run, tmp_path):
    code, _, error = run("get", "/missing", tmp_path)
    assert (code, error) == (1, "NotFoundError: Team Files path '/missing' does not exist\n")
    (tmp_path / "file").write_text("x")
    code, _, error = run("get", "/top.txt", tmp_path / "file" / "inside")
    assert code == 1
    assert error.startswith(f"FileExistsError: {tmp_path / 'file'}")
    code, _, error = run("get", "/../etc", tmp_path)
    assert "outside of Team Files" in error


def test_rm(run, root):
    code, out, _ = run("rm", "/experiments", "/top.txt")
    assert (code, out.splitlines()) == (
        *(0, ["removed 2 files: /experiments", "removed 1 file: /top.txt"]),
    )
    store = Store(root)
    assert store.files.entries(1, "/") == []
    assert [p for p in (root / "blobs").rglob("*") if p.is_file()] == []
    store.close()
    code, _, error = run("rm", "/top.txt")
    assert (code, error) == (
        *(1, f"InvalidRequestError: /top.txt is not in Team Files of {root}; see `ls /`\n"),
    )


def test_up_on_a_used_port(run, instance):
    code, _, error = run("up", "--port", instance.port)
    assert code == 1
    assert f"cannot listen on 127.0.0.1:{instance.port}" in error
    assert "use another --port, or --port 0 for a free one" in error


def test_up_prints_the_address_and_warns_about_other_machines(run, monkeypatch):
    monkeypatch.setattr(LocalInstance, "serve", lambda self: self.stop())
    code, out, error = run("up", "--port", 0)
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert code == 0
    assert lines["page"] == f"{lines['address']}/?token={lines['token']}"
    assert error == ""
    _, out, error = run("up", "--port", 0, "--host", "0.0.0.0")
    assert error.startswith("warning: other machines can reach 0.0.0.0")
    assert "http://127.0.0.1:" in out


def test_import(run, root, tmp_path, digits):
    code, out, error = run("import", digits, "--name", "digits")
    assert (code, error) == (0, "")
    headline, report, *_ = out.splitlines()
    assert headline == f"Importing {digits}"
    assert report.startswith("  project 1 'digits' from coco format: 10 of 10 images")
    store = Store(root)
    assert store.projects.info(1)["itemsCount"] == 10
    store.close()
    code, _, error = run("import", tmp_path / "nothing here")
    assert code == 1
    assert "nothing here" in error
    assert error.startswith("DatasetError: ")


@pytest.mark.parametrize("name", ["a/b", "a\\b", ""])
def test_invalid_experiment_name_is_rejected(name, capsys):
    assert cli.main(["train", "--sample", "--name", name]) == 2
    assert f"{name!r}: use a name without / and \\" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["no-such-command"], ["get"], ["train", "--sample", "--data", "x"]]
)
def test_usage_errors_exit_with_2(arguments, capsys):
    assert cli.main(arguments) == 2
    assert "Usage:" in capsys.readouterr().err
