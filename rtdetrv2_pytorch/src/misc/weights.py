"""Find, download, verify and load weights."""

import contextlib
import hashlib
import logging
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import urlopen

import torch
from filelock import FileLock
from rich.progress import wrap_file
from torch import Tensor, nn

from .errors import CheckpointError
from .files import replacing, write_text
from .limits import check_tensors, check_values

logger = logging.getLogger(__name__)

_TIMEOUT_S = 20  # without data from the server
_CHECK_TIMEOUT_S = 5
_CHUNK = 1 << 20  # bytes

# Lines of "SHA-256  URL". Weights that are not listed are verified against their first use.
PUBLISHED = Path(__file__).with_name("published_weights.sha256")
SUPERVISELY_CACHE = Path("~/.cache/supervisely/checkpoints")  # filled by the Docker image

# Computed for the current image size, never loaded.
_SIZE_DEPENDENT = re.compile(r"(^|\.)(anchors|valid_mask)$")


def is_url(source: str | Path) -> bool:
    """Return whether a source of weights is a URL."""
    return urlparse(str(source)).scheme in ("http", "https")


def locate(source: str | Path, on_progress: Callable[[int, int], None] | None = None) -> Path:
    """Return the local file of a path or URL; download it if no cache contains it.

    A lock lets all ranks of a machine share one download. The file appears under its name when it
    is complete and readable. Its URL is written next to it, so that files of the same name from
    other URLs are distinguished; a file without a URL was put there manually and matches by name.

    The SHA-256 of a URL's file is verified: against the published one, or against the one of its
    first use, which is recorded next to the file.

    Args:
        source: path, or http(s) URL.
        on_progress: called with (bytes received, total bytes or 0 if unknown).

    Raises:
        CheckpointError: if the file does not exist and could not be downloaded, or has another
            SHA-256; the message says where to put it.
    """
    if not is_url(source):
        path = Path(source).expanduser()
        if not path.is_file():
            reason = "is a folder" if path.is_dir() else "no such file"
            raise CheckpointError(f"{path}: {reason}; give the path or URL of a checkpoint")
        return path

    url = str(source)
    target = _cache_file(url)
    if target.is_file():
        _verify(target, target, url)
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            target = _cache_file(url)  # another URL may have taken the name meanwhile
            if not target.is_file():
                _download(url, target, on_progress)
    except (OSError, HTTPException, CheckpointError) as error:
        raise _not_downloaded(url, error) from error
    return target


def check_available(source: str | Path) -> None:
    """Check that `locate` can return a file, without downloading it.

    Raises:
        CheckpointError: if the file does not exist, or the URL does not respond within 5 s.
    """
    if not is_url(source):
        locate(source)
    elif not _cache_file(str(source)).is_file():
        try:
            urlopen(str(source), timeout=_CHECK_TIMEOUT_S).close()
        except (OSError, HTTPException) as error:
            raise _not_downloaded(str(source), error) from error


def _not_downloaded(url: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"Could not download {url}: {error}. To use it offline, put the file at {_cache_file(url)}"
    )


def _cache_file(url: str) -> Path:
    """Return the file of a URL in a cache: where it is, or where to download it to."""
    name = Path(urlparse(url).path).name
    folders = [SUPERVISELY_CACHE.expanduser(), Path(torch.hub.get_dir()) / "checkpoints"]
    places = [_place(folder, name, url) for folder in folders]
    is_writable = [folder.is_dir() and os.access(folder, os.W_OK) for folder in folders]
    present = (place for place in places if place.is_file())
    writable = (place for place, writes in zip(places, is_writable, strict=True) if writes)
    return next(present, None) or next(writable, places[-1])


def _url_file(target: Path) -> Path:
    return target.with_name(f"{target.name}.url")


def _place(folder: Path, name: str, url: str) -> Path:
    """Return the path of a URL in one cache."""
    target = folder / name
    if _url_file(target).is_file() and _url_file(target).read_text() != url:
        digest = hashlib.sha256(url.encode()).hexdigest()[:12]
        return target.with_name(f"{target.stem}-{digest}{target.suffix}")
    return target


