"""Where and when something was measured."""

import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .. import __version__
from ..engine.measured import processor
from ..engine.threads import allowed

PACKAGES = ("torch", "jax", "numpy", "xarray")


def described() -> dict[str, Any]:
    """Processor, cores that may be taken, system, versions and date, as attributes."""
    return {
        "processor": processor(),
        "cores": allowed(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "workbench": __version__,
        **{package: found for package in PACKAGES if (found := _version(package))},
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"),
        "command": shlex.join(["workbench", *sys.argv[1:]]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def line(attrs: dict[str, Any]) -> str:
    """The same in a line."""
    versions = ", ".join(f"{package} {attrs[package]}" for package in PACKAGES if package in attrs)
    return f"{attrs['processor']}, {attrs['cores']} cores; Python {attrs['python']}, workbench {attrs['workbench']}, {versions}."


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
