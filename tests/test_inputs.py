"""Data files: the shipped ones hold what their README says; a person's own are read as untrusted input."""

import hashlib
import importlib.util
import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from netCDF4 import Dataset, chartostring
from PIL import Image

from workbench import inputs
from workbench.errors import InputError

SPEECHES, FASHION = inputs.TEXTS[0], inputs.IMAGES[0]


@pytest.fixture(autouse=True)
def fresh():
    inputs.forget()


@pytest.fixture
def shipped_copy(tmp_path, monkeypatch):
    """A copy of the package's layout, without any shipped file."""
    monkeypatch.setattr(inputs, "__file__", str(tmp_path / "workbench" / "inputs.py"))
    inputs._shipped_text.cache_clear()
    yield tmp_path
    inputs._shipped_text.cache_clear()


def decoded(corpus: inputs.Corpus, codes: np.ndarray) -> str:
    return "".join(np.array(corpus.characters)[codes])


def opened(name: str) -> Dataset:
    data = Dataset(inputs.folder() / f"{name}.nc")
    data.set_auto_mask(False)
    return data


def picture(path: Path, value: int = 0, size: tuple[int, int] = (28, 28)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)
    return path


@pytest.fixture
def album(tmp_path):
    """Two classes of ten images each; the grey of image i of class c is 10 i + c."""
    for c, name in enumerate(("cat", "dog")):
        for i in range(10):
            picture(tmp_path / "album" / name / f"{i}.png", 10 * i + c)
    return tmp_path / "album"


def test_the_shipped_files_are_small_and_sourced():
    files = list(inputs.folder().glob("*.nc"))
    assert {path.stem for path in files} == {*inputs.TEXTS, *inputs.IMAGES}
    assert sum(path.stat().st_size for path in files) <= 12e6
    for path in files:
        with opened(path.stem) as data:
            assert {"title", "source", "licence", "comment"} <= set(data.ncattrs())
            assert all({"long_name", "units"} <= set(variable.ncattrs()) for variable in data.variables.values())


def test_the_readme_carries_the_licences_and_the_list_of_sums_is_right():
    readme = (inputs.folder() / "README.md").read_text(encoding="utf-8")
    assert all(
        words in readme for words in ("PDDL", "Public Domain Dedication", "CC0 1.0", "© 2017 Zalando SE", "Permission is hereby granted")
    )
    for line in (inputs.folder() / "SHA256SUMS").read_text().splitlines():
        total, name = line.split()
        assert hashlib.sha256((inputs.folder() / name).read_bytes()).hexdigest() == total


def test_the_values_are_those_that_were_built():
    assert inputs.text(SPEECHES).sha256 == "27c0fe0e6594090970b66d0ae57ad26958c235312176669e6fbc4eaaad61372e"
    assert inputs.images(FASHION).sha256 == "ce753b97631701e316f971bb96b13ebfa14699eff2012d34faa1c053b7998802"


def test_the_speeches():
    with opened(SPEECHES) as data:
        characters, codes = "".join(map(chr, data["code_point"][:])), data["code"][:]
        starts, years = data["speech_start"][:], data["year"][:]
        names, held_out = chartostring(data["name"][:]), data["held_out"][:].astype(bool)
    assert len(codes) == 10_760_020 and np.bincount(codes).min() == 1 and len(np.bincount(codes)) == len(set(characters)) == 98
    assert np.array_equal(np.flatnonzero(codes == characters.index("\n")) + 1, [*starts[1:], len(codes)]) and len(starts) == 233
    assert (years[0], names[0], years[-1], names[-1]) == (1790, "George Washington", 2021, "Joseph R Biden")
    assert "".join(characters[code] for code in codes[:15]) == "Fellow-Citizens"
    lengths = np.diff([*starts, len(codes)])
    assert np.array_equal(np.flatnonzero(held_out), np.flatnonzero(lengths <= 25_000)[14::15])
    assert years[held_out].tolist() == [1804, 1881, 1942, 2002] and lengths[held_out].sum() == 76_856


def test_no_held_out_speech_is_trained_on():
    corpus = inputs.text(SPEECHES)
    training = corpus.training.tobytes()
    assert len(corpus.held_out) == 4 and len(training) == 10_683_164 and corpus.size == 10_760_020
    for passage in (codes.tobytes() for codes in corpus.held_out):
        assert not any(passage[i : i + 106] in training for i in range(0, len(passage) - 106, 500))
        assert set(passage) <= set(training)


