"""What the panel says: of changes, of what a switch kept, of branches."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..history import Track
from ..knobs import Spec
from ..progress import counted
from ..schema import Change
from ..views.theme import word

if TYPE_CHECKING:
    from ..engine.adapting import Carried

MOST = 3


def changed(changes: Sequence[Change]) -> str:
    """`lr 0.003 → 0.1, qk_norm false → true`."""
    return ", ".join(f"{c.knob} {word(c.old)} → {word(c.new)}" for c in changes)


def of_switch(carried: "Carried") -> str:
    """What became of weights and optimizer state when a run went on with other static knobs."""
    kept, new, gone, rewritten = (_sorted(names) for names in (carried.kept, carried.new, carried.gone, carried.changed))
    said = [
        f"Kept: {counted(len(kept['params']), 'weight tensor')} as they were"
        + (" with their optimizer state." if kept["optimizer"] else ".")
    ]
    if rewritten["params"]:
        said.append(f"Rewritten, so that the net still computes the same: {_named(rewritten['params'])}.")
    if new["params"]:
        said.append(f"New, starting neutral: {_named(new['params'])}.")
    if gone["params"]:
        said.append(f"Gone: {_named(gone['params'])}.")
    if new["optimizer"]:
        said.append("The optimizer state starts anew." if not kept["optimizer"] else "The optimizer state of what is new starts at zero.")
    return " ".join(said)


def _sorted(names: Sequence[str]) -> dict[str, list[str]]:
    """Tensor names by the part of the state that they belong to."""
    found: dict[str, list[str]] = {"params": [], "buffers": [], "optimizer": []}
    for name in names:
        first, *rest = re.findall(r"\['?([^'\]]+)'?\]", name)
        found.setdefault(first, []).append(".".join(rest))
    return found


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST])
    return shown + (f" and {len(names) - MOST} more" if len(names) > MOST else "")


def of_branch(track: Track, known: Mapping[str, Spec]) -> str:
    """What sets a branch apart: of a beginning the knobs that are not at their default, of a fork what was changed."""
    own = [c for c in track.changes if c.step >= track.start]
    if track.parent is None:
        said = [f"{name} {word(track.first[name])}" for name, spec in known.items() if track.first[name] != spec.default]
        return ", ".join([*said, *_later(own)]) or "default knobs"
    at_once = [c for c in own if c.step == track.start]
    later = [c for c in own if c.step > track.start]
    return ", ".join(filter(None, [changed(at_once), *_later(later)])) or "nothing changed yet"


def _later(changes: Sequence[Change]) -> list[str]:
    """The last changes of a branch; of each knob the latest value and when it got it."""
    latest = {c.knob: c for c in changes}
    return [f"{c.knob} {word(c.new)} from {c.step}" for c in latest.values()]


def of_memory(states: int, used: int, budget: int) -> str:
    """How many states are kept, and in how much of the memory that they may take."""
    return f"{counted(states, 'state')} kept, {used / 2**20:.1f} of {budget / 2**20:.0f} MB"
