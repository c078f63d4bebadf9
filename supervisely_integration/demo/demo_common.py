"""What the demos share: their command line, pictures in, a table and a drawing out."""

import argparse
import colorsys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image, ImageDraw, ImageFont, ImageOps

EXPERIMENT = Path(__file__).resolve().parents[1]  # whose folder `demo` this is
_FORMATS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_ENDING = "_detections"
_SMALLEST_WITH_NAMES = 100  # pixels; on less, the names would hide the objects
_FONTS = ("DejaVuSans.ttf", "arial.ttf", "Arial.ttf")  # they have more than Latin letters


class Detection(NamedTuple):
    """An object that was found.

    Attributes:
        label: place of its class in the model's list.
        name: of its class.
        score: 0..1.
        box: x1, y1, x2, y2 in pixels of the picture.
    """

    label: int
    name: str
    score: float
    box: tuple[float, float, float, float]


def parse_arguments(description: str, models: str, device: str = "cpu") -> argparse.Namespace:
    """The command line that all demos have.

    Args:
        description: what the demo does.
        models: pattern of the model files, relative to the experiment's folder.
        device: the default one.

    Returns:
        images, model, threshold ("auto" or a number), device, output.

    Raises:
        SystemExit: if it is wrong, or there is no model.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("images", nargs="+", type=Path, help="image files, or folders of them")
    parser.add_argument("--model", type=Path, help=f"default: {models} of the experiment")
    parser.add_argument(
        "--threshold",
        type=_threshold,
        default="auto",
        help="lowest score to show, 0..1; auto (default): what was the best for each class",
    )
    parser.add_argument("--device", default=device, help=f"cpu or cuda; default: {device}")
    parser.add_argument(
        "--output", type=Path, default=Path(), help="folder for the drawings; default: this one"
    )
    arguments = parser.parse_args()
    if arguments.model is None:
        arguments.model = _find_model(models)
    if not arguments.model.is_file():
        raise SystemExit(f"{arguments.model}: no such file; give the model as --model")
    return arguments


def _threshold(text: str) -> float | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a score from 0 to 1, or auto")
    return value


def _find_model(pattern: str) -> Path:
    """The one with the shortest name: `best.onnx` comes before `best_fp16.onnx`."""
    found = sorted(EXPERIMENT.glob(pattern), key=lambda path: (len(path.name), path.name))
    if not found:
        raise SystemExit(
            f"{EXPERIMENT / pattern}: there is none. Download the folder of the experiment as a "
            "whole, or give the model as --model"
        )
    return found[0]


def show(
    arguments: argparse.Namespace, detect: Callable[[Image.Image], Sequence[Detection]]
) -> None:
    """Detect in all pictures; print a table and write a drawing of each.

    Args:
        arguments: of `parse_arguments`.
        detect: finds objects in an RGB picture, best first.

    Raises:
        SystemExit: if a picture cannot be read, or a drawing cannot be written.
    """
    taken: set[str] = set()
    for path in _find_pictures(arguments.images):
        picture = open_picture(path)
        detections = detect(picture)
        print(f"{path}: {picture.width} x {picture.height}, {len(detections)} detections")
        _print_table(detections)
        target = arguments.output / f"{_free_name(path.stem, taken)}{_ENDING}.jpg"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            draw(picture, detections).save(target, quality=95)
        except OSError as error:
            raise SystemExit(f"{target}: cannot be written ({error}); choose --output") from error
        print(f"  drawn in {target}\n")


def _find_pictures(paths: Sequence[Path]) -> Iterator[Path]:
    """Files as they are given; of folders the pictures, without drawings of earlier runs."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        found = sorted(
            file
            for file in path.iterdir()
            if file.suffix.lower() in _FORMATS and not file.stem.endswith(_ENDING)
        )
        if not found:
            raise SystemExit(f"{path}: no images in this folder ({' '.join(_FORMATS)})")
        yield from found


def open_picture(path: Path) -> Image.Image:
    """Read a picture as RGB, turned upright as the camera says.

    Raises:
        SystemExit: if it cannot be read, or has more than 8 bits a channel.
    """
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith(("I", "F")):
                raise SystemExit(f"{path}: has more than 8 bits a channel; save it with 8")
            if "transparency" in picture.info:
                picture = picture.convert("RGBA")
            return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SystemExit(f"{path}: cannot be read as an image ({error})") from error


def _print_table(detections: Sequence[Detection]) -> None:
    if not detections:
        return
    width = max(len("class"), *(len(found.name) for found in detections))
    print(f"  {'class':{width}}  score       x1       y1       x2       y2")
    for found in detections:
        corners = " ".join(f"{corner:8.1f}" for corner in found.box)
        print(f"  {found.name:{width}}  {found.score:.3f} {corners}")


def _free_name(stem: str, taken: set[str]) -> str:
    """Another name where two pictures of a run have the same, as a.jpg and a.png do."""
    number, free = 1, stem
    while free in taken:
        number += 1
        free = f"{stem}_{number}"
    taken.add(free)
    return free


def draw(picture: Image.Image, detections: Sequence[Detection]) -> Image.Image:
    """Draw boxes and names on a copy; lines and letters grow with the picture.

    On pictures of less than 100 pixels there are no names.

    Args:
        picture: RGB.
        detections: best first; the best are drawn on top.
    """
    result = picture.copy()
    canvas = ImageDraw.Draw(result)
    side = min(picture.size)
    line, font = max(1, round(side / 250)), _font(max(10, round(side / 38)))
    for found in reversed(detections):
        canvas.rectangle(found.box, outline=_colour(found.label), width=line)
    for found in reversed(detections) if side >= _SMALLEST_WITH_NAMES else ():
        _draw_name(canvas, found, font, picture.size)
    return result


def _draw_name(
    canvas: ImageDraw.ImageDraw,
    found: Detection,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size_wh: tuple[int, int],
) -> None:
    """Above the box, or in it where the picture ends; never beyond the picture's border."""
    text = f"{found.name} {found.score:.2f}"
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
    margin = max(1, round((bottom - top) / 5))
    width, height = right - left + 2 * margin, bottom - top + 2 * margin
    x = max(0, min(found.box[0], size_wh[0] - width))
    y = found.box[1] - height if found.box[1] >= height else found.box[1]
    y = max(0, min(y, size_wh[1] - height))
    colour = _colour(found.label)
    canvas.rectangle((x, y, x + width, y + height), fill=colour)
    is_bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
    canvas.text(
        (x + margin - left, y + margin - top),
        text,
        font=font,
        fill="black" if is_bright else "white",
    )


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    for name in _FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def _colour(label: int) -> tuple[int, int, int]:
    """Neighbours differ: the golden angle goes round the colours without meeting itself."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + label * 0.618034) % 1, 0.9, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)
