"""Show a configuration, or explain its keys; see --help."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from ..terminal.command import PATH, Command, update_option
from ..terminal.console import open_console, print_detail, print_headline, starting

if TYPE_CHECKING:
    from rtdetrv2_pytorch.src.core.yaml_files import Layer

_EXAMPLES = """
examples:
  rtdetrv2 config --model M                                  # all values
  rtdetrv2 config -c my.yml -u optimizer.lr=0.0002           # checked, with your changes
  rtdetrv2 config optimizer.lr HybridEncoder.expansion       # explain keys
"""


@click.command(cls=Command, epilog=_EXAMPLES, exclusive=(("config", "model"),))
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("-c", "--config", type=PATH, help="YAML file.  [default: that of --model]")
@click.option("--model", default="S", show_default=True, help="As of `rtdetrv2 train`.")
@update_option("a value of the configuration")
def main(*, keys: tuple[str, ...], config: Path | None, model: str, update: tuple[str, ...]) -> int:
    """Print a configuration with all includes, or explain KEYs: value, origin, type, default."""
    with starting():
        import yaml

        from rtdetrv2_pytorch.src.core import YAMLConfig
        from rtdetrv2_pytorch.src.core.error_places import naming_overrides
        from rtdetrv2_pytorch.src.core.yaml_files import Layer, parse_overrides, read_layers

        from ..training.model_table import find_model
    path = find_model(model)[0] if config is None else config
    overrides = parse_overrides(update)
    with naming_overrides("-u"):
        cfg = YAMLConfig(path, **overrides)  # checks all keys and values
    if not keys:
        click.echo(yaml.safe_dump(cfg.yaml_cfg, sort_keys=False), nl=False)
        return 0
    layers = [*read_layers(path), Layer("the command line", overrides, None)]
    for key in keys:
        _explain(open_console(), key, cfg.yaml_cfg, layers)
    return 0


def _explain(console: Console, key: str, values: dict[str, Any], layers: "list[Layer]") -> None:
    """Print value, origin, type, default and meaning of a key.

    Raises:
        ConfigError: if the key is unknown.
    """
    from rtdetrv2_pytorch.src.core.build import suggest
    from rtdetrv2_pytorch.src.core.yaml_files import SYNONYMS, get, last_setter
    from rtdetrv2_pytorch.src.misc.errors import ConfigError

    from ..reference.configuration_page import KeyDescription, described_keys

    described = described_keys()
    name = SYNONYMS.get(key, key)
    first, _, rest = name.partition(".")
    part = values.get(first)
    kind = part.get("type") if isinstance(part, dict) else part
    found: KeyDescription | None = described.get(name) or described.get(f"{kind}.{rest}")
    path = tuple(name.split("."))
    value = get(values, path)
    if found is None and value is None:
        known = {*described, *(f"{one}.{two}" for one in values for two in _inner(values[one]))}
        raise ConfigError(f"{key}: unknown key{suggest(name, known)}")
    setter = last_setter(layers, path)
    origin = layers[setter].source if setter >= 0 else "the default"
    shown = value if value is not None or found is None else found.default
    print_headline(console, name, f"= {shown}, from {origin}")
    if found is not None:
        print_detail(console, f"type {found.type}, default {found.default}")
        if found.meaning:
            print_detail(console, found.meaning)


def _inner(value: Any) -> list[str]:
    return [str(key) for key in value] if isinstance(value, dict) else []
