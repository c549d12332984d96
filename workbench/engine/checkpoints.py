"""Kept states as safetensors files beside a record: one file a step and chunk, one entry a leaf and run."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_unflatten

from ..errors import InputError

LATEST = "latest"


def folder_of(path: str | Path) -> Path:
    """The folder of a record's checkpoints."""
    path = Path(path)
    return path.with_name(f"{path.name.removesuffix('.partial.zarr')}.checkpoints")


def check(state: Any) -> None:
    """InputError for a state that cannot be kept because it holds more than tensors."""
    if where := _no_tensor(state):
        raise InputError(
            f"This learner's state holds a {where}, and only tensors can be kept; run it without "
            "keep= (--keep). Forks then train it again from the start."
        )


def can_be_kept(state: Any) -> bool:
    """Whether a state holds nothing but tensors."""
    return not _no_tensor(state)


def save_states(folder: Path, step: int, states: Mapping[int, Any], identity: str, *, latest: bool = False) -> Path:
    """Write the states of some runs before update `step`; several calls for one step write several files.

    `identity` is that of the record they belong to. The `latest` states of these runs replace those that were the latest before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    leaves = {f"{run}|{keystr(path)}": leaf for run, state in states.items() for path, leaf in tree_flatten_with_path(state)[0]}
    leaves = {name: leaf.clone(memory_format=torch.contiguous_format) for name, leaf in leaves.items()}
    target = folder / f"{LATEST if latest else f'step_{step:08d}'}_run_{min(states):06d}.safetensors"
    partial = target.with_suffix(".writing")
    save_file(leaves, partial, metadata={"step": str(step), "runs": ",".join(map(str, states)), "identity": identity})
    partial.replace(target)
    return target


def forget_latest(folder: Path, runs: Sequence[int]) -> None:
    """Delete the latest states of some runs, and the folder if nothing is left in it."""
    (folder / f"{LATEST}_run_{min(runs):06d}.safetensors").unlink(missing_ok=True)
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()


def nearest(folder: Path, runs: Sequence[int], step: int, identity: str) -> tuple[int, Path] | None:
    """The latest kept step not after `step` that holds these runs of the record of this identity, and its file."""
    found = [(at, path) for path in folder.glob("*_run_*.safetensors") for at, held in _held(path, identity) if held >= set(runs)]
    return max(((at, path) for at, path in found if at <= step), default=None)


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


def _no_tensor(state: Any) -> str:
    found = ((where, leaf) for where, leaf in tree_flatten_with_path(state)[0] if not isinstance(leaf, torch.Tensor))
    return next((f"{type(leaf).__name__} at {keystr(where)}" for where, leaf in found), "")


def _held(path: Path, identity: str) -> Iterator[tuple[int, set[int]]]:
    """The step of a file and its runs; nothing for a damaged file, or one of another record."""
    try:
        with safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
        if said.get("identity") == identity:
            yield int(said["step"]), {int(run) for run in said["runs"].split(",")}
    except (SafetensorError, OSError, KeyError, ValueError):
        return
