"""What `gradient_spikes` measures and claims, against cases counted by hand and records whose answer is known."""

import math

import numpy as np
import pytest
import torch

from workbench import noise
from workbench.design import axes
from workbench.record import blank, fill
from workbench.schema import Progress, Schema, Slab, Variable
from workbench.studies import gradient_spikes as gs
from workbench.study import Moment, Now

STEPS = 300
ENDS = ("train_loss", "injected_share", "gradient_norm_total", "validation_loss")
HIT = (60, 140)


def made(settings, seeds=(4, 5), lost=(), **of_run):
    """A record of runs with these knobs for each seed; a variable is a function of (knobs, step), 1 if not given; `lost` runs diverge."""
    rows = [vars(gs.Settings(**knobs)) | {"horizon": STEPS, "seed": seed} | knobs for knobs in settings for seed in seeds]
    columns = {name: dict(units=spec.units, long_name=spec.doc) for name, spec in axes(gs.Settings).items()}
    clocks = {name: 1 if name != "validation_loss" else 100 for name in ENDS}
    variables = [Variable(name, clock, (), "float64", {}) for name, clock in clocks.items()]
    record = blank(Schema(rows, columns, variables, {}, [("train", 0)], 0, STEPS, {"start": 0, "study": "gradient_spikes"}))
    for name, clock in clocks.items():
        ticks = [*range(0, STEPS + 1, clock)]
        values = [[of_run.get(name, lambda knobs, step: 1.0)(row, step) for step in ticks] for row in rows]
        fill(record, Slab(range(len(rows)), clock, ticks, {name: np.array(values, float)}, {}))
    fill(record, Progress(range(len(rows)), STEPS, [20 if run in lost else -1 for run in range(len(rows))]))
    return record


def injected(knobs, step):
    return 0.1 if knobs["spike_rate"] > 0 and step in HIT else 0.0


def moment(before, grads, **knobs):
    """What the probes of spikes read: the optimizer's state before the update, and the gradient."""
    grads = {name: torch.tensor(g) for name, g in grads.items()}
    state = {
        name: {k: torch.tensor(x) for k, x in leaf.items()} if isinstance(leaf, dict) else torch.tensor(leaf)
        for name, leaf in before.items()
    }
    return Moment(before=state, optimizer=state, grads=grads, loss=torch.tensor(1.0), knobs=gs.Settings(**knobs))


V = {"v": {"a": [1.0, 4.0], "b": [0.0, 1e-4]}}
GRADS = {"a": [10.0, 21.0], "b": [0.0, -1.0]}  # squares over v: 100, 110.25; 0, 10,000


def test_a_spike_is_what_passes_the_threshold():
    knobs = {"spam_threshold": 105.0}
    m = moment(V | {"count": 100.0}, GRADS, **knobs)
    assert gs.spike_share(m) == 0.5 and gs.spike_share_of_tensor(m).tolist() == [0.5, 0.5]
    assert gs.largest_spike(m).item() == pytest.approx(1e4)


@pytest.mark.parametrize(("count", "reset", "share"), [(18.0, 0.0, 0.0), (19.0, 0.0, 0.75), (78.0, 60.0, 0.0), (79.0, 60.0, 0.75)])
def test_spikes_are_looked_for_from_the_twentieth_update_after_a_reset_on(count, reset, share):
    m = moment(V | {"count": count, "reset": reset}, GRADS, spam_threshold=99.0, spam_patience=20)
    assert gs.spike_share(m) == share


