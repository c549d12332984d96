"""Kept states as safetensors files beside a record: one file a step, one entry a leaf and run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_unflatten

from ..errors import InputError


def folder_of(path: str | Path) -> Path:
    """The folder of a record's checkpoints."""
    path = Path(path)
    return path.with_name(f"{path.name.removesuffix('.partial.zarr')}.checkpoints")


def check(state: Any) -> None:
    """InputError for a state that cannot be kept because it holds more than tensors."""
    for where, leaf in tree_flatten_with_path(state)[0]:
        if not isinstance(leaf, torch.Tensor):
            raise InputError(
                f"This learner's state holds a {type(leaf).__name__} at {keystr(where)}, and only tensors can be kept; run it without "
                "keep= (--keep). Forks then train it again from the start."
            )


def save_states(folder: Path, step: int, states: Mapping[int, Any], identity: str) -> Path:
    """Write the states of some runs before update `step`; several calls for one step write several files.

    `identity` is that of the record they belong to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    leaves = {f"{run}|{keystr(path)}": leaf for run, state in states.items() for path, leaf in tree_flatten_with_path(state)[0]}
    leaves = {name: leaf.clone(memory_format=torch.contiguous_format) for name, leaf in leaves.items()}
    target = folder / f"step_{step:08d}_run_{min(states):06d}.safetensors"
    partial = target.with_suffix(".writing")
    save_file(leaves, partial, metadata={"runs": ",".join(map(str, states)), "identity": identity})
    partial.replace(target)
    return target


def nearest(folder: Path, run: int, step: int, identity: str) -> tuple[int, Path] | None:
    """The latest kept step not after `step` that holds this run of the record of this identity, and its file."""
    found: Sequence[tuple[int, Path]] = sorted(
        ((int(path.name.split("_")[1]), path) for path in folder.glob("step_*_run_*.safetensors")), reverse=True
    )
    return next(((at, path) for at, path in found if at <= step and run in _runs(path, identity)), None)


def load_state(path: Path, run: int, like: Any) -> Any:
    """The kept state of a run, in the structure of `like`; InputError if the file does not hold such a state."""
    expected, spec = tree_flatten_with_path(like)
    leaves = []
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            for where, leaf in expected:
                name = f"{run}|{keystr(where)}"
                tensor = file.get_tensor(name) if name in names else None
                if tensor is None or tensor.shape != leaf.shape:
                    raise InputError(
                        f"Checkpoint {path.name!r} does not fit the study: leaf {keystr(where)!r} is missing or of another shape."
                    )
                leaves.append(tensor.to(leaf))
    except (SafetensorError, OSError) as error:
        raise InputError(f"Checkpoint {path.name!r} is damaged ({error}); delete it to re-run from an earlier one.") from error
    return tree_unflatten(leaves, spec)


def _runs(path: Path, identity: str) -> set[int]:
    try:
        with safe_open(path, framework="pt") as file:
            known = file.metadata() or {}
        return {int(run) for run in known.get("runs", "").split(",") if run} if known.get("identity") == identity else set()
    except (SafetensorError, OSError):
        return set()
