"""Files of a data set folder: listing, lookup of images, and text files."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from ...misc.errors import DatasetError
from ..findings import Finding, UnusableError
from ..images.opening import is_hidden, is_image
from ..split_names import split_of

CONVERTED = "converted_annotations"  # folder for converted files in an output folder

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz")

_DEPTH = 16  # levels of folders
_ANNOTATIONS = (".txt", ".xml", ".json")
_NUM_PROBES = 100  # names of a file that locate its image folder
# Folders of masks and other pictures that belong to annotations, in lower case.
_NOT_IMAGES = {"segmentationclass", "segmentationobject", "segmentationclasspng", "masks"}
_NOT_IMAGES |= {"segmentationclassvisualization", "segmentationobjectpng"}


class Tree:
    """The files of a data set folder, listed once.

    Links are followed, also those of DVC, git-annex and network shares. Files that lie outside the
    folder are used only if they are images; the stores of DVC and git-annex of the repository that
    contains the folder count as inside. Broken links and special files are skipped.

    Args:
        root: of the data set.

    Raises:
        DatasetError: if the folder does not exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = unwrapped(root)
        self.files: dict[str, Path] = {}  # by path relative to the root, sorted
        self._images: set[str] = set()  # those of the files
        self.unusable: dict[str, UnusableError] = {}  # broken links and special files, by path
        self.named_broken: set[str] = set()  # those that annotations name
        self.notes: list[Finding] = []  # about links out of the folder
        real = self.root.resolve()
        self._inside = [real]
        for parent in (real, *real.parents):
            stores = (parent / ".dvc" / "cache", parent / ".git" / "annex")
            self._inside += [store.resolve() for store in stores if store.is_dir()]
        self._visited: set[str] = set()
        self._linked: list[tuple[str, str]] = []  # path and target of links to folders
        self._aliases: dict[str, str] = {}
        self._walk("", str(real))
        while self._linked:
            self._follow(*self._linked.pop(0))
        self.files = dict(sorted(self.files.items()))
        # Before annotations are in memory, which would slow down the garbage collector.
        self._by_name = self._named()

    @cached_property
    def images(self) -> dict[str, Path]:
        """All images by path, without masks and other pictures of annotations."""
        folders = {folder_of(name) for name in self._images}
        kept = {each for each in folders if _NOT_IMAGES.isdisjoint(each.lower().split("/"))}
        images = self._images
        return {n: p for n, p in self.files.items() if n in images and folder_of(n) in kept}

    def with_suffix(self, *suffixes: str) -> list[str]:
        """Return the paths of files with these extensions, those closest to the root first."""
        found = [name for name in self.files if name.lower().endswith(suffixes)]
        return sorted(found, key=lambda name: (name.count("/"), name))

    def text(self, name: str) -> str:
        """Return the content of a text file; empty if it cannot be read."""
        try:
            return self.files[name].read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError, KeyError):
            return ""

    def lines(self, name: str) -> list[str]:
        """Return the non-empty lines of a text file; none if it cannot be read."""
        return [line.strip() for line in self.text(name).splitlines() if line.strip()]

    def starts_with(self, name: str, size: int = 4096) -> bytes:
        """Return the first bytes of a file."""
        try:
            with self.files[name].open("rb") as file:
                return file.read(size)
        except OSError:
            return b""

    def images_in(self, folder: str) -> list[str]:
        """Return the images in a folder and its sub-folders, by the path of the folder."""
        folder = self._aliases.get(folder, folder).strip("/")
        prefix = f"{folder}/" if folder not in ("", ".") else ""
        return [name for name in self.images if name.startswith(prefix)]

    def listed_path(self, name: str) -> Path:
        """Return the path of a file, existing or not."""
        return self.files.get(name) or self.root / name

    # Lookup

    def find_image(self, written: str, *bases: str) -> str:
        """Return the image that an annotation names, as a path relative to the root.

        Tried are: the exact path from each of the folders `bases`, the same with slashes for
        backslashes, the image with the most equal folders at the end of its path, and the only
        image of this name. Of several such images, one in the first base is preferred.

        Raises:
            UnusableError: if no image matches, or several do.
        """
        spellings = list(dict.fromkeys(_spellings(written)))
        for name in spellings:
            for base in bases:
                path = _joined(base, name)
                if path in self.files:
                    return path
        wanted = [part for part in spellings[-1].split("/") if part not in ("", ".", "..")]
        best = _best_tails(wanted, self._by_name.get(wanted[-1] if wanted else "", ()))
        for base in bases:
            inside = [name for name in best if name.startswith(f"{base}/")]
            best = inside if base and len(inside) == 1 else best
        if len(best) == 1:
            return best[0]
        if best:
            raise UnusableError("image_ambiguous", f"{written}: {' or '.join(best[:3])}")
        paths = [_joined(base, spellings[-1]) for base in bases]
        broken = next((path for path in paths if path in self.unusable), None)
        if broken is not None:
            self.named_broken.add(broken)
            raise self.unusable[broken]
        if paths[0].startswith("../") or (written.startswith("/") and Path(written).exists()):
            raise UnusableError("path_outside_folder")
        raise UnusableError("missing_image")

    def find_named(self, stem: str, near: str, *, suffixes: tuple[str, ...] = ()) -> list[str]:
        """Return the files of this name, without its extension, that are closest to a folder.

        Args:
            stem: name without extension.
            near: folder, as a path relative to the root.
            suffixes: of the files; default: those of images.
        """
        found = [
            name
            for name in self._by_stem.get(stem, ())
            if (name.lower().endswith(suffixes) if suffixes else is_image(Path(name)))
        ]
        depths = [len(os.path.commonprefix([_parts(name), _parts(f"{near}/x")])) for name in found]
        return [n for n, depth in zip(found, depths, strict=True) if depth == max(depths)]

    def locate(self, names: Sequence[str], home: str, split: str = "") -> str:
        """Return the folder that the paths in an annotation file are relative to.

        Of several folders with equally many of the images, `home`, the folder of the file, is
        preferred, and then one that is named after the split. The folder is "." for paths that
        are found in several other folders equally well.
        """
        hits: Counter[str] = Counter()
        for name in names[:: max(1, len(names) // _NUM_PROBES)][:_NUM_PROBES]:
            wanted = [part for part in name.replace("\\", "/").split("/") if part != "."]
            for path in self._by_name.get(wanted[-1], ()):
                parts = path.split("/")
                if ".." not in wanted and parts[-len(wanted) :] == wanted:
                    hits["/".join(parts[: -len(wanted)])] += 1
            hits[home] += ".." in wanted and _joined(home, name) in self.files

        def rank(base: str) -> tuple[int, bool, bool]:
            folders = base.split("/")
            return hits[base], base == home, split_of(*reversed(folders)) == split != ""

        ranked = sorted(hits, key=rank, reverse=True)
        if not ranked or not hits[ranked[0]]:
            return home
        is_clear = len(ranked) == 1 or rank(ranked[0]) != rank(ranked[1])
        return ranked[0] if is_clear else "."

    def _named(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self.images:
            found.setdefault(name.rpartition("/")[2], []).append(name)
        return found

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, path in self.files.items():
            if _NOT_IMAGES.isdisjoint(name.lower().split("/")[:-1]):
                found.setdefault(path.stem, []).append(name)
        return found

    # Listing

    def _walk(self, prefix: str, real: str, depth: int = _DEPTH) -> int:
        """List a folder; return the number of images."""
        if depth < 0 or real in self._visited:
            return 0
        self._visited.add(real)
        is_inside = self._is_inside(real)
        num_images = 0
        folder = self.root / prefix
        try:
            entries = list(os.scandir(folder))
        except OSError:
            return 0
        for entry in entries:
            name, path = entry.name, prefix + entry.name
            if name == "__MACOSX" or (name.startswith(".") and _is_ignored(entry)):
                continue
            if entry.is_symlink():
                num_images += self._add_link(Path(entry.path), path)
            elif entry.is_dir():
                if name != CONVERTED:
                    num_images += self._walk(f"{path}/", f"{real}/{name}", depth - 1)
            elif not entry.is_file():
                self._skip(path, UnusableError("not_a_file", "a pipe or device"))
            elif self._add_file(path, folder / name, is_inside=is_inside):
                num_images += 1
        return num_images

    def _add_link(self, link: Path, path: str) -> bool:
        real = os.path.realpath(link)
        if link.is_dir():
            self._linked.append((path, real))
        elif not link.exists():
            self._skip(path, UnusableError("dead_link", f"links to {link.readlink()}"))
        elif not link.is_file():
            self._skip(path, UnusableError("not_a_file", "a pipe or device"))
        elif self._is_inside(real):
            return self._add_file(path, link, is_inside=True)
        elif self._add_file(path, link, is_inside=False):
            self.notes.append(Finding("outside_folder", path, real))
            return True
        else:
            self.notes.append(Finding("link_outside", path, f"links to {real}"))
        return False

    def _add_file(self, name: str, path: Path, *, is_inside: bool) -> bool:
        """Add a file, of those outside only images; return whether it is an image."""
        has_image = is_image(path)
        if has_image:
            self._images.add(name)
        if has_image or is_inside:
            self.files[name] = path
        return has_image

    def _follow(self, path: str, real: str) -> None:
        """List a linked folder, unless it has been listed, or contains the data set."""
        if real in self._visited:
            self._aliases[path] = self._real_names().get(real, path)
        elif not self._inside[0].is_relative_to(real):
            num_images = self._walk(f"{path}/", real)
            if num_images and not self._is_inside(real):
                self.notes.append(Finding("outside_folder", path, real, count=num_images))

    def _real_names(self) -> dict[str, str]:
        parents = {parent for name in self.files for parent in PurePosixPath(name).parents}
        return {os.path.realpath(self.root / parent): str(parent) for parent in parents}

    def _skip(self, path: str, error: UnusableError) -> None:
        if is_image(Path(path)):
            self.unusable[path] = error
        else:
            self.notes.append(Finding(error.kind, path, error.detail))

    def _is_inside(self, real: str) -> bool:
        return any(Path(real).is_relative_to(folder) for folder in self._inside)


def unwrapped(folder: Path) -> Path:
    """Return the folder, or its only sub-folder: archives often wrap their contents in one.

    Raises:
        DatasetError: if the folder does not exist.
    """
    if not folder.is_dir():
        what = "no such folder; give the folder of a data set"
        if folder.exists():
            is_archive = folder.suffix.lower() in ARCHIVES
            what = "is a file; give the folder that contains it"
            what = "is an archive; unpack it and give the folder" if is_archive else what
        raise DatasetError(f"{folder}: {what}")
    for _ in range(2):
        entries = [p for p in folder.iterdir() if not p.name.startswith((".", "__MACOSX"))]
        if len(entries) != 1 or not entries[0].is_dir() or entries[0].is_symlink():
            break
        if split_of(entries[0].name) is not None:  # the name of a split is needed
            break
        folder = entries[0]
    return folder


def folder_of(name: str) -> str:
    """Return the folder of a path relative to the root; empty for the root."""
    return name.rpartition("/")[0]


def _is_ignored(entry: os.DirEntry[str]) -> bool:
    """Return whether a hidden entry is neither an image nor the annotation of one."""
    path = Path(entry.name)
    is_annotation = path.suffix.lower() in _ANNOTATIONS and not path.name.startswith("._")
    return entry.is_dir() or (is_hidden(path) and not is_annotation)


def _spellings(written: str) -> Iterator[str]:
    """Yield a path as written, with slashes, and as the path of a URL."""
    yield written
    path = written.replace("\\", "/")
    yield path
    if "://" in path or path.startswith("/data/local-files/"):
        try:
            url = urlsplit(path)
        except ValueError:  # an invalid host
            return
        path = unquote((parse_qs(url.query).get("d") or [url.path])[0])
        yield path.lstrip("/")


def _joined(base: str, name: str) -> str:
    if "/" not in name:
        return f"{base}/{name}" if base else name
    return os.path.normpath(f"{base}/{name}" if base and not name.startswith("/") else name)


def _best_tails(wanted: Sequence[str], candidates: Iterable[str]) -> list[str]:
    """Return the candidates with the most parts in common, from the end."""
    best: list[str] = []
    most = 0
    for name in candidates:
        same = 0
        for a, b in zip(reversed(wanted), reversed(name.split("/")), strict=False):
            if a != b:
                break
            same += 1
        if same > most:
            best, most = [], same
        if same == most:
            best.append(name)
    return best


def _parts(name: str) -> list[str]:
    return name.strip("/").split("/")


def has_byte_order_mark(path: Path) -> bool:
    """Return whether a text file begins with a UTF-8 byte order mark."""
    try:
        with path.open("rb") as file:
            return file.read(3) == b"\xef\xbb\xbf"
    except OSError:
        return False
