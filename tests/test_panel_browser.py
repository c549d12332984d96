"""The live panel in real JupyterLab: what a person presses, drags and sees, without a network."""

import re

import pytest
from browser import open_notebook, press, reach, run_all, screenshot, there, write_notebook
from PIL import Image

from workbench.lab import TOUR

SMALL = "width=16, depth=1, context=16, batch=4"
BROKEN = "advance = panel.desk.source.advance\ndef broken(): raise RuntimeError('the disk is on fire')\npanel.desk.source.advance = broken"
MENDED = "panel.desk.source.advance = advance"


@pytest.fixture
def opened(lab, page, request):
    """Opens a notebook with a panel of this call of `wb.explore`; the panel's root once its first chart is there."""

    def opened(call, **size):
        page.set_viewport_size({"width": 1500, "height": 1150} | size)
        write_notebook(lab.folder / f"{request.node.name}.ipynb", f"import workbench as wb\npanel = wb.explore({call})\npanel")
        open_notebook(page, lab, f"{request.node.name}.ipynb")
        run_all(page)
        return there(page)

    return opened


def paused(page):
    page.wait_for_function("() => document.querySelector('[data-press=run]').getAttribute('aria-label') === 'run'")


def described(panel, gauge="train_loss-curve"):
    return panel.locator(f"[data-gauge={gauge}] .wb-vega").first.get_attribute("aria-label")


def slide(page, panel, knob, by):
    """Drags a slider's handle with the mouse, by pixels."""
    slider = panel.locator(f"[data-knob={knob}] input[type=range]")
    slider.scroll_into_view_if_needed()
    box, position = slider.bounding_box(), slider.evaluate("node => node.value / node.max")
    x, y = box["x"] + 8 + position * (box["width"] - 16), box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + by, y, steps=8)
    page.mouse.up()


def value(panel, knob):
    return float(panel.locator(f"[data-knob={knob}] input[type=range]").get_attribute("aria-valuetext").split()[0])


def picture(page, panel, name):
    """A picture of the panel alone, kept with those of the pages."""
    panel.locator(".wb-left").evaluate("node => { node.scrollTop = 0; }")
    page.wait_for_timeout(1000)
    path = screenshot(page, name)
    panel.screenshot(path=path)
    return path


def back(panel, to):
    """Lets go of the timeline's handle at a step."""
    panel.get_by_label("timeline, step").evaluate(
        "(node, to) => { node.value = to; for (const kind of ['input', 'change']) node.dispatchEvent(new Event(kind, {bubbles: true})); }",
        to,
    )


def test_the_tour_is_perturbed_forked_and_gone_back_in(lab, page):
    page.set_viewport_size({"width": 1560, "height": 1800})
    open_notebook(page, lab, TOUR)
    run_all(page)
    panel = there(page)
    panel.scroll_into_view_if_needed()
    press(panel, "run")
    reach(page, 80)
    press(panel, "twin")
    panel.locator("[data-knob=qk_norm] input").check()
    page.wait_for_function("() => /qk_norm false → true/.test(document.querySelector('.wb-message').textContent)")
    assert "New, starting neutral" in panel.locator(".wb-message").inner_text()
    reach(page, 240)
    press(panel, "run")
    paused(page)
    assert "twin" in described(panel)
    assert panel.locator("[data-gauge=train_loss-curve] .wb-strip canvas").is_visible()
    picture(page, panel, "panel_with_a_twin")
    canvas, said, rate = panel.locator("[data-gauge=train_loss-curve] canvas").first, described(panel), value(panel, "lr")
    before = canvas.screenshot()
    press(panel, "run")
    slide(page, panel, "lr", -40)
    page.wait_for_function("() => /lr .* from step/.test(document.querySelector('.wb-message').textContent)")
    reach(page, 300)
    assert value(panel, "lr") < rate
    assert described(panel) != said and canvas.screenshot() != before
    press(panel, "run")
    paused(page)
    back(panel, 23)
    panel.get_by_text("stands at step 23 again").wait_for()
    slide(page, panel, "lr", -30)
    page.wait_for_function("() => document.querySelectorAll('.wb-tree li').length === 3")
    press(panel, "run")
    page.wait_for_function("() => document.querySelector('.wb-selected .wb-name').textContent.includes('branch')")
    reach(page, 150)
    press(panel, "run")
    paused(page)
    assert panel.locator(".wb-branch").count() == 3
    assert len(Image.open(picture(page, panel, "panel_with_branches")).getcolors(1 << 24)) > 200
    press(panel, "run")
    panel.locator("[data-rest='2']").click()
    panel.locator(".wb-branch").first.click()
    page.wait_for_function("() => document.querySelector('.wb-where').textContent.startsWith('run')")
    page.wait_for_function("() => document.querySelector('[data-branch=\"2\"]').textContent.includes('resting')")
    press(panel, "run")
    paused(page)
    assert page.outside == []
    assert page.errors == []


