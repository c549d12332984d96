"""The notebooks in JupyterLab and Notebook 7, as a person sees them, without a network."""

from browser import open_notebook, run_all, screenshot, write_notebook
from PIL import Image

from workbench.lab import TOUR


def failed(cells):
    """What the failed cells say."""
    return [output["evalue"] for cell in cells for output in cell.get("outputs", ()) if output["output_type"] == "error"]


def not_run(cells):
    return [cell["source"] for cell in cells if cell["cell_type"] == "code" and not cell["execution_count"]]


def test_the_tour_runs_in_jupyterlab_and_asks_nothing_of_a_network(lab, page):
    open_notebook(page, lab, TOUR)
    cells = run_all(page)
    assert (failed(cells), not_run(cells)) == ([], [])
    assert page.outside == []
    assert page.errors == []
    assert len(Image.open(screenshot(page, "tour_in_jupyterlab")).getcolors(1 << 24)) > 50


def test_a_failed_cell_is_seen(lab, page):
    write_notebook(lab.folder / "failing.ipynb", "1 / 0", "2")
    open_notebook(page, lab, "failing.ipynb")
    cells = run_all(page)
    assert (failed(cells), not_run(cells)) == (["division by zero"], ["2"])


def test_a_notebook_runs_in_notebook_7(notebook7, page):
    write_notebook(notebook7.folder / "studies.ipynb", "import workbench as wb\n\nwb.studies()")
    open_notebook(page, notebook7, "studies.ipynb")
    cells = run_all(page)
    assert (failed(cells), not_run(cells)) == ([], [])
    assert page.get_by_text("entropy_collapse").first.is_visible()
    assert page.outside == []
    assert page.errors == []
