"""How many lanes fit: a stated memory budget, and what one lane's step needs."""

import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CGROUP = Path("/sys/fs/cgroup")
CONTAINER_FILES = (  # limit, use, and the line of a table that counts caches: of cgroups version 2, and 1
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)
SHARE = 0.5


def free_bytes(device: torch.device, cgroup: Path = CGROUP) -> int:
    """Memory that may be taken: the device's free memory, and no more than what a container's limit leaves."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(psutil.virtual_memory().available, _left_in_container(cgroup))


def default_budget(device: torch.device) -> int:
    """Half of what is free, in bytes."""
    return int(SHARE * free_bytes(device))


def chunk_size(runs: int, fitting: int) -> int:
    """Lanes to advance at once: as few chunks as there can be if no more than `fitting` lanes fit, and these alike in size."""
    return math.ceil(runs / math.ceil(runs / max(1, fitting)))


def peak_bytes(fn: Callable[[], Any]) -> int:
    """The largest number of bytes that tensors made by `fn` held at one moment."""
    with Meter() as meter:
        fn()
    return meter.peak


class Meter(TorchDispatchMode):
    """Counts, while it is on, tensor operations and the bytes of live storages that they created."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.now = self.peak = self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        out = func(*args, **(kwargs or {}))
        self.operations += 1
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                self._count(x.untyped_storage(), given)
        return out

    def _count(self, storage: Any, given: set[int]) -> None:
        mark = storage._cdata
        if mark in given or mark in self.live:
            return
        self.live[mark] = storage.nbytes()
        self.now += self.live[mark]
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, mark)

    def _forget(self, mark: int) -> None:
        self.now -= self.live.pop(mark, 0)


def _left_in_container(cgroup: Path) -> float:
    for limit, used, stat, cache in CONTAINER_FILES:
        try:
            left = int((cgroup / limit).read_text()) - int((cgroup / used).read_text())
        except (OSError, ValueError):
            continue
        return max(0, left + _cached(cgroup / stat, cache))
    return math.inf


def _cached(stat: Path, name: str) -> int:
    """Bytes of files that are kept in memory but given up when memory is asked for."""
    try:
        return next(int(line.split()[1]) for line in stat.read_text().splitlines() if line.startswith(f"{name} "))
    except (OSError, ValueError, IndexError, StopIteration):
        return 0
