"""What the tests in a browser share: servers of notebooks, a Chromium that reaches nothing but them, and what is done with a page."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import ROOT

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
MISSING = "There is no Chromium: install it (on Debian: apt-get install chromium), or name a program in STABILITY_WORKBENCH_CHROMIUM."
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
# What the frontends themselves say on their consoles.
KNOWN = (
    ("style-src", "fortawesome"),  # the icons that workbench/voila.json keeps Voila from asking for
    ("style-src", "font-awesome"),
    ("404", "favicon.ico"),  # Voila's list of notebooks has none
    ("reading 'schema'", "notebook_core"),  # the shortcuts of Notebook 7 ask for an extension before it is loaded
)
INSIDE = ("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:", "about:")
NOWHERE = "http://127.0.0.1:9"  # a proxy that does not answer

OWN = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "STABILITY_WORKBENCH_CACHE")
QUIET = '{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}'
JUPYTER = ("--no-browser", "--allow-root", "--ip=127.0.0.1", "--IdentityProvider.token=", "--ServerApp.root_dir=notebooks")
COURSE = "import sys; from pathlib import Path; from workbench import lab; lab.serve(Path('notebooks'), sys.argv[1:])"

CONNECTED = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.connectionStatus === 'connected'"
READY = "() => Promise.all([jupyterapp.shell.currentWidget.context.ready, jupyterapp.shell.currentWidget.sessionContext.ready])"
RUN_ALL = """async seconds => {
    const late = new Promise((_, fail) => setTimeout(() => fail(new Error(`The cells have not run after ${seconds} s.`)), 1000 * seconds));
    await Promise.race([jupyterapp.commands.execute("notebook:run-all-cells"), late]);
    return jupyterapp.shell.currentWidget.model.toJSON().cells;
}"""
END = "() => window.jupyterapp ? jupyterapp.serviceManager.sessions.shutdownAll() : window.dispatchEvent(new Event('beforeunload'))"


class Server(NamedTuple):
    """A server of the notebooks in `folder`; the page of one is `address` and its name."""

    address: str
    folder: Path


@pytest.fixture(scope="session")
def program() -> str:
    """The browser; without one a test is skipped, and fails where CI is set."""
    found = os.environ.get("STABILITY_WORKBENCH_CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if not found:
        (pytest.fail if "CI" in os.environ else pytest.skip)(MISSING)
    return found


@pytest.fixture(scope="module")
def chromium(program: str) -> Iterator[Any]:
    """One browser a file: its event loop would otherwise run on under the tests of other files."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """An empty page that is watched; at the end of the test a picture of it is left, and kernels are ended."""
    page = chromium.new_page(viewport={"width": 1400, "height": 900})
    watch(page)
    yield page
    screenshot(page, request.node.name)
    page.evaluate(END)
    page.close()


@pytest.fixture(scope="session")
def lab(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab on copies of the notebooks."""
    words = ("-m", "jupyterlab", *JUPYTER, "--LabApp.expose_app_in_browser=True")
    with served(tmp_path_factory.mktemp("lab"), "lab/tree", *words) as server:
        yield server


@pytest.fixture(scope="session")
def notebook7(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Notebook 7 on copies of the notebooks."""
    words = ("-m", "notebook", *JUPYTER, "--JupyterNotebookApp.expose_app_in_browser=True")
    with served(tmp_path_factory.mktemp("notebook7"), "notebooks", *words) as server:
        yield server


@pytest.fixture(scope="session")
def course(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Voila on copies of the notebooks, as `workbench course` starts it; a notebook that is added later has no kernel in advance."""
    with served(tmp_path_factory.mktemp("course"), "voila/render", "-c", COURSE, "--no-browser", "--Voila.ip=127.0.0.1") as server:
        yield server


@contextmanager
def served(home: Path, route: str, *words: str) -> Iterator[Server]:
    """A Python process with these words that serves `home`/notebooks, with settings, caches and logs of its own in `home`."""
    shutil.copytree(ROOT / "notebooks", home / "notebooks", ignore=shutil.ignore_patterns(".*"))
    own = {name: str(home / name.lower()) for name in OWN} | {"PYTHONPATH": str(ROOT)}
    offline = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NOWHERE)
    page_config = Path(own["JUPYTER_CONFIG_DIR"]) / "labconfig" / "page_config.json"
    page_config.parent.mkdir(parents=True)
    page_config.write_text(QUIET, encoding="utf-8")
    port = free_port()
    with (home / "log").open("wb") as log:
        command = [sys.executable, *words, f"--port={port}"]
        process = subprocess.Popen(command, cwd=home, env=os.environ | own | offline, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait(port, process, home / "log")
        yield Server(f"http://127.0.0.1:{port}/{route}", home / "notebooks")
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait(port: int, process: subprocess.Popen, log: Path, seconds: float = 60.0) -> None:
    """Until the process listens."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"The server does not listen:\n{log.read_text(errors='replace')[-2000:]}")


def watch(page: Any) -> None:
    """Collects in `page.outside` what is asked of the network, in `page.errors` what fails in the page or is an error on its console."""
    page.outside, page.errors = [], []

    def asked(request: Any) -> None:
        if not request.url.startswith(INSIDE):
            page.outside.append(request.url)

    def unasked(request: Any) -> None:
        if request.failure == "csp":  # the page's own policy stopped it
            page.outside.remove(request.url)

    def said(text: str) -> None:
        if not any(all(word in text for word in words) for words in KNOWN):
            page.errors.append(text)

    page.on("request", asked)
    page.on("websocket", asked)
    page.on("requestfailed", unasked)
    page.on("pageerror", lambda error: said(error.stack or str(error)))
    page.on("console", lambda message: said(f"{message.text} ({message.location['url']})") if message.type == "error" else None)


def write_notebook(path: Path, *sources: str) -> None:
    """A notebook of these code cells."""
    import nbformat

    spec = dict(name="python3", display_name="Python 3 (ipykernel)", language="python")
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(metadata=dict(kernelspec=spec), cells=cells), path)


def open_notebook(page: Any, server: Server, name: str) -> None:
    """Opens a notebook in JupyterLab or Notebook 7 and waits for its kernel."""
    page.goto(f"{server.address}/{name}?reset")
    page.wait_for_function(CONNECTED, timeout=60_000)
    page.evaluate(READY)


def run_all(page: Any, seconds: float = 300.0) -> list[dict[str, Any]]:
    """The cells of the open notebook after all of them have run, or all before one that fails."""
    return page.evaluate(RUN_ALL, seconds)


def there(page: Any) -> Any:
    """The live panel of the page, once its first chart has been drawn."""
    panel = page.locator(".wb-panel")
    panel.locator(".wb-card canvas").first.wait_for(timeout=60_000)
    return panel


def press(panel: Any, name: str) -> None:
    """Clicks on a button of the panel."""
    panel.locator(f"[data-press={name}]").click()


def reach(page: Any, step: int) -> None:
    """Waits until the panel says that it has come to a step."""
    there = "n => Number(/step (\\d+)/.exec(document.querySelector('.wb-where').textContent)?.[1]) >= n"
    page.wait_for_function(there, arg=step, timeout=60_000)


def screenshot(page: Any, name: str) -> Path:
    """A picture of what is seen of the page, in the folder that STABILITY_WORKBENCH_ARTEFACTS names, else in build/screenshots."""
    folder = Path(os.environ.get("STABILITY_WORKBENCH_ARTEFACTS") or ROOT / "build" / "screenshots")
    path = folder / f"{name}.png"
    page.screenshot(path=path)
    return path
