"""Whatever a person gives that cannot be used: one sentence, exit code 2, no traceback, and no file touched."""

import errno
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import command_line
import numpy as np
import pytest
import xarray as xr
from PIL import Image

import workbench as wb
from workbench import catalogue, inputs, lab, places, rebuild, record, store
from workbench.errors import InputError, unknown
from workbench.probe import probe

SENTENCE = re.compile(r"Error: [^\n]+\.?\n")


def contents():
    """Every file below the working folder with its bytes."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in Path().rglob("*")}


@pytest.fixture
def refused(capsys):
    """Runs a command line that must be refused: returns its sentence."""
    call = command_line.caller(capsys)

    def run(*words):
        before = contents()
        answer = call(*words)
        assert (answer.code, answer.out) == (2, "")
        assert contents() == before
        assert SENTENCE.fullmatch(answer.err), answer.err
        return answer.err.removeprefix("Error: ").rstrip("\n")

    return run


@pytest.fixture
def parabola(monkeypatch):
    monkeypatch.setattr(catalogue, "find", lambda name: command_line.study())


@pytest.fixture
def saved():
    """A whole record on disk."""
    wb.run(command_line.study(), steps=20, out="whole.nc")
    return Path("whole.nc")


# names


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "entropy_colapse"], "There is no study 'entropy_colapse'; did you mean 'entropy_collapse'?"),
        (["check", "entropy_colapse"], "There is no study 'entropy_colapse'; did you mean 'entropy_collapse'?"),
        (["rebuild", "entropy_colapse"], "There is no study 'entropy_colapse'; did you mean 'entropy_collapse'?"),
        (["run", "entropy_collapse", "--set", "qk_nrom=true"], "There is no knob 'qk_nrom'; did you mean 'qk_norm' or"),
        (["run", "entropy_collapse", "--budget", "demmo"], "There is no budget 'demmo'; did you mean 'demo'?"),
        (
            ["run", "entropy_collapse", "--preset", "saved by QKnorm"],
            "There is no preset 'saved by QKnorm'; did you mean 'saved by QK-norm'",
        ),
        (["run", "entropy_collapse", "--probe", "spectral_nrom"], "There is no probe 'spectral_nrom'; did you mean 'spectral_norm'"),
        (["run", "entropy_collapse", "--device", "gpuu"], "Device 'gpuu' cannot be used here ("),
    ],
)
def test_unknown_names(refused, words, sentence):
    assert refused(*words).startswith(sentence)


def test_without_a_near_name_all_are_listed(parabola, refused):
    assert refused("run", "parabola", "--probe", "zzz") == "There is no probe 'zzz'; there are loss, position."


def test_an_unknown_dimension():
    with pytest.raises(InputError, match="There is no dimension 'laeyr'; did you mean 'layer'"):
        probe("laeyr")
    with pytest.raises(InputError, match="There is no clock '7'"):
        probe(every=7)(command_line.loss.fn)


def test_names_asked_of_a_record(saved):
    opened = wb.open(saved)
    with pytest.raises(InputError, match="There is no variable 'los'; did you mean 'loss'"):
        opened.wb["los"]
    for ask in (lambda: opened.wb.cube("loss", "rl"), lambda: opened.wb.where(rl=1)):
        with pytest.raises(InputError, match="There is no knob 'rl'; did you mean 'lr'"):
            ask()
    with pytest.raises(InputError, match=r"No run has lr = 7; see record\.wb\.runs\."):
        opened.wb.where(lr=7)


@pytest.mark.parametrize("words", [["rnu"], ["run"], ["run", "parabola", "--bogus"], ["run", "parabola", "--steps", "0"], ["list", "more"]])
def test_usage_errors_of_the_command_line_leave_with_2(capsys, words):
    answer = command_line.caller(capsys)(*words)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("Usage: ")


# values


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("lr=-1", "Knob 'lr' is -1.0; it must be above 0."),
        ("lr=0", "Knob 'lr' is 0.0; it must be above 0."),
        ("lr=nan", "Knob 'lr' is nan; it must be above 0."),
        ("lr=inf", "Knob 'lr' is inf; it must be above 0."),
        ("lr=fast", "Knob 'lr' is 'fast'; it must be a number, above 0."),
        ("lr=0.1,", "Knob 'lr' is ''; it must be a number, above 0."),
        ("lr", "--set 'lr' gives no value; write --set lr=VALUE or --set lr=VALUE,VALUE."),
        ("units=0", "Knob 'units' is 0; it must be at least 1."),
        ("units=1.5", "Knob 'units' is '1.5'; it must be a whole number, at least 1."),
        ("mirrored=perhaps", "Knob 'mirrored' is 'perhaps'; it must be true or false."),
        ("shape=bowel", "Knob 'shape' is 'bowel'; choose one of bowl, flat."),
        ("seed=-1", "Knob 'seed' is -1; it must be at least 0 and at most 4.61169e+18."),
    ],
)
def test_values_on_the_command_line(parabola, refused, setting, sentence):
    assert refused("run", "parabola", "--set", setting) == sentence


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (dict(lr=-1), "Knob 'lr' is -1.0; it must be above 0."),
        (dict(lr="0.1"), "Knob 'lr' is '0.1' (str); it must be a number, above 0."),
        (dict(lr=True), "Knob 'lr' is True (bool); it must be a number, above 0."),
        (dict(lr=None), "Knob 'lr' is None (NoneType); it must be a number, above 0."),
        (dict(lr=[0.1, np.nan]), "Knob 'lr' is nan; it must be above 0."),
        (dict(lr=[]), "Axis 'lr' is empty; give at least one value."),
        (dict(lr=np.ones((2, 2))), "Axis 'lr' has more than one dimension; give a list of values."),
        (dict(units=2.5), "Knob 'units' is 2.5 (float); it must be a whole number, at least 1."),
        (dict(mirrored=1), "Knob 'mirrored' is 1 (int); it must be true or false."),
        (dict(stesp=5), "There is no knob 'stesp'"),
        (dict(steps=0), "steps is 0; it must be a whole number, at least 1."),
        (dict(steps="many"), "steps is 'many'; it must be a whole number, at least 1."),
        (dict(keep=-5, out="x.nc"), "keep is -5; it must be a whole number, at least 1."),
        (dict(keep=5), "Kept states are files beside the record; give out= together with keep=."),
        (dict(memory=0), "memory is 0; it must be a number of bytes above 0."),
        (dict(memory="4GB"), "memory is '4GB'; it must be a number of bytes above 0."),
        (dict(dtype="float16"), "dtype is 'float16'; choose one of float32, float64."),
        (dict(mode="fast"), "mode is 'fast'; choose one of auto, lanes, loop, compiled."),
        (dict(device="gpuu"), "Device 'gpuu' cannot be used here ("),
        (dict(probes="spead"), "There is no probe 'spead'"),
    ],
)
def test_values_in_python(options, sentence):
    with pytest.raises(InputError) as caught:
        wb.run(command_line.study(), **options)
    assert str(caught.value).startswith(sentence)
    assert not contents()


def test_seeds_given_twice(parabola, refused):
    sentence = "Seeds are given twice; use either --seeds N or --set seed=0,1."
    assert refused("run", "parabola", "--seeds", 2, "--set", "seed=3") == sentence


# probes


@probe("unit")
def too_many(m):
    """One coordinate more than there are"""
    return m.x.repeat(2)


@probe()
def not_a_number(m):
    """All coordinates"""
    return m.x


@probe("layer")
def unlabelled(m):
    """Coordinates by layer"""
    return m.x


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (too_many, "Probe 'too_many' declares dimensions (unit=2) but returned shape (4,)"),
        (not_a_number, "Probe 'not_a_number' declares dimensions (none, a single number) but returned shape (2,)"),
        (unlabelled, "Probe 'unlabelled' has dimension 'layer', for which study 'parabola' gives no labels"),
    ],
)
def test_a_probe_of_the_wrong_shape_names_probe_dimensions_and_shape(monkeypatch, refused, wrong, sentence):
    monkeypatch.setattr(catalogue, "find", lambda name: command_line.study(wrong))
    assert refused("run", "parabola").startswith(sentence)


# outputs


def test_an_output_that_exists_is_kept(parabola, refused):
    Path("parabola.nc").write_bytes(b"precious")
    sentence = "Output 'parabola.nc' exists; give another name, or replace it with overwrite=True (--force)."
    assert refused("run", "parabola") == sentence
    assert refused("run", "parabola", "--out", "parabola.nc") == sentence


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_an_output_that_is_a_directory(parabola, refused, force):
    Path("folder.nc").mkdir()
    assert refused("run", "parabola", "--out", "folder.nc", *force) == "Output 'folder.nc' is a directory; give the name of a file."


@pytest.mark.parametrize("out", ["file/new.nc", "file/deep/new.nc", "x" * 300 + ".nc"])
def test_an_output_that_cannot_be_written(parabola, refused, out):
    Path("file").write_text("in the way")
    assert refused("run", "parabola", "--out", out).startswith(f"Output '{out}' cannot be written (")


def test_a_folder_that_takes_no_files(parabola, refused, monkeypatch):
    def full(dir):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(record.tempfile, "TemporaryFile", full)
    sentence = "Output 'new/my.nc' cannot be written (Read-only file system); give another place."
    assert refused("run", "parabola", "--out", "new/my.nc") == sentence


def test_a_disk_that_fills_up_leaves_what_was_measured(parabola, capsys, monkeypatch):
    def full(*args, **kwargs):
        raise RuntimeError("NetCDF: HDF error")

    monkeypatch.setattr(xr.DataTree, "to_netcdf", full)
    answer = command_line.caller(capsys)("run", "parabola", "--steps", 20)
    assert answer.code == 2
    assert answer.err.splitlines()[-1] == "Error: Output 'parabola.nc' cannot be written (NetCDF: HDF error); give another place."
    assert wb.open("parabola.nc")["events"]["steps_done"].values.tolist() == [20]


def test_a_report_that_exists_is_refused_before_training(parabola, refused):
    Path("my.html").write_text("precious")
    sentence = "Output 'my.html' exists; give another name, or replace it with overwrite=True (--force)."
    assert refused("run", "parabola", "--report", "my.html") == sentence


def test_what_an_unfinished_run_left_is_kept(parabola, refused):
    plan = dict(steps=20, out="old.nc")
    wb.run(command_line.study(), **plan)
    store.Store(wb.open("old.nc"), store.partial_path("parabola.nc"))
    assert refused("run", "parabola").startswith("An earlier run to 'parabola.nc' left 'parabola.nc.partial.zarr'")
    store.Store(wb.open("old.nc"), store.partial_path("without_suffix"))
    assert wb.open("parabola.nc").attrs["steps"] == wb.open("without_suffix").attrs["steps"] == 20


def test_kept_states_of_another_run_are_not_mixed_with_new_ones(parabola, refused):
    wb.run(command_line.study(), steps=20, keep=10, out="parabola.nc")
    Path("parabola.nc").unlink()
    assert refused("run", "parabola", "--keep", 10).startswith("An earlier run to 'parabola.nc' left 'parabola.nc.checkpoints'")


@pytest.mark.extras
def test_a_report_that_exists_is_kept(refused, saved):
    Path("whole.html").write_text("precious")
    assert refused("report", saved).startswith("Output 'whole.html' exists; give another name")


# records


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_record(refused, saved, share):
    whole = saved.read_bytes()
    Path("cut.nc").write_bytes(whole[: int(share * len(whole))])
    assert refused("report", "cut.nc").startswith("'cut.nc' cannot be read as a record: it is truncated, damaged or of another format")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89HDF\r\n\x1a\n" + bytes(100), pickle.dumps([1]), b"CDF\x01" + bytes(28)])
def test_a_file_of_another_kind(refused, content):
    Path("other.nc").write_bytes(content)
    assert refused("report", "other.nc").startswith("'other.nc' ")


def test_a_foreign_record(refused):
    xr.Dataset({"t": ("x", [1.0])}, attrs={"format": ["a", "b"]}).to_netcdf("foreign.nc")
    xr.Dataset({"t": ("x", [1.0])}).to_zarr("foreign.zarr", zarr_format=2, consolidated=False)
    Path("empty.zarr").mkdir()
    for name in ("foreign.nc", "foreign.zarr"):
        assert refused("report", name).startswith(f"'{name}' is not a record of this workbench; make one with wb.run(")
    assert refused("report", "empty.zarr").startswith("'empty.zarr' cannot be read as a record")


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        (0, "'odd.nc' has record schema 0, this workbench reads schema 1; run the study again."),
        (99, "'odd.nc' has record schema 99, this workbench reads schema 1; install a newer workbench."),
        ("one", "'odd.nc' cannot be read as a record"),
    ],
)
def test_a_record_of_another_schema(refused, saved, version, sentence):
    tree = wb.open(saved)
    tree.attrs["schema_version"] = version
    record.save(tree, "odd.nc")
    assert refused("report", "odd.nc").startswith(sentence)


@pytest.mark.parametrize("node", ["events", "timeline"])
def test_a_record_without_a_node(refused, saved, node):
    tree = wb.open(saved)
    del tree[node]
    record.save(tree, "odd.nc")
    assert refused("report", "odd.nc") == f"'odd.nc' lacks the node {node!r} and is not a whole record; run the study again."


def test_a_record_larger_than_memory(saved, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("memory", (), {"available": 100}))
    with pytest.raises(InputError, match=r"'whole\.nc' would take 0\.0 GB of memory, more than is free"):
        wb.open(saved)


@pytest.mark.parametrize(
    "hidden",
    [
        dict(dtype="|O", filters=[{"id": "pickle"}]),
        dict(dtype="|O", filters=[{"id": "vlen-utf8"}, {"id": "pickle"}]),
        dict(dtype="|O", filters=[{"id": "vlen-utf8"}], compressor={"id": "pickle"}),
    ],
)
def test_a_pickle_in_a_record_is_never_run(saved, hidden):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, ("exploded",)

    store.Store(wb.open(saved), Path("evil.zarr"))
    about = json.loads(Path("evil.zarr/label/.zarray").read_text())
    Path("evil.zarr/label/.zarray").write_text(json.dumps(about | dict(compressor=None, fill_value=None) | hidden))
    Path("evil.zarr/label/0").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match="cannot be read as a record"):
        wb.open("evil.zarr")
    assert not Path("exploded").exists()


def test_records_that_are_not_there(refused, monkeypatch):
    assert refused("report", "my.nc").startswith("There is no file 'my.nc'; give the path of a record, or the name of a study")
    monkeypatch.setattr("workbench.opening.datasets", Path)
    assert refused("report", "entropy_collapse").startswith("Study 'entropy_collapse' ships no record; make one with: workbench run")
    assert refused("report", "entropy_colapse") == "There is no shipped record 'entropy_colapse'; there are none."
    Path("entropy_collapse.nc").write_bytes(b"")
    assert refused("report", "entropy_colapse") == "There is no shipped record 'entropy_colapse'; did you mean 'entropy_collapse'?"


def test_a_manifest_that_cannot_be_read(refused, monkeypatch):
    Path("datasets").mkdir()
    monkeypatch.setattr(rebuild, "datasets", lambda: Path("datasets"))
    monkeypatch.setattr(places, "datasets", lambda: Path("datasets"))
    for text in ("{", "[]", '{"records": 3}'):
        Path("datasets/MANIFEST.json").write_text(text)
        assert refused("rebuild", "entropy_collapse").startswith("'datasets/MANIFEST.json' cannot be read as a manifest")
        assert refused("atlas").endswith("cannot be read as a manifest; run `workbench rebuild` to write it anew.")


# data


def run_on(refused, **knobs):
    settings = [word for name, value in knobs.items() for word in ("--set", f"{name}={value}")]
    return refused("run", "entropy_collapse", "--budget", "smoke", *settings)


def test_texts_that_cannot_be_learned(refused):
    Path("empty.txt").write_text("")
    Path("broken.txt").write_bytes(b"\xff\xfe\x00" * 1000)
    Path("folder").mkdir()
    for name in ("empty.txt", "broken.txt", "folder", "absent.txt"):
        assert name in run_on(refused, text=name)
    inputs.forget()


def test_images_that_cannot_be_learned(refused):
    Path("pictures/a").mkdir(parents=True)
    Path("pictures/b").mkdir()
    for number in range(20):
        Image.new("L", (8, 8), number).save(f"pictures/a/{number}.png")
        Image.new("L", (8, 8), 200 + number).save(f"pictures/b/{number}.png")
    Path("pictures/b/3.png").write_bytes(Path("pictures/b/3.png").read_bytes()[:40])
    assert "3.png" in run_on(refused, data="images", images="pictures")
    assert "nowhere" in run_on(refused, data="images", images="nowhere")
    inputs.forget()


# lab


def test_the_lab_without_its_extra(refused, monkeypatch):
    monkeypatch.setattr(lab.importlib.util, "find_spec", lambda name: None)
    assert refused("lab") == "JupyterLab is not installed; install it with: pip install 'stability-workbench[lab]'"
    assert refused("course") == "Voila is not installed; install it with: pip install 'stability-workbench[lab]'"


def test_the_lab_where_its_folder_is_a_file(refused, monkeypatch):
    monkeypatch.setattr(lab, "require", lambda tool: None)
    monkeypatch.setattr(lab, "_in_clone", lambda: False)
    Path("stability-notebooks").write_text("mine")
    assert refused("lab").startswith("'stability-notebooks' is a file, so the notebooks cannot be copied there")


def test_a_package_without_its_tour(monkeypatch):
    Path("notebooks").mkdir()
    monkeypatch.setattr(lab, "notebooks", lambda: Path("notebooks").absolute())
    with pytest.raises(InputError, match=r"There is no .*00_tour"):
        lab.prepare()
    shutil.rmtree("notebooks")


def test_a_name_that_players_have_of_their_own_is_found_by_its_end():
    assert str(unknown("knob", "lr", ["generator_lr", "critic_lr", "batch"])).endswith("did you mean 'critic_lr' or 'generator_lr'?")


def test_names_with_commas_are_told_apart():
    assert str(unknown("preset", "zzz", ["SPAM, injected", "SPAM"])) == "There is no preset 'zzz'; there are 'SPAM', 'SPAM, injected'."
