"""The data that runs learn from, as numpy arrays: the shipped sets, a person's own text file or a person's own folder of images.

What a person gives is untrusted: sizes are bounded, nothing in it is executed or unpickled, and whatever cannot be used ends in one
InputError sentence. Whatever was read stays in memory until `forget`, so that a run keeps its data when the file is edited meanwhile.
"""

import hashlib
import os
import stat
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from netCDF4 import Dataset, chartostring
from PIL import Image, ImageOps

from .errors import InputError, unknown

TEXTS = ("state-of-the-union",)
IMAGES = ("fashion-mnist",)
SIDE = 28
MAX_TEXT_BYTES = 64 * 2**20
MAX_CHARACTERS = 256
MAX_IMAGES = 20_000
MAX_PIXELS = 20_000_000
HOLD_OUT_EVERY = 10
_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp")
_FORMATS = ("PNG", "JPEG", "GIF", "BMP")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_REMEDY = "reinstall stability-workbench, or rebuild the file as datasets/inputs/README.md says."


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text as uint8 codes, each the position of a character in `characters`; the held-out passages are never part of `training`."""

    name: str
    characters: tuple[str, ...]
    training: np.ndarray
    held_out: tuple[np.ndarray, ...]

    @property
    def size(self) -> int:
        """Characters in all, held-out ones included."""
        return len(self.training) + sum(map(len, self.held_out))

    @cached_property
    def sha256(self) -> str:
        """Hash of everything that a run can see of this text."""
        return _sha256("".join(self.characters), self.training, *self.held_out)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Grey uint8 images (sample, 28, 28) with int64 labels, each the position of a class in `classes`."""

    name: str
    classes: tuple[str, ...]
    training: np.ndarray
    training_labels: np.ndarray
    held_out: np.ndarray
    held_out_labels: np.ndarray

    @cached_property
    def sha256(self) -> str:
        """Hash of everything that a run can see of these images."""
        return _sha256("\0".join(self.classes), self.training, self.training_labels, self.held_out, self.held_out_labels)


def folder() -> Path:
    """Where the shipped files lie: the checkout's `datasets/inputs`, else the copy inside the installed package."""
    here = Path(__file__).parent
    for candidate in (here.parent / "datasets" / "inputs", here / "_datasets" / "inputs"):
        # An unrelated package called `datasets` may lie beside an installed workbench: only the list of sums tells.
        if (candidate / "SHA256SUMS").is_file():
            return candidate
    raise InputError(f"The shipped data sets are missing (no SHA256SUMS in {str(candidate)!r}); {_REMEDY}")


def text(name: str) -> Corpus:
    """The shipped text of that name, or the UTF-8 text file at that path, its last tenth held out."""
    return _shipped_text(name) if name in TEXTS else _own_text(_path("text", name, TEXTS))


def images(name: str) -> Pictures:
    """The shipped images of that name, or those in the folder at that path: a subfolder a class, every tenth file held out."""
    return _shipped_images(name) if name in IMAGES else _own_images(_path("image set", name, IMAGES))


def forget() -> None:
    """Read a person's files again when they are next needed."""
    _own_text.cache_clear()
    _own_images.cache_clear()


@lru_cache
def _shipped_text(name: str) -> Corpus:
    with _shipped(name) as data:
        codes, held_out = data["code"][:], data["held_out"][:].astype(bool)
        speeches = np.split(codes, data["speech_start"][1:])
        characters = tuple(map(chr, data["code_point"][:]))
    training = np.concatenate([speech for speech, held in zip(speeches, held_out, strict=True) if not held])
    return Corpus(name, characters, training, tuple(speech for speech, held in zip(speeches, held_out, strict=True) if held))


@lru_cache
def _shipped_images(name: str) -> Pictures:
    with _shipped(name) as data:
        classes = tuple(map(str, chartostring(data["class_name"][:], encoding="ascii")))
        training, held_out = ((data[f"{part}_image"][:], data[f"{part}_label"][:].astype(np.int64)) for part in ("training", "held_out"))
    return Pictures(name, classes, *training, *held_out)


