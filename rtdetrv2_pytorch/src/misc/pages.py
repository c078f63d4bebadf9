"""Pages for people: one HTML file each, without scripts and network, every name escaped."""

import base64
import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from .text import printable

_BASE = Path(__file__).parent  # of base.html: what all pages look like


def render(template: Path, **values: Any) -> str:
    """Fill a template, which may extend `base.html`.

    Args:
        template: the file.
        **values: for it.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, _BASE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["printable"] = lambda value: printable(str(value))
    return environment.get_template(template.name).render(**values)


def jpeg_uri(image: Image.Image, quality: int = 75) -> str:
    """A picture inside a page."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
