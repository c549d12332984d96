"""Compiled steps: the same numbers as eager ones, whatever is measured beside them; and what happens where nothing can be compiled."""

import json
import signal
import sys
import threading
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from learners_for_tests import convnet, perceptron, policy, student
from learners_for_tests import transformer as decoder
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves

import workbench as wb
from workbench import noise
from workbench.engine import Kept, plan, programs, stream
from workbench.engine.choice import choose
from workbench.engine.programs import MOST, Part, parts_at
from workbench.engine.stream import _compile
from workbench.numerics import Bits, format_of, round_to
from workbench.probe import probe
from workbench.schema import Progress, Slab
from workbench.study import Phase

AXES = dict(lr=[0.01, 0.03, 0.1], seed=[0, 1])


def rows_of(study, **axes):
    return wb.grid(**axes).rows(study.knobs)


def final_states(ready):
    return {
        run: state
        for item in stream(ready, until=ready.setting.steps)
        if isinstance(item, Kept)
        for run, state in zip(item.runs, item.states, strict=True)
    }


def assert_close(a, b, **tolerance):
    for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True):
        torch.testing.assert_close(x, y, **tolerance)


@pytest.mark.parametrize(
    ("study", "axes"),
    [
        (decoder, AXES),
        (decoder, dict(lr=[0.01, 0.1], sigma_reparam=True, z_loss=1e-3, clip=1.0)),
        (perceptron, AXES | dict(optimizer="sgd")),
        (convnet, AXES),
        (student, AXES | dict(width=2)),
        (policy, AXES),
    ],
)
def test_compiled_runs_equal_eager_ones_in_float64(study, axes):
    rows, steps = rows_of(study, **axes), 12
    eager, compiled = (plan(study, rows, steps, mode=mode, dtype=torch.float64) for mode in ("lanes", "compiled"))
    ours, theirs = final_states(eager), final_states(compiled)
    assert all(choice.compiled for choice in compiled.choices)
    assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    records = [wb.run(study, mode=mode, dtype="float64", steps=steps, **axes) for mode in ("lanes", "compiled")]
    for name in (p.name for p in study.probes):
        np.testing.assert_allclose(*(record.wb[name].values for record in records), rtol=1e-6, atol=1e-9)
    assert [entry["compiled"] != [] for entry in json.loads(records[1].attrs["layouts"])] == [True] * len(compiled.cohorts)


def test_rounding_gives_the_same_bits_where_it_is_compiled():
    x = torch.cat([torch.logspace(-45, 38, 4000), torch.tensor([0.0, torch.inf, torch.nan, 448.0, 464.0, 480.0])])
    x = torch.cat([x, -x]).float().repeat(3, 1)
    formats = torch.tensor([[5.0, 8.0, 4.0], [10.0, 7.0, 3.0]])
    keys = noise.key_of(torch.arange(3))
    named = [("bf16", "truncate", "none"), ("e4m3", "nearest", "block"), ("int8", "stochastic", "tensor"), ("e5m2", "stochastic", "none")]

    def several(x, e, m, key):
        ways = [(format_of(name), dict(rounding=rounding, scaling=scaling)) for name, rounding, scaling in named]
        return [round_to(x, fmt, key=key, **how) for fmt, how in [(Bits(e, m), {}), *ways]]

    fn = torch.vmap(several)
    traced = make_fx(fn, tracing_mode="fake")(x, *formats, keys)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch._inductor.compile(traced, [x, *formats, keys])(x, *formats, keys)
    for ours, eager in zip(compiled, fn(x, *formats, keys), strict=True):
        same = (ours.view(torch.int32) == eager.view(torch.int32)) | (ours.isnan() & eager.isnan())
        assert same.all()


def test_lanes_that_fill_up_a_program_change_nothing_and_are_not_seen(monkeypatch):
    monkeypatch.setattr(sys.modules["workbench.engine.choice"], "SIZES", (4,))
    settings = dict(lr=[0.01, 0.02, 0.03, 0.05, 0.1], steps=12, dtype="float64")
    record = wb.run(perceptron, mode="compiled", **settings)
    assert json.loads(record.attrs["layouts"])[0]["together"] == 4 and record.sizes["run"] == 5
    np.testing.assert_allclose(record.wb["train_loss"], wb.run(perceptron, mode="lanes", **settings).wb["train_loss"], rtol=1e-6)


def test_what_is_measured_does_not_change_a_compiled_run():
    """Not in one bit, also where the measuring itself is not compiled."""

    @probe("tensor", every=10)
    def squares(m):
        """Sum of squares"""
        return torch.stack([g.square().sum() for g in m.grads.values()])

    rows = rows_of(perceptron, **AXES)
    few, more = (
        plan(replace(perceptron, probes=probes), rows, 25, mode="compiled")
        for probes in (perceptron.probes[:1], (*perceptron.probes, squares))
    )
    states = final_states(few)
    choose(more)
    more.choices = [replace(choice, compiled=choice.compiled[:1]) for choice in more.choices]
    for x, y in zip(tree_leaves(states), tree_leaves(final_states(more)), strict=True):
        assert torch.equal(x, y)


def test_a_diverged_run_leaves_its_compiled_neighbours_alone():
    settings = dict(steps=30, mode="compiled")
    record = wb.run(perceptron, lr=[0.01, 1e30, 0.02], seed=0, **settings)
    assert np.isfinite(record["events"]["diverged_step"].values).tolist() == [False, True, False]
    calm = wb.run(perceptron, lr=[0.01, 0.03, 0.02], seed=0, **settings)
    for run in (0, 2):
        np.testing.assert_array_equal(record.wb["train_loss"][run], calm.wb["train_loss"][run])