@contextmanager
def _shipped(name: str) -> Iterator[Dataset]:
    """The shipped file, opened only if its bytes are those that were built: HDF5 is not safe on damaged files."""
    path = folder() / f"{name}.nc"
    try:
        sums = dict(reversed(line.split()) for line in (path.parent / "SHA256SUMS").read_text(encoding="ascii").splitlines())
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"The shipped data set {str(path)!r} cannot be read ({_reason(error)}); {_REMEDY}") from None
    if hashlib.sha256(content).hexdigest() != sums.get(path.name):
        raise InputError(f"The shipped data set {str(path)!r} is damaged: its bytes do not match SHA256SUMS; {_REMEDY}")
    with Dataset(path.name, memory=content) as data:
        data.set_auto_mask(False)
        data.set_auto_chartostring(False)
        yield data


def _path(kind: str, name: str, shipped: tuple[str, ...]) -> str:
    path = os.path.abspath(os.path.expanduser(name))
    if name and os.path.exists(path):
        return path
    if name and not set(name) & set("/\\."):
        raise unknown(kind, name, shipped)
    raise InputError(f"There is no file or folder {name!r}; give a path that exists, or a shipped name ({', '.join(shipped)}).")


@lru_cache(maxsize=16)
def _own_text(path: str) -> Corpus:
    content = _decoded(path)
    codes, characters = _encoded(path, content)
    cut = _cut(content)
    return Corpus(path, characters, codes[:cut], (codes[cut:],))


def _decoded(path: str) -> str:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError(f"{path!r} is {'a folder' if os.path.isdir(path) else 'not a regular file'}; give the path of a text file.")
        with open(path, "rb") as file:
            raw = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise InputError(f"Text file {path!r} cannot be read ({_reason(error)}); check the path and its permissions.") from None
    if len(raw) > MAX_TEXT_BYTES:
        raise InputError(f"Text file {path!r} is larger than {MAX_TEXT_BYTES // 2**20} MiB; give a part of it.")
    try:
        content = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"Text file {path!r} is not UTF-8 at byte {error.start}; save it as UTF-8 plain text.") from None
    return content.replace("\r\n", "\n").replace("\r", "\n")


