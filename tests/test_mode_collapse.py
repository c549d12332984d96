"""Mode collapse: what is measured on players made by hand, effects and names of settings on records of a few steps."""

import numpy as np
import pytest
import torch
import xarray as xr

import workbench as wb
from workbench import noise
from workbench.studies import mode_collapse as mc
from workbench.tasks.mixtures import centres

KEY = noise.key_of(0)
SHORT = dict(steps=20, progress=False, probes=tuple(p.name for p in mc.OPTIONAL))


@pytest.fixture(scope="module")
def record():
    """Plain and with R1, two seeds, twenty steps."""
    return wb.run(mc.study, penalty=["none", "r1"], seed=range(2), **SHORT)


def at_one_place(place):
    """A state whose generator makes one point, and whose critic scores a point by its height."""
    knobs = mc.Settings(generator_width=16, critic_width=16, critic_depth=1)
    shared = mc.study.learner.prepare(knobs, KEY)
    state = mc.study.learner.init(KEY, knobs, shared)
    params = {name: torch.zeros_like(p) for name, p in state["params"].items()}
    params["generator.readout.bias"] = torch.tensor(place)
    params["critic.layers.0.weight"] = torch.cat([torch.tensor([[0.0, 1.0]]), torch.zeros(15, 2)])
    params["critic.layers.0.bias"] = torch.cat([torch.tensor([10.0]), torch.zeros(15)])
    params["critic.readout.weight"] = torch.cat([torch.ones(1, 1), torch.zeros(1, 15)], 1)
    average = {name.removeprefix("generator."): p for name, p in params.items() if name.startswith("generator.")}
    return state | dict(params=params, average=average), knobs, shared, KEY


def test_a_generator_of_one_mode_covers_one():
    state = at_one_place((0.0, 2.0))
    assert mc.modes_covered(*state).item() == 1
    assert mc.mode_share(*state).tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    assert mc.sample_recall(*state).item() < 0.01 < 0.99 < mc.sample_precision(*state).item()


def test_the_distance_of_a_point_from_a_ring_is_that_of_each_projection():
    knobs = mc.Settings()
    angle = np.pi * (np.arange(720) + 0.5) / 720
    along = np.stack([np.cos(angle), np.sin(angle)])
    expected = np.abs(centres(knobs).numpy() @ along).mean()  # of the centre; modes have a width of 0.1
    state = at_one_place((0.0, 0.0))
    assert mc.sample_distance(*state).item() == pytest.approx(expected, rel=0.02)
    assert mc.average_distance(*state).item() == mc.sample_distance(*state).item()


def test_the_picture_has_up_above_and_leaves_out_what_lies_outside():
    picture = mc.sample_density(*at_one_place((0.01, 2.9)))
    assert picture.dtype == torch.uint8 and picture.nonzero().tolist() == [[0, mc.CELLS // 2]] and picture.max() == 255
    assert not mc.sample_density(*at_one_place((9.0, 0.0))).any() and not mc.sample_density(*at_one_place((torch.nan, 0.0))).any()


def test_overfitting_is_the_mean_score_of_known_points_over_that_of_others():
    state = at_one_place((0.0, 0.0))
    knobs = state[1]
    expected = (
        mc.known(knobs, mc.FEW)[:, 1].mean() - mc.held_out(knobs, torch.zeros(()))[:, 1].mean()
    )  # the score is a point's height and ten
    assert mc.critic_overfitting(*state).item() == pytest.approx(expected.item(), abs=1e-4)


def shares(*moments):
    """A record of one run whose modes have these shares, a moment every 50 steps."""
    steps = 50 * np.arange(len(moments))
    return type("Record", (), {"wb": {"mode_share": xr.DataArray([moments], dims=("run", "step", "mode"), coords={"step": steps})}})


def test_turnover_is_the_share_that_went_to_another_mode_in_a_hundred_steps():
    all_here, all_there, half = [1.0, 0.0], [0.0, 1.0], [0.5, 0.5]
    assert mc.turnover(shares(*[all_here] * 9)).item() == 0
    assert mc.turnover(shares(half, half, half, half, all_here, half, all_there, half, all_here)).item() == 1
    assert mc.turnover(shares(all_there, half, all_here, half, all_here, half, half, half, half)).item() == 0.25


def test_effects_pair_the_seeds_of_two_settings(record):
    covered, far = mc.late(record, "modes_covered").values, mc.late(record, "sample_distance").values
    plain = record["penalty"].values == "none"
    np.testing.assert_allclose(mc.more_modes(record, "R1"), covered[~plain] - covered[plain])
    np.testing.assert_allclose(mc.ratio(record, "R1"), far[~plain] / far[plain], rtol=1e-6)
    assert mc.ratio(record, "R1")["seed"].values.tolist() == [0, 1]


def test_settings_have_their_names_and_others_say_what_they_changed(record):
    assert mc.settings(record).names == ("plain", "R1")
    row = dict(mc.rows(record)[0])
    assert mc._named(row | mc.racer("AdaBelief", 1e-3)) == "AdaBelief, rate 0.001"
    assert mc._named(row | dict(penalty="r1", instance_noise=0.5)) == "penalty r1, instance_noise 0.5"
    assert {mc._named(row | knobs) for knobs in mc.SETTINGS.values()} == {*mc.SETTINGS}


def test_the_race_changes_both_players_and_nothing_else():
    runs = mc._race().rows(mc.Settings)
    assert len(runs) == len(mc.OPTIMIZERS) * (len(mc.SEEDS) + (len(mc.RATES) - 1) * len(mc.FEW_SEEDS))
    assert all(row[f"generator_{name}"] == row[f"critic_{name}"] for row in runs for name in ("optimizer", "lr", "epsilon", "beta1"))


@pytest.mark.parametrize(("covered", "answer"), [(0, 0), (2, 0), (3, 1), (5, 1), (6, 2), (8, 2)])
def test_the_prediction_is_settled_by_the_share_of_modes(covered, answer):
    steps = xr.DataArray([[0.0, covered]], dims=("run", "step"), coords={"step": [0, mc.LATER]})
    record = type("Record", (), {"wb": {"modes_covered": steps}, "__getitem__": lambda self, name: xr.DataArray([8], dims="run")})()
    assert mc.ended(record) == answer


@pytest.mark.parametrize("view", mc.study.views, ids=lambda view: view.name)
def test_views_show_several_settings_and_one(view, record):
    for shown in (record, record.wb.where(penalty="r1")):
        view(shown).to_dict()


def test_the_summary_has_a_line_for_each_setting(record):
    lines = mc.summary(record)
    assert lines[0] == "4 runs of 20 steps; modes covered and distance, late:" and len(lines) == 3 and lines[2].startswith("R1: ")
