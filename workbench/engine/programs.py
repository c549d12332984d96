"""Compiled steps: the step of some lanes, traced once as a graph of plain tensor operations and compiled by Inductor."""

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map, tree_unflatten

from ..knobs import specs
from ..places import cache
from ..probe import CLOCKS, Probe
from ..schema import due
from ..study import Study
from .cohorts import Cohort
from .lanes import Vectorised
from .step import Setting, phase_at
from .threads import ONE_AT_A_TIME

MOST = 5
KEPT = 64
INDUCTOR_CACHE = "TORCHINDUCTOR_CACHE_DIR"
# A program with its entry in C++ lets go of Python's lock, so that several threads step at once.
OPTIONS: Mapping[str, Mapping[str, Any]] = {"cpu": {"cpp_wrapper": True}}


class Part(NamedTuple):
    """What is compiled as one program: of clock 1 the update and all that is measured at every step, else what that clock measures."""

    phase: str
    clock: int

    def __str__(self) -> str:
        return f"{self.phase}, every {self.clock}"

    @property
    def updates(self) -> bool:
        """Whether it makes the update."""
        return self.clock == 1

    def probes(self, cohort: Cohort) -> tuple[Probe, ...]:
        """The probes of the moment that it measures."""
        return tuple(p for p in cohort.probes if p.on == "moment" and p.every == self.clock)


def parts_at(cohort: Cohort, step: int, steps: int) -> list[Part]:
    """The parts that make up update `step` of a run of `steps`: the update first, then the clocks that fire and have a probe."""
    phase, fires = phase_at(cohort, step, steps), due(step, steps)
    return [Part(phase, 1), *(Part(phase, c) for c in CLOCKS[1:] if c in fires and Part(phase, c).probes(cohort))]


class Program:
    """A compiled part of the step of a fixed number of lanes; `fn(step, state, batch, *per_lane)` is the step of one.

    It is made from an example of what it will be called with; `shared` says whether all lanes always share one batch.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        step: Tensor,
        states: Any,
        batch: Any,
        one_batch: bool,
        *per_lane: Any,
        updates: bool,
        shared: bool,
        threads: int,
    ) -> None:
        self.shared, self.lanes = shared, len(tree_leaves(per_lane)[0])
        example = _contiguous((step, states, self._each(batch, one_batch), per_lane))
        graph, self.returns = trace(fn, *example, updates=updates, shared=shared)
        options = {**OPTIONS.get(step.device.type, {}), "cpp.threads": threads}
        warnings.filterwarnings("ignore", module=r"torch\.")  # of its own workings; for good, as other threads have filters too
        self.call = inductor().compile(graph, tree_leaves(example), options=options)

    def __call__(self, step: Tensor, states: Any, batch: Any, one_batch: bool, *per_lane: Any) -> Any:
        """What `Vectorised.map` gives for these, if it makes the update; else the measured values alone."""
        given = tree_leaves((step, states, _contiguous(self._each(batch, one_batch)), per_lane))
        return tree_unflatten(self.call(*given), self.returns)

    def _each(self, batch: Any, one_batch: bool) -> Any:
        return tree_map(lambda leaf: leaf.expand(self.lanes, *leaf.shape), batch) if one_batch and not self.shared else batch


def trace(
    fn: Callable[..., Any], step: Tensor, states: Any, batch: Any, per_lane: Sequence[Any], *, updates: bool, shared: bool
) -> tuple[GraphModule, TreeSpec]:
    """The step of some lanes as one graph over flat lists of tensors, and the structure of what it returns.

    What a part does not need is left out: one that only measures attention makes no backward pass. torch raises where the step
    depends on numbers that are known only while it runs.
    """
    example, spec = tree_flatten((step, states, batch, per_lane))
    returns: list[TreeSpec] = []

    def flat(*leaves: Tensor) -> list[Tensor]:
        step, states, batch, per_lane = tree_unflatten(leaves, spec)
        new, (seen, finite) = Vectorised.map(partial(fn, step), states, batch, shared, *per_lane)
        found, structure = tree_flatten((new, (seen, finite)) if updates else seen)
        returns.append(structure)
        return [leaf.contiguous() for leaf in found]

    with ONE_AT_A_TIME, torch.no_grad():
        graph = make_fx(flat, tracing_mode="fake", _allow_non_fake_inputs=True)(*example)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph, returns[-1]


class Programs:
    """The compiled parts of a cohort's step, `lanes` at a time: in `ready` those of `parts` that are there."""

    def __init__(self, cohort: Cohort, setting: Setting, parts: Sequence[Part], lanes: int, threads: int, shared: bool) -> None:
        self.cohort, self.parts, self.threads, self.shared, self.failed = cohort, tuple(parts), threads, shared, ""
        static = tuple(getattr(cohort.knobs, name) for name, spec in specs(type(cohort.knobs)).items() if not spec.is_lane)
        probes = tuple((p.name, p.every) for p in cohort.probes)
        self.mark = (id(cohort.study), static, probes, str(setting.device), setting.dtype, lanes, threads, shared)
        # What this process has compiled before is there at once.
        self.ready = {part: _made[self.mark, part][1] for part in self.parts if (self.mark, part) in _made}

    @property
    def missing(self) -> tuple[Part, ...]:
        """The parts that are not there yet."""
        return tuple(part for part in self.parts if part not in self.ready)

    def make(self, example: Callable[[Part], tuple[Any, ...]]) -> Iterator[tuple[Part, Program, float]]:
        """Compile what is missing, from the arguments that `example` gives for each part; yields it with the seconds it took.

        Where it cannot be done `failed` says why, and the steps stay as they are.
        """
        for part in self.missing:
            began = time.perf_counter()
            try:
                program = Program(*example(part), updates=part.updates, shared=self.shared, threads=self.threads)
            except Exception as error:  # Inductor and the C++ compiler behind it fail in many ways; the same steps run without them
                self.failed = _reason(error)
                return
            self._keep(part, program)
            yield part, program, time.perf_counter() - began

    def _keep(self, part: Part, program: Program) -> None:
        self.ready[part] = program
        _made[self.mark, part] = self.cohort.study, program  # held on to, so that no other study can get its id
        while len(_made) > KEPT:
            _made.pop(next(iter(_made)))


def _contiguous(tree: Any) -> Any:
    return tree_map(Tensor.contiguous, tree)


def inductor() -> Any:
    """Inductor, its cache in the workbench's own, unless another place was chosen for it."""
    import torch._inductor.cpp_builder
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    if os.environ.get(INDUCTOR_CACHE) in (None, default_cache_dir()):
        os.environ[INDUCTOR_CACHE] = str(cache() / "inductor")
    logging.getLogger("torch._inductor.ir").setLevel(logging.ERROR)  # it warns of every operation that its C++ calls through Python
    return torch._inductor


def can_compile(device: torch.device) -> bool:
    """Whether steps can be compiled for this device in this process: there is a compiler, and it has not failed yet."""
    if device.type == "cpu" and not _given_up:
        try:
            inductor().cpp_builder.get_cpp_compiler()
        except Exception as error:  # what it raises where there is none differs between versions of torch
            give_up(_reason(error))
    return not _given_up


def give_up(reason: str) -> None:
    """Compile nothing more in this process, and say so once."""
    if not _given_up:
        _given_up.append(reason)
        warnings.warn(f"Steps cannot be compiled here ({reason}); runs go on without, and take longer.", stacklevel=2)


def _reason(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


_given_up: list[str] = []
_made: dict[Any, tuple[Study, Program]] = {}
