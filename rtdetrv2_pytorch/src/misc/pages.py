"""Render self-contained HTML pages without scripts; all values are escaped."""

import base64
import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from .text import counted, printable

_BASE = Path(__file__).parent  # folder of base.html, the layout of all pages


def render(template: Path, **values: Any) -> str:
    """Render a template file, which may extend `base.html`, with the given variables."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, _BASE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["counted"] = counted
    environment.filters["printable"] = lambda value: printable(str(value))
    return environment.get_template(template.name).render(**values)


def jpeg_uri(image: Image.Image, quality: int = 75) -> str:
    """Encode an image as a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