def test_fashion_mnist_is_balanced_and_split():
    pictures = inputs.images(FASHION)
    assert pictures.training.shape == (10_000, 28, 28) and pictures.held_out.shape == (2_000, 28, 28)
    assert pictures.training.dtype == np.uint8 and pictures.training_labels.dtype == np.int64
    assert np.bincount(pictures.training_labels).tolist() == [1000] * 10
    assert np.bincount(pictures.held_out_labels).tolist() == [200] * 10
    assert pictures.classes[0] == "T-shirt/top" and pictures.classes[9] == "Ankle boot" and len(pictures.classes) == 10
    assert pictures.training_labels[:5].tolist() == [9, 0, 0, 3, 0]  # the first labels of the original file
    assert len({p.tobytes() for p in (*pictures.training, *pictures.held_out)}) == 12_000


def test_the_installed_copy_is_found_and_an_unrelated_datasets_package_is_passed_over(shipped_copy):
    installed = shipped_copy / "workbench" / "_datasets" / "inputs"
    (shipped_copy / "datasets" / "inputs").mkdir(parents=True)
    with pytest.raises(InputError, match=r"missing.*reinstall"):
        inputs.folder()
    installed.mkdir(parents=True)
    (installed / "SHA256SUMS").write_text("")
    assert inputs.folder() == installed


@pytest.mark.parametrize("damage", ["truncated", "changed", "foreign", "absent", "unlisted", "garbled"])
def test_a_damaged_shipped_file_is_refused_before_it_is_opened(shipped_copy, damage):
    whole = (Path(__file__).parents[1] / "datasets" / "inputs" / f"{SPEECHES}.nc").read_bytes()
    content = {"truncated": whole[:-100], "changed": whole[:9000] + b"?" + whole[9001:], "foreign": pickle.dumps(1)}.get(damage, whole)
    folder = shipped_copy / "datasets" / "inputs"
    folder.mkdir(parents=True)
    if damage != "absent":
        (folder / f"{SPEECHES}.nc").write_bytes(content)
    line = f"{hashlib.sha256(whole).hexdigest()}  {SPEECHES}.nc\n"
    (folder / "SHA256SUMS").write_text({"unlisted": "", "garbled": "\n?"}.get(damage, line))
    with pytest.raises(InputError, match=rf"{SPEECHES}\.nc.*reinstall stability-workbench, or rebuild"):
        inputs.text(SPEECHES)


def test_an_own_text_is_held_out_at_the_paragraph_nearest_to_nine_tenths(tmp_path):
    lines = [f"{i:02d} la la" for i in range(100)]
    paragraphs = "\r\n\r\n".join(lines)
    (tmp_path / "song.txt").write_bytes(b"\xef\xbb\xbf" + paragraphs.encode())
    corpus = inputs.text(str(tmp_path / "song.txt"))
    assert decoded(corpus, corpus.training) == "".join(f"{line}\n\n" for line in lines[:90])
    assert [decoded(corpus, passage) for passage in corpus.held_out] == ["\n\n".join(lines[90:])]
    assert corpus.characters == tuple("\n 0123456789al") and corpus.training.dtype == np.uint8


def test_an_own_text_without_paragraphs_is_cut_at_nine_tenths(tmp_path):
    (tmp_path / "song.txt").write_text("äb" * 500, encoding="utf-8")
    corpus = inputs.text(str(tmp_path / "song.txt"))
    assert (len(corpus.training), len(corpus.held_out[0])) == (900, 100)


def test_beyond_256_characters_the_rarest_become_the_replacement_character(tmp_path):
    common, rare = [chr(0x4E00 + i) for i in range(255)], [chr(0x1F600 + i) for i in range(10)]
    (tmp_path / "wide.txt").write_text("".join(common) * 10 + "".join(rare), encoding="utf-8")
    with pytest.warns(UserWarning, match=r"265 distinct characters, 256 are told apart.*0\.39%"):
        corpus = inputs.text(str(tmp_path / "wide.txt"))
    assert len(corpus.characters) == 256 and set(corpus.characters) == {*common, "\ufffd"}
    whole = np.concatenate([corpus.training, *corpus.held_out])
    assert decoded(corpus, whole) == "".join(common) * 10 + "\ufffd" * 10


