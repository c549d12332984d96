"""The notebooks in JupyterLab and Notebook 7, as a person sees them, without a network."""

from browser import open_notebook, press, reach, run_all, screenshot, there, write_notebook
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


def test_the_panel_trains_in_notebook_7(notebook7, page):
    call = "wb.explore('entropy_collapse', width=16, depth=1, context=16, batch=4)"
    write_notebook(notebook7.folder / "panel.ipynb", f"import workbench as wb\n\npanel = {call}\npanel")
    open_notebook(page, notebook7, "panel.ipynb")
    cells = run_all(page)
    assert (failed(cells), not_run(cells)) == ([], [])
    press(there(page), "run")
    reach(page, 40)
    assert page.outside == []
    assert page.errors == []
