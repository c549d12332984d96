"""What was measured of a step on this machine, kept in a small file for each model, so that it is measured once."""

import hashlib
import inspect
import json
import os
import platform
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache as once
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..knobs import specs
from ..places import cache
from .cohorts import Cohort
from .step import Setting


@dataclass
class Measured:
    """Of one run: bytes at rest and in flight, and the seconds of an eager step in each layout.

    Of each part of a step: its tensor operations and, if it was compiled, the seconds it takes and those that it took to compile.
    """

    at_rest: int = 0
    in_flight: int = 0
    operations: dict[str, int] = field(default_factory=dict)
    eager: dict[str, float] = field(default_factory=dict)
    compiled: dict[str, float] = field(default_factory=dict)
    compiling: dict[str, float] = field(default_factory=dict)


def recall(cohort: Cohort, setting: Setting) -> Measured | None:
    """What is known of this cohort's step on this machine, if anything is; nothing of a study whose source cannot be read."""
    if not source_of(cohort):
        return None
    try:
        found = Measured(**json.loads(_path(cohort, setting).read_text(encoding="utf-8")))
        return found if _is_sound(found) else None
    except (OSError, ValueError, TypeError, AttributeError):  # not there, or not such a file: it is measured anew
        return None


def remember(cohort: Cohort, setting: Setting, measured: Measured) -> None:
    """Keep what was measured; where nothing can be written nothing is kept."""
    if not source_of(cohort):
        return
    path = _path(cohort, setting)
    partial = path.with_suffix(f".{os.getpid()}.writing")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(asdict(measured)), encoding="utf-8")
        partial.replace(path)


def _is_sound(found: Measured) -> bool:
    numbers = [
        found.at_rest,
        found.in_flight,
        *found.operations.values(),
        *found.eager.values(),
        *found.compiled.values(),
        *found.compiling.values(),
    ]
    return all(isinstance(x, (int, float)) and x >= 0 for x in numbers)


def _path(cohort: Cohort, setting: Setting) -> Path:
    study, knobs = cohort.study, cohort.knobs
    static = {name: getattr(knobs, name) for name, spec in specs(type(knobs)).items() if not spec.is_lane}
    parts = [study.title, *(getattr(part, "__qualname__", type(part).__qualname__) for part in (study.task, study.learner))]
    model = [study.module, source_of(cohort), parts, static, [(p.name, p.every) for p in cohort.probes]]
    where = [_machine(), str(setting.device), str(setting.dtype), setting.cores, __version__, torch.__version__]
    return cache() / "steps" / f"{hashlib.sha256(json.dumps([model, where]).encode()).hexdigest()[:32]}.json"


def source_of(cohort: Cohort) -> str:
    """The hash of the source of a study's module; empty for one that was written in a notebook, and may change unseen."""
    found = sys.modules.get(cohort.study.module)
    try:
        return hashlib.sha256(inspect.getsource(found).encode()).hexdigest() if found else ""
    except (OSError, TypeError):
        return ""


@once
def processor() -> str:
    """The name of the processor."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return name


@once
def _machine() -> list[Any]:
    return [processor(), os.cpu_count(), torch.cuda.get_device_name() if torch.cuda.is_available() else ""]