def _verify(path: Path, target: Path, url: str) -> None:
    """Compare the SHA-256 of a file with the published or recorded one of its URL.

    Args:
        path: of the file.
        target: its place in the cache; the record is next to it, in the format of sha256sum.
        url: of the file.

    Raises:
        CheckpointError: if they differ.
    """
    state = path.stat()
    digest = _sha256(path, state.st_mtime_ns, state.st_size)
    record = target.with_name(f"{target.name}.sha256")
    lines = (line.split() for line in PUBLISHED.read_text().splitlines())
    published = {words[1]: words[0] for words in lines}.get(url)
    if published and digest != published:
        raise CheckpointError(
            f"{path}: its SHA-256 is {digest}, that of the published weights is {published}; "
            f"delete it to download {url} again"
        )
    if published:
        return
    if not record.is_file():
        with contextlib.suppress(OSError):  # a read-only cache
            write_text(record, f"{digest}  {target.name}\n")
            logger.info("%s: no published SHA-256; recorded %s at first use", url, digest)
    elif (recorded := record.read_text().split()[:1]) != [digest]:
        raise CheckpointError(
            f"{path}: its SHA-256 is {digest}, at first use it was {' '.join(recorded)}. If you "
            f"trust the new weights, delete {record}"
        )


@lru_cache(maxsize=16)
def _sha256(path: Path, _mtime_ns: int, _size: int) -> str:
    """Return the SHA-256 of a file; time and size distinguish its versions."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(url: str, target: Path, on_progress: Callable[[int, int], None] | None) -> None:
    logger.info("downloading %s to %s", url, target)
    with replacing(target) as partial:
        with urlopen(url, timeout=_TIMEOUT_S) as response, partial.open("wb") as file:
            total = int(response.headers.get("Content-Length") or 0)
            with wrap_file(
                response, total, description=target.name, disable=not os.isatty(2), transient=True
            ) as stream:
                while chunk := stream.read(_CHUNK):
                    file.write(chunk)
                    if on_progress is not None:
                        on_progress(file.tell(), total)
        load_checkpoint(partial)  # an interrupted download is not readable
        _verify(partial, target, url)
        write_text(_url_file(target), url)


def load_checkpoint(source: str | Path) -> dict[str, Any]:
    """Load a checkpoint to the CPU without running code from the file.

    Args:
        source: path or URL.

    Raises:
        CheckpointError: if the file is missing or damaged, contains other objects than tensors and
            plain values, or declares more data than its size allows.
    """
    path = locate(source)
    try:
        _check_archive(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        reason = str(error).lower()  # the text differs for modules such as os
        if any(words in reason for words in ("unsupported global", "unsupported class")):
            raise CheckpointError(
                f"{path}: contains Python objects other than tensors and plain values. "
                "Loading them would run code from the file; save its state dict instead"
            ) from error
        raise CheckpointError(
            f"{path}: not a PyTorch checkpoint, or damaged; download or copy it again"
        ) from error
    except Exception as error:  # noqa: BLE001 (a damaged pickle can raise anything)
        raise CheckpointError(
            f"{path}: damaged or truncated ({error}); download it again"
        ) from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f"{path}: contains a {type(checkpoint).__name__}, not a dict of weights; save the "
            "state dict of the model"
        )
    try:
        check_values(checkpoint)
        check_tensors(checkpoint, path.stat().st_size)
    except ValueError as error:
        raise CheckpointError(
            f"{path}: rejected: {error}; use a checkpoint from a trusted source"
        ) from error
    return checkpoint


def _check_archive(path: Path) -> None:
    """Reject zip archives that are larger when unpacked; torch does not compress."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return  # the format before torch 1.6, or not a checkpoint
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if sum(max(m.file_size, m.compress_size) for m in members) > path.stat().st_size:
        raise CheckpointError(
            f"{path}: rejected: larger when unpacked than its file; use a checkpoint from a "
            "trusted source"
        )