def test_the_parts_of_a_step():
    ready = plan(decoder, rows_of(decoder), 25)
    (cohort,) = ready.cohorts
    assert [parts_at(cohort, step, 25) for step in (1, 10, 25)] == [
        [Part("train", 1)],
        [Part("train", 1), Part("train", 10)],
        [Part("train", 1), Part("train", 10)],
    ]
    assert [p.name for p in Part("train", 10).probes(cohort)] == ["weight_norm_total", "attention_entropy"]
    ready = plan(student, rows_of(student), 30)
    assert [parts_at(ready.cohorts[0], step, 30)[0].phase for step in (0, 9, 10, 29, 30)] == [
        "first",
        "first",
        "second",
        "second",
        "second",
    ]


def test_at_most_five_parts_of_a_cohort_are_compiled():
    many = replace(perceptron, phases=tuple(Phase(str(i)) for i in range(8)))
    ready = plan(many, rows_of(many), 80, mode="compiled")
    choose(ready)
    assert len(ready.choices[0].compiled) == MOST == 5


# Where nothing can be compiled


@pytest.fixture
def afresh(monkeypatch):
    """A process that has not compiled anything, nor tried to."""
    monkeypatch.setattr(programs, "_given_up", [])
    monkeypatch.setattr(programs, "_made", {})


@pytest.mark.parametrize("broken", ["get_cpp_compiler", "compile"])
def test_without_a_compiler_the_runs_go_on_and_it_is_said_once(monkeypatch, afresh, broken):
    """No compiler is found, or the one that is found fails."""

    def fails(*args, **kwargs):
        raise RuntimeError("\nNo working C++ compiler found\nin 5 places")

    monkeypatch.setattr(programs.inductor().cpp_builder if broken == "get_cpp_compiler" else programs.inductor(), broken, fails)
    settings = dict(steps=12, width=[4, 8], **AXES)
    sentence = r"^Steps cannot be compiled here \(No working C\+\+ compiler found\); runs go on without"
    with pytest.warns(UserWarning, match=sentence) as said:
        record = wb.run(perceptron, mode="compiled", **settings)
    assert len(said) == 1
    assert all(entry["compiled"] == [] for entry in json.loads(record.attrs["layouts"])), "a record says how its runs were computed"
    np.testing.assert_allclose(record.wb["train_loss"], wb.run(perceptron, mode="lanes", **settings).wb["train_loss"], rtol=1e-4)


def test_a_compiler_that_an_interrupt_kills_has_not_failed(monkeypatch, afresh):
    """Ctrl-C reaches the compiler too; the run ends as one that was interrupted, and later ones are compiled."""

    def killed(*args, **kwargs):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        raise RuntimeError("C++ compile error")

    monkeypatch.setattr(sys.modules["workbench.engine.plans"], "allowed", lambda: 2)
    with monkeypatch.context() as patch:
        patch.setattr(programs.inductor(), "compile", killed)
        with pytest.warns(UserWarning, match="^Interrupted") as said:
            wb.run(perceptron, mode="compiled", steps=12, **AXES)
    assert len(said) == 1 and not programs._given_up


# An interactive stream


class Held:
    """A compilation that waits until it is let go."""

    def __init__(self, monkeypatch):
        self.begun, self.free, self.done = threading.Event(), threading.Event(), threading.Event()

        def held(*args, **kwargs):
            self.begun.set()
            assert self.free.wait(60)
            _compile(*args, **kwargs)
            self.done.set()

        monkeypatch.setattr(sys.modules["workbench.engine.stream"], "_compile", held)


def test_an_interactive_stream_begins_at_once_and_takes_compiled_steps_over_unseen(monkeypatch):
    held, steps, seen, calls, taken_over = Held(monkeypatch), 60, [], [], []
    called = programs.Program.__call__
    monkeypatch.setattr(programs.Program, "__call__", lambda self, now, *rest: (calls.append(int(now)), called(self, now, *rest))[1])
    axes = dict(lr=[0.01, 0.1], seed=[0, 1])
    ready = plan(perceptron, rows_of(perceptron, **axes), steps, mode="compiled", dtype=torch.float64)
    for item in stream(ready, interactive=True):
        if not seen:
            assert not held.begun.is_set(), "the first point waits for no compilation"
        seen.append(item)
        if isinstance(item, Progress) and item.done > 10 and not taken_over:
            assert held.begun.wait(60) and not calls, "until it is ready the steps are eager"
            held.free.set()
            assert held.done.wait(120)
            calls.clear()  # those that were timed
            taken_over.append(item.done)
    assert calls and min(calls) >= 10 and max(calls) == steps
    slabs = [item for item in seen if isinstance(item, Slab) and item.clock == 1]
    assert [step for item in slabs for step in item.steps] == list(range(steps + 1))
    loss = np.concatenate([item.values["train_loss"] for item in slabs], 1)
    eager = wb.run(perceptron, mode="lanes", dtype="float64", steps=steps, **axes)
    np.testing.assert_allclose(loss, eager.wb["train_loss"], rtol=1e-6)


def test_the_runs_of_an_interactive_stream_advance_side_by_side():
    ready = plan(perceptron, rows_of(perceptron, width=[4, 8], seed=[0, 1]), 30, mode="lanes")
    done = [(item.runs, item.done) for item in stream(ready, interactive=True) if isinstance(item, Progress)]
    assert done[:2] == [((0, 1), 10), ((2, 3), 10)] and len(done) % 2 == 0
