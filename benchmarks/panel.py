"""How the live panel behaves in real JupyterLab in headless Chromium while it trains: `python benchmarks/panel.py [--minutes 10]`.

Measures, on this machine: slider to effect, click on run to the first point drawn, new data to paint, the share of time that publishing
takes, and how the kernel's memory grows. Needs the `dev` extra and a Chromium. Clocks of browser and kernel are the same machine's.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser import FLAGS, JUPYTER, PROGRAMS, Server, open_notebook, run_all, served, write_notebook  # noqa: E402

LAB = ("-m", "jupyterlab", *JUPYTER, "--LabApp.expose_app_in_browser=True")
LINES, CHARTS = 8, 3
POINTS = 500
OPEN = "import os, time\nimport workbench as wb\npanel = wb.explore({study!r}, {given})\npanel"
LOG = """
carried_out = panel._player._carry_out
took = []
def logged(task):
    carried_out(task)
    if task.name == "set":
        took.append([task.arguments["lr"], time.time()])
panel._player._carry_out = logged
os.getpid()
"""
SAY = """
import json
here = panel.desk.source
print(json.dumps({"took": took, "publishing": panel.publishing, "step": here.step, "speed": panel._player.speed}))
"""
FIRST_POINT = """async () => {
    const label = () => document.querySelector(".wb-card .wb-vega")?.getAttribute("aria-label") ?? "";
    const began = performance.now();
    document.querySelector("[data-press=run]").click();
    while (!/at step/.test(label())) await new Promise(requestAnimationFrame);
    return performance.now() - began;
}"""
DRAG = """async ({moves, wait}) => {
    const slider = document.querySelector("[data-knob=lr] input[type=range]"), times = [];
    for (let i = 0; i < moves; i++) {
        slider.value = 150 + (i % 100);
        const at = (performance.timeOrigin + performance.now()) / 1000;
        slider.dispatchEvent(new Event("input", {bubbles: true}));
        times.push([Number(document.querySelector("[data-knob=lr] .wb-number").value), at]);
        await new Promise((go) => setTimeout(go, wait));
    }
    return times;
}"""


def main() -> None:
    """Measure, and print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long memory is watched; 0 leaves it out")
    parser.add_argument("--study", default="entropy_collapse")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, served(Path(home), "lab/tree", *LAB) as lab, sync_playwright() as playwright:
        program = next(path for path in map(shutil.which, PROGRAMS) if path)
        browser = playwright.chromium.launch(executable_path=program, headless=True, args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 1100})
        figures = {**_one_run(page, lab, given.study), **_many_points(page, lab, given.study)}
        if given.minutes:
            figures |= _memory(page, lab, given.study, given.minutes)
        browser.close()
    for name, value in figures.items():
        print(f"{name:62} {value}")


def _opened(page: Page, lab: Server, study: str, given: str) -> int:
    """Open a panel in a new notebook; the process of its kernel."""
    name = f"panel-{time.monotonic_ns()}.ipynb"
    write_notebook(lab.folder / name, OPEN.format(study=study, given=given), LOG)
    open_notebook(page, lab, name)
    cells = run_all(page)
    page.wait_for_selector(".wb-card canvas")
    time.sleep(3)  # charts are made, Vega is warm
    return int(cells[1]["outputs"][0]["data"]["text/plain"])


def _asked(page: Page) -> dict[str, Any]:
    """What the kernel says of the panel."""
    code = "async code => { const k = jupyterapp.shell.currentWidget.sessionContext.session.kernel; let said = ''; "
    code += (
        "const f = k.requestExecute({code}); f.onIOPub = m => { if (m.content.text) said += m.content.text; }; await f.done; return said; }"
    )
    return json.loads(page.evaluate(code, SAY))


def _one_run(page: Page, lab: Server, study: str) -> dict[str, str]:
    """The panel as it opens: one run, its usual charts."""
    _opened(page, lab, study, "lr=0.01")
    first = page.evaluate(FIRST_POINT)
    time.sleep(3)
    moved = page.evaluate(DRAG, {"moves": 150, "wait": 90})
    time.sleep(1)
    said = _asked(page)
    step = 1 / said["speed"]
    latency = 1000 * np.array(_paired(moved, said["took"]))
    return {
        "click on run to the first point drawn": f"{first:.0f} ms",
        "slider to effect, p50 / p95 / most of 150 moves": _ms(latency),
        "the same less one training step": _ms(latency - 1000 * step) + f" (a step took {1000 * step:.1f} ms)",
        "changes carried out of those sent": f"{len(said['took'])} of {len(moved)}",
        "share of busy time spent publishing, one run": f"{said['publishing']:.1%}",
    }


def _paired(moved: list[list[float]], took: list[list[float]]) -> list[float]:
    """Seconds from each move to its effect; of moves that were joined the last one has it."""
    waiting, found = list(moved), []
    for value, at in took:
        while waiting and abs(waiting[0][0] / value - 1) > 1e-3:
            waiting.pop(0)
        found.append(at - waiting.pop(0)[1])
    return found


def _many_points(page: Page, lab: Server, study: str) -> dict[str, str]:
    """Three charts of eight lines, once each line has 500 points."""
    curves = "['train_loss-curve', 'learning_rate-curve', 'gradient_norm_total-curve']"
    _opened(page, lab, study, f"lr=0.01, seeds={LINES}, width=16, depth=1, batch=4, gauges={curves}")
    page.get_by_label("seeds as a band").uncheck()
    page.click("[data-press=run]")
    while _asked(page)["step"] < POINTS:
        time.sleep(1)
    page.evaluate("() => { globalThis.workbenchPaints = []; }")
    time.sleep(15)
    paints = page.evaluate("() => globalThis.workbenchPaints")
    latency = np.array([paint["painted"] - 1000 * paint["at"] for paint in paints])
    said = _asked(page)
    rate = len({paint["sent"] for paint in paints}) / 15
    return {
        f"new data to paint, {CHARTS} charts of {LINES} x {POINTS} points, p50 / p95 / most": _ms(latency),
        "updates painted a second there": f"{rate:.1f}",
        "share of busy time spent publishing there": f"{said['publishing']:.1%} at {said['speed']:.0f} steps/s",
    }


def _memory(page: Page, lab: Server, study: str, minutes: float) -> dict[str, str]:
    """Resident memory of the kernel while one run trains."""
    kernel = psutil.Process(_opened(page, lab, study, "lr=0.003"))
    page.click("[data-press=run]")
    began, seen = time.monotonic(), []
    while time.monotonic() - began < 60 * minutes:
        time.sleep(5)
        seen.append(((time.monotonic() - began) / 60, kernel.memory_info().rss / 2**20))
    at, held = np.array(seen).T
    late = at >= 2
    slope = np.polyfit(at[late], held[late], 1)[0]
    said = _asked(page)
    return {
        f"kernel memory at minute 0, 2, {minutes:g}": f"{held[0]:.0f}, {held[late][0]:.0f}, {held[-1]:.0f} MB",
        "its growth a minute after minute 2": f"{slope:.2f} MB ({said['step']} steps in all)",
    }


def _ms(values: np.ndarray) -> str:
    return f"{np.percentile(values, 50):.0f} / {np.percentile(values, 95):.0f} / {values.max():.0f} ms"


if __name__ == "__main__":
    main()
