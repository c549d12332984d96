"""What `large_rate_oscillation` trains on, measures and claims, against closed forms and records whose answer is known by hand."""

import numpy as np
import pytest
import torch
from panels_for_tests import opened, trained

from workbench import noise
from workbench.claim import judge
from workbench.design import axes
from workbench.errors import InputError
from workbench.record import blank, fill
from workbench.schema import Progress, Schema, Slab, Variable
from workbench.studies import large_rate_oscillation as lro
from workbench.study import Now, Terms
from workbench.tasks.weak_strong import STRONG, WEAK
from workbench.testing import check_task

STEPS = 10
LAST = ("weak_only_accuracy", "training_loss", "strong_output")
CURVES = ("residual", "weak_output")


def made(steps=STEPS, rates=lro.RATES, batch=1, **of_run):
    """A record of four seeds; each variable is a function of (rate, seed), or of (rate, seed, step) for the curves. 1 if not given."""
    rows = [vars(lro.Settings()) | {"seed": seed, "lr": lr, "batch": batch} for lr in rates for seed in lro.SEEDS]
    columns = {name: dict(units=spec.units, long_name=spec.doc) for name, spec in axes(lro.Settings).items()}
    variables = [Variable(n, c, (), "float64", {}) for names, c in ((LAST, 10), (CURVES, 1)) for n in names]
    record = blank(Schema(rows, columns, variables, {}, [("train", 0)], 0, steps, {"start": 0, "study": "large_rate_oscillation"}))
    runs, one = range(len(rows)), lambda *where: 1.0
    ticks = [*range(0, steps + 1, 10)]
    ends = {n: np.array([[of_run.get(n, one)(r["lr"], r["seed"])] * len(ticks) for r in rows]) for n in LAST}
    fill(record, Slab(runs, 10, ticks, ends, {}))
    lines = {n: np.array([[of_run.get(n, one)(r["lr"], r["seed"], s) for s in range(steps + 1)] for r in rows]) for n in CURVES}
    fill(record, Slab(runs, 1, [*range(steps + 1)], lines, {}))
    fill(record, Progress(runs, steps, [-1] * len(rows)))
    return record


def begun(seed=0, **knobs):
    """(state, knobs, shared, key) of a run before its first update."""
    knobs = lro.Settings(**knobs)
    shared = lro.study.learner.prepare(knobs, noise.key_of(0))
    key = noise.key_of(seed)
    return lro.study.learner.init(key, knobs, shared), knobs, shared, key


def with_weight(state, weight):
    return {**state, "params": {"weight": weight}}


def updated(state, knobs, shared, key, index, step=0):
    return lro.study.learner.step(state, {"index": torch.tensor(index)}, knobs, shared, Now(torch.tensor(float(step)), key, "train"))


def test_the_task_keeps_its_contract():
    assert check_task(lro.TASK, lro.Settings()) == []
    everything = lro.TASK(lro.Settings(batch=60), noise.key_of(3))["index"]
    assert sorted(everything.tolist()) == [*range(60)]
    with pytest.raises(InputError, match="A batch of 61 has more than all 60 samples"):
        lro.TASK(lro.Settings(batch=61), noise.key_of(3))


