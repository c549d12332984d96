"""Tasks: a batch is a function of its key and of the knobs that the task says it reads."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_map

from .. import noise
from ..engine.cohorts import Restricted
from ..knobs import Knobs, specs
from .case import Case
from .comparing import difference

SEEDS = (0, 1)


def batches(case: Case) -> Iterator[str]:
    """The task of a study, with the knobs of each of its designs."""
    learner = case.study.learner
    for design in case.designs:
        knobs = case.study.knobs(**{name: design[0][name] for name in specs(case.study.knobs)})
        for check in DRAWN:
            if getattr(learner, "lanes", True) or check is not maps:
                yield from check(case.study.task, knobs)


def repeats(task: Any, knobs: Knobs) -> Iterator[str]:
    """Equal keys give equal batches, and torch's generator is left alone."""
    before = torch.get_rng_state()
    first, again = drawn(task, knobs, SEEDS[0]), drawn(task, knobs, SEEDS[0])
    if difference(first, again):
        yield f"{said(task)} gives different batches for one key; draw with workbench.noise and that key only."
    if not torch.equal(before, torch.get_rng_state()):
        yield f"{said(task)} draws from torch's generator; use workbench.noise with its key."


def varies(task: Any, knobs: Knobs) -> Iterator[str]:
    """Different seeds give different batches, unless the task says why not."""
    if not getattr(task, "constant", "") and not difference(*(drawn(task, knobs, seed) for seed in SEEDS)):
        yield f'{said(task)} gives the same batch for every seed; draw it with its key, or set its attribute constant = "the reason".'


def reads(task: Any, knobs: Knobs) -> Iterator[str]:
    """Only knobs that exist are said to be read."""
    for name in getattr(task, "reads", ()):
        if name not in specs(type(knobs)):
            yield f"{said(task)} says that it reads {name!r}, which is no knob of {type(knobs).__name__}; take it out of reads."


def maps(task: Any, knobs: Knobs) -> Iterator[str]:
    """Drawing for several runs at once gives what drawing for each gives."""
    if not getattr(task, "lanes", True):
        if not getattr(task, "reason", ""):
            yield f'{said(task)} has lanes = False without a reason; give it reason = "...".'
        return
    known = specs(type(knobs))
    lanes = [name for name in getattr(task, "reads", ()) if name in known and known[name].is_lane]
    values = {name: torch.tensor([float(getattr(knobs, name))] * len(SEEDS)) for name in lanes}
    at_once = torch.vmap(lambda key, own: draw(task, knobs, key, own))(noise.key_of(torch.tensor(SEEDS)), values)
    for i, seed in enumerate(SEEDS):
        one = draw(task, knobs, noise.key_of(seed), {name: value[i] for name, value in values.items()})
        if difference(one, tree_map(lambda leaf, i=i: leaf[i], at_once), 1e-5):
            yield f"{said(task)} gives other batches under vmap than for one run; keep to operations of one run that vmap can map."


def draw(task: Any, knobs: Knobs, key: torch.Tensor, lanes: Mapping[str, Any]) -> Any:
    """A batch, of knobs that raise if one is read that the task does not name."""
    return task(Restricted(knobs.filled(lanes), frozenset(getattr(task, "reads", ())), said(task), "name it in the task's reads"), key)


def drawn(task: Any, knobs: Knobs, seed: int) -> Any:
    """A batch of a seed."""
    return draw(task, knobs, noise.key_of(seed), {})


def said(task: Any) -> str:
    """A task by name."""
    return f"Task {getattr(task, '__name__', type(task).__name__)!r}"


DRAWN = (reads, repeats, varies, maps)