def test_keys_and_labels_serve_those_who_do_not_use_a_mouse(opened, page):
    panel = opened(f"'entropy_collapse', {SMALL}")
    slider = page.get_by_role("slider", name="lr: learning rate", exact=True)
    assert slider.get_attribute("aria-valuetext") == "0.003"
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('[data-knob=lr]').classList.contains('wb-changed')")
    assert float(slider.get_attribute("aria-valuetext")) > 0.003
    panel.locator("[data-press=step]").focus()
    page.keyboard.press("s")
    reach(page, 1)
    page.keyboard.press("r")
    reach(page, 25)
    page.keyboard.press("r")
    paused(page)
    unnamed = panel.evaluate(
        "root => [...root.querySelectorAll('input, select, button, textarea')]"
        ".filter(n => !n.labels?.length && !n.getAttribute('aria-label') && !n.textContent.trim()).map(n => n.outerHTML)"
    )
    assert unnamed == []
    panel.locator("[data-gauge=train_loss-curve] .wb-vega").first.focus()
    page.keyboard.press("Home")
    assert panel.locator("[data-gauge=train_loss-curve] .wb-readout").inner_text().startswith("step 0")
    panel.locator("[data-gauge=train_loss-curve] summary").click()
    panel.locator("[data-gauge=train_loss-curve] tbody tr").nth(3).wait_for()
    assert page.errors == []


def test_hovering_gives_values_and_zoom_survives_what_comes_in(opened, page):
    panel = opened(f"'entropy_collapse', {SMALL}, gauges=['train_loss-curve']")
    press(panel, "run")
    reach(page, 60)
    press(panel, "run")
    paused(page)
    frame = panel.locator("[data-gauge=train_loss-curve] .wb-vega canvas").first.bounding_box()
    page.mouse.move(frame["x"] + frame["width"] / 2, frame["y"] + 60)
    hovered = panel.locator(".wb-readout").first
    page.wait_for_function("() => !/step 6\\d/.test(document.querySelector('.wb-readout').textContent)")
    assert re.search(r"step \d+\s*run 1 \d", hovered.inner_text())
    at_the_left_edge = (
        "() => { const c = document.querySelector('.wb-vega canvas').getBoundingClientRect();"
        " document.querySelector('.wb-vega').dispatchEvent(new PointerEvent('pointermove', {clientX: c.left + 60, clientY: c.top + 60}));"
        " return Number(/step (\\d+)/.exec(document.querySelector('.wb-readout').textContent)[1]); }"
    )
    for _ in range(6):
        page.mouse.wheel(0, -240)
        page.wait_for_timeout(50)
    zoomed = page.evaluate(at_the_left_edge)
    press(panel, "run")
    reach(page, 120)
    assert zoomed > 5 and abs(page.evaluate(at_the_left_edge) - zoomed) <= 2
    assert page.errors == []


def test_the_warmup_offers_what_can_be_done_and_a_prediction_is_judged(opened, page):
    panel = opened(f"'entropy_collapse', lr=0.1, {SMALL}")
    press(panel, "run")
    reach(page, 20)
    press(panel, "run")
    paused(page)
    number = panel.get_by_label("warmup: steps of linear warmup, value")
    number.fill("10")
    number.press("Enter")
    panel.get_by_role("button", name="warm up again from here").click()
    panel.get_by_text("warmup_from").first.wait_for()
    panel.get_by_label("predict first").check()
    press(panel, "reset")
    press(panel, "run")
    panel.locator("[data-answer='0']").click()
    panel.get_by_text(re.compile("You were right|It was")).wait_for(timeout=60_000)
    screenshot(page, "panel_with_a_prediction")
    assert page.errors == []


def test_trouble_in_training_is_said_with_ways_to_go_on(opened, page):
    panel = opened(f"'entropy_collapse', {SMALL}")
    number = panel.get_by_label("lr: learning rate, value", exact=True)
    number.fill("-1")
    number.press("Enter")
    panel.get_by_text("Knob 'lr' is -1.0; it must be above 0.").wait_for()
    page.evaluate("code => jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestExecute({code}).done", BROKEN)
    press(panel, "run")
    panel.get_by_text("Training stopped at step 0").wait_for()
    assert "RuntimeError: the disk is on fire" in panel.locator(".wb-problem").inner_text()
    page.evaluate("code => jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestExecute({code}).done", MENDED)
    panel.get_by_role("button", name="Try again").click()
    reach(page, 5)
    assert page.errors == []


def test_a_replay_moves_at_once_and_shows_settings_side_by_side(opened, page):
    panel = opened("'lr_sensitivity', replay=True, lr=0.1, qk_norm=False")
    back(panel, 500)
    reach(page, 500)
    press(panel, "twin")
    panel.locator("[data-knob=qk_norm] input").check()
    page.wait_for_function("() => document.querySelectorAll('.wb-tree li').length === 2")
    page.wait_for_function("() => document.querySelector('.wb-vega').getAttribute('aria-label').includes('setting 2')")
    assert panel.locator("[data-knob=temperature] input").first.is_disabled()
    screenshot(page, "panel_with_a_replay")
    assert page.outside == []
    assert page.errors == []


def test_it_turns_dark_with_the_page_and_fits_a_narrow_one(opened, page):
    panel = opened(f"'entropy_collapse', {SMALL}", width=760)
    press(panel, "run")
    reach(page, 30)
    press(panel, "run")
    page.evaluate("() => jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    page.wait_for_function("() => document.querySelector('.wb-panel').dataset.dark === 'true'")
    page.wait_for_timeout(800)
    screenshot(page, "panel_in_the_dark")
    assert panel.evaluate("root => root.scrollWidth <= root.clientWidth + 1")
    page.evaluate("() => jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Light'})")
    page.wait_for_function("() => document.querySelector('.wb-panel').dataset.dark === 'false'")
    assert page.errors == []


def test_a_page_that_is_loaded_again_shows_the_panel_again(opened, page):
    panel = opened(f"'entropy_collapse', {SMALL}, gauges=['train_loss-curve']")
    press(panel, "step")
    reach(page, 1)
    page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    page.reload()
    panel = there(page)
    reach(page, 1)
    press(panel, "step")
    reach(page, 2)
    assert page.outside == []
