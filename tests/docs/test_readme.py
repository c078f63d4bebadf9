"""Model table of README.md."""

import json
import re
from pathlib import Path

from tests.goldens import load_models

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
MODELS = load_models()
PUBLISHED = json.loads((ROOT / "tests" / "golden" / "published_models.json").read_text())


def test_model_table_matches_published_numbers():
    rows = re.findall(r"^\| (.+?) \| `(.+?)\.yml` \| (.+?) \|$", README, re.MULTILINE)
    assert len(rows) == 9  # those of the apps
    for _, file, numbers in rows:
        ap, _, fps, parameters = (cell.strip() for cell in numbers.split("|"))
        published = PUBLISHED["checkpoints"][file]
        assert float(ap) == published["ap"], file
        assert fps == str(published.get("fps_t4", "")), file
        assert parameters == f"{MODELS[file]['params_total'] / 1e6:.1f} M", file
