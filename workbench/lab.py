"""The lab, JupyterLab on the tour, and the course, Voila on all notebooks: a clone's own, from a wheel copies that belong to the person."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import InputError
from .places import notebooks

FOLDER = Path("stability-notebooks")
TOUR = "00_tour.ipynb"

# Voila reads voila.json there. A failed cell shows its error, and the cells after it run. The policy stops requests for icons that Voila
# brings along anyway. A closed page could not end its kernel under the XSRF check. Notebook 7's extension does not load in Voila.
SETTINGS = Path(__file__).parent


def command() -> str:
    """What a person types to open the lab."""
    return "make lab" if _in_clone() else "workbench lab"


def prepare(folder: Path = FOLDER) -> Path:
    """The tour, ready to open: the clone's own, or a copy of the packaged one in `folder`, where no file is ever replaced."""
    if _in_clone():
        return _existing(notebooks() / TOUR)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is a file, so the notebooks cannot be copied there; move it away or start in another folder.")
    for source in _sources():
        target = folder / source.relative_to(notebooks())
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{target.name}.writing")
            shutil.copyfile(source, partial)
            partial.replace(target)
    return _existing(folder / TOUR)


def kept(folder: Path = FOLDER) -> list[Path]:
    """The files in `folder` that differ from the packaged ones of the same name; `prepare` leaves them as they are."""
    if _in_clone():
        return []
    pairs = [(folder / source.relative_to(notebooks()), source) for source in _sources()]
    return [target for target, source in pairs if target.is_file() and target.read_bytes() != source.read_bytes()]


def require(tool: str) -> None:
    """InputError where `tool`, JupyterLab or Voila, is not installed."""
    if importlib.util.find_spec(tool.lower()) is None:
        raise InputError(f"{tool} is not installed; install it with: pip install 'stability-workbench[lab]'")


def launch(tour: Path, options: Sequence[str] = ()) -> None:
    """Become JupyterLab on `tour`; does not return."""
    as_root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", *as_root, *options, str(tour)])


def serve(folder: Path, options: Sequence[str] = ()) -> None:
    """Become Voila on the notebooks of `folder`; does not return."""
    os.execv(sys.executable, [sys.executable, "-m", "voila", f"--Voila.config_file_paths={SETTINGS}", *options, str(folder)])


def _in_clone() -> bool:
    return not notebooks().is_relative_to(Path(__file__).parent)


def _sources() -> list[Path]:
    return sorted(path for path in notebooks().rglob("*") if path.is_file())


def _existing(tour: Path) -> Path:
    if not tour.is_file():
        raise InputError(f"There is no {str(tour)!r}; reinstall stability-workbench, or fetch the file anew.")
    return tour
