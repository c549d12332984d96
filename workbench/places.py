"""Where files lie: shipped records and notebooks beside the package in a clone, inside it when installed from a wheel; the cache."""

import os
from pathlib import Path

CACHE_VARIABLE = "STABILITY_WORKBENCH_CACHE"

_PACKAGE = Path(__file__).parent


def datasets() -> Path:
    """The folder of shipped records, of MANIFEST.json and of `inputs/`."""
    return _place("datasets")


def notebooks() -> Path:
    """The folder of the notebooks."""
    return _place("notebooks")


def cache() -> Path:
    """The folder of what was measured and compiled on this machine; it may be deleted at any time."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("stability-workbench", appauthor=False)


def _place(name: str) -> Path:
    # pyproject.toml tells a clone from site-packages, where another distribution may own a folder called `datasets`.
    clone = _PACKAGE.parent
    return clone / name if (clone / "pyproject.toml").is_file() else _PACKAGE / f"_{name}"
