"""The engine against what is known exactly: gradient descent on a parabola, runs alone, runs in a loop."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from learners_for_tests import SLICES, UNLIKE, Descent, convnet, duel, final_states, nothing, parabola, perceptron, policy, server, student
from learners_for_tests import transformer as decoder
from torch.utils._pytree import tree_flatten

import workbench as wb
from workbench import noise
from workbench.engine import Kept, cohorts, plan, stream
from workbench.engine.cohorts import prepared
from workbench.errors import InputError
from workbench.knobs import Knobs, at_least, knob
from workbench.probe import probe
from workbench.schema import Progress, Slab, due, ticks
from workbench.study import Moment

LANES_AND_LOOP = ("lanes", "loop")
ALL = {**SLICES, **UNLIKE}


def rows_of(study, **axes):
    return wb.grid(**axes).rows(study.knobs)


def curves(record):
    """Everything measured, without provenance."""
    return {name: node.to_dataset() for name, node in record.children.items()}


def assert_same_curves(a, b):
    for name, node in curves(a).items():
        xr.testing.assert_identical(node, curves(b)[name])


def assert_close(a, b):
    """Equal up to the rounding of a few steps in float64; texts (of a learner that is looped in any case) exactly."""
    (ours, shape), (theirs, other) = tree_flatten(a), tree_flatten(b)
    assert shape == other and ours
    for x, y in zip(ours, theirs, strict=True):
        if isinstance(x, str):
            assert x == y
        else:
            torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-12)


def axes_of(name):
    rate = dict(generator_lr=[0.1, 0.3], critic_lr=0.2) if name == "duel" else dict(lr=[0.01, 0.1])
    return {**rate, "seed": [0, 1], **(dict(jitter=[0.0, 1.0]) if name == "server" else {})}


# Equivalence


@pytest.mark.parametrize("name", ALL)
def test_runs_mapped_together_equal_runs_one_by_one(name):
    study, steps = ALL[name], 5
    rows = rows_of(study, **axes_of(name))
    lanes, loop = (final_states(study, rows, steps, mode=mode, dtype=torch.float64) for mode in LANES_AND_LOOP)
    assert len(lanes) == len(loop) == len(rows)
    assert_close(lanes, loop)


@pytest.mark.parametrize("static", [dict(sigma_reparam=True), dict(qk_norm=True, norm="rms"), dict(optimizer="sgd", clip=0.1)])
def test_variants_mapped_together_equal_variants_one_by_one(static):
    rows = rows_of(decoder, lr=[0.01, 0.03], **static)
    lanes, loop = (final_states(decoder, rows, 5, mode=mode, dtype=torch.float64) for mode in LANES_AND_LOOP)
    assert_close(lanes, loop)


@pytest.mark.parametrize(
    ("study", "static", "leaf"), [(convnet, {}, "norms.0.running_mean"), (decoder, dict(sigma_reparam=True), "readout.u")]
)
def test_buffers_are_part_of_the_state_and_move(study, static, leaf):
    rows = rows_of(study, seed=[0, 1], **static)
    states = [final_states(study, rows, steps, mode="lanes") for steps in (1, 2)]
    for run in range(2):
        assert not torch.equal(states[0][run]["buffers"][leaf], states[1][run]["buffers"][leaf])


@pytest.mark.parametrize("name", ALL)
def test_a_run_alone_equals_the_same_run_among_others(name):
    study, rows = ALL[name], rows_of(ALL[name], **axes_of(name))
    together, alone = (final_states(study, some, 4, mode="lanes", dtype=torch.float64) for some in (rows, rows[2:3]))
    assert_close(together[2], alone[0])


@pytest.mark.parametrize("name", ALL)
def test_in_a_loop_a_record_does_not_depend_on_company_or_order(name):
    rows = axes_of(name)
    record = wb.run(ALL[name], steps=12, mode="loop", **rows)
    turned = wb.run(
        ALL[name], steps=12, mode="loop", **{axis: values[::-1] if isinstance(values, list) else values for axis, values in rows.items()}
    )
    for variable in record.wb.variables:
        ours, theirs = record.wb[variable].values, turned.wb[variable].values[::-1]
        np.testing.assert_array_equal(ours, theirs)


# Isolation


def test_a_diverging_run_leaves_its_neighbours_as_they_are_bit_for_bit():
    harmless, absurd = (wb.run(decoder, lr=[0.01, rate, 0.02], steps=12, mode="lanes") for rate in (0.015, 1e20))
    assert absurd["events"]["diverged_step"].isnull().values.tolist() == [True, False, True]
    for name in ("train_loss", "weight_norm_total", "attention_entropy"):
        np.testing.assert_array_equal(absurd.wb[name][[0, 2]], harmless.wb[name][[0, 2]])


def test_an_injected_nan_stays_in_its_run():
    rows = rows_of(perceptron, seed=range(3))
    well = final_states(perceptron, rows, 1, mode="lanes")
    ill = {**well, 1: {**well[1], "params": {name: torch.full_like(p, torch.nan) for name, p in well[1]["params"].items()}}}
    ends = [final_states(perceptron, rows, 6, mode="lanes", start=1, states=states) for states in (well, ill)]
    for run in (0, 2):
        torch.testing.assert_close(ends[0][run], ends[1][run], rtol=0, atol=0)
    assert all(p.isnan().all() for p in ends[1][1]["params"].values())


@pytest.mark.parametrize("mode", LANES_AND_LOOP)
def test_divergence_is_the_first_step_whose_loss_or_parameters_are_not_finite(mode):
    """w after s updates is (1 - lr)^s, and its square overflows float32 from 1.8e19 on."""
    record = wb.run(parabola, lr=[0.1, 1e20, 1e10, 1e6], steps=12, mode=mode)
    np.testing.assert_array_equal(record["events"]["diverged_step"], [np.nan, 1, 2, 4])
    assert (record["events"]["steps_done"] == 12).all()
    for run, step in ((1, 1), (2, 2), (3, 4)):
        values = record.wb["weight"].values[run]
        assert np.isfinite(values[:step]).all() and np.isnan(values[step:]).all()


@pytest.mark.parametrize("mode", LANES_AND_LOOP)
def test_a_parameter_that_overflows_is_divergence_even_where_the_loss_stays_finite(mode):
    class Hidden(Descent):
        def init(self, key, knobs, shared):
            return dict(params=dict(w=torch.ones(()), idle=torch.ones(2)))

        def step(self, state, batch, knobs, shared, now):
            idle = state["params"]["idle"] * torch.tensor([1.0, 1e20])
            new, moment = super().step(state, batch, knobs, shared, now)
            return dict(params=dict(**new["params"], idle=idle)), moment

    record = wb.run(replace(parabola, learner=Hidden()), seed=[0, 1], steps=4, mode=mode)
    assert record["events"]["diverged_step"].values.tolist() == [2, 2]  # 1, 1e20, 1e40: too large for float32
    assert wb.run(replace(parabola, learner=Hidden()), steps=4, mode=mode, dtype="float64")["events"]["diverged_step"].isnull().all()


@pytest.mark.parametrize("mode", LANES_AND_LOOP)
def test_large_finite_parameters_are_no_divergence(mode):
    """Their sum overflows float32, they do not."""

    class Large(Descent):
        def init(self, key, knobs, shared):
            return dict(params=dict(w=torch.ones(()), large=torch.full((4,), 3e38)))

        def step(self, state, batch, knobs, shared, now):
            new, moment = super().step(state, batch, knobs, shared, now)
            return dict(params=state["params"] | new["params"]), moment

    assert wb.run(replace(parabola, learner=Large()), seed=[0, 1], steps=4, mode=mode)["events"]["diverged_step"].isnull().all()


def test_when_all_runs_have_diverged_nothing_more_is_computed_and_the_record_is_whole():
    class Counted(Descent):
        steps = 0

        def step(self, *args):
            self.steps += 1
            return super().step(*args)

    study = replace(parabola, learner=Counted())
    record = wb.run(study, lr=1e20, steps=300, mode="loop")
    assert study.learner.steps < 100
    assert (record["events"]["steps_done"] == 300).all()
    assert record.wb["weight"].sizes["step"] == 301 and np.isnan(record.wb["weight"].values[:, 1:]).all()


# Unlike learners, by what is known of them


@pytest.mark.parametrize("mode", LANES_AND_LOOP)
def test_two_players_spiral_outwards_by_the_known_factor(mode):
    record = wb.run(duel, generator_lr=[0.1, 0.4], critic_lr=0.2, steps=30, mode=mode, dtype="float64")
    position = record.wb["position"].astype(float)
    assert position.dims == ("run", "step", "player") and position["player"].values.tolist() == ["generator", "critic"]
    g, c = (rate[:, None] * np.ones(31) for rate in (record["generator_lr"].values, record["critic_lr"].values))
    # With unequal rates c g^2 + g c^2 turns into an invariant norm: c theta^2 + g psi^2 grows by 1 + g c each step.
    energy = c * position.sel(player="generator").values ** 2 + g * position.sel(player="critic").values ** 2
    np.testing.assert_allclose(energy, c[:, :1] * (1 + g * c) ** np.arange(31), rtol=1e-5)
    assert (record.wb["loss"].values[:, 0] == 0).all()


def test_an_event_queue_runs_in_a_loop_with_plain_numbers():
    seen = []

    @probe(dtype="int64")
    def kinds(m):
        """How many knobs were plain numbers"""
        seen.append(m.kinds)
        return sum(kind in (float, int) for kind in m.kinds)

    record = wb.run(replace(server, probes=(*server.probes, kinds)), workers=[1, 2], steps=10, mode="lanes")
    assert [(entry["layout"], entry["runs"]) for entry in json.loads(record.attrs["layouts"])] == [("loop", [0]), ("loop", [1])]
    assert set(seen) == {(float, int)} and (record.wb["kinds"] == 2).all()
    # One worker is plain gradient descent; of two, each reads the weight one update late.
    delayed = [1.0, 0.9]
    for _ in range(9):
        delayed.append(delayed[-1] - 0.1 * delayed[-2])
    expected = np.array([0.9 ** np.arange(11), np.array([1.0, *delayed[1:]])])
    np.testing.assert_allclose(record.wb["loss"].values[0], expected[0] ** 2 / 2, rtol=1e-6)
    assert record.wb["clock"].values[1].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


def test_a_policy_learns_to_walk_on():
    record = wb.run(policy, lr=1.0, seed=range(8), steps=400)
    paid = record.wb["reward"].mean("run")
    assert paid[:50].mean() < 0.1 < 0.2 < paid[-50:].mean() <= 0.25
    place = record.wb["rung"].values
    assert set(np.unique(place)) == {0, 1, 2, 3}
    assert np.isin(np.diff(place, axis=1), [1, 0, -1, -2, -3]).all()


def test_phases_reach_the_step_and_the_record():
    seen = set()

    @probe()
    def noted(m):
        """One"""
        seen.add(m.phase)
        return m.loss * 0 + 1

    record = wb.run(replace(student, probes=(*student.probes, noted)), lr=0.2, seed=[0, 1], steps=60)
    phase = record.wb["distance"]["phase"].values
    assert phase.tolist() == ["first"] * 20 + ["second"] * 41 and seen == {"first", "second"}
    distance = record.wb["distance"].max("run")
    assert distance.sel(task="first")[20] < 0.1 < 0.5 < distance.sel(task="first")[-1]
    assert distance.sel(task="second")[-1] < 0.01


def test_what_a_learner_prepares_is_computed_once_for_equal_static_knobs():
    study = replace(student, learner=type(student.learner)())
    wb.run(study, lr=[0.1, 0.2], width=[2, 3], seed=range(2), steps=3)
    assert study.learner.prepared == 2
    wb.run(study, lr=0.3, width=3, steps=3)
    assert study.learner.prepared == 2


def test_another_learner_never_gets_what_was_prepared_for_one_that_is_gone():
    class Numbered(Descent):
        def __init__(self, number):
            self.number = number

        def prepare(self, knobs, key):
            return self.number

    device = torch.device("cpu")
    found = [prepared(replace(parabola, learner=Numbered(i)), parabola.knobs(), device, torch.float32) for i in range(50)]
    assert found == list(range(50))
    assert len(cohorts._prepared) <= 32


# Time


def test_clocks_fire_at_their_multiples_and_at_the_end():
    assert ticks(10, 0, 25) == [0, 10, 20, 25]
    assert ticks(10, 15, 30) == [20, 30]
    assert ticks(1000, 7, 9) == [9]
    assert due(20, 25) == {1, 10} and due(0, 25) == due(25, 25) == {1, 10, 100, 1000}


@pytest.mark.parametrize("steps", [1, 9, 10, 137])
def test_the_moment_at_a_step_is_before_its_update(steps):
    def on(every):
        @probe(every=every)
        def value(m):
            """Weight"""
            return m.params["w"]

        return replace(value, name=f"weight_{every}")

    @probe(every=100, on="state")
    def from_state(state, knobs, shared, key):
        """Weight"""
        return float(state["params"]["w"])

    @probe(every=10)
    def counted(m):
        """Updates so far, as the step sees them"""
        return m.now.step

    record = wb.run(replace(parabola, probes=(*map(on, (1, 10, 100, 1000)), from_state, counted)), lr=0.01, steps=steps)
    for every in (1, 10, 100, 1000):
        values = record.wb[f"weight_{every}"]
        assert values["step"].values.tolist() == sorted({*range(0, steps + 1, every), steps})
        np.testing.assert_allclose(values[0], 0.99 ** values["step"].values.astype(float), rtol=1e-5)
    np.testing.assert_array_equal(record.wb["from_state"], record.wb["weight_100"])
    np.testing.assert_array_equal(record.wb["counted"][0], record.wb["counted"]["step"])


# Draws


class Noisy(Knobs):
    lr: float = knob(0.1, 1e-3, 1.0, log=True, doc="learning rate")
    spread: float = knob(1.0, 0.0, 2.0, doc="standard deviation of the data")
    size: int = knob(3, 1, 8, valid=at_least(1), doc="examples")


def sample(knobs, key):
    return dict(x=knobs.spread * noise.normal(key, "x", (knobs.size,)))


sample.reads = ("spread", "size")


class Pass(Descent):
    def step(self, state, batch, knobs, shared, now):
        return state, Moment(loss=batch["x"].sum(), key=now.key)


@probe()
def total(m):
    """Sum of the batch"""
    return m.loss


@probe(dtype="int64")
def drawn(m):
    """What the run itself draws"""
    return noise.bits(m.key, "own")


noisy = replace(parabola, knobs=Noisy, task=sample, learner=Pass(), probes=(total, drawn))


@pytest.mark.parametrize("mode", LANES_AND_LOOP)
def test_runs_that_differ_in_other_knobs_share_the_batch_exactly(mode):
    record = wb.run(noisy, lr=[0.1, 0.2, 0.3], spread=[1.0, 2.0], seed=range(3), steps=6, mode=mode)
    batch = record.wb.cube("total", "lr", "spread", "seed")
    assert (batch == batch.isel(lr=0)).all()
    np.testing.assert_array_equal(batch.sel(spread=2.0), 2 * batch.sel(spread=1.0))
    assert np.unique(batch.sel(spread=1.0).isel(lr=0)).size == 3 * 7


def test_draws_are_the_same_alone_in_company_and_in_any_chunk():
    settings = dict(steps=5, seed=range(6), lr=[0.1, 0.2])
    reference = wb.run(noisy, mode="loop", **settings)
    others = [wb.run(noisy, mode="lanes", **settings), wb.run(noisy, mode="lanes", memory=1.0, **settings)]
    others.append(wb.run(noisy, mode="lanes", **settings | dict(seed=[*range(6)][::-1])))
    for other in others:
        for seed in range(6):
            for name in ("total", "drawn"):
                np.testing.assert_array_equal(reference.wb.where(seed=seed).wb[name], other.wb.where(seed=seed).wb[name])
    assert np.unique(reference.wb.where(lr=0.1).wb["drawn"]).size == 6 * 6


def test_a_task_may_read_only_the_knobs_it_names():
    def greedy(knobs, key):
        return dict(x=knobs.lr * noise.normal(key, "x", (3,)))

    with pytest.raises(InputError, match=r"the task of 'learners_for_tests' read knob 'lr'; name it in the task's reads"):
        wb.run(replace(noisy, task=greedy), steps=2)


def test_a_task_does_not_escape_through_a_view_of_the_knobs():
    def greedy(knobs, key):
        return dict(x=knobs.view("critic").lr)

    with pytest.raises(InputError, match="read knob 'critic_lr'"):
        wb.run(replace(duel, task=greedy), steps=2)
    greedy.reads = ("critic_lr",)
    wb.run(replace(duel, task=greedy), steps=2)


def test_prepare_may_not_read_what_differs_between_its_runs():
    class Greedy(Descent):
        def prepare(self, knobs, key):
            return knobs.lr

    with pytest.raises(InputError, match=r"prepare of 'learners_for_tests' read knob 'lr'; .* make it static"):
        wb.run(replace(parabola, learner=Greedy()), steps=2)


# Probes


def test_a_probe_of_the_wrong_shape_is_named_with_its_dims_and_shape():
    @probe("player")
    def pair(m):
        """Pair"""
        return torch.stack([m.loss] * 3)

    study = replace(parabola, probes=(pair,), coords=lambda knobs: dict(player=["one", "two"]))
    for mode in LANES_AND_LOOP:
        with pytest.raises(InputError, match=r"Probe 'pair' declares dimensions \(player=2\) but returned shape \(3,\)"):
            wb.run(study, steps=2, seed=[0, 1], mode=mode)


def test_a_probe_whose_dimension_has_no_labels_is_named():
    @probe("head")
    def pair(m):
        """Pair"""
        return m.loss

    with pytest.raises(InputError, match=r"Probe 'pair' has dimension 'head', for which study .* gives no labels"):
        wb.run(replace(parabola, probes=(pair,)), steps=2)


@pytest.mark.parametrize("mode", LANES_AND_LOOP)
def test_a_probe_may_return_a_python_number(mode):
    @probe()
    def seven(m):
        """Seven"""
        return 7

    assert (wb.run(replace(parabola, probes=(seven,)), steps=2, seed=[0, 1], mode=mode).wb["seven"] == 7).all()


@pytest.mark.parametrize("mapped", [True, False])
def test_a_state_probe_sees_state_knobs_and_its_own_key(mapped):
    @probe(on="state", vectorised=mapped, dtype="float64")
    def sampled(state, knobs, shared, key):
        """Weight, knob and noise"""
        return state["params"]["w"] + 10 * knobs.lr + 0 * noise.uniform(key, "x")

    record = wb.run(replace(parabola, probes=(sampled,)), lr=[0.1, 0.2], steps=2, mode="lanes", dtype="float64")
    np.testing.assert_allclose(record.wb["sampled"], [[1 + 1, 0.9 + 1, 0.81 + 1], [1 + 2, 0.8 + 2, 0.64 + 2]], rtol=1e-12)


# The stream


def test_the_stream_yields_slabs_progress_and_kept_states():
    items = list(stream(plan(parabola, rows_of(parabola, seed=range(2)), 25), keep=10))
    kept = [item for item in items if isinstance(item, Kept)]
    assert [item.step for item in kept] == [0, 10, 20] and kept[0].runs == (0, 1)
    assert {type(item) for item in items} == {Slab, Progress, Kept}
    steps = [step for item in items if isinstance(item, Slab) for step in item.steps]
    assert steps == list(range(26))
    assert [item.done for item in items if isinstance(item, Progress)][-1] == 25


def test_a_consumer_may_stop_early_without_harm():
    before = wb.run(decoder, steps=12, mode="loop")
    ready = plan(decoder, rows_of(decoder, seed=range(2)), 100)
    unfinished = stream(ready)
    next(unfinished)
    unfinished.close()
    next(stream(ready))
    assert_same_curves(before, wb.run(decoder, steps=12, mode="loop"))


def test_gradients_are_not_recorded_by_the_engine():
    states = final_states(perceptron, rows_of(perceptron), 2)
    assert not any(p.requires_grad for p in states[0]["params"].values()) and torch.is_grad_enabled()


@pytest.mark.parametrize("mode", LANES_AND_LOOP)
def test_the_same_call_gives_the_same_record(mode):
    settings = dict(lr=[0.01, 0.1], seed=[0, 1], steps=15, mode=mode)
    assert_same_curves(*(wb.run(decoder, **settings) for _ in range(2)))


def test_a_run_of_static_and_lane_knobs_fills_every_run_of_one_record():
    record = wb.run(decoder, depth=[1, 2], lr=[0.01, 0.1], steps=10)
    entropy = record.wb["attention_entropy"]
    assert entropy.dims == ("run", "step", "layer", "head") and entropy["layer"].values.tolist() == [0, 1]
    shallow = record["depth"].values == 1
    assert (
        entropy[shallow].sel(layer=1).isnull().all() and entropy[shallow].sel(layer=0).notnull().all() and entropy[~shallow].notnull().all()
    )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (dict(steps=0), "steps is 0; it must be a whole number, at least 1"),
        (dict(steps=1.5), "steps is 1.5"),
        (dict(mode="fast"), "mode is 'fast'; choose one of auto, lanes, loop"),
        (dict(dtype="float16"), "dtype is 'float16'"),
        (dict(memory=0), "memory is 0; it must be a number of bytes above 0"),
        (dict(keep=5), "give out= together with keep="),
        (dict(device="abacus"), "Device 'abacus' cannot be used here"),
        (dict(lr=-1.0), "Knob 'lr' is -1.0; it must be above 0"),
        (dict(ir=1.0), "There is no knob 'ir'; did you mean 'lr'"),
        (dict(probes=["los"]), "There is no probe 'los'; did you mean 'loss'"),
        (dict(budget="tiny"), "There is no budget 'tiny'"),
        (dict(preset="usual"), "There is no preset 'usual'"),
        (dict(seed=[]), "Axis 'seed' is empty"),
    ],
)
def test_what_cannot_be_run_is_refused_in_a_sentence(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        wb.run(parabola, **{"steps": 2, **settings})


def test_a_task_that_draws_nothing_is_fine():
    assert nothing(None, None) == {}
    assert wb.run(parabola, seed=range(3), steps=2, mode="lanes").sizes["run"] == 3
