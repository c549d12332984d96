import html
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import command_line
import numpy as np
import pytest
from conftest import ROOT

import workbench as wb
from workbench import atlas, catalogue, lab, progress, rebuild
from workbench.errors import InputError
from workbench.schema import Progress
from workbench.study import Budget


@pytest.fixture
def call(capsys, monkeypatch):
    """Runs a command line that knows one study, `parabola`."""
    monkeypatch.setattr(catalogue, "find", lambda name: command_line.study())
    return command_line.caller(capsys)


def python(code, **settings):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, **settings
    )


# list, atlas, open


def test_looking_imports_neither_torch_nor_a_study(tmp_path):
    wb.run(command_line.study(), out="record.nc")
    code = """
import sys
class Barred:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch" or name.startswith("workbench.studies."):
            raise ImportError(f"{name} is barred")
sys.meta_path.insert(0, Barred())
from workbench.__main__ import main
for words in (["list"], ["list", "--json"], ["atlas"], ["atlas", "--json"], ["--help"], ["run", "--help"]):
    try:
        main(words)
    except SystemExit as stop:
        assert not stop.code, words
import workbench as wb
assert wb.open("record.nc").sizes["run"] == 1
assert "entropy_collapse" in wb.studies().index
assert not any(name.partition(".")[0] == "torch" for name in sys.modules)
"""
    done = python(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "entropy_collapse" in done.stdout


def test_importing_the_package_imports_nothing_heavy():
    done = python("import sys, workbench; print(*{'torch', 'xarray', 'altair', 'pandas'} & set(sys.modules))")
    assert (done.returncode, done.stdout.strip()) == (0, "")


def test_public_functions_stay_when_subpackages_of_their_names_are_imported():
    code = "import workbench as wb, workbench.studies, workbench.studies.entropy_collapse; print(len(wb.studies()))"
    assert python(code).stdout.strip() == str(len(catalogue.entries()))


def test_list_as_json_is_the_table_of_studies(call):
    answer = call("list", "--json")
    rows = {row["name"]: row for row in json.loads(answer.out)["studies"]}
    table = wb.studies()
    assert answer.code == 0
    assert list(rows) == list(table.index) == [entry.name for entry in catalogue.entries()]
    assert rows["entropy_collapse"]["slugs"] == ["entropy-collapse"] == table.loc["entropy_collapse", "slugs"].split(", ")
    assert {"title", "question", "slugs", "record"} == set(table.columns)


def test_a_notebook_shows_the_questions_in_full():
    table = wb.studies()
    assert all(html.escape(question, quote=False) in table._repr_html_() for question in table["question"])


def test_atlas_as_json_lists_the_104_systems(call):
    systems = json.loads(call("atlas", "--json").out)["systems"]
    assert systems == atlas.table()
    assert len(systems) == 104
    assert all(list(system) == ["n", "slug", "title", "family", "study", "claims", "status"] for system in systems)


def test_atlas_counts_and_shows_a_failing_system(call, monkeypatch):
    rows = [dict(row) for row in atlas.table()]
    rows[0] |= dict(status="fails", claims=[dict(status="holds"), dict(status="fails")])
    monkeypatch.setattr(atlas, "table", lambda: rows)
    lines = call("atlas").out.splitlines()
    assert "fails (1 of 2)" in lines[1]
    held, failed = (sum(row["status"] == status for row in rows) for status in ("holds", "fails"))
    assert lines[-1] == f"104 systems: {held} hold, {failed} fail, {104 - held - failed} are planned."


def test_titles_are_text_and_no_markup(call, monkeypatch):
    entry = catalogue.Entry("a", "[red]a[/red] [link=x]", (), "Why?", "", "", "")
    monkeypatch.setattr(catalogue, "entries", lambda: (entry,))
    assert "[red]a[/red] [link=x]" in call("list").out


# run


def test_run_writes_a_record_and_says_what_happened(call):
    answer = call("run", "parabola", "--budget", "smoke", "--seeds", 4)
    record = wb.open("parabola.nc")
    assert answer.code == 0, answer.err
    assert record.sizes["run"] == 8
    assert record.attrs["steps"] == 20
    lines = answer.out.splitlines()
    assert lines[0] == "Record  parabola.nc"
    assert "0 of 8 runs diverged." in lines
    assert any(line.startswith("Claim holds: Too high a rate climbs (") for line in lines)
    assert lines[-1] == f"Open the lab with: {lab.command()}"
    assert os.listdir() == ["parabola.nc"]


def test_run_measures_what_the_same_call_in_python_does(call):
    settings = ["--set", "lr=1e-2,2.5", "--set", "mirrored=false,true", "--set", "seed=0,5", "--steps", 30]
    call(
        "run", "parabola", *settings, "--probe", "position", "--dtype", "float64", "--mode", "lanes", "--memory", "1GB", "--out", "a/my.nc"
    )
    ours = wb.run(
        command_line.study(),
        lr=[1e-2, 2.5],
        mirrored=[False, True],
        seed=[0, 5],
        steps=30,
        probes=["position"],
        dtype="float64",
        mode="lanes",
    )
    record = wb.open("a/my.nc")
    assert record["lr"].values.tolist() == [0.01] * 4 + [2.5] * 4
    np.testing.assert_array_equal(record.wb["position"], ours.wb["position"])


def test_a_preset_is_taken_before_the_budget_and_a_setting_before_both(call):
    call("run", "parabola", "--budget", "smoke", "--preset", "diverging", "--steps", 2, "--out", "preset.nc")
    call("run", "parabola", "--budget", "smoke", "--preset", "diverging", "--set", "lr=3", "--steps", 2, "--out", "set.nc")
    assert [wb.open(name)["lr"].values.tolist() for name in ("preset.nc", "set.nc")] == [[2.5], [3.0]]


def test_texts_may_hold_commas(call):
    call("run", "parabola", "--set", 'label=one,"two, three"', "--set", "label=four", "--steps", 2)
    assert wb.open("parabola.nc")["label"].values.tolist() == ["one", "two, three", "four"]


@pytest.mark.parametrize(("text", "size"), [("4GB", 4e9), ("500 mb", 5e8), ("2GiB", 2**31), ("1.5kB", 1500), ("1000", 1000)])
def test_memory_is_written_as_a_person_does(call, text, size):
    call("run", "parabola", "--steps", 2, "--memory", text)
    assert wb.open("parabola.nc").attrs["memory_budget"] == size


def test_keep_leaves_states_beside_the_record(call):
    call("run", "parabola", "--steps", 20, "--keep", 10)
    assert [path.name for path in sorted(Path("parabola.nc.checkpoints").iterdir())] == [
        f"step_{step:08d}_run_000000.safetensors" for step in (0, 10, 20)
    ]


def test_force_replaces_the_record_and_what_belonged_to_it(call):
    call("run", "parabola", "--steps", 10, "--keep", 5)
    Path("parabola.nc.partial.zarr").mkdir()
    assert call("run", "parabola", "--steps", 20, "--force").code == 0
    assert wb.open("parabola.nc").attrs["steps"] == 20
    assert os.listdir() == ["parabola.nc"]


def test_claims_that_the_runs_do_not_bear_on_stay_undecided(call):
    answer = call("run", "parabola", "--steps", 2, "--set", "units=1,2")
    assert "1 of 1 claims stay undecided on these runs." in answer.out
    few = call("run", "parabola", "--budget", "smoke", "--out", "few.nc")
    assert "1 of 1 claims stay undecided on these runs; claims are judged over at least 4 seeds." in few.out


def test_the_command_can_be_typed_again(call, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/anywhere/workbench", "run", "parabola", "--preset", "saved by it"])
    assert wb.run(command_line.study(), steps=2).attrs["command"] == "workbench run parabola --preset 'saved by it'"


@pytest.mark.extras
def test_run_and_report_write_a_report(call):
    answer = call("run", "parabola", "--budget", "smoke", "--report", "my.html")
    assert (answer.code, answer.out.splitlines()[:2]) == (0, ["Record  parabola.nc", "Report  my.html"])
    assert "Descent on a parabola" in Path("my.html").read_text(encoding="utf-8")
    assert call("run", "parabola", "--budget", "smoke", "--report", "my.html", "--force").code == 0
    assert call("report", "parabola.nc") == (0, "Report  parabola.html\n", "")
    assert call("report", "parabola.nc", "--out", "my.html", "--force").code == 0


# interrupted runs


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_what_stays_and_leaves_it_readable(call, monkeypatch, number, code):
    monkeypatch.setattr(catalogue, "find", lambda name: command_line.stopping(number, 200))
    answer = call("run", "parabola", "--steps", 1000)
    sentence = "Interrupted; what was measured stands in 'parabola.nc.partial.zarr' and opens with wb.open('parabola.nc'). "
    sentence += "The same command with --resume goes on."
    assert (answer.code, answer.out) == (code, "")
    assert answer.err.splitlines()[-1] == sentence
    assert "Traceback" not in answer.err
    record = wb.open("parabola.nc")
    done = int(record["events"]["steps_done"][0])
    assert 0 < done < 200
    assert np.isfinite(record.wb["loss"][0, :done]).all()
    assert np.isnan(record.wb["loss"][0, 200:]).all()


def test_a_run_stopped_over_an_old_record_names_the_unfinished_one(call, monkeypatch):
    call("run", "parabola", "--steps", 2)
    old = Path("parabola.nc").read_bytes()
    monkeypatch.setattr(catalogue, "find", lambda name: command_line.stopping(signal.SIGINT, 200))
    answer = call("run", "parabola", "--steps", 1000, "--force")
    assert "opens with wb.open('parabola.nc.partial.zarr')." in answer.err
    assert Path("parabola.nc").read_bytes() == old
    assert wb.open("parabola.nc.partial.zarr").attrs["steps"] == 1000


def test_a_run_stopped_before_it_measures_writes_nothing(call, monkeypatch):
    def find(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(catalogue, "find", find)
    answer = call("run", "parabola")
    assert (answer.code, answer.err) == (130, "Interrupted before anything was measured; nothing was written.\n")
    assert os.listdir() == []


def test_a_killed_run_stays_readable(tmp_path):
    code = f"""
import signal, sys, workbench
sys.path.append({str(ROOT / "tests")!r})
import command_line
workbench.run
growing = sys.modules["workbench.engine.growing"]
growing.FLUSH_SECONDS, growing.FLUSH_SHARE = 0, float("inf")
workbench.run(command_line.stopping(signal.SIGKILL, 200), steps=1000, out="parabola.nc")
"""
    assert python(code, cwd=tmp_path).returncode == -signal.SIGKILL
    record = wb.open("parabola.nc")
    done = int(record["events"]["steps_done"][0])
    assert 100 < done < 200
    assert np.isfinite(record.wb["loss"][0, :done]).all()


# progress


def test_progress_in_lines(capsys, monkeypatch):
    clock = iter([0.0] * 2 + [20.0] * 3 + [40.0] * 3)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.ProgressBar(4, 0, 100, show=True) as bar:
        bar.update(Progress((0, 1), 50, (-1, 7)))
        bar.update(Progress((0, 1, 2, 3), 100, (-1, 7, -1, -1)))
    first, last = capsys.readouterr().err.splitlines()
    assert first == " 25% of 4 runs: 5 steps/s, 0:01:00 left, 1 diverged"
    assert last == "100% of 4 runs: 10 steps/s, 1 diverged"


@pytest.mark.parametrize(
    ("watched", "show", "seen"), [(True, None, True), (True, False, False), (False, None, False), (False, False, False)]
)
def test_progress_is_shown_where_someone_watches(capsys, monkeypatch, watched, show, seen):
    monkeypatch.setattr(progress, "_is_watched", lambda: watched)
    with progress.ProgressBar(2, 0, 10, show) as bar:
        bar.update(Progress((0, 1), 10, (-1, -1)))
    assert ("2 runs" in capsys.readouterr().err) == seen


# check, rebuild


def test_check_prints_the_problems_of_a_study(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "workbench.testing", type("testing", (), {"check_study": staticmethod(lambda study: ["one", "two"])}))
    answer = call("check", "entropy_collapse")
    assert (answer.code, answer.out) == (1, "entropy_collapse: 2 problems\n  one\n  two\n")
    monkeypatch.setitem(sys.modules, "workbench.testing", type("testing", (), {"check_study": staticmethod(lambda study: [])}))
    assert call("check") == (0, "".join(f"{entry.name}: passes\n" for entry in catalogue.entries()), "")


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder for shipped records, with one in it of another study."""
    monkeypatch.setattr(rebuild, "find", lambda name: command_line.study())
    monkeypatch.setattr(rebuild, "datasets", lambda: tmp_path / "datasets")
    (tmp_path / "datasets").mkdir()
    other = {"file": "z.nc", "sha256": "0", "bytes": 1, "claims": []}
    (tmp_path / "datasets" / "MANIFEST.json").write_text(json.dumps({"records": {"z": other}}))
    return tmp_path / "datasets"


def test_rebuild_ships_a_rounded_record_with_its_verdicts(call, shelf):
    assert call("rebuild", "parabola").code == 0
    assert sorted(os.listdir(shelf)) == ["MANIFEST.json", "parabola.nc"]
    record = wb.open(shelf / "parabola.nc")
    entry = json.loads((shelf / "MANIFEST.json").read_text())["records"]["parabola"]
    (verdict,) = entry["claims"]
    assert json.loads(record.attrs["claims"]) == entry["claims"]
    assert (entry["file"], entry["bytes"]) == ("parabola.nc", (shelf / "parabola.nc").stat().st_size)
    assert verdict["status"] == "holds"
    assert verdict["mean"] == float(command_line.excess(record).mean())
    assert record.sizes["run"] == 8


def test_rebuild_keeps_the_other_records_of_the_manifest(call, shelf, monkeypatch):
    call("rebuild", "parabola")
    assert list(json.loads((shelf / "MANIFEST.json").read_text())["records"]) == ["parabola", "z"]
    (shelf / "z.nc").write_bytes(b"z")
    with pytest.raises(InputError, match="does not match its manifest"):
        atlas.verdicts(shelf)
    manifest = json.loads((shelf / "MANIFEST.json").read_text())
    del manifest["records"]["z"]
    (shelf / "MANIFEST.json").write_text(json.dumps(manifest))
    assert [verdict["status"] for verdict in atlas.verdicts(shelf)["parabola"]] == ["holds"]


def test_rebuild_replaces_nothing_unless_all_is_well(call, shelf, monkeypatch):
    call("rebuild", "parabola")
    before = {path.name: path.read_bytes() for path in shelf.iterdir()}
    monkeypatch.setattr(rebuild, "MAX_BYTES", 1000)
    answer = call("rebuild", "parabola")
    assert answer.code == 2
    assert "and a shipped one at most 1 kB" in answer.err
    assert f"What was measured stays in '{shelf / 'parabola.rebuilding'}'." in answer.err
    assert {name: (shelf / name).read_bytes() for name in before} == before
    assert wb.open(shelf / "parabola.rebuilding").sizes["run"] == 8
    assert sorted(os.listdir(shelf)) == ["MANIFEST.json", "parabola.nc", "parabola.rebuilding"]


def test_rebuild_judges_only_what_its_budget_covers(call, shelf, monkeypatch):
    budgets = {"full": Budget(wb.grid(lr=[0.1]), 5)}
    monkeypatch.setattr(rebuild, "find", lambda name: command_line.study(budgets=budgets))
    answer = call("rebuild", "parabola")
    assert answer.code == 2
    assert "Claim 'Too high a rate climbs' of study 'parabola' finds no runs to judge" in answer.err
    assert not (shelf / "parabola.nc").exists()


def test_an_interrupted_rebuild_leaves_the_old_record(call, shelf, monkeypatch):
    call("rebuild", "parabola")
    before = {path.name: path.read_bytes() for path in shelf.iterdir()}
    monkeypatch.setattr(rebuild, "find", lambda name: command_line.stopping(signal.SIGINT, 15))
    assert call("rebuild", "parabola").code == 130
    assert {name: (shelf / name).read_bytes() for name in before} == before
    assert call("rebuild", "parabola").code == 130, "an unfinished rebuild is no obstacle to the next"


# lab


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """An installed package with two notebooks."""
    source = tmp_path / "site" / "workbench" / "_notebooks"
    source.mkdir(parents=True)
    for name in (lab.TOUR, "10_more.ipynb"):
        (source / name).write_text(f"packaged {name}")
    monkeypatch.setattr(lab, "notebooks", lambda: source)
    monkeypatch.setattr(lab, "__file__", str(source.parent / "lab.py"))
    return source


def test_the_lab_of_an_installed_package_works_on_copies(packaged):
    tour = lab.prepare()
    assert tour == Path("stability-notebooks/00_tour.ipynb")
    assert {path.name: path.read_text() for path in tour.parent.iterdir()} == {path.name: path.read_text() for path in packaged.iterdir()}
    assert lab.command() == "workbench lab"


def test_the_lab_keeps_what_a_person_changed_and_says_so(packaged, call, monkeypatch):
    monkeypatch.setattr(lab, "require", lambda tool: None)
    opened = []
    monkeypatch.setattr(lab, "launch", lambda tour, options: opened.append((tour, options)))
    tour = lab.prepare()
    tour.write_text("mine")
    answer = call("lab", "--no-browser", "--port", "9999")
    assert tour.read_text() == "mine"
    assert opened == [(tour, ("--no-browser", "--port", "9999"))]
    assert f"Kept your {tour}" in answer.out
    assert "10_more" not in answer.out


def test_the_lab_of_a_clone_works_on_its_own_notebooks(tmp_path, monkeypatch):
    monkeypatch.setattr(lab, "notebooks", lambda: tmp_path / "notebooks")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / lab.TOUR).write_text("the tour")
    assert lab.prepare() == tmp_path / "notebooks" / lab.TOUR
    assert (lab.kept(), lab.command()) == ([], "make lab")
    assert os.listdir() == ["notebooks"]


def test_launch_becomes_jupyterlab(monkeypatch):
    became = []
    monkeypatch.setattr(os, "execv", lambda path, words: became.append((path, words)))
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    lab.launch(Path("tour.ipynb"), ["--no-browser"])
    assert became == [(sys.executable, [sys.executable, "-m", "jupyterlab", "--allow-root", "--no-browser", "tour.ipynb"])]


def test_the_course_serves_the_folder_of_the_tour_and_keeps_what_a_person_changed(packaged, call, monkeypatch):
    monkeypatch.setattr(lab, "require", lambda tool: None)
    served = []
    monkeypatch.setattr(lab, "serve", lambda folder, options: served.append((folder, options)))
    tour = lab.prepare()
    tour.write_text("mine")
    answer = call("course", "--no-browser", "--port", "9999")
    assert served == [(tour.parent, ("--no-browser", "--port", "9999"))]
    assert f"Kept your {tour}" in answer.out
    assert f"Serving the notebooks in {tour.parent} as pages without code" in answer.out


def test_serve_becomes_voila_with_the_settings_that_come_with_the_package(monkeypatch):
    became = []
    monkeypatch.setattr(os, "execv", lambda path, words: became.append((path, words)))
    lab.serve(Path("notebooks"), ["--no-browser"])
    settings = f"--Voila.config_file_paths={ROOT / 'workbench'}"
    assert became == [(sys.executable, [sys.executable, "-m", "voila", settings, "--no-browser", "notebooks"])]
