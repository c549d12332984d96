"""Memory: what a run needs at rest and in flight, and chunks that keep to a stated budget."""

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from learners_for_tests import convnet, parabola, perceptron, server
from learners_for_tests import transformer as decoder

import workbench as wb
from workbench import noise
from workbench.engine import chunks, memory, plan, stream
from workbench.engine.choice import choose, known
from workbench.engine.lanes import LAYOUTS, Vectorised, size_in_bytes
from workbench.engine.plans import chunk_of
from workbench.learners import Supervised
from workbench.models import MLP
from workbench.schema import Progress

CPU = torch.device("cpu")
FLOAT = 4
GIB = 2**30


# Measuring


def test_the_peak_of_a_known_computation():
    def compute():
        a = torch.ones(1000)  # 1
        b = a + 1  # 2
        del a  # 1
        c = torch.cat([b, b])  # 3
        del b  # 2
        return c + 1  # 4

    assert memory.peak_bytes(compute) == 4 * 1000 * FLOAT


def test_views_and_what_was_there_before_cost_nothing():
    there = torch.ones(1000)
    assert memory.peak_bytes(lambda: there.view(10, 100).T[3:]) == 0
    assert memory.peak_bytes(lambda: there.add_(1)) == 0
    assert memory.peak_bytes(lambda: (there + 1).view(10, 100)) == 1000 * FLOAT


def test_the_peak_counts_what_vmap_computes_beneath():
    x = torch.ones(7, 100)
    assert memory.peak_bytes(lambda: torch.vmap(lambda v: v * 2)(x)) == 7 * 100 * FLOAT


def test_the_size_of_a_tree():
    assert size_in_bytes(dict(a=torch.ones(3), b=[torch.ones(2, dtype=torch.float64), "text"], c=1.0)) == 3 * 4 + 2 * 8


# What is free


def test_a_container_limit_is_respected(tmp_path):
    (tmp_path / "memory.max").write_text(f"{3 * GIB}\n")
    (tmp_path / "memory.current").write_text(f"{3 * GIB - 1000}\n")
    assert memory.free_bytes(CPU, tmp_path) == 1000


def test_the_limit_of_an_older_container_is_respected(tmp_path):
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("5000")
    (tmp_path / "memory/memory.usage_in_bytes").write_text("6000")
    assert memory.free_bytes(CPU, tmp_path) == 0


def test_a_container_without_limit_leaves_what_the_machine_has(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 12345}))
    assert memory.free_bytes(CPU, tmp_path) == 12345


def test_cached_files_do_not_count_as_used(tmp_path):
    (tmp_path / "memory.max").write_text("5000")
    (tmp_path / "memory.current").write_text("4000")
    (tmp_path / "memory.stat").write_text("anon 2500\nfile 1500\ninactive_file 1300\n")
    assert memory.free_bytes(CPU, tmp_path) == 1000 + 1300