def test_an_own_text_is_kept_until_forget(tmp_path):
    path = tmp_path / "song.txt"
    path.write_text("ab" * 50)
    first = inputs.text(str(path))
    path.write_text("cd" * 50)
    assert inputs.text(str(path)) is first
    inputs.forget()
    assert inputs.text(str(path)).characters == ("c", "d") and inputs.text(str(path)).sha256 != first.sha256


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty; give a text"),
        (b" \n\t\n", "is empty; give a text"),
        (b"aaaaaa", "repeats a single character; give a text"),
        (b"abc\xff\xfe", "is not UTF-8 at byte 3; save it as UTF-8"),
        (pickle.dumps({"a": 1}), "is not UTF-8 at byte 0; save it as UTF-8"),
    ],
)
def test_a_text_that_cannot_be_used(tmp_path, content, sentence):
    path = tmp_path / "song.txt"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        inputs.text(str(path))
    assert repr(str(path)) in str(error.value) and sentence in str(error.value) and "\n" not in str(error.value)


def test_a_text_that_is_too_large(tmp_path, monkeypatch):
    assert inputs.MAX_TEXT_BYTES == 64 * 2**20
    monkeypatch.setattr(inputs, "MAX_TEXT_BYTES", 2**20)
    (tmp_path / "song.txt").write_bytes(b"ab" * 2**19)
    assert inputs.text(str(tmp_path / "song.txt")).size == 2**20
    (tmp_path / "more.txt").write_bytes(b"ab" * 2**19 + b"c")
    with pytest.raises(InputError, match=r"more\.txt' is larger than 1 MiB; give a part"):
        inputs.text(str(tmp_path / "more.txt"))


def test_text_paths_that_are_no_text_files(tmp_path):
    with pytest.raises(InputError, match="is a folder; give the path of a text file"):
        inputs.text(str(tmp_path))
    with pytest.raises(InputError, match=r"no file or folder '.*none\.txt'; give a path that exists, or a shipped name"):
        inputs.text(str(tmp_path / "none.txt"))
    with pytest.raises(InputError, match="did you mean 'state-of-the-union'"):
        inputs.text("state-of-union")
    for name in ("", "a\0b.txt", "x" * 5000 + ".txt"):
        with pytest.raises(InputError, match="There is no file or folder"):
            inputs.text(name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        inputs.text(str(tmp_path / "pipe"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is unreadable here")
def test_an_unreadable_text(tmp_path):
    (tmp_path / "song.txt").write_text("abc")
    (tmp_path / "song.txt").chmod(0)
    with pytest.raises(InputError, match=r"cannot be read .permission denied.; check the path and its permissions"):
        inputs.text(str(tmp_path / "song.txt"))


def test_own_images(album):
    picture(album / ".hidden" / "0.png")
    (album / "cat" / "notes.txt").write_text("not an image")
    pictures = inputs.images(str(album))
    assert pictures.classes == ("cat", "dog") and pictures.training.shape == (18, 28, 28)
    assert pictures.training[:, 5, 5].tolist() == [*range(0, 90, 10), *range(1, 91, 10)]
    assert pictures.held_out[:, 5, 5].tolist() == [90, 91]
    assert pictures.training_labels.tolist() == [0] * 9 + [1] * 9 and pictures.held_out_labels.tolist() == [0, 1]


def test_images_of_every_kind_become_28_by_28_greys(album):
    rows = np.arange(28 * 28, dtype=np.uint8).reshape(28, 28)
    kinds = {
        "0.png": Image.fromarray(rows),
        "1.png": Image.fromarray(np.full((28, 28), 40_606, np.uint16)),
        "2.png": Image.new("RGBA", (28, 28), (255, 255, 255, 0)),
        "3.gif": Image.new("RGB", (50, 50), (80, 80, 80)),
        "4.BMP": Image.new("RGB", (56, 28), (255, 255, 255)),
        "5.jpeg": Image.new("L", (300, 200), 200),
    }
    for name, image in kinds.items():
        image.save(album / "cat" / name)
    pixels = {name: inputs._picture(str(album / "cat" / name)) for name in kinds}
    assert all(p.shape == (28, 28) and p.dtype == np.uint8 for p in pixels.values())
    assert np.array_equal(pixels["0.png"], rows)
    assert set(pixels["1.png"].flat) == {158}  # 40606 = 158 x 257
    assert set(pixels["2.png"].flat) == {0} and set(pixels["3.gif"].flat) == {80}
    assert pixels["4.BMP"][7:21].min() == 255 and pixels["4.BMP"][:7].max() == pixels["4.BMP"][21:].max() == 0
    assert pixels["5.jpeg"][14, 14] == 200


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size it has no pixels for."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "cannot be read"),
        (b"no image at all", "cannot be read"),
        (pickle.dumps(np.zeros(3)), "cannot be read"),
        (b"\x89PNG\r\n\x1a\n" + b"\xff" * 60, "cannot be read"),
        (b"GIF89a" + b"\xff" * 60, "cannot be read"),
        (b"BM" + b"\xff" * 60, "cannot be read"),
        (b"\xff\xd8\xff\xe0" + b"\xff" * 60, "cannot be read"),
        (png(28, 28), "cannot be read"),
        (png(5000, 4001), "has more than 20 million pixels; scale it down"),
        (png(10_000, 10_000), "has more than 20 million pixels; scale it down"),
        (png(100_000, 100_000), "has more than 20 million pixels; scale it down"),
    ],
)
def test_an_image_that_cannot_be_used(album, content, sentence):
    (album / "dog" / "bad.png").write_bytes(content)
    with pytest.raises(InputError) as error:
        inputs.images(str(album))
    assert "bad.png'" in str(error.value) and sentence in str(error.value) and "\n" not in str(error.value)


def test_a_truncated_image(album):
    noise = np.random.default_rng(0).integers(0, 256, (100, 100), np.uint8)
    for name in ("t.png", "t.jpg"):
        path = album / "dog" / name
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[:3000])
        with pytest.raises(InputError, match=rf"{name}' cannot be read .*truncated.*; replace or remove it"):
            inputs.images(str(album))
        path.unlink()


