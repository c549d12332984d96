"""The Dirac GAN against closed forms: orbits of linear maps, the eigenvalues of their updates, and records made by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

import workbench as wb
from workbench.studies import dirac_gan as dg
from workbench.study import Budget

RATE = dg.RATE


@pytest.fixture(scope="module")
def record():
    """Four settings that plain numpy can follow, two seeds."""
    kinds = ("Wasserstein, at once", "Wasserstein, in turns", "R1", "hinge")
    few = replace(dg.study, budgets={**dg.study.budgets, "smoke": Budget(dg._design(kinds, range(2)), 200)})
    return wb.run(few, budget="smoke", progress=False)


def followed(record, name, update):
    """Positions and slopes of the runs of a setting, and those that `update(position, slope)` makes of the same starts: (2, seed, step)."""
    runs = [run for run, row in enumerate(dg.rows(record)) if dg._named(row) == name]
    measured = np.stack([record.wb[variable].transpose("run", "step").values[runs].astype(float) for variable in ("position", "slope")])
    expected = [measured[:, :, 0]]
    for _ in range(measured.shape[2] - 1):
        expected.append(np.stack(update(*expected[-1])))
    return measured, np.stack(expected, 2)


def test_wasserstein_players_turn_as_a_matrix_says(record):
    for name, update in {
        "Wasserstein, at once": lambda p, s: (p + RATE * s, s - RATE * p),
        "Wasserstein, in turns": lambda p, s: (p + RATE * (s - RATE * p), s - RATE * p),
    }.items():
        measured, expected = followed(record, name, update)
        np.testing.assert_allclose(measured, expected, atol=1e-5)


def test_r1_players_go_where_logistic_losses_send_them(record):
    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def update(p, s):
        s = s - RATE * (p * sigmoid(s * p) + s)
        return p + RATE * s * sigmoid(-s * p), s

    measured, expected = followed(record, "R1", update)
    np.testing.assert_allclose(measured, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("knobs", "factor"),
    [
        (dict(adversarial_loss="wasserstein", updates="simultaneous"), math.sqrt(1 + RATE**2)),
        (dict(adversarial_loss="wasserstein"), 1.0),
        (dict(updates="simultaneous"), math.sqrt(1 + RATE**2 / 4)),
        (dict(critic_steps=5), 1.0),
        (dict(updates="simultaneous", penalty="r1", penalty_weight=1.0), 1 - RATE / 2),
        (dict(updates="simultaneous", penalty="r1", penalty_weight=10.0), 1 - RATE * (5 - math.sqrt(24.75))),
        (dict(adversarial_loss="least_squares"), 1.0),
    ],
)
def test_the_expected_factor_is_that_of_the_eigenvalues_in_closed_form(knobs, factor):
    assert dg.expected_factor(vars(dg.Settings(**knobs))) == pytest.approx(factor, rel=1e-7)


def test_the_eigenvalues_say_nothing_of_the_gradient_penalty_and_of_noise():
    for knobs in (dict(penalty="gradient"), dict(instance_noise=1.0)):
        assert math.isnan(dg.expected_factor(vars(dg.Settings(**knobs))))


def test_growth_is_the_slope_of_the_log_of_the_distance(record):
    found = dict(
        zip(map(dg._named, dg.rows(record)), zip(dg.measured(record).values, dg.expected(record).values, strict=True), strict=True)
    )
    assert found["Wasserstein, at once"][0] == pytest.approx(math.log(1 + RATE**2) / 2, rel=1e-4)
    assert found["Wasserstein, at once"][1] == pytest.approx(math.log(1 + RATE**2) / 2)
    np.testing.assert_allclose(dg.departure(record, "Wasserstein, at once"), [0, 0], atol=1e-6)


def test_effects_are_read_off_the_runs_of_their_setting(record):
    assert (dg.kept_distance(record, "hinge") > 0.9).all() and (dg.kept_distance(record, "R1") < 0.5).all()
    assert dg.kept_distance(record, "hinge")["seed"].values.tolist() == [0, 1]


def test_settings_have_their_names_and_others_say_what_they_changed():
    design = dict(penalty="r1", penalty_weight=[1.0, 3.0], init_scale=dg.NEAR, seed=range(2))
    record = wb.run(dg.study, **design, steps=5, progress=False)
    assert dg.settings(record).names == ("R1", "R1, weight 3")
    other = wb.run(dg.study, penalty="r1", penalty_weight=3.0, updates="simultaneous", steps=5, progress=False)
    assert dg.settings(other).names == ("updates simultaneous, penalty r1, penalty_weight 3",)


@pytest.mark.parametrize(("knobs", "answer"), [(dict(penalty="r1"), 0), (dict(), 1), (dict(updates="simultaneous", critic_lr=0.5), 2)])
def test_the_prediction_is_settled_by_the_distance(knobs, answer):
    assert dg.ended(wb.run(dg.study, **knobs, init_scale=dg.NEAR, steps=dg.LATER, progress=False)) == answer


@pytest.mark.parametrize("view", dg.study.views, ids=lambda view: view.name)
def test_views_show_several_settings_and_one(view, record):
    for shown in (record, record.wb.where(penalty="r1")):
        view(shown).to_dict()


def test_the_summary_has_a_line_for_each_setting(record):
    lines = dg.summary(record)
    assert lines[0] == "8 runs of 200 steps; distance at the end over the start:" and len(lines) == 5
    assert lines[2].startswith("Wasserstein, in turns: ")