def model_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights of a checkpoint: EMA weights if present, otherwise the model's.

    Accepts a bare state dict, too. Prefixes of DistributedDataParallel are removed.

    Raises:
        CheckpointError: if the checkpoint contains no weights.
    """
    ema = checkpoint.get("ema")
    state = ema.get("module") if isinstance(ema, Mapping) else None
    state = state or checkpoint.get("model") or checkpoint
    tensors = {
        str(key).removeprefix("module."): value
        for key, value in (state.items() if isinstance(state, Mapping) else ())
        if isinstance(value, Tensor)
    }
    if not tensors:
        held = sorted(map(str, checkpoint))[:10]
        raise CheckpointError(
            f"no weights under 'ema.module' or 'model'; the file contains {held}; give a "
            "checkpoint of a training, or a state dict"
        )
    return tensors


@dataclass
class LoadReport:
    """Names of the tensors that were loaded, kept their initialization, or were not used."""

    loaded: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    carried_classes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        text = f"loaded={len(self.loaded)} new={len(self.new)} dropped={len(self.dropped)}"
        if self.carried_classes:
            text += f" classes_carried_over={len(self.carried_classes)}"
        for kind in ("new", "dropped"):
            keys = getattr(self, kind)
            if keys:
                text += f" {kind}: {', '.join(keys[:8])}{', ...' if len(keys) > 8 else ''}"
        return text


def load_matching(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    class_keys: Collection[str] = (),
    model_classes: Sequence[str] | None = None,
    state_classes: Sequence[str] | None = None,
) -> LoadReport:
    """Copy weights with matching name and shape; keep the initialization of the others.

    If the class names of both sides are known, tensors with one row per class are copied row by
    row for the common classes, so that fine-tuning on more, fewer or reordered classes keeps them.

    Args:
        model: the model to load into.
        state: the weights.
        class_keys: names of the tensors of `model` with one row per class.
        model_classes: class names of `model`, in label order.
        state_classes: class names of `state`, in label order.
    """
    report = LoadReport()
    own = model.state_dict()
    by_name = model_classes is not None and state_classes is not None
    fitting: dict[str, Tensor] = {}
    for key, tensor in own.items():
        if _SIZE_DEPENDENT.search(key):
            continue
        theirs = state.get(key)
        if theirs is not None and by_name and key in class_keys:
            rows = _common_rows(model_classes or (), state_classes or (), len(tensor), len(theirs))
            if rows and theirs.shape[1:] == tensor.shape[1:]:
                mixed = tensor.clone()
                for row, their_row in rows.items():
                    mixed[row] = theirs[their_row]
                fitting[key] = mixed
        elif theirs is not None and theirs.shape == tensor.shape:
            fitting[key] = theirs
        (report.loaded if key in fitting else report.new).append(key)
    report.dropped = [k for k in state if k not in fitting and not _SIZE_DEPENDENT.search(k)]
    if by_name:
        known = set(state_classes or ())
        report.carried_classes = [name for name in model_classes or () if name in known]
    model.load_state_dict(fitting, strict=False)
    return report


def _common_rows(
    names: Sequence[str], their_names: Sequence[str], length: int, their_length: int
) -> dict[int, int]:
    """Map rows of common classes, and the padding row after the classes if both have one."""
    counts = len(names), len(their_names)
    padded = counts[0] + 1, counts[1] + 1
    if (length, their_length) not in (counts, padded):
        return {}  # the names do not match the rows
    place = {name: i for i, name in enumerate(their_names)}
    rows = {i: place[name] for i, name in enumerate(names) if name in place}
    if rows and (length, their_length) == padded:
        rows[len(names)] = len(their_names)
    return rows


def load_strict(model: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Load weights of exactly this model.

    Raises:
        CheckpointError: naming `source` and the differences, if the weights do not match.
    """
    check_fits(model, state, source=source)
    fitting = {k: v for k, v in state.items() if not _SIZE_DEPENDENT.search(k)}
    model.load_state_dict(fitting, strict=False)


def check_fits(model: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Compare names and shapes of weights with a model, which may be on the meta device.

    Raises:
        CheckpointError: naming `source` and the differences, if the weights do not match.
    """
    own = {k: v.shape for k, v in model.state_dict().items() if not _SIZE_DEPENDENT.search(k)}
    theirs = {k: v.shape for k, v in state.items() if not _SIZE_DEPENDENT.search(k)}
    missing = [k for k in own if k not in theirs]
    unknown = [k for k in theirs if k not in own and not k.endswith("num_batches_tracked")]
    other = [
        f"{k} {list(theirs[k])} instead of {list(own[k])}"
        for k in own
        if k in theirs and own[k] != theirs[k]
    ]
    if missing or unknown or other:
        raise CheckpointError(
            f"{source} contains another model: missing {missing[:3]}, unknown {unknown[:3]}, "
            f"other shapes {other[:3]} ({len(missing)}, {len(unknown)}, {len(other)} in total); "
            "use the configuration of the checkpoint, or fine-tune it instead of resuming"
        )
