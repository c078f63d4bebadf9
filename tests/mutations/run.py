"""Inject each fault into a copy of the tree, run its tests and report which faults are caught.

    python -m tests.mutations.run                       # all faults, result to after.json
    python -m tests.mutations.run --check               # only check that every fault applies
    python -m tests.mutations.run --only "EMA" --out /tmp/ema.json

The working tree stays untouched: faults are planted in a temporary copy, which is removed at the
end, also after an interruption. Each test run is forked from this process, which has imported
torch and the SDK but nothing of the project. At the end all targets run without a fault: a fault
whose target fails then, too, proves nothing and is marked as "target fails".
"""

import argparse
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from tests.mutations.faults import FAULTS, Fault

ROOT = Path(__file__).parents[2]
AFTER = Path(__file__).with_name("after.json")
_TIMEOUT_S = 900


def copy_tree(source: Path, target: Path) -> None:
    """Copy all files that git tracks, or would track."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=source,
        check=True,
        capture_output=True,
    )
    for name in filter(None, listing.stdout.decode().split("\0")):
        if (source / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)


def planted(text: str, fault: Fault) -> str:
    """Return the text with the fault.

    Raises:
        ValueError: if the line to change is not found exactly once.
    """
    if text.count(fault.old) != 1:
        raise ValueError(f"{fault.name}: found {text.count(fault.old)} times in {fault.file}")
    return text.replace(fault.old, fault.new)


def problems(tree: Path, faults: Iterable[Fault]) -> list[str]:
    """Return the reasons why faults do not apply to a tree."""
    found = []
    for fault in faults:
        try:
            planted((tree / fault.file).read_text(encoding="utf-8"), fault)
            for target in fault.tests.split():
                if not (tree / target.partition("::")[0]).exists():
                    raise ValueError(f"{fault.name}: {target} does not exist")
        except (OSError, ValueError) as error:
            found.append(str(error))
    return found


def run_tests(tree: Path, targets: Sequence[str]) -> tuple[int, list[str]]:
    """Run pytest in a tree; return its exit code and its output."""
    arguments = ["-q", "-p", "no:cacheprovider", *targets]
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            _run_pytest(tree, arguments, output.fileno())
        code = _exit_code(child)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if code is None:
        return -1, [f"no result within {_TIMEOUT_S} s"]
    return code, text.strip().splitlines() or [""]


def _preload() -> None:
    """Import what most tests need, which takes longer than most of them."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["SUPERVISELY_SKIP_HTTPS_USER_HELPER_CHECK"] = "1"
    for name in ("torch", "torchvision", "onnxruntime", "supervisely.nn.training"):
        importlib.import_module(name)


def _run_pytest(tree: Path, arguments: list[str], output: int) -> NoReturn:
    """Become a pytest process in a tree, which imports nothing from this one's."""
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(tree)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    sys.path[:] = [str(tree), *(p for p in sys.path if p and Path(p).resolve() != ROOT)]
    # A fault of the same length, planted in the same second, would leave valid bytecode behind.
    sys.pycache_prefix = str(tree / f".bytecode{os.getpid()}")
    sys.argv = ["pytest", *arguments]
    code = 70  # of an error in pytest itself
    try:
        code = pytest.main(arguments)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _exit_code(child: int) -> int | None:
    """Wait for a process; kill its group and return None after the timeout."""
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.1)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def mark_failing_targets(tree: Path, results: Sequence[dict[str, str | float]]) -> None:
    """Run all targets without a fault; mark the faults whose targets fail."""
    _, output = run_tests(tree, sorted({t for r in results for t in str(r["tests"]).split()}))
    print(f"without a fault: {output[-1]}", flush=True)
    failed = [line.split()[1] for line in output if line.startswith(("FAILED", "ERROR"))]
    for result in results:
        if any(name.startswith(t) for name in failed for t in str(result["tests"]).split()):
            result["outcome"] = "target fails"


def outcome_of(fault: Fault, tree: Path) -> dict[str, str | float]:
    """Inject a fault, run its tests and restore the file."""
    path = tree / fault.file
    original = path.read_text(encoding="utf-8")
    begin = time.monotonic()
    try:
        path.write_text(planted(original, fault), encoding="utf-8")
        code, output = run_tests(tree, ["-x", *fault.tests.split()])
    finally:
        path.write_text(original, encoding="utf-8")
    return {
        **fault._asdict(),
        "outcome": "survived" if code == 0 else "caught",
        "summary": output[-1],
        "seconds": round(time.monotonic() - begin, 1),
    }


def main() -> int:
    """Run; return the number of faults that are not caught."""
    parser = argparse.ArgumentParser(description="Run the tests against planted faults.")
    parser.add_argument("--tree", type=Path, default=ROOT, help="tree to copy; default: this one")
    parser.add_argument("--only", default="", help="faults whose names contain this text")
    parser.add_argument("--out", type=Path, default=AFTER, help="JSON file for the results")
    parser.add_argument("--check", action="store_true", help="only check that the faults apply")
    args = parser.parse_args()
    faults = [fault for fault in FAULTS if args.only in fault.name]
    wrong = problems(args.tree, faults)
    if wrong or args.check:
        print("\n".join(wrong) or f"{len(faults)} faults apply")
        return len(wrong)

    _preload()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_tree(args.tree, tree)
        for fault in faults:
            results.append(outcome_of(fault, tree))
            print(f"{results[-1]['outcome']:<8} {fault.name}: {results[-1]['summary']}", flush=True)
            write_results(args.out, results)
        mark_failing_targets(tree, results)
        write_results(args.out, results)
    caught = sum(result["outcome"] == "caught" for result in results)
    print(f"{caught} of {len(results)} faults caught")
    return len(results) - caught


def write_results(path: Path, results: Sequence[dict[str, str | float]]) -> None:
    """Write the results as JSON."""
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
