"""Inject each fault into a copy of the tree, run its tests and report which faults are caught.

    python -m tests.mutations.run                       # all faults, result to after.json
    python -m tests.mutations.run --check               # only check that every fault applies
    python -m tests.mutations.run --only "EMA" --out /tmp/ema.json

The working tree stays untouched: faults are planted in a temporary copy, which is removed at the
end, also after an interruption. At the end all targets run without a fault: a fault whose target
fails then, too, proves nothing and is marked as "target fails".
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

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
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *targets]
    try:
        done = subprocess.run(
            command, cwd=tree, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return -1, [f"no result within {_TIMEOUT_S} s"]
    return done.returncode, done.stdout.strip().splitlines() or [""]


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
