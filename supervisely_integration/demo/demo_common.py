"""Shared by the demos: command line, reading images, printing and drawing detections."""

import argparse
import colorsys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

EXPERIMENT = Path(__file__).resolve().parents[1]  # the folder that contains `demo`
_FORMATS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
PixelRange = tuple[float, float]  # low, high
_TIFF_CHANNELS, _TIFF_SAMPLE_FORMAT = 277, 339  # tags
_DECODERS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")  # others may start programs
_SUFFIX = "_detections"
_MIN_SIDE_FOR_NAMES = 100  # pixels; in smaller images names would hide the objects
_FONTS = ("DejaVuSans.ttf", "arial.ttf", "Arial.ttf")  # with more than Latin letters


class Detection(NamedTuple):
    """A detected object."""

    label: int  # index of the class
    name: str  # of the class
    score: float  # 0..1
    box: tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the image


def parse_arguments(description: str, models: str, device: str = "cpu") -> argparse.Namespace:
    """Parse the command line of the demos; `models` is a glob pattern within the experiment.

    Returns:
        images, model, threshold ("auto" or a number), device, output.

    Raises:
        SystemExit: if an argument is invalid or there is no model.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("images", nargs="+", type=Path, help="image files, or folders of them")
    parser.add_argument("--model", type=Path, help=f"default: {models} of the experiment")
    parser.add_argument(
        "--threshold",
        type=_threshold,
        default="auto",
        help="minimum score, 0..1; auto (default): the best threshold of each class",
    )
    parser.add_argument("--device", default=device, help=f"cpu or cuda; default: {device}")
    parser.add_argument(
        "--output", type=Path, default=Path(), help="output folder; default: the current one"
    )
    arguments = parser.parse_args()
    if arguments.model is None:
        arguments.model = _find_model(models)
    if not arguments.model.is_file():
        raise SystemExit(f"{arguments.model}: no such file; give the model with --model")
    return arguments


def _threshold(text: str) -> float | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be from 0 to 1, or auto")
    return value


def _find_model(pattern: str) -> Path:
    """Return the model with the shortest name: `best.onnx` before `best_fp16.onnx`."""
    found = sorted(EXPERIMENT.glob(pattern), key=lambda path: (len(path.name), path.name))
    if not found:
        raise SystemExit(
            f"{EXPERIMENT / pattern}: no such file. Download the whole folder of the experiment, "
            "or give the model with --model"
        )
    return found[0]


def show(
    arguments: argparse.Namespace,
    detect: Callable[[Image.Image], Sequence[Detection]],
    pixel_range: PixelRange | None = None,
) -> None:
    """Detect objects in all images; print a table and save a drawing of each.

    Args:
        arguments: result of `parse_arguments`.
        detect: returns the detections of an RGB image, highest score first.
        pixel_range: of the model, for images with more than 8 bits.

    Raises:
        SystemExit: if an image is not readable or a drawing not writable.
    """
    taken: set[str] = set()
    for path in _find_images(arguments.images):
        image = open_image(path, pixel_range)
        detections = detect(image)
        print(f"{path}: {image.width} x {image.height}, {len(detections)} found")
        _print_table(detections)
        target = arguments.output / f"{_free_name(path.stem, taken)}{_SUFFIX}.jpg"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            draw(image, detections).save(target, quality=95)
        except OSError as error:
            raise SystemExit(f"{target}: cannot be written ({error}); choose --output") from error
        print(f"  drawn in {target}\n")


def _find_images(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield given files, and the images in folders without drawings of earlier runs."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        found = sorted(
            file
            for file in path.iterdir()
            if file.suffix.lower() in _FORMATS and not file.stem.endswith(_SUFFIX)
        )
        if not found:
            raise SystemExit(f"{path}: no images in this folder ({' '.join(_FORMATS)})")
        yield from found


def open_image(path: Path, pixel_range: PixelRange | None = None) -> Image.Image:
    """Read an image as RGB, rotated according to its EXIF data.

    Args:
        path: of the file.
        pixel_range: gray values with more than 8 bits that become 0 and 255, as in training; None:
            0..65535 for integers, 0..1 for floats.

    Raises:
        SystemExit: if it is not readable or has more than four channels.
    """
    try:
        with Image.open(path, formats=_DECODERS) as file:
            if getattr(file, "tag_v2", {}).get(_TIFF_CHANNELS, 1) > 4:
                raise SystemExit(f"{path}: more than 4 channels are not supported; save it as RGB")
            if file.mode.startswith(("I", "F")):
                return ImageOps.exif_transpose(_scaled(file, pixel_range)).convert("RGB")
            image = ImageOps.exif_transpose(file)
            if "transparency" in image.info:
                image = image.convert("RGBA")
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SystemExit(f"{path}: not readable as an image ({error})") from error


def _scaled(file: Image.Image, pixel_range: PixelRange | None) -> Image.Image:
    """Scale a gray image with more than 8 bits to 0..255, and keep its EXIF data."""
    values = np.asarray(file).astype(np.float64)
    tags = getattr(file, "tag_v2", {})
    if file.mode == "I" and tags.get(_TIFF_SAMPLE_FORMAT, (1,)) == (1,):
        values %= 2**32  # Pillow returns unsigned integers as signed ones
    low, high = pixel_range or ((0, 1) if file.mode == "F" else (0, 65535))
    scaled = np.rint(np.nan_to_num((values - low) * (255 / (high - low))))
    image = Image.fromarray(scaled.clip(0, 255).astype(np.uint8))
    image.info["exif"] = file.getexif().tobytes()
    return image


def _print_table(detections: Sequence[Detection]) -> None:
    if not detections:
        return
    width = max(len("class"), *(len(found.name) for found in detections))
    print(f"  {'class':{width}}  score       x1       y1       x2       y2")
    for found in detections:
        corners = " ".join(f"{corner:8.1f}" for corner in found.box)
        print(f"  {found.name:{width}}  {found.score:.3f} {corners}")


def _free_name(stem: str, taken: set[str]) -> str:
    """Return a unique name, for images such as a.jpg and a.png."""
    number, free = 1, stem
    while free in taken:
        number += 1
        free = f"{stem}_{number}"
    taken.add(free)
    return free


def draw(image: Image.Image, detections: Sequence[Detection]) -> Image.Image:
    """Draw boxes and names on a copy; lines and text scale with the image.

    Images below 100 pixels get no names.

    Args:
        image: RGB.
        detections: highest score first; they are drawn on top.
    """
    result = image.copy()
    canvas = ImageDraw.Draw(result)
    side = min(image.size)
    line, font = max(1, round(side / 250)), _font(max(10, round(side / 38)))
    for found in reversed(detections):
        canvas.rectangle(found.box, outline=_color(found.label), width=line)
    for found in reversed(detections) if side >= _MIN_SIDE_FOR_NAMES else ():
        _draw_name(canvas, found, font, image.size)
    return result


def _draw_name(
    canvas: ImageDraw.ImageDraw,
    found: Detection,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size_wh: tuple[int, int],
) -> None:
    """Draw a name above the box, or inside the box at the top of the image."""
    text = f"{found.name} {found.score:.2f}"
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
    margin = max(1, round((bottom - top) / 5))
    width, height = right - left + 2 * margin, bottom - top + 2 * margin
    x = max(0, min(found.box[0], size_wh[0] - width))
    y = found.box[1] - height if found.box[1] >= height else found.box[1]
    y = max(0, min(y, size_wh[1] - height))
    color = _color(found.label)
    canvas.rectangle((x, y, x + width, y + height), fill=color)
    is_bright = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140
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


def _color(label: int) -> tuple[int, int, int]:
    """Return a color per class; the golden angle makes neighboring labels differ."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + label * 0.618034) % 1, 0.9, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)
