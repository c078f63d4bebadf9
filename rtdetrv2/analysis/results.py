"""Write the results of a command as JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.misc.errors import ConfigError
from rtdetrv2_pytorch.src.misc.files import write_text
from rtdetrv2_pytorch.src.misc.text import without_non_finite


def save_json(path: Path, values: Mapping[str, Any], *, option: str) -> None:
    """Write values to a file; NaN becomes null.

    Raises:
        ConfigError: naming the option, if the file cannot be written.
    """
    text = json.dumps(without_non_finite(values), indent=1, ensure_ascii=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text + "\n")
    except OSError as error:
        raise ConfigError(
            f"{option} {str(path)!r}: not writable ({error.strerror}); choose another file"
        ) from error
