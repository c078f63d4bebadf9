"""docker/requirements.lock pins all of requirements.txt, with hashes."""

import re
from importlib.metadata import requires, version

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .dockerfiles import DOCKER, ROOT, requirement_lines

TEXT = (DOCKER / "requirements.lock").read_text()
ENTRIES = re.split(r"\n(?=[a-z0-9])", TEXT.strip())
REMEDY = "run `make lock`"


def versions() -> dict[str, str]:
    pins = [re.match(r"([\w.-]+)(?:\[[^]]*\])?==([^\s;]+)", entry) for entry in ENTRIES]
    return {canonicalize_name(pin[1]): pin[2] for pin in pins}


def test_requirements_are_locked_at_their_version():
    locked = versions()
    for line in requirement_lines(ROOT / "requirements.txt"):
        wanted = Requirement(line)
        version = locked.get(canonicalize_name(wanted.name))
        assert str(wanted.specifier) == f"=={version}", f"{line}: {REMEDY}"


def test_gpu_bundle_versions_match_requirements():
    pins = versions()
    for line in requirement_lines(ROOT / "dev_requirements.txt"):
        name, pin = line.split("==")
        pins[canonicalize_name(name)] = pin
    for line in requirement_lines(ROOT / "benchmarks" / "gpu-requirements.txt"):
        name, pin = line.split("==")
        if name != "tokenizers":  # required by transformers, which is not locked
            assert pins[canonicalize_name(name)] == pin, line


def test_dependencies_are_locked_at_compatible_versions():
    locked = versions()
    todo = [Requirement(line) for line in requirement_lines(ROOT / "requirements.txt")]
    seen = set()
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        assert name in locked, f"{wanted}: not in the lock; {REMEDY}"
        assert wanted.specifier.contains(locked[name], prereleases=True), f"{wanted}: {REMEDY}"
        for extra in ("", *wanted.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            if version(name) != locked[name]:  # an environment with another torch
                continue
            below = map(Requirement, requires(name) or [])
            todo += [r for r in below if not r.marker or r.marker.evaluate({"extra": extra})]
    assert len({name for name, _ in seen}) > 50


def test_entries_have_hashes_and_no_url():
    assert len(ENTRIES) > 100
    assert [e.split()[0] for e in ENTRIES if not re.search(r"--hash=sha256:[0-9a-f]{64}", e)] == []
    assert "://" not in TEXT
    assert "index-url" not in TEXT
