"""What a person installs: the wheel and its data, the declared ranges, the pins, the conda environment."""

import os
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import workbench

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def declared(*extras):
    """The requirements of the core and of some extras; those of this project on itself left out."""
    lines = PROJECT["dependencies"] + [line for extra in extras for line in EXTRAS[extra]]
    return [need for need in map(Requirement, lines) if need.name != PROJECT["name"]]


def pins(file):
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return dict(line.lower().replace("_", "-").split("==") for line in lines if not line.startswith("#"))


def shipped(folder):
    """The files of a folder that git does not ignore, were all of them committed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return {name for name in listed if name and (ROOT / name).exists()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, unpacked as pip would."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_carries_modules_notebooks_and_records_and_no_more(wheel):
    placed = {"workbench/": "workbench/", "datasets/": "workbench/_datasets/", "notebooks/": "workbench/_notebooks/"}
    expected = {name.replace(old, new, 1) for old, new in placed.items() for name in shipped(old)}
    expected = {name for name in expected if not (name.startswith("workbench/_datasets/") and name.endswith(".py"))}
    found = {str(path.relative_to(wheel)) for path in wheel.rglob("*") if path.is_file()}
    assert {name for name in found if ".dist-info/" not in name} == expected
    assert {"workbench/atlas.json", "workbench/places.py"} <= found
    assert any(name.endswith("licenses/LICENSE") for name in found)


@pytest.mark.parametrize(
    "statement",
    [
        "from workbench import atlas; assert len(atlas.table()) == 104",
        "from workbench import inputs; assert any(inputs.folder().glob('*.nc'))",
        "from workbench import places; assert (places.notebooks() / '00_tour.ipynb').is_file()",
        "import workbench as wb; assert wb.open('entropy_collapse').wb['train_loss'].sizes['run'] == 144",
    ],
)
def test_an_installed_wheel_finds_its_data_without_a_clone(wheel, tmp_path, statement):
    code = f"import workbench; assert workbench.__path__[0].startswith({str(wheel)!r}), workbench.__path__; {statement}"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(wheel)}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def test_every_declared_range_holds_its_pin_and_what_is_installed():
    pinned = pins("constraints.txt")
    for need in declared("report", "lab", "dev"):
        assert need.specifier.contains(pinned[need.name.lower().replace("_", "-")]), need
        assert need.specifier.contains(version(need.name)), need


def test_the_oldest_versions_run_are_the_lower_bounds():
    oldest = pins("constraints-oldest.txt")
    for need in declared():
        (bound,) = need.specifier
        assert bound.operator == ">="
        assert Version(Version(oldest[need.name.lower()]).base_version) == Version(bound.version), need


def test_lab_holds_report_and_dev_holds_lab_and_the_core_is_free_of_jupyter():
    assert "stability-workbench[report]" in EXTRAS["lab"]
    assert "stability-workbench[lab]" in EXTRAS["dev"]
    assert {need.name for need in declared()}.isdisjoint({"jupyterlab", "voila", "ipywidgets", "anywidget", "ipykernel", "altair"})


def test_the_conda_environment_asks_for_what_pyproject_does():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    python = SpecifierSet(
        next(line for line in dependencies if isinstance(line, str) and line.startswith("python ")).removeprefix("python ")
    )
    assert set(SpecifierSet(PROJECT["requires-python"])) <= set(python)
    assert dependencies[-1] == {"pip": ["-c constraints.txt", "-e .[dev]"]}


def test_the_citation_names_this_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {key: citation[key] for key in ("cff-version", "title", "license")} == {
        "cff-version": "1.2.0",
        "title": PROJECT["name"],
        "license": PROJECT["license"],
    }
    assert citation["version"] == workbench.__version__