def test_floating_point_images_are_refused_with_their_nan(album):
    """None of the formats read can hold a number that is not finite; one that can is no way in under another name."""
    Image.fromarray(np.full((28, 28), np.nan, np.float32)).save(album / "dog" / "bad.tiff")
    (album / "dog" / "bad.tiff").rename(album / "dog" / "bad.png")
    with pytest.raises(InputError, match=r"bad\.png' cannot be read"):
        inputs.images(str(album))


def test_folders_that_are_no_image_sets(tmp_path, album, monkeypatch):
    with pytest.raises(InputError, match=r"0\.png' is not a folder; give a folder with one subfolder"):
        inputs.images(str(album / "cat" / "0.png"))
    with pytest.raises(InputError, match="has 0 subfolders; give at least two"):
        inputs.images(str(album / "cat"))
    with pytest.raises(InputError, match="no file or folder"):
        inputs.images(str(tmp_path / "none.d"))
    with pytest.raises(InputError, match="did you mean 'fashion-mnist'"):
        inputs.images("fashon-mnist")
    monkeypatch.setattr(inputs, "MAX_IMAGES", 19)
    with pytest.raises(InputError, match="holds 20 images; give 10 to 19"):
        inputs.images(str(album))
    (album / "eel").mkdir()
    with pytest.raises(InputError, match=r"Class 'eel' of image folder .* has 0 PNG, JPEG, GIF or BMP images"):
        inputs.images(str(album))


def test_too_few_or_equal_images(tmp_path):
    for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
        picture(tmp_path / "few" / name)
    with pytest.raises(InputError, match="holds 4 images; give 10 to 20000"):
        inputs.images(str(tmp_path / "few"))
    for i in range(2, 8):
        picture(tmp_path / "few" / "a" / f"{i}.png")
    with pytest.raises(InputError, match="one and the same grey"):
        inputs.images(str(tmp_path / "few"))


def test_building_refuses_another_source(tmp_path):
    script = Path(__file__).parents[1] / "datasets" / "build_inputs.py"
    spec = importlib.util.spec_from_file_location("build_inputs", script)
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    (tmp_path / "other.tgz").write_bytes(b"other")
    with pytest.raises(SystemExit, match=r"other\.tgz has sha256 d9298a10d1b07358.* fetch it again"):
        build.main(["--sotu", str(tmp_path / "other.tgz"), "--fashion-mnist", str(tmp_path), "--out", str(tmp_path / "out")])
    assert not list((tmp_path / "out").iterdir())
