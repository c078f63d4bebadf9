"""Write the bill of materials of the image in CycloneDX: packages, page libraries, weights.

python3 docker/bill_of_materials.py FILE
"""

import hashlib
import json
import re
import subprocess
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

DOCUMENTS = Path("/usr/share/doc")
PAGE = Path("/usr/share/rtdetrv2/page")
WEIGHTS = Path("~/.cache/supervisely/checkpoints")

Component = dict[str, Any]


def _package(kind: str, name: str, version: str, license_name: str) -> Component:
    """Return a component; `kind` is the type of its package URL, with a namespace if it has one."""
    return {
        "type": "library",
        "name": name,
        "version": version,
        "licenses": [{"license": {"name": license_name}}],
        "purl": f"pkg:{kind}/{quote(name, safe='')}@{quote(version, safe='')}",
    }


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


def python_packages() -> list[Component]:
    """Return the installed Python packages."""
    found = {
        p.metadata["Name"]: _package(
            "pypi",
            re.sub(r"[-_.]+", "-", p.metadata["Name"]).lower(),
            p.version,
            python_license(p),
        )
        for p in distributions()
    }
    return sorted(found.values(), key=lambda package: str(package["name"]))


def system_packages(release: Path = Path("/etc/os-release")) -> list[Component]:
    """Return the installed system packages; `release` names the distribution."""
    lines = (line.partition("=") for line in release.read_text().splitlines())
    system = {key: value.strip('"') for key, _, value in lines}
    query = ("dpkg-query", "--show", "--showformat", "${Package}\t${Version}\n")
    output = subprocess.run(query, check=True, capture_output=True, text=True).stdout
    found = []
    for name, version in (line.split("\t") for line in output.splitlines()):
        license_name = debian_license(DOCUMENTS / name / "copyright")
        package = _package(f"deb/{system['ID']}", name, version, license_name)
        package["purl"] += f"?distro={system['ID']}-{system['VERSION_ID']}"
        found.append(package)
    return found


def page_packages(folder: Path) -> list[Component]:
    """Return the npm packages of the app page."""
    found = [json.loads(file.read_text()) for file in sorted(folder.glob("*/package.json"))]
    return [
        _package("npm", each["name"], each["version"], each.get("license", "not declared"))
        for each in found
    ]


def weights(folder: Path) -> list[Component]:
    """Return the weights in the image with SHA-256 and URL."""
    return [
        {
            "type": "machine-learning-model",
            "name": note.stem,
            "hashes": [
                {
                    "alg": "SHA-256",
                    "content": hashlib.sha256(note.with_suffix("").read_bytes()).hexdigest(),
                }
            ],
            "externalReferences": [{"type": "distribution", "url": note.read_text()}],
        }
        for note in sorted(folder.glob("*.url"))
    ]


def document(components: list[Component]) -> dict[str, Any]:
    """Return a CycloneDX document."""
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": components}


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    found = python_packages() + page_packages(PAGE) + system_packages()
    found += weights(WEIGHTS.expanduser())
    target.write_text(json.dumps(document(found), indent=1) + "\n")
