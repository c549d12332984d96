"""The documents: their code runs, their commands parse, their links lead somewhere, their tables are those of real records."""

import importlib
import importlib.util
import json
import re
import shlex
import sys
from dataclasses import fields
from pathlib import Path

import click
import pytest
from conftest import ROOT

import workbench as wb
from workbench import catalogue
from workbench.__main__ import main
from workbench.claim import Verdict
from workbench.probe import CLOCKS
from workbench.schema import VERSION, Progress
from workbench.testing import check_study, check_view

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
RUN_IT = "\n## Run it\n"


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def code_of(text):
    return "\n\n".join(re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


def rows_of(page, first_column):
    """The rows of the table whose first column has this heading, each a mapping from heading to cell without backquotes."""
    table = re.search(rf"^\| {first_column} \|.*?(?=\n\n|\Z)", page, re.MULTILINE | re.DOTALL)[0].replace("`", "")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A function that writes the code of a page into a module and imports it."""
    folder = tmp_path_factory.mktemp("written")
    sys.path.insert(0, str(folder))

    def write(name, text):
        (folder / f"{name}.py").write_text(code_of(text), encoding="utf-8")
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield write
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def edge(written):
    """The study of docs/add_a_study.md."""
    return written("quadratic_edge", text_of("docs/add_a_study.md").split(RUN_IT)[0]).study


@pytest.fixture(scope="module")
def session(edge):
    """What is left of the session at the end of docs/add_a_study.md; its own assertion is that the battery finds nothing."""
    names = {}
    exec(code_of(text_of("docs/add_a_study.md").split(RUN_IT)[1]), names)
    return names


def test_the_study_of_add_a_study_passes_the_battery_and_its_claims_hold(session):
    verdicts = json.loads(session["record"].attrs["claims"])
    assert [(verdict["status"], verdict["n"]) for verdict in verdicts] == [("holds", 4), ("holds", 4)]


def test_the_study_of_add_a_study_leaves_the_minimum_where_theory_says(session):
    escaped = session["escaped"]
    edge = 2 * (1 + escaped["momentum"]) / escaped["curvature"]
    assert ((escaped == 4) == (escaped["lr"] > edge)).all()
    assert ((escaped == 0) == (escaped["lr"] < edge)).all()
    distance = session["record"].wb.where(lr=0.21, momentum=0.0).wb["distance"]
    assert (distance.sel(step=200) / distance.sel(step=100)).values == pytest.approx(abs(1 - 0.21 * 10) ** 100, rel=1e-3)


def test_the_fork_of_add_a_study_brings_the_run_back(session):
    parent, child = (session[name].wb["distance"].values[0] for name in ("parent", "child"))
    assert parent[0] == child[0] > 100
    assert parent[-1] > 1e6 and child[-1] < child[0]


def test_the_catalogue_reads_the_study_of_add_a_study_without_importing_it(edge, monkeypatch):
    path = sys.modules[edge.module].__file__
    monkeypatch.setattr(catalogue, "FOLDER", Path(path).parent)
    catalogue.entries.cache_clear()
    entry = next(entry for entry in catalogue.entries() if entry.name == "quadratic_edge")
    catalogue.entries.cache_clear()
    assert (entry.title, entry.slugs) == ("The edge of a quadratic", ("dynamical-stability",))
    assert entry.question.startswith("At which learning rate")


def test_the_pieces_of_contributing_are_a_study(written):
    study = written("two_clouds", text_of("CONTRIBUTING.md")).study
    assert check_study(study) == []
    assert check_view(study.views[0], wb.run(study, budget="smoke", progress=False)) == []


def test_the_python_of_the_readme_runs_and_its_picture_can_be_drawn(tmp_path):
    code = code_of(text_of("README.md"))
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    code = code.replace("steps=500", "steps=20").replace("step=300", "step=10").replace("slice(-50, None)", "slice(-5, None)")
    names = {}
    exec(code, names)
    assert names["entropy"].dims == ("run", "step", "layer", "head")
    assert names["loss"].sizes == {"step": 21, "lr": 3, "qk_norm": 2, "seed": 4}
    assert wb.open("child.nc")["lr"].item() == 1e-3
    wb.save(names["record"], "record.nc")
    script("make_picture").draw(tmp_path / "record.nc", tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_the_commands_of_the_documents_parse():
    lines = [line for page in PAGES for line in re.findall(r"^    workbench (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)]
    assert len(lines) > 5
    for line in lines:
        name, *words = shlex.split(line, comments=True)
        command = main.get_command(click.Context(main), name)
        assert command is not None, line
        command.make_context(name, words)


def test_the_make_targets_of_the_documents_exist():
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"(?:^    |`)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)}
    assert {"demo", "test", "lab"} <= named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_table_of_phenomena_has_every_shipped_record_and_its_verdicts():
    rows = re.findall(
        r"^\| .* \| \[`(\w+)`\].* \| \[\w+\]\(notebooks/(\w+)\.ipynb\) \| (\d+) of (\d+) \|$", text_of("README.md"), re.MULTILINE
    )
    records = json.loads((ROOT / "datasets" / "MANIFEST.json").read_text())["records"]
    verdicts = {name: [claim["status"] for claim in record["claims"]] for name, record in records.items()}
    assert {name: (found.count("holds"), len(found)) for name, found in verdicts.items()} == {
        name: (int(held), int(of)) for name, _, held, of in rows
    }
    for name, notebook, _, _ in rows:
        assert name in (ROOT / "notebooks" / f"{notebook}.ipynb").read_text(), f"{notebook} does not show {name}"


def test_the_reference_is_that_of_the_declarations():
    made = script("make_reference")
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "run python docs/make_reference.py"


SCHEMA = text_of("docs/schema.md")


@pytest.fixture
def records(edge, session, monkeypatch, tmp_path):
    """A record of each kind that docs/schema.md tells apart, and a fork's child."""
    engine = sys.modules["workbench.engine.run"]
    whole = engine.stream

    def broken_off(kind, error):
        def stream(*args, **options):
            for item in whole(*args, **options):
                yield item
                if isinstance(item, Progress):
                    raise error

        monkeypatch.setattr(engine, "stream", stream)
        return wb.run(edge, lr=[0.1, 0.2], steps=120, out=f"{kind}.nc", progress=False)

    with pytest.raises(RuntimeError):
        broken_off("growing", RuntimeError)
    with pytest.warns(UserWarning, match="Interrupted"):
        interrupted = broken_off("interrupted", KeyboardInterrupt)
    made = {"finished": session["record"], "fork": session["parent"], "child": session["child"]}
    return made | {"growing": wb.open("growing.nc"), "interrupted": interrupted}


def test_the_attributes_are_those_of_the_schema(records):
    rows = rows_of(SCHEMA, "attribute")
    documented = {kind: {row["attribute"] for row in rows if row[kind]} for kind in ("finished", "interrupted", "growing", "fork")}
    documented["child"] = documented["fork"] - {"deviation"}
    assert {kind: set(record.attrs) for kind, record in records.items()} == documented
    assert {record.attrs["schema_version"] for record in records.values()} == {VERSION} == {1}


def test_the_nodes_are_those_of_the_schema(records):
    rows = {row["node"]: row["dimensions"] for row in rows_of(SCHEMA, "node")}
    assert set(rows) == {"/", "/events", "/timeline", *(f"/every_{clock}" for clock in CLOCKS)}
    for record in records.values():
        assert set(record.to_dict()) <= set(rows)
        assert {"/events", "/timeline"} <= set(record.to_dict())
        for path, dims in rows.items():
            if path in record.to_dict():
                found = {dim for da in record[path].to_dataset(inherit=False).data_vars.values() for dim in da.dims[:2]}
                assert found <= set(dims.removesuffix(", ...").split(", "))
        assert set(record.coords) == {"run", "seed", "lr", "momentum", "curvature", "kick", "size"}


@pytest.mark.parametrize("node", ["events", "timeline"])
def test_events_and_timeline_are_those_of_the_schema(records, node):
    rows = {row["variable"]: row for row in rows_of(SCHEMA[SCHEMA.index(f"## {node.capitalize()}") :], "variable")}
    for kind, record in records.items():
        found = record[node].to_dataset(inherit=False).data_vars
        own = {"escape_step"} if node == "events" and kind not in ("growing", "interrupted") else set()
        assert set(found) == set(rows) | own
        for name, row in rows.items():
            assert found[name].dtype == row["dtype"] or (row["dtype"] == "text" and found[name].dtype.kind in "UOT")
            assert found[name].attrs.get("units", "") == row.get("units", "")


def test_an_entry_of_layouts_has_the_keys_of_the_schema(session):
    documented = {row["key"] for row in rows_of(SCHEMA, "key")}
    assert all(set(entry) == documented for entry in json.loads(session["record"].attrs["layouts"]))


def test_a_verdict_has_the_fields_of_the_schema(session):
    documented = [row["field"] for row in rows_of(SCHEMA, "field")]
    assert set(documented) == {field.name for field in fields(Verdict)}
    assert all(set(verdict) == set(documented) for verdict in json.loads(session["record"].attrs["claims"]))


def test_steps_and_files_are_as_the_schema_says(edge, tmp_path):
    record = wb.run(edge, lr=[0.1, 0.2], steps=25, out="my.nc", keep=20, progress=False)
    assert record["every_10"]["step"].values.tolist() == [0, 10, 20, 25]
    assert record["every_1"]["step"].values.tolist() == list(range(26))
    assert {path.name for path in tmp_path.iterdir()} == {"my.nc", "my.nc.checkpoints"}
    kept = {path.name for path in (tmp_path / "my.nc.checkpoints").iterdir()}
    assert kept == {"step_00000000_run_000000.safetensors", "step_00000020_run_000000.safetensors"}
    weight = record.wb["weight"]
    assert weight.dims == ("run", "step", "unit") and weight.dtype == "float32"
    assert set(weight.attrs) == {"long_name", "units", "cost"}
    assert set(record["lr"].attrs) == {"long_name", "units"} and record["lr"].dtype == "float64"
