"""Where the shipped records and notebooks lie: beside the package in a clone, inside it when installed from a wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def datasets() -> Path:
    """The folder of shipped records, of MANIFEST.json and of `inputs/`."""
    return _place("datasets")


def notebooks() -> Path:
    """The folder of the notebooks."""
    return _place("notebooks")


def _place(name: str) -> Path:
    # pyproject.toml tells a clone from site-packages, where another distribution may own a folder called `datasets`.
    clone = _PACKAGE.parent
    return clone / name if (clone / "pyproject.toml").is_file() else _PACKAGE / f"_{name}"