def _encoded(path: str, content: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes and the characters they stand for; beyond 256 distinct ones the rarest become U+FFFD, with a warning."""
    if not content.strip():
        raise InputError(f"Text file {path!r} is empty; give a text with something to predict.")
    counts = Counter(content)
    kept = set(counts)
    if len(counts) == 1:
        raise InputError(f"Text file {path!r} repeats a single character; give a text with something to predict.")
    if len(counts) > MAX_CHARACTERS:
        kept = {_REPLACEMENT, *sorted(counts, key=lambda c: (-counts[c], c))[: MAX_CHARACTERS - 1]}
        share = sum(n for c, n in counts.items() if c not in kept) / len(content)
        warnings.warn(
            f"Text file {path!r} has {len(counts)} distinct characters, {MAX_CHARACTERS} are told apart: the rarest "
            f"({share:.2%} of the text) are read as {_REPLACEMENT!r}.",
            stacklevel=2,
        )
    characters = tuple(sorted(kept))
    table = np.full(0x110000, characters.index(_REPLACEMENT) if _REPLACEMENT in kept else 0, np.uint8)
    table[[ord(c) for c in characters]] = np.arange(len(characters))
    return table[np.frombuffer(content.encode("utf-32-le"), np.uint32)], characters


def _cut(content: str) -> int:
    """Where the held-out tenth begins: after the empty line nearest to nine tenths, if there is one within a twentieth."""
    goal, reach = len(content) - max(2, len(content) // HOLD_OUT_EVERY), len(content) // (2 * HOLD_OUT_EVERY)
    found = (content.rfind("\n\n", goal - reach, goal), content.find("\n\n", goal - 1, goal + reach))
    return min((at + 2 for at in found if at >= 0), key=lambda at: abs(at - goal), default=goal)


@lru_cache(maxsize=16)
def _own_images(path: str) -> Pictures:
    files = _listing(path)
    classes = tuple(files)
    labels = np.repeat(np.arange(len(classes)), [len(files[name]) for name in classes])
    pixels = np.stack([_picture(file) for name in classes for file in files[name]])
    held_out = np.arange(len(pixels)) % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1
    training = pixels[~held_out]
    if training.min() == training.max():
        raise InputError(f"All training images in {path!r} are one and the same grey; give images that differ.")
    return Pictures(path, classes, training, labels[~held_out], pixels[held_out], labels[held_out])


def _listing(path: str) -> dict[str, list[str]]:
    """Class name to its image files, both sorted; hidden entries and files of other kinds are passed over."""
    if not os.path.isdir(path):
        raise InputError(f"{path!r} is not a folder; give a folder with one subfolder of images a class.")
    found: dict[str, list[str]] = {}
    for name, inner in _entries(path):
        if os.path.isdir(inner):
            found[name] = [file for _, file in _entries(inner) if file.lower().endswith(_SUFFIXES) and os.path.isfile(file)]
    total = sum(map(len, found.values()))
    if len(found) < 2:
        raise InputError(f"Image folder {path!r} has {len(found)} subfolders; give at least two, one a class.")
    for name, files in found.items():
        if len(files) < 2:
            raise InputError(f"Class {name!r} of image folder {path!r} has {len(files)} PNG, JPEG, GIF or BMP images; give at least two.")
    if not HOLD_OUT_EVERY <= total <= MAX_IMAGES:
        raise InputError(f"Image folder {path!r} holds {total} images; give {HOLD_OUT_EVERY} to {MAX_IMAGES}, every tenth is held out.")
    return found


def _entries(path: str) -> list[tuple[str, str]]:
    """Names (as Unicode, whatever the bytes on disk) and paths in a folder, sorted, hidden ones left out."""
    try:
        names = sorted(os.listdir(path), key=os.fsencode)
    except OSError as error:
        raise InputError(f"Image folder {path!r} cannot be read ({_reason(error)}); check its permissions.") from None
    return [(os.fsencode(name).decode("utf-8", "backslashreplace"), os.path.join(path, name)) for name in names if not name.startswith(".")]


def _picture(path: str) -> np.ndarray:
    """One image as uint8 (28, 28): first frame, upright, on black, in greys, scaled to fit and padded with black."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged orientation tag does not spoil the pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                return np.array(ImageOps.pad(_grey(ImageOps.exif_transpose(image)), (SIDE, SIDE), color=0))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"Image {path!r} has more than {MAX_PIXELS // 10**6} million pixels; scale it down.") from None
    except Exception as error:  # decoders of damaged files raise whatever they stumble on, from struct.error to SyntaxError
        raise InputError(f"Image {path!r} cannot be read ({_reason(error)}); replace or remove it.") from None


def _grey(image: Image.Image) -> Image.Image:
    """8-bit greys; what is transparent shows black."""
    if image.mode.startswith("I"):  # 16-bit PNG, which Pillow would clip at 255
        return Image.fromarray((np.asarray(image).astype(np.int64) // 257).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        colour = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colour.size, (0, 0, 0, 255)), colour)
    return image.convert("L")


def _reason(error: Exception) -> str:
    """Why, without the path that the sentence names already."""
    return (getattr(error, "strerror", None) or str(error).partition(" '")[0] or type(error).__name__).lower().rstrip(". ")


def _sha256(*parts: str | np.ndarray) -> str:
    """Hash of texts and arrays; the length before each part keeps their boundaries apart."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else np.ascontiguousarray(part).data.cast("B")
        digest.update(f"{len(raw)}:".encode())
        digest.update(raw)
    return digest.hexdigest()