def test_what_spam_clips_is_what_the_probe_calls_a_spike():
    """One update of SPAM with a gradient that is kept and one that is a spike: only the spike's v is that of the threshold."""
    knobs = gs.Settings(optimizer="spam", spam_threshold=100.0, spam_interval=0, lr=1e-3)
    learner, key = gs.study.learner, noise.key_of(1)
    shared = learner.prepare(knobs, key)
    state = learner.init(key, knobs, shared)
    old = {name: torch.full_like(p, 1e-6) for name, p in state["params"].items()}
    state["optimizer"] = state["optimizer"] | {"v": old, "count": torch.tensor(50.0)}
    _, m = learner.step(state, gs.TEXT(knobs, key), knobs, shared, Now(torch.tensor(50.0), key, "train"))
    clipped = {name: torch.isclose(v, 0.999 * 1e-6 + 0.001 * 100 * old[name], rtol=1e-5, atol=0) for name, v in m.optimizer["v"].items()}
    shares = [x.float().mean().item() for x in clipped.values()]
    assert max(shares) > 0 and gs.spike_share_of_tensor(m).tolist() == pytest.approx(shares, abs=1e-6)


def test_an_optimizer_without_mean_squares_has_no_spikes_by_that_rule():
    m = moment({"momentum": {"a": [1.0]}}, {"a": [1.0]})
    for probe in (gs.spike_share, gs.spike_share_of_tensor, gs.largest_spike, gs.first_moment_norm, gs.second_moment_norm):
        assert torch.isnan(probe(m)).all()


def test_norms_of_the_moments():
    m = moment(V | {"m": {"a": [3.0, 0.0], "b": [0.0, 4.0]}}, GRADS)
    assert gs.first_moment_norm(m) == 5 and gs.second_moment_norm(m).item() == pytest.approx(math.sqrt(5.0001))


def test_the_share_that_is_hit_counts_entries():
    hit = {"a": torch.tensor(True), "b": torch.tensor(False)}
    m = Moment(hit=hit, grads={"a": torch.zeros(2, 3), "b": torch.zeros(18)})
    assert gs.injected_share(m).item() == pytest.approx(0.25)


def test_zero_residuals_are_of_the_block_where_most_are():
    whole, half = torch.ones(2, 2, 3), torch.ones(2, 2, 3)
    half[0] = 0.0
    whole[1, 0, 0] = 0.0  # a vector that is not all zero
    assert gs.zero_residuals(Moment(taps={"0.residual": whole, "1.residual": half}, loss=torch.tensor(1.0))) == 0.5


def test_recovery_counts_from_the_last_spike_to_the_loss_of_the_twin():
    """Adam's loss stays 0.19 above its twin's for 30 steps after the last spike, at 140, SPAM's until the end."""

    def loss(knobs, step):
        until = 170 if knobs["optimizer"] == "adamw" else STEPS
        return 3 - step / 1000 + 0.19 * (knobs["spike_rate"] > 0 and 60 < step < until)

    record = made(
        [kind | spikes for kind in (gs.ADAM, gs.SPAM) for spikes in (gs.CALM, gs.IN_FEW)], train_loss=loss, injected_share=injected
    )
    calm = record["spike_rate"].values == 0
    assert np.isnan(gs.last_spike(record).values[calm]).all() and (gs.last_spike(record).values[~calm] == 140).all()
    np.testing.assert_allclose(gs.excess(record).values[:, 100], np.where(calm, 0.0, 0.19), atol=1e-12)
    # Of the 20 losses from 165 on 5 are 0.19 above, on average less than 0.05.
    np.testing.assert_array_equal(gs.recovery(record).values[~calm], [25, 25, np.nan, np.nan])
    np.testing.assert_array_equal(gs.recovery_or_end(record).values[~calm], [25, 25, 160, 160])


def test_a_run_without_a_twin_has_no_excess():
    assert np.isnan(gs.excess(made([gs.ADAM | gs.IN_FEW]))).all()


def test_scores_of_a_curve_with_two_leaps():
    def norm(knobs, step):
        return 1000.0 if step in (100, 200) else 1 + step % 2

    record = made([gs.ADAM], gradient_norm_total=norm, train_loss=norm)
    assert gs.gradient_spike_score(record).values == pytest.approx([2 / 251] * 2)
    assert gs.loss_spike_score(record).values == pytest.approx([2 / 251] * 2)
    mean = (2000 + 149 + 2 * 150) / 301
    assert gs.largest_gradient_spike(record).values == pytest.approx([1000 / mean] * 2)


