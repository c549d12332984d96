"""Every notebook runs from top to bottom in a fresh kernel, without a network, and holds no logic and no outputs."""

import ast

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
MOST_CELLS, LONGEST_FUNCTION = 12, 5
NOWHERE = "http://127.0.0.1:9"  # a proxy that does not answer

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def executed(path, tmp_path, monkeypatch):
    notebook = nbformat.read(path, as_version=4)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, NOWHERE)
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    return client.execute()


def test_a_notebook_runs_and_shows_its_charts_without_a_network(executed):
    for cell in code_cells(executed):
        data = [output.data for output in cell.outputs if "data" in output]
        said = "".join(output.text for output in cell.outputs if output.output_type == "stream")
        assert not [output for output in cell.outputs if output.output_type == "error"]
        assert "Warning" not in said, said
        assert not any("<script" in each.get("text/html", "") for each in data), cell.source
        if cell.source.splitlines()[-1].startswith("views."):
            assert any("image/svg+xml" in each or "image/png" in each for each in data), cell.source


def test_a_notebook_is_short_and_has_no_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert len(cells) <= MOST_CELLS
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    assert notebook.metadata.kernelspec.name == "python3"


def test_a_notebook_imports_only_the_workbench_and_defines_next_to_nothing(path):
    for cell in code_cells(nbformat.read(path, as_version=4)):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [node.module] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
                assert all(module.split(".")[0] == "workbench" for module in modules)
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert node.end_lineno - node.lineno < LONGEST_FUNCTION
