"""What holds for every test: one thread a process, fixed seeds, its own empty working folder."""

import ast
import os
import random
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]

pytest_plugins = ("browser",)  # tests/browser.py: the servers and the browser

# Before torch is imported: sums then add up in one order, and parallel test processes do not fight for cores.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
# What is measured of a step is a test's own, or a faulty step of one test would count in the next; what is compiled may be shared.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(ROOT / ".pytest_cache" / "inductor"))

# Absent where only the core dependencies are installed (`make test-oldest`); importing one of these marks a test file as not core.
EXTRAS = {"altair", "anywidget", "build", "ipywidgets", "jinja2", "jupyterlab", "nbclient", "nbformat", "vl_convert"}
EXTRAS |= {"browser", "notebook", "playwright", "voila"}  # tests/browser.py uses the other three
EXTRAS |= {"gfloat", "pytorch_optimizer"}
EXTRAS |= {f"workbench.{name}" for name in ("panel", "report", "studies", "testing", "views")}
NOT_CORE = {"test_packaging.py", "test_style.py"}  # they call the tools of the dev extra


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--core", action="store_true", help="run only what needs no extra")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if not config.getoption("--core") or collection_path.suffix != ".py":
        return None
    return collection_path.name in NOT_CORE or not EXTRAS.isdisjoint(imports(collection_path)) or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--core"):
        items[:] = [item for item in items if not item.get_closest_marker("extras")]


def imports(path: Path) -> set[str]:
    """The dotted names that a file of this project imports, and each package above them."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            anchor = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join([*anchor, *filter(None, [node.module])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    words = [name.split(".") for name in names]
    return {".".join(parts[: n + 1]) for parts in words for n in range(len(parts))}


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STABILITY_WORKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    # A shell that starts a job in the background makes it ignore Ctrl-C, which the tests of interrupts would inherit.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