def test_a_provoked_spike_is_fifty_times_the_median_of_what_there_is():
    """Until it ends at 100: at 0 and 50 it is 49, at 1 and 51 it is 51, at 2 and 52 infinite, at 3 and 53 it is 1, else 1 or infinite."""

    def norm(usual):
        return lambda knobs, step: np.nan if step >= 100 else (49.0, 51.0, np.inf, 1.0)[step % 50] if step % 50 < 4 else usual

    assert gs.provoked_spikes(made([gs.ADAM], gradient_norm_total=norm(1.0))).values == pytest.approx([4 / 100] * 2)
    assert gs.provoked_spikes(made([gs.ADAM], gradient_norm_total=norm(np.inf))).values == pytest.approx([94 / 100] * 2)
    assert np.isfinite(gs.gradient_norm_range(made([gs.ADAM], gradient_norm_total=lambda knobs, step: 0.0))).all()


def test_the_range_of_the_gradient_norm_is_of_the_second_half():
    record = made([gs.ADAM], gradient_norm_total=lambda knobs, step: 1e9 if step < 150 else 10.0 ** ((step - 150) / 50))
    assert gs.gradient_norm_range(record).values == pytest.approx([0.9 * 3] * 2, rel=0.01)


def loss_of(of_run):
    return {"validation_loss": lambda knobs, step: 5.0 if step == 0 else of_run(knobs)}


def test_effects_are_paired_by_seed_and_take_the_runs_they_name():
    settings = [gs.ADAM | gs.CALM, gs.ADAM | gs.IN_FEW, gs.CLIPPED | gs.IN_FEW, gs.SPAM | gs.IN_FEW, gs.SPARSE | gs.IN_FEW]
    loss = loss_of(lambda k: 2 + 0.1 * k["seed"] * (k["spike_rate"] > 0) - k["clip"] / 2 - (k["optimizer"] == "spam") * k["spam_density"])
    record = made(settings, **loss)

    def found(high, low):
        return gs.difference(record, gs.final_validation_loss, high, low).values

    np.testing.assert_allclose(found(gs.ADAM | gs.IN_FEW, gs.ADAM | gs.CALM), [0.4, 0.5])
    np.testing.assert_allclose(found(gs.ADAM | gs.IN_FEW, gs.CLIPPED | gs.IN_FEW), [0.5, 0.5])
    np.testing.assert_allclose(found(gs.ADAM | gs.IN_FEW, gs.SPAM | gs.IN_FEW), [1.0, 1.0])
    np.testing.assert_allclose(found(gs.ADAM | gs.IN_FEW, gs.SPARSE | gs.IN_FEW), [0.5, 0.5])


def test_half_of_the_steps_is_told_from_all_of_them():
    settings = [gs.ADAM | gs.CALM | gs.INT4 | extra for extra in ({}, gs.HALF)]
    record = made(settings, **loss_of(lambda k: k["horizon"] / 100))
    assert gs.losses(record, **gs.INT4).values.tolist() == [[3, 3]] and gs.losses(record, **gs.INT4, **gs.HALF).values.tolist() == [
        [1.5, 1.5]
    ]


