"""Modules import only downwards: the make side never meets xarray or altair, the look side never meets torch."""

import subprocess
import sys
from graphlib import TopologicalSorter

import pytest
from conftest import ROOT, imports

PACKAGE = ROOT / "workbench"

# layer: its modules, the layers it may import beside itself, the packages it may not
LAYERS = {
    "vocabulary": ("errors knobs dims places probe view gauge claim design study schema catalogue", "", "torch xarray altair"),
    "parts": ("noise taps numerics optimizers schedules models inputs tasks sample_distance", "vocabulary", "xarray altair"),
    "learning": ("learners probes", "vocabulary parts", "xarray altair"),
    "record": ("record history glance events sensitivity store older opening progress atlas", "vocabulary", "torch altair"),
    "engine": ("engine", "vocabulary parts learning record", "altair"),
    "views": ("views", "vocabulary record", "torch"),
    "report": ("report", "vocabulary record views", "torch"),
    "studies": ("studies", "vocabulary parts learning record views", ""),
    "top": (
        "__init__ __main__ bench commands lab panel rebuild testing",
        "vocabulary parts learning record engine views report studies",
        "",
    ),
}
LAYER_OF = {module: layer for layer, (modules, _, _) in LAYERS.items() for module in modules.split()}
SOURCES = {path: path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in sorted(PACKAGE.rglob("*.py"))}
LIBRARY = sorted(set(SOURCES.values()))


def imported(path):
    """The modules of the package that a file imports; a name that is no module comes from `__init__`, which is on top."""
    inside = {name.split(".")[1] for name in imports(path) if name.startswith("workbench.")}
    return {name if name in LIBRARY else "__init__" for name in inside - {"__version__"}}


def files_of(module):
    return [path for path, name in SOURCES.items() if name == module]


@pytest.mark.parametrize("module", LIBRARY)
def test_a_module_has_a_layer_and_imports_only_from_its_own_and_lower_ones(module):
    layer = LAYER_OF[module]
    _, below, foreign = LAYERS[layer]
    for path in files_of(module):
        wrong = {name for name in imported(path) if LAYER_OF[name] not in {layer, *below.split()}}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"
        assert imports(path).isdisjoint(foreign.split()), f"{path.relative_to(ROOT)} imports one of {foreign}"


def test_no_two_modules_import_each_other():
    below_the_top = [module for module in LIBRARY if LAYER_OF[module] != "top"]
    graph = {module: set().union(*map(imported, files_of(module))) - {module} for module in below_the_top}
    assert set(TopologicalSorter(graph).static_order()) >= set(graph)


def test_a_study_imports_no_other_study():
    for path in files_of("studies"):
        assert not [name for name in imports(path) if name.startswith("workbench.studies.")], path.name


@pytest.mark.extras
def test_the_look_side_runs_without_torch():
    modules = [f"workbench.{module}" for module in LIBRARY if "torch" in LAYERS[LAYER_OF[module]][2]]
    code = f"import sys; sys.modules['torch'] = None; import {', '.join(modules)}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
