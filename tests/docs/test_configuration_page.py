"""docs/configuration.md is up to date."""

from rtdetrv2.reference.configuration_page import TARGET, configuration_page
from rtdetrv2_pytorch.src.core.catalog import COMPONENTS


def test_page_is_up_to_date():
    assert TARGET.read_text() == configuration_page(), "run python -m rtdetrv2.reference"


def test_page_lists_components_and_keys():
    page = configuration_page()
    for name in COMPONENTS:
        assert f"\n## {name}\n" in page
    assert "| `warmup_duration` | `int` >= 0 | required | optimizer steps; 0 for none. |" in page
    assert "| `betas` | `tuple` of `float` >= 0, < 1 | `(0.9, 0.999)` |" in page
    assert "| `cross_attn_method` | `'default'`, `'discrete'` | `'default'` |" in page
