"""List the contents of the image with versions and licenses: packages.tsv and weights.tsv.

python3 docker/list_packages.py FOLDER
"""

import csv
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path

DOCUMENTS = Path("/usr/share/doc")
PAGE = Path("/usr/share/rtdetrv2/page")
WEIGHTS = Path("~/.cache/supervisely/checkpoints")


def python_license(package: Distribution) -> str:
    """Return the declared license: an SPDX expression, classifiers or text."""
    metadata = package.metadata.json
    if expression := metadata.get("license_expression"):
        return str(expression)
    classifiers = metadata.get("classifier") or []
    names = [c.split(" :: ")[-1] for c in classifiers if c.startswith("License :: ")]
    if names:
        return ", ".join(names)
    first = str(metadata.get("license") or "").strip().split("\n")[0]  # may be the full text
    files = package.metadata.get_all("License-File") or []
    return first or (f"see {', '.join(files)}" if files else "not declared")


def debian_license(copyright_file: Path) -> str:
    """Return the licenses in a machine-readable Debian copyright file."""
    if not copyright_file.is_file():
        return f"see {copyright_file}"
    text = copyright_file.read_text(errors="replace")
    names = dict.fromkeys(re.findall(r"^License: *(\S.*)$", text, re.MULTILINE))
    return ", ".join(names) or f"see {copyright_file}"


def python_packages() -> list[tuple[str, str, str, str]]:
    """Return kind, name, version and license of each installed Python package."""
    found = {
        p.metadata["Name"]: ("python", p.metadata["Name"], p.version, python_license(p))
        for p in distributions()
    }
    return sorted(found.values(), key=lambda row: row[1].lower())


def debian_packages() -> list[tuple[str, str, str, str]]:
    """Return kind, name, version and license of each installed system package."""
    query = ("dpkg-query", "--show", "--showformat", "${Package}\t${Version}\n")
    lines = subprocess.run(query, check=True, capture_output=True, text=True).stdout.splitlines()
    pairs = [line.split("\t") for line in lines]
    return [("system", n, v, debian_license(DOCUMENTS / n / "copyright")) for n, v in pairs]


def page_packages(folder: Path) -> list[tuple[str, str, str, str]]:
    """Return kind, name, version and license of each npm package of the app page."""
    found = [json.loads(file.read_text()) for file in sorted(folder.glob("*/package.json"))]
    return [
        ("npm", each["name"], each["version"], each.get("license", "not declared"))
        for each in found
    ]


def baked_weights(folder: Path) -> list[tuple[str, str, str]]:
    """Return file, SHA-256 and URL of the weights in the image."""
    return [
        (note.stem, hashlib.sha256(note.with_suffix("").read_bytes()).hexdigest(), note.read_text())
        for note in sorted(folder.glob("*.url"))
    ]


def write(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Write a tab-separated table."""
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    packages = python_packages() + page_packages(PAGE) + debian_packages()
    write(target / "packages.tsv", ("kind", "name", "version", "licence"), packages)
    write(
        target / "weights.tsv", ("file", "sha256", "address"), baked_weights(WEIGHTS.expanduser())
    )