def test_by_default_half_of_what_is_free_is_used(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    assert memory.default_budget(CPU) == 500
    assert wb.run(parabola, steps=1).attrs["memory_budget"] == 500


# Chunks


@pytest.mark.parametrize(
    ("runs", "fitting", "size"),
    [
        (10, 10, 10),  # all fit
        (10, 9, 5),  # nine would fit: two equal chunks
        (10, 3, 3),  # three would fit: four chunks of 3, 3, 3, 1
        (10, 0, 1),  # not even one fits: one by one
        (1, 1, 1),
    ],
)
def test_the_size_of_chunks(runs, fitting, size):
    assert memory.chunk_size(runs, fitting) == size


@pytest.mark.parametrize("study", [decoder, convnet])
def test_a_small_budget_means_small_chunks_and_the_same_results(study, monkeypatch):
    sizes = []
    made = chunks.Chunk.__init__
    monkeypatch.setattr(
        chunks.Chunk, "__init__", lambda self, c, positions, *rest: (sizes.append(len(positions)), made(self, c, positions, *rest))[1]
    )
    settings = dict(lr=[0.01, 0.02, 0.03], seed=[0, 1], steps=6, mode="lanes", dtype="float64")
    full = wb.run(study, **settings)
    assert max(sizes) == 6
    sizes.clear()
    small = wb.run(study, memory=1.0, **settings)
    assert max(sizes) == 1 and small.attrs["memory_budget"] == 1
    np.testing.assert_allclose(small.wb["train_loss"], full.wb["train_loss"], rtol=1e-6)
    half = _needed(study, settings, lanes=3)
    sizes.clear()
    wb.run(study, memory=half, **settings)
    assert max(sizes) == 3


def _needed(study, settings, lanes):
    """Bytes that so many runs take, at rest and in flight."""
    rows = wb.grid(lr=settings["lr"], seed=settings["seed"]).rows(study.knobs)
    ready = plan(study, rows, settings["steps"], mode="lanes", dtype=torch.float64)
    with torch.no_grad():
        found = known(ready, ready.cohorts[0])
    return lanes * (found.at_rest + found.in_flight) + 1


def chunk_counts(ready):
    choose(ready)
    return [len(choice.parts(len(cohort.runs))) for choice, cohort in zip(ready.choices, ready.cohorts, strict=True)]


def test_a_cohort_trains_after_the_other_and_may_take_the_whole_budget():
    budget = _needed(perceptron, dict(lr=0.01, seed=range(4), steps=3), lanes=4)
    rows = (wb.grid(seed=range(4)) + wb.grid(activation="tanh", seed=range(400))).rows(perceptron.knobs)
    assert chunk_counts(plan(perceptron, rows, 3, dtype=torch.float64, mode="lanes", memory_budget=budget)) == [1, 100]


def test_states_are_made_chunk_by_chunk():
    """No more than one chunk of them stands at a time, and one in the making."""
    rows = wb.grid(seed=range(32)).rows(perceptron.knobs)
    ready = plan(perceptron, rows, 3, mode="lanes", memory_budget=1)
    assert chunk_counts(ready) == [32]
    with torch.no_grad():
        alone = chunk_of(ready, ready.cohorts[0], range(1), Vectorised)
        known_ = known(ready, ready.cohorts[0])
    assert memory.peak_bytes(lambda: list(stream(ready))) < 3 * known_.in_flight + 8 * size_in_bytes(alone.states)


# Out of memory


class Full:
    """Vectorised.map on a device that holds `room` lanes, and from the start `room_at` updates on."""

    def __init__(self, room, after=0):
        self.room, self.after, self.calls, self.sizes = room, after, 0, []
        self.map = Vectorised.map

    def __call__(self, fn, states, *rest):
        lanes = len(next(iter(states["params"].values())))
        self.calls += 1
        if self.calls > self.after and lanes > self.room:
            raise torch.OutOfMemoryError("no room")
        self.sizes.append(lanes)
        return self.map(fn, states, *rest)


@pytest.mark.parametrize("after", [0, 7, 31])
def test_out_of_memory_halves_the_chunk_and_the_run_goes_on(monkeypatch, after):
    settings = dict(lr=[0.01, 0.02, 0.03], seed=[0, 1], steps=30, mode="lanes", dtype="float64")
    calm = wb.run(perceptron, **settings)
    full = Full(2, after)
    monkeypatch.setattr(Vectorised, "map", staticmethod(full))
    record = wb.run(perceptron, **settings)
    assert set(full.sizes[after + 1 :]) <= {1, 2}
    assert (record["events"]["steps_done"] == 30).all()
    for name in ("train_loss", "weight_norm_total"):
        assert np.isfinite(record.wb[name]).all()
        np.testing.assert_allclose(record.wb[name], calm.wb[name], rtol=1e-6)


def test_out_of_memory_reports_no_more_than_was_done(monkeypatch):
    measured = 2
    monkeypatch.setattr(Vectorised, "map", staticmethod(Full(2, after=measured + 6)))
    rows = wb.grid(seed=range(4)).rows(perceptron.knobs)
    done = [item.done for item in stream(plan(perceptron, rows, 12, mode="lanes")) if isinstance(item, Progress)]
    assert done == [6, 10, 10, 12, 12]


def test_halves_remember_which_runs_have_diverged(monkeypatch):
    monkeypatch.setattr(Vectorised, "map", staticmethod(Full(1, after=25)))
    record = wb.run(parabola, lr=[0.1, 1e20], steps=40, mode="lanes")
    np.testing.assert_array_equal(record["events"]["diverged_step"], [np.nan, 1])
    assert np.isnan(record.wb["weight"].values[1, 1:]).all() and np.isfinite(record.wb["weight"].values[0]).all()


def test_where_eight_runs_do_not_fit_together_the_choice_of_layout_goes_on(monkeypatch):
    monkeypatch.setattr(Vectorised, "map", staticmethod(Full(2)))
    record = wb.run(perceptron, seed=range(5), steps=3)
    (entry,) = json.loads(record.attrs["layouts"])
    assert (entry["layout"], entry["runs"]) == ("loop", [0, 1, 2, 3, 4]) and np.isfinite(record.wb["train_loss"]).all()


def test_out_of_memory_with_a_single_run_is_an_error(monkeypatch):
    monkeypatch.setattr(Vectorised, "map", staticmethod(Full(0)))
    with pytest.raises(torch.OutOfMemoryError):
        wb.run(perceptron, steps=2, mode="lanes")


# What training needs


def wide(knobs, key):
    return dict(x=noise.normal(key, "x", (1, 32)), y=noise.randint(key, "y", 4, (1,)))


def chunk_of_wide(layout, runs=3, **static):
    """Adam on an MLP whose activations are negligible: one example, and one matrix that holds most of the parameters."""
    study = replace(perceptron, task=wide, learner=Supervised(lambda k: MLP(k, 32, 4)), probes=perceptron.probes[:1])
    rows = wb.grid(seed=range(runs), width=512, depth=2, **static).rows(study.knobs)
    ready = plan(study, rows, 5, mode=layout, memory_budget=GIB)
    with torch.no_grad():
        chunk = chunk_of(ready, ready.cohorts[0], range(runs), LAYOUTS[layout])
    parameters = sum(p.numel() for p in study.learner.prepare(ready.cohorts[0].knobs, noise.key_of(0))["model"].parameters())
    return chunk, parameters


def test_at_rest_a_run_of_adamw_holds_three_numbers_a_parameter():
    chunk, parameters = chunk_of_wide("lanes")
    counters = 1
    assert size_in_bytes(chunk.states) == 3 * (3 * parameters + counters) * FLOAT


OPTIONS = ({}, dict(clip=1.0, weight_decay=0.1), dict(weight_decay_kind="l2"), dict(weight_decay_kind="independent"))


def measure():
    """Print as JSON the numbers in flight per parameter for each layout and option, and chunks and peak bytes of a whole run."""
    factors = {}
    for layout, place in itertools.product(LAYOUTS, range(len(OPTIONS))):
        chunk, parameters = chunk_of_wide(layout, **OPTIONS[place])
        with torch.no_grad():
            factors[f"{layout} {place}"] = memory.peak_bytes(lambda chunk=chunk: chunk.step(1)) / (3 * parameters * FLOAT)
    rows = wb.grid(seed=range(6), width=256, depth=2).rows(perceptron.knobs)
    ready = plan(perceptron, rows, 12, mode="lanes", memory_budget=8 * 2**20)
    (chunks,) = chunk_counts(ready)
    print(json.dumps({"factors": factors, "chunks": chunks, "peak": memory.peak_bytes(lambda: list(stream(ready)))}))


@pytest.fixture(scope="module")
def measured():
    """What `measure` prints in a process of its own: what other tests left in torch adds a parameter-sized tensor to a step."""
    code = "import test_memory; test_memory.measure()"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("place", range(len(OPTIONS)))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_in_flight_an_update_needs_at_most_six_numbers_a_parameter(measured, layout, place):
    assert measured["factors"][f"{layout} {place}"] <= 6


def test_a_whole_run_keeps_to_what_was_planned(measured):
    assert 1 < measured["chunks"] < 6
    assert measured["peak"] <= 8 * 2**20


def test_a_looped_learner_of_plain_numbers_needs_no_measuring():
    assert wb.run(server, seed=range(3), steps=3, memory=1.0).sizes["run"] == 3
