"""docs/data_doctor.md lists all findings."""

import re
from pathlib import Path

from rtdetrv2_pytorch.src.data.finding_kinds import KINDS

PAGE = (Path(__file__).parents[2] / "docs" / "data_doctor.md").read_text()


def test_table_matches_findings_in_code():
    rows = re.findall(
        r"^\| (.+?) \| `(\w+)`, (\w+) \| (\w+): (.+?) \| (.+) \|$", PAGE, re.MULTILINE
    )
    assert rows == [
        (kind.title, name, kind.severity, kind.action, kind.effect, kind.remedy)
        for name, kind in KINDS.items()
    ]