def test_rates_are_compared_at_the_best_and_over_all():
    """Adam's losses over the rates 2, 1, 3, 9, which counts as the 5 of before; in 4 bits 4, 4, 2, 3."""
    over = {"adamw": dict(zip(gs.RATES, (2, 1, 3, 9), strict=True)), "int4": dict(zip(gs.RATES, (4, 4, 2, 3), strict=True))}
    settings = [gs.ADAM | gs.CALM | bits | {"lr": lr} for bits in ({}, gs.INT4) for lr in gs.RATES]
    record = made(settings, **loss_of(lambda k: over["int4" if k["round_weights"] == "int4" else "adamw"][k["lr"]]))
    assert gs.at_best_rates(record, gs.ADAM | gs.INT4, gs.ADAM).values.tolist() == [1, 1]
    assert gs.sensitivity(record).values == pytest.approx([(1 + 0 + 2 + 4) / 4] * 2)
    assert gs.more_sensitive(record, gs.ADAM, gs.ADAM | gs.INT4).values == pytest.approx([7 / 4 - 5 / 4] * 2)
    assert gs.fall(record, gs.HIGHEST).values.tolist() == [-4, -4] and gs.fall(record, gs.HIGH, **gs.INT4).values.tolist() == [3, 3]


def test_a_run_that_diverged_counts_as_one_and_has_no_loss():
    record = made([gs.ADAM | gs.CALM], lost=(1,), **loss_of(lambda k: np.nan if k["seed"] == 5 else 2.0))
    assert gs.diverged(record).values.tolist() == [0, 1] and np.isnan(gs.final_validation_loss(record)).values.tolist() == [False, True]


def test_runs_are_called_by_what_they_differ_in():
    settings = [gs.CLIPPED | gs.IN_ALL, gs.LONG_WARMUP | gs.IN_FEW, gs.SPARSE | gs.CALM, gs.STABLE_SPAM | gs.INT4 | gs.CALM]
    record = made(settings, seeds=(4,))
    assert gs.optimizers(record).tolist() == ["Adam, clipped", "SPAM, long warmup", "SPAM, sparse", "Stable-SPAM"]
    assert gs.precisions(record).tolist() == ["float32"] * 3 + ["int4 scaled by block"]
    assert gs.conditions(record).tolist() == ["spikes in all tensors", "spikes in 10% of the tensors", "no spikes", "no spikes"]
    several = made([gs.IN_ALL | {"spike_size": size, "spike_rate": rate} for size, rate in ((10.0, 0.0), (10.0, 0.1), (100.0, 0.1))], (4,))
    assert gs.conditions(several).tolist() == ["no spikes", "spikes in all tensors, size 10", "spikes in all tensors, size 100"]


@pytest.mark.parametrize(("after", "answer"), [(2.0, 0), (2.9, 1), (3.1, 2), (np.nan, 2)])
def test_the_prediction_is_settled_by_the_training_loss(after, answer):
    assert gs.loss_after_spikes(made([gs.ADAM], train_loss=lambda knobs, step: 3.0 if step <= 60 else after)) == answer


def test_the_summary_says_losses_by_spikes_and_number_format():
    loss = loss_of(lambda k: 2.0 + (k["spike_rate"] > 0) + k["lr"])
    record = made([gs.ADAM | gs.CALM, gs.ADAM | gs.CALM | {"lr": 0.2}, gs.SPAM | gs.IN_ALL], **loss)
    assert gs.summary(record) == [
        "6 runs of 300 steps: 0 diverged. Validation loss at the end in nats, at the best rate (mean over seeds):",
        "no spikes, float32: Adam 2.010.",
        "spikes in all tensors, float32: SPAM 3.010.",
    ]
    assert gs.summary(made([gs.ADAM | gs.CALM], **loss_of(lambda k: np.nan)))[1] == "no spikes, float32: Adam diverged."


@pytest.mark.parametrize("view", gs.study.views, ids=lambda view: view.name)
def test_views_show_any_runs(view):
    everything = [gs.ADAM | gs.CALM, gs.SPAM | gs.IN_FEW, gs.STABLE_SPAM | gs.INT4 | gs.CALM | {"lr": 0.2}, gs.ADAM | gs.CALM | gs.HALF]
    for settings in (everything, everything[1:2], everything[2:3], [gs.ADAM | gs.IN_FEW | {"spike_from": 0}]):
        assert view(made(settings, injected_share=injected)).to_dict()
