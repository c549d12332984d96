"""The notebooks as pages without code, as `workbench course` serves them, without a network."""

import json

import pytest
from browser import press, reach, screenshot, there, write_notebook
from PIL import Image

from workbench.lab import TOUR

MINUTES = 300_000  # milliseconds


def kernel(page, course):
    """The address at which Voila answers for the kernel of the page."""
    name = json.loads(page.locator("#jupyter-config-data").text_content())["kernelId"]
    return course.address.replace("voila/render", f"api/kernels/{name}")


@pytest.fixture
def visit(course, page):
    """Opens a notebook and waits until its cells have run."""

    def visit(name):
        page.goto(f"{course.address}/{name}", timeout=MINUTES)
        page.locator("#rendered_cells").wait_for()

    return visit


def test_the_notebooks_are_listed(course, page):
    page.goto(course.address.removesuffix("voila/render"))
    assert page.get_by_text(TOUR).get_attribute("href").startswith(f"/voila/render/{TOUR}")
    assert page.outside == []
    assert page.errors == []


def test_the_tour_runs_as_a_page_without_code_and_asks_nothing_of_a_network(course, page, visit):
    visit(TOUR)
    assert page.locator(".jp-CodeCell .jp-InputArea").count() == 0
    assert page.get_by_text("Traceback (most recent call last)").all_text_contents() == []
    panel = there(page)
    panel.get_by_text("Presets", exact=True).click()
    panel.locator("[data-preset='saved by QK-norm']").click()
    panel.get_by_text("The same rate, with normalized queries and keys.").last.wait_for()
    press(panel, "run")
    reach(page, 40)
    page.wait_for_function("() => document.querySelector('.wb-vega').getAttribute('aria-label').includes('at step')")
    assert page.outside == []
    assert page.errors == []
    assert len(Image.open(screenshot(page, "tour_as_a_page")).getcolors(1 << 24)) > 50


def test_a_failed_cell_shows_its_error_and_the_cells_after_it_run(course, page, visit):
    write_notebook(course.folder / "failing.ipynb", "1 / 0", "print('and on')")
    visit("failing.ipynb")
    assert page.get_by_text("ZeroDivisionError: division by zero").is_visible()
    assert page.get_by_text("and on", exact=True).is_visible()


def test_the_kernel_of_a_page_ends_with_the_page(course, page, visit):
    write_notebook(course.folder / "short.ipynb", "'there'")
    visit("short.ipynb")
    page.get_by_text("there").wait_for()
    address = kernel(page, course)
    assert page.request.get(address).status == 200
    page.goto("about:blank")
    ended = 404
    assert any(page.request.get(address).status == ended or page.wait_for_timeout(100) for _ in range(100))
