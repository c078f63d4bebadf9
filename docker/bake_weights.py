"""Download published weights into the user's cache while building the image.

python3 docker/bake_weights.py all|NAMES
"""

import json
import sys
from pathlib import Path

from rtdetrv2_pytorch.src.misc.weights import SUPERVISELY_CACHE, locate

MODELS = Path(__file__).parents[1] / "supervisely_integration" / "models_v2.json"


def addresses(chosen: str) -> list[str]:
    """Return the URLs of the weights of the selected models.

    Args:
        chosen: `all`, or comma-separated model names; empty: none.

    Raises:
        SystemExit: if a name is not in the model table.
    """
    rows = [row["meta"] for row in json.loads(MODELS.read_text())]
    known = {
        row["model_name"]: row["model_files"]["checkpoint"]
        for row in rows
        if "checkpoint" in row["model_files"]
    }
    names = list(known) if chosen == "all" else [n.strip() for n in chosen.split(",") if n.strip()]
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"no weights of {', '.join(unknown)}; there are: {', '.join(known)}")
    return [known[name] for name in names]


def bake(urls: list[str]) -> None:
    """Download missing files, make them readable for all users and remove lock files."""
    folder = SUPERVISELY_CACHE.expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    for url in urls:
        locate(url).chmod(0o644)
    for lock in folder.glob("*.lock"):
        lock.unlink()


if __name__ == "__main__":
    bake(addresses(sys.argv[1]))