def test_every_sample_has_the_weak_feature_and_a_share_the_strong_one():
    state, knobs, _, _ = begun(weak_norm=0.5, strong_norm=2.0, strong_share=0.75, samples=40)
    x, y = lro.TASK.all_samples(knobs, state["samples"]).values()
    assert x.shape == (40, 3, 200) and set(y.tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(x[:, 0], 0.5 * y[:, None] * torch.eye(200)[WEAK])
    torch.testing.assert_close(x[:30, 1], 2.0 * y[:30, None] * torch.eye(200)[STRONG])
    for patches in (x[30:, 1], x[:, 2]):
        assert (patches[:, [WEAK, STRONG]] == 0).all() and patches[:, 2:].std().item() == pytest.approx(0.2, rel=0.03)
    one = lro.TASK.samples(knobs, state["samples"], torch.tensor([7, 35]))
    assert torch.equal(one["x"], x[[7, 35]]) and torch.equal(one["y"], y[[7, 35]])


def test_held_out_samples_have_the_weak_feature_alone():
    knobs = lro.Settings()
    x, y = lro.TASK.weak_only(knobs, lro.TASK.evaluation(knobs)).values()
    assert x.shape == (256, 3, 200) and (x[..., STRONG] == 0).all() and torch.equal(x[:, 0, WEAK], y)


def test_each_seed_has_a_training_set_of_its_own_and_keeps_it():
    state, knobs, shared, key = begun(seed=0)
    other, *_ = begun(seed=1)
    assert not torch.equal(state["samples"]["noise"], other["samples"]["noise"])
    after, _ = updated(state, knobs, shared, key, [3])
    faster = knobs.replace(schedule="cosine")
    carried = lro.study.learner.adapt(after, key, Terms(knobs, shared), Terms(faster, shared))
    assert all(torch.equal(state["samples"][name], kept["samples"][name]) for name in state["samples"] for kept in (after, carried))


def test_the_network_is_the_sum_over_patches_of_the_mean_over_filters():
    state, _, shared, _ = begun(filters=3)
    x, weight = torch.randn(5, 3, 200, generator=torch.Generator().manual_seed(0)), state["params"]["weight"]
    expected = [sum(s * max(0.0, (weight[i, r] @ p).item()) ** 2 / 3 for i, s in ((0, 1), (1, -1)) for r in range(3) for p in b) for b in x]
    np.testing.assert_allclose(lro._output(state, shared, x), expected, rtol=1e-4)


@pytest.mark.parametrize(("axis", "norm"), [(WEAK, 1.0), (STRONG, 3.0)])
def test_a_projection_grows_by_the_residual_it_sees(axis, norm):
    """Patches are orthogonal, so an active filter's product with a feature is multiplied by 1 + 2 lr norm^2 / filters (1 - y f)."""
    state, knobs, shared, key = begun(lr=0.7)
    y = state["samples"]["y"][3].item()
    after, moment = updated(state, knobs, shared, key, [3])
    assert lro.half_square(moment.taps["readout"], moment.batch).item() == pytest.approx(moment.loss.item())
    residual = lro.residual(moment).item()
    assert residual == pytest.approx(1 - y * moment.taps["readout"].item())
    before, now = (y * s["params"]["weight"][0 if y > 0 else 1, :, axis] for s in (state, after))
    expected = torch.where(before > 0, before * (1 + 2 * 0.7 * norm**2 / knobs.filters * residual), before)
    torch.testing.assert_close(now, expected)


def fitted_by(feature, norm, **given):
    """A run in which one feature alone makes y f(x) = 1, with one filter for each label."""
    state, knobs, shared, key = begun(noise=0.0, **given)
    weight = torch.zeros_like(state["params"]["weight"])
    weight[0, 0, feature], weight[1, 0, feature] = knobs.filters**0.5 / norm, -(knobs.filters**0.5) / norm
    return with_weight(state, weight), knobs, shared, key


def test_what_features_add_is_y_f():
    for feature, norm, weak, strong in ((WEAK, 1.0, 1.0, 0.0), (STRONG, 3.0, 0.0, 1.0)):
        state, knobs, shared, key = fitted_by(feature, norm)
        _, moment = updated(state, knobs, shared, key, [0])
        assert lro.weak_output(moment).item() == pytest.approx(weak) and lro.strong_output(moment).item() == pytest.approx(strong)
        assert lro.residual(moment).item() == pytest.approx(0.0, abs=1e-5)
        projected = (lro.weak_projection if feature == WEAK else lro.strong_projection)(moment)
        assert projected.tolist() == pytest.approx([4 / norm, *[0] * 15, 4 / norm, *[0] * 15])


def test_a_network_of_the_weak_feature_is_right_everywhere_and_one_of_the_strong_feature_nowhere():
    right, wrong = fitted_by(WEAK, 1.0, strong_share=0.5), fitted_by(STRONG, 3.0, strong_share=0.5)
    assert lro.weak_only_accuracy(*right).item() == 1 and lro.weak_only_accuracy(*wrong).item() == 0
    assert lro.training_loss(*right).item() == pytest.approx(0, abs=1e-9) and lro.training_loss(*wrong).item() == pytest.approx(0.25)
    assert lro.noise_output(*right).item() == 0


def test_sharpness_of_a_sample_is_that_of_its_loss():
    state, knobs, shared, key = begun(samples=10, filters=4)
    x = lro.TASK.all_samples(knobs, state["samples"])["x"]

    def output(weight):
        return lro._output(with_weight(state, weight), shared, x)

    slopes = torch.func.jacrev(output)(state["params"]["weight"])
    assert lro.sample_sharpness(state, knobs, shared, key).item() == pytest.approx(slopes.square().sum((1, 2, 3)).mean().item(), rel=1e-4)


def test_the_edge_of_the_strong_feature():
    """Fitted by the strong feature the sharpness is 4 norm^2 / filters: a disturbance shrinks below filters / (2 norm^2), grows above."""
    run = fitted_by(STRONG, 3.0, strong_share=1.0)
    assert lro.sample_sharpness(*run).item() == pytest.approx(4 * 9 / 16)
    for lr, grows in ((0.85, False), (0.93, True)):
        state, knobs, shared, key = fitted_by(STRONG, 3.0, strong_share=1.0, lr=lr)
        state = with_weight(state, state["params"]["weight"] * 1.001)
        sizes = []
        for _ in range(3):
            state, moment = updated(state, knobs, shared, key, [0])
            sizes.append(lro.residual(moment).abs().item())
        assert (sizes[0] < sizes[1] < sizes[2]) is grows and (sizes[0] > sizes[1] > sizes[2]) is not grows


def test_accuracies_are_compared_where_both_have_fitted():
    record = made(weak_only_accuracy=lambda lr, seed: 0.5 + 0.3 * (lr == lro.LARGE) + 0.01 * seed, training_loss=lambda lr, seed: 0.001)
    np.testing.assert_allclose(lro.more_right(record, lro.SMALL, lro.LARGE), 30)
    np.testing.assert_allclose(lro.more_right(record, lro.BELOW, lro.JUST_ABOVE), 0)
    unfitted = made(training_loss=lambda lr, seed: 0.5 if (lr, seed) == (lro.SMALL, 5) else 0.001)
    assert np.isnan(lro.more_right(unfitted, lro.SMALL, lro.LARGE)).values.tolist() == [False, True, False, False]
    assert judge(lro.CLAIMS[0], unfitted).status == "undecided"


def test_the_small_rate_is_judged_by_its_loss_and_its_features():
    record = made(
        training_loss=lambda lr, seed: 0.001 * seed * lr / lro.SMALL,
        strong_output=lambda lr, seed: 0.8,
        weak_output=lambda lr, seed, step: 0.04 * step / STEPS,
    )
    np.testing.assert_allclose(lro.loss_left(record), [0.004, 0.005, 0.006, 0.007])
    np.testing.assert_allclose(lro.weak_beside_strong(record), 0.05)
    assert [judge(lro.CLAIMS[i], record).status for i in (1, 2)] == ["holds", "holds"]


def test_oscillation_and_learning_begin_where_their_levels_are_crossed():
    record = made(
        residual=lambda lr, seed, step: -0.3 if lr == lro.LARGE and step >= 2 else -0.1,
        weak_output=lambda lr, seed, step: 0.2 if lr == lro.LARGE and step >= seed + 2 else 0.05,
    )
    np.testing.assert_array_equal(lro.head_start(record), [4, 5, 6, 7])
    assert lro.head_start(record)["seed"].values.tolist() == [4, 5, 6, 7]
    shares = lro.overshot_share(record.wb.where(lr=lro.LARGE, seed=4).wb["residual"])
    np.testing.assert_allclose(shares.values[0], [max(0, step - 1) / (step + 1) for step in range(STEPS + 1)])
    calm = record.wb.where(lr=lro.SMALL)
    assert np.isnan(lro.oscillation_step(calm)).all() and np.isnan(lro.weak_step(calm)).all()


@pytest.mark.parametrize(("accuracy", "answer"), [(0.5, 0), (0.76, 1), (0.94, 1), (0.99, 2), (np.nan, 0)])
def test_the_prediction_is_settled_by_the_mean_accuracy(accuracy, answer):
    record = made(lro.LATER, (0.5,), weak_only_accuracy=lambda lr, seed: accuracy)
    assert lro.accuracy_reached(record) == answer


def test_the_summary_says_how_each_rate_ended():
    record = made(rates=(0.1, 1.1), weak_only_accuracy=lambda lr, seed: 0.5, weak_output=lambda lr, seed, step: lr)
    assert lro.summary(record) == [
        "8 runs of 10 steps. At the end, mean over runs:",
        "batch 1: lr 0.1: 50% right without the strong feature, weak feature 0.10; "
        "lr 1.1: 50% right without the strong feature, weak feature 1.10.",
    ]


def test_a_rate_raised_in_the_panel_begins_to_oscillate():
    with opened(lro.study, preset="small rate") as panel:
        trained(panel, 120).knobs["lr"] = lro.LARGE
        trained(panel, 160)
        residual = panel.record.wb["residual"].values[0]
        assert residual[:120].min() > -lro.OVERSHOT > residual[120:].min()
