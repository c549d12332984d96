"""Where a record comes from: study, source, data, versions, device, command, time."""

import hashlib
import inspect
import json
import platform
import shlex
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from .. import __version__
from ..study import Study
from . import devices
from .plans import Plan


def provenance(study: Study, ready: Plan) -> dict[str, Any]:
    """The attributes of a record that say where it comes from."""
    module = sys.modules.get(study.module)
    source = inspect.getsource(module) if module and getattr(module, "__file__", None) else ""
    versions = {"workbench": __version__, "torch": torch.__version__, "xarray": xr.__version__, "python": platform.python_version()}
    return {
        "identity": uuid.uuid4().hex,
        "study": study.name,
        "title": study.title,
        "source_sha256": hashlib.sha256(source.encode()).hexdigest(),
        "versions": json.dumps(versions),
        "device": devices.called(ready.setting.device),
        "dtype": str(ready.setting.dtype).removeprefix("torch."),
        "data_sha256": json.dumps(_data_hashes(ready)),
        "start": ready.start,
        "command": _command(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def computation(ready: Plan) -> dict[str, Any]:
    """The attributes of a record that say how its runs are computed, once this is chosen."""
    return {"layouts": ready.layouts, "threads": ready.workers * max(choice.threads for choice in ready.choices)}


def _data_hashes(ready: Plan) -> list[str]:
    hashed = getattr(ready.study.task, "data_hash", None)
    return list(dict.fromkeys(hashed(cohort.knobs) for cohort in ready.cohorts)) if hashed else []


def _command() -> str:
    name = Path(sys.argv[0]).name
    return shlex.join(["workbench", *sys.argv[1:]]) if name in ("__main__.py", "workbench") else "wb.run"
