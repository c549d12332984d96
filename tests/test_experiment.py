"""Experiments: twins equal to the last bit, changes, switches, going back, whose turn it is."""

import random
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from experiments_for_tests import (
    advanced,
    all_of,
    assert_same_curves,
    assert_same_runs,
    assert_same_states,
    begun,
    curve,
    in_layout,
    row,
    travelled,
    watched,
)
from learners_for_tests import UNLIKE, Descent, parabola, perceptron, student
from learners_for_tests import transformer as decoder

import workbench as wb
from workbench.engine.experiment import Experiment
from workbench.engine.written import record_of
from workbench.errors import InputError
from workbench.knobs import knob
from workbench.learners import Supervised
from workbench.models import Decoder

QK_NORM = [f"['params']['blocks.0.attention.{word}_norm.weight']" for word in ("query", "key")]

# Twins


@pytest.mark.parametrize(("seeds", "layout"), [((0,), "loop"), ((0, 3), "loop"), ((0, 3), "lanes")])
def test_a_twin_with_nothing_changed_is_equal_to_the_last_bit_over_200_steps(seeds, layout, monkeypatch):
    in_layout(monkeypatch, layout)
    experiment = begun(perceptron, 17, seeds, dict(lr=0.1))
    original, twin = experiment.track, experiment.twin()
    advanced(experiment, 200)
    assert original.step == twin.step == 217 and (twin.kind, twin.parent, twin.start) == ("twin", original, 17)
    assert_same_curves(original, twin)
    assert_same_states(*(experiment.shelf.states[number, 210].runs for number in (1, 2)))
    assert (np.diff(curve(twin, "train_loss")) != 0).all()


def test_a_twin_with_another_knob_leaves_the_original_alone():
    experiment, alone = begun(perceptron, 12), begun(perceptron, 30)
    original, twin = experiment.track, experiment.twin(lr=0.05)
    advanced(experiment, 18)
    assert_same_curves(original, alone.track)
    ours, theirs = curve(original, "train_loss"), curve(twin, "train_loss")
    np.testing.assert_array_equal(ours[:, :13], theirs[:, :13])
    assert (ours[:, 13:] != theirs[:, 13:]).all()


def test_a_twin_of_a_twin_is_a_branch_of_it():
    experiment = begun(parabola, 3)
    experiment.twin(lr=0.5)
    advanced(experiment, 2)
    twig = experiment.twin()
    advanced(experiment, 4)
    assert [each.name for each in twig.ancestors] == ["twin 2", "run 1"]
    assert_same_curves(experiment.tracks[2], twig)
    assert twig.changes == experiment.tracks[2].changes


def test_a_twin_cannot_differ_in_what_is_fixed_for_a_run():
    experiment = begun(decoder, 3)
    before = all_of(experiment)
    for knobs in (dict(depth=2), dict(init_scale=2.0), dict(lr=0.1, depth=2)):
        with pytest.raises(InputError, match="is fixed for a run, so a fork cannot differ in it; begin a new run"):
            experiment.twin(**knobs)
    assert all_of(experiment) == before


# Changes


def test_a_changed_knob_acts_on_exactly_the_next_update():
    experiment = begun(parabola, 4)
    assert experiment.change(lr=0.5) is experiment.track is experiment.tracks[1]
    advanced(experiment, 3)
    record = record_of(experiment)
    np.testing.assert_allclose(record.wb["weight"][0], [*0.9 ** np.arange(5), *0.9**4 * 0.5 ** np.arange(1, 4)], rtol=1e-6)
    change = record["timeline"].to_dataset().isel(change=0)
    assert [change[name].item() for name in ("changed_run", "at_step", "knob", "old", "new", "parent")] == [0, 4, "lr", "0.1", "0.5", -1]
    assert record["timeline"].sizes["change"] == 1 and record["lr"].item() == 0.1


def test_several_changes_of_a_knob_at_a_step_are_one_entry_and_changing_back_removes_it():
    experiment = begun(parabola, 4)
    for lr in (0.5, 0.2, 0.3):
        experiment.change(lr=lr)
    assert [(c.step, c.knob, c.old, c.new) for c in experiment.track.changes] == [(4, "lr", 0.1, 0.3)]
    experiment.change(lr=0.1)
    assert experiment.track.changes == []
    experiment.change(lr=0.2)
    advanced(experiment, 1)
    experiment.change(lr=0.1)
    assert [(c.step, c.old, c.new) for c in experiment.track.changes] == [(4, 0.1, 0.2), (5, 0.2, 0.1)]
    advanced(experiment, 2)
    np.testing.assert_allclose(curve(experiment.track, "weight")[0, 4:], 0.9**4 * np.array([1, 0.8, 0.8 * 0.9]), rtol=1e-6)


def test_a_value_that_a_knob_has_already_changes_nothing():
    experiment = begun(parabola, 4)
    before = all_of(experiment)
    experiment.change(lr=0.1)
    assert all_of(experiment) == before


def test_a_run_that_has_made_no_update_just_takes_other_knobs():
    experiment = begun(decoder, seeds=(0,))
    experiment.change(depth=2, init_scale=0.5, qk_norm=True)
    assert list(experiment.tracks) == [1] and experiment.track.changes == [] and experiment.carried is None
    advanced(experiment, 12)
    again = begun(decoder, 12, knobs=dict(depth=2, init_scale=0.5, qk_norm=True))
    assert_same_curves(experiment.track, again.track)


def test_a_run_that_has_a_twin_at_step_0_stays_its_parent_when_it_is_changed():
    experiment = begun(parabola)
    experiment.twin()
    experiment.select(1)
    experiment.change(lr=0.5)
    with pytest.raises(InputError, match="'run 1' has branches of its own"):
        experiment.forget(1)
    advanced(experiment, 2)
    assert [curve(track, "weight")[0, 1].item() for track in experiment.tracks.values()] == pytest.approx([0.5, 0.9])
    assert record_of(experiment)["lr"].values.tolist() == [0.5, 0.1]


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        (dict(lr=0.0), "Knob 'lr' is 0.0; it must be above 0"),
        (dict(optimizer="sdg"), "Knob 'optimizer' is 'sdg'; choose one of"),
        (dict(qk_norm=1), "Knob 'qk_norm' is 1 .int.; it must be true or false"),
        (dict(ir=0.1), "There is no knob 'ir'; did you mean 'lr'"),
        (dict(seed=3), "There is no knob 'seed'"),
        (dict(heads=3), "heads"),
        (dict(qk_norm=False, lr=-1.0), "Knob 'lr' is -1.0"),
    ],
)
@pytest.mark.parametrize("cursor", [None, 5])
def test_what_cannot_be_changed_is_refused_in_a_sentence_and_nothing_has_changed(knobs, sentence, cursor):
    experiment = begun(decoder, 10)
    experiment.change(qk_norm=True)
    advanced(experiment, 2)
    if cursor is not None:
        travelled(experiment, cursor)
    before = all_of(experiment)
    with pytest.raises(InputError, match=sentence):
        experiment.change(**knobs)
    assert all_of(experiment) == before


# Switches


def test_a_switch_says_what_was_kept_and_what_is_new():
    experiment = begun(decoder, 5)
    before = experiment.twin().number
    assert experiment.carried is None
    experiment.change(qk_norm=True)
    assert set(QK_NORM) == {name for name in experiment.carried.new if "params" in name}
    assert "['params']['readout.weight']" in experiment.carried.kept and "['optimizer']['count']" in experiment.carried.kept
    assert experiment.carried.changed == experiment.carried.gone == ()
    experiment.change(optimizer="sgd")
    assert set(QK_NORM) < set(experiment.carried.kept)
    assert all("optimizer" in name for name in experiment.carried.gone) and len(experiment.carried.gone) > 10
    experiment.change(lr=0.02)
    assert experiment.carried is None
    advanced(experiment, 5)
    experiment.change(qk_norm=False)
    assert set(QK_NORM) <= set(experiment.carried.gone) and not experiment.carried.new
    assert experiment.selected == before


def test_a_switch_says_what_it_changed():
    experiment = begun(decoder, 5, knobs=dict(sigma_reparam=True, sigma_init="one"))
    experiment.change(sigma_reparam=False)
    assert "['params']['blocks.0.attention.query.weight']" in experiment.carried.changed
    assert "['params']['embedding.weight']" in experiment.carried.kept
    assert experiment.carried.gone and not experiment.carried.new


def test_what_a_twin_switches_is_said_too():
    experiment = begun(decoder, 5)
    experiment.change(optimizer="sgd")
    experiment.twin(qk_norm=True)
    assert set(QK_NORM) <= set(experiment.carried.new) and experiment.carried.gone == ()
    travelled(experiment, 3)
    assert experiment.carried is None
    experiment.branch(optimizer="sgd")
    assert experiment.carried.gone and not set(QK_NORM) & {*experiment.carried.new, *experiment.carried.kept}


@pytest.mark.parametrize("there", [dict(norm_placement="none"), dict(optimizer="sgd"), dict(qk_norm=True), dict(sigma_reparam=True)])
def test_switching_there_and_back_at_a_step_leaves_no_trace(there):
    settings = dict(norm_placement="peri", lr=0.03)
    experiment, alone = begun(decoder, 13, knobs=settings), begun(decoder, 30, knobs=settings)
    back = {name: experiment.row[name] for name in there}
    experiment.change(**there)
    experiment.change(lr=0.5)
    experiment.change(**back)
    experiment.change(lr=0.03)
    assert experiment.track.changes == []
    advanced(experiment, 17)
    assert_same_curves(experiment.track, alone.track)


def test_switches_made_one_after_the_other_are_those_made_at_once():
    one, other = begun(decoder, 13), begun(decoder, 13)
    one.change(optimizer="sgd")
    one.change(norm_placement="none")
    one.change(optimizer="adamw", qk_norm=True)
    other.change(norm_placement="none", qk_norm=True)
    assert_same_curves(advanced(one, 9).track, advanced(other, 9).track)


def test_a_twin_of_a_run_that_was_switched_at_this_step_can_switch_back():
    experiment, alone = begun(decoder, 13), begun(decoder, 20)
    experiment.change(optimizer="sgd")
    twin = experiment.twin(optimizer=alone.row["optimizer"])
    advanced(experiment, 7)
    assert twin.changes == []
    assert_same_curves(twin, alone.track)
    assert curve(twin, "train_loss")[0, -1] != curve(experiment.tracks[1], "train_loss")[0, -1]


class Stubborn(Supervised):
    def adapt(self, state, key, old, new):
        raise InputError("The weights cannot be carried over.")


@pytest.mark.parametrize("cursor", [None, 5])
def test_a_switch_that_the_learner_refuses_leaves_everything_as_it_was(cursor):
    study = replace(decoder, learner=Stubborn(lambda k: Decoder(k, 5)))
    experiment, alone = begun(study, 12), begun(study, 15)
    if cursor is not None:
        travelled(experiment, cursor)
    before = all_of(experiment)
    for attempt in (experiment.change, experiment.twin):
        with pytest.raises(InputError, match="The weights cannot be carried over"):
            attempt(qk_norm=True, lr=0.5)
        assert all_of(experiment) == before
    assert_same_curves(advanced(experiment, 3).track, alone.track)


@pytest.mark.parametrize("knobs", [dict(width=8), dict(init_scale=0.5), dict(lr=0.02, depth=2)])
@pytest.mark.parametrize("cursor", [None, 5])
def test_a_knob_that_is_fixed_for_a_run_begins_a_new_one_and_the_others_rest(knobs, cursor):
    experiment = begun(decoder, 8, (4,))
    experiment.twin(lr=0.05)
    if cursor is not None:
        travelled(experiment, cursor)
    first = dict(experiment.row) | knobs
    track = experiment.change(**knobs)
    assert (track.step, track.parent, track.seeds, track.changes) == (0, None, (4,), [])
    assert (track.row, experiment.row, experiment.selected, experiment.cursor) == (first, first, 3, None)
    assert track.kind == f"new run: {list(knobs)[-1]} is fixed for a run" and track.name == "run 3"
    assert experiment.resting == {1, 2} and experiment.training == [3]
    advanced(experiment, 6)
    assert [each.step for each in experiment.tracks.values()] == [8, 8, 6]
    assert_same_curves(track, advanced(Experiment(decoder, first, (4,)), 6).track)


def test_a_switch_of_a_learner_that_cannot_adapt_begins_a_new_run():
    switched = type("Switched", (parabola.knobs,), {"__annotations__": {"kind": bool}, "kind": knob(False, acts="switch", doc="kind")})
    experiment = begun(replace(parabola, knobs=switched), 3)
    assert experiment.change(kind=True).parent is None
    assert experiment.training == [2]


def test_a_switch_that_changes_the_tensors_measured_begins_a_branch():
    experiment, plain = begun(watched, 7), begun(decoder, 7)
    branch = experiment.change(qk_norm=True)
    assert (branch.kind, branch.parent, branch.start, experiment.resting) == ("branch", experiment.tracks[1], 7, {1})
    assert plain.change(qk_norm=True).kind == "new run"
    advanced(experiment, 5)
    steps, norms = branch.series("tensor_norm")
    root = experiment.tracks[1]
    assert steps.tolist() == list(range(12)) and norms.shape == (1, 12, len(branch.labels["tensor"]))
    for place, name in enumerate(branch.labels["tensor"]):
        if name in root.labels["tensor"]:
            before = curve(root, "tensor_norm")[:, :, root.labels["tensor"].index(name)]
            np.testing.assert_array_equal(norms[:, :7, place], before)
        else:
            assert np.isnan(norms[:, :7, place]).all() and np.isfinite(norms[:, 7:, place]).all()
    np.testing.assert_array_equal(curve(branch, "train_loss"), curve(advanced(plain, 5).track, "train_loss"))


def test_a_branch_that_has_measured_nothing_yet_can_switch_again():
    experiment = begun(watched, 7)
    experiment.change(qk_norm=True)
    experiment.change(qk_norm=False)
    assert list(experiment.tracks) == [1, 2]
    advanced(experiment, 2)
    assert experiment.track.labels == experiment.tracks[1].labels
    assert np.isfinite(curve(experiment.track, "tensor_norm")).all()


# Whatever is done

DONE = [dict(lr=lr) for lr in (0.01, 0.05)] + [dict(qk_norm=on) for on in (True, False)] + [dict(optimizer=o) for o in ("sgd", "adamw")]


def something(experiment, choice):
    """One thing that a person may do; what is refused is not done."""
    acts = {
        "advance": lambda: advanced(experiment, choice.randint(1, 9)),
        "change": lambda: experiment.change(**choice.choice((dict(depth=2), *DONE))),
        "twin": lambda: experiment.twin(**choice.choice(({}, *DONE))),
        "travel": lambda: travelled(experiment, choice.randint(0, experiment.track.step)),
        "select": lambda: experiment.select(choice.choice(list(experiment.tracks))),
        "rest": lambda: experiment.rest(choice.choice(list(experiment.tracks)), choice.choice((True, False))),
        "forget": lambda: experiment.forget(choice.choice(list(experiment.tracks))),
    }
    with suppress(InputError):
        acts[choice.choice(("advance", "change", *acts))]()


def anew(track):
    """The run that the timeline of a branch tells of."""
    experiment = Experiment(decoder, track.row_at(0), track.seeds)
    for step in range(track.step):
        experiment.change(**{name: track.row_at(step)[name] for name in experiment.knobs})
        advanced(experiment, 1)
    return experiment.track


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_done_the_changes_of_a_branch_tell_how_to_make_it_again(seed):
    choice = random.Random(seed)
    experiment = begun(decoder, memory=choice.choice((1, 300_000, 2**27)))
    for _ in range(25):
        something(experiment, choice)
    for track in experiment.tracks.values():
        assert track.series("train_loss")[0].tolist() == list(range(track.step))
        assert_same_curves(track, anew(track))


# What is measured


def test_what_is_measured_does_not_change_a_run():
    experiment, alone = begun(watched, 5), begun(watched, 20)
    experiment.measure(["train_loss"])
    advanced(experiment, 7)
    experiment.measure(["train_loss", "tensor_norm"])
    advanced(experiment, 8)
    np.testing.assert_array_equal(curve(experiment.track, "train_loss"), curve(alone.track, "train_loss"))
    steps, norms = experiment.track.series("tensor_norm")
    assert steps.tolist() == [*range(5), *range(12, 20)]
    np.testing.assert_array_equal(norms, curve(alone.track, "tensor_norm")[:, steps])


def test_the_record_has_what_was_measured_at_its_steps_and_nothing_in_between():
    experiment = begun(parabola, 5)
    experiment.measure(["loss"])
    advanced(experiment, 5)
    experiment.measure(["loss", "weight"])
    weights = record_of(advanced(experiment, 5)).wb["weight"][0]
    np.testing.assert_allclose(weights, [*0.9 ** np.arange(5), *[np.nan] * 5, *0.9 ** np.arange(10, 16)], rtol=1e-6)


def test_a_knob_can_be_changed_while_less_is_measured():
    experiment = begun(watched, 5)
    experiment.measure(["train_loss"])
    experiment.change(lr=0.5)
    assert list(experiment.tracks) == [1]
    experiment.twin(qk_norm=True)
    advanced(experiment, 3)
    experiment.measure(["train_loss", "tensor_norm"])
    advanced(experiment, 2)
    assert [track.series("tensor_norm")[0].tolist() for track in experiment.tracks.values()] == [[*range(5), 8, 9]] * 2


def test_a_probe_that_the_study_does_not_have_is_refused():
    with pytest.raises(InputError, match="There is no probe 'los'; did you mean 'loss'"):
        begun(parabola).measure(["los"])


# Going back


def test_going_back_to_a_kept_step_trains_nothing_and_to_another_each_step_from_the_nearest():
    experiment = begun(perceptron, 37)
    assert experiment.kept(1) == [0, 10, 20, 30]
    assert travelled(experiment, 20) == [] and experiment.step == 20
    assert experiment.nearest(27) == 20
    assert travelled(experiment, 23) == [21, 22, 23] and experiment.step == 23
    assert travelled(experiment, 24) == [24] and travelled(experiment, 23) == []
    assert travelled(experiment, 37) == [] and experiment.cursor is None and experiment.step == 37
    assert experiment.track.step == 37 and list(experiment.tracks) == [1]


@pytest.mark.parametrize(("seeds", "layout"), [((0,), "loop"), ((0, 3), "lanes")])
@pytest.mark.parametrize("step", [0, 20, 23])
def test_a_branch_with_nothing_changed_equals_what_was_trained_before(step, seeds, layout, monkeypatch):
    in_layout(monkeypatch, layout)
    experiment = begun(decoder, 34, seeds, dict(lr=0.03))
    original = experiment.track
    travelled(experiment, step)
    branch = experiment.branch()
    assert (branch.kind, branch.parent, branch.start, branch.step, experiment.selected) == ("branch", original, step, step, 2)
    advanced(experiment, 34 - step)
    assert original.step == branch.step == 34
    assert_same_curves(original, branch)


def test_changing_after_going_back_begins_a_branch_and_the_old_one_stays():
    experiment = begun(parabola, 25)
    travelled(experiment, 13)
    branch = experiment.change(lr=0.5)
    assert (branch.kind, branch.start, branch.parent.number, experiment.cursor) == ("branch", 13, 1, None)
    advanced(experiment, 12)
    np.testing.assert_allclose(
        curve(branch, "weight")[0], 0.9 ** np.arange(25) * (0.5 / 0.9) ** np.maximum(0, np.arange(25) - 13), rtol=1e-5
    )
    np.testing.assert_allclose(curve(experiment.tracks[1], "weight")[0], 0.9 ** np.arange(25), rtol=1e-6)


def test_the_row_shown_after_going_back_is_that_of_the_step():
    experiment = begun(parabola, 4)
    experiment.change(lr=0.5)
    advanced(experiment, 4)
    experiment.change(lr=0.2)
    for step, lr in ((3, 0.1), (4, 0.5), (7, 0.5), (8, 0.2)):
        travelled(experiment, step)
        assert experiment.row["lr"] == lr
    travelled(experiment, 3)
    experiment.change(lr=0.1)
    assert list(experiment.tracks) == [1] and experiment.cursor == 3


def test_training_again_repeats_the_changes_of_a_knob():
    experiment = begun(perceptron, 12)
    experiment.change(lr=0.1)
    advanced(experiment, 3)
    experiment.change(lr=0.02)
    advanced(experiment, 5)
    travelled(experiment, 18)
    advanced(experiment, 0).branch()
    advanced(experiment, 2)
    assert_same_curves(*experiment.tracks.values())


@pytest.mark.parametrize("sigma_init", ["spectral", "one"])
@pytest.mark.parametrize("switch", [dict(qk_norm=True), dict(optimizer="sgd", lr=0.1), dict(sigma_reparam=True)])
def test_training_again_over_a_switch_ends_in_the_same_bits(switch, sigma_init):
    experiment = begun(decoder, 13, knobs=dict(sigma_init=sigma_init, lr=0.03))
    experiment.change(**switch)
    advanced(experiment, 12)
    before = {step: experiment.shelf.states[1, step].runs for step in (13, 20)}
    for step in (10, 13, 20):
        experiment.shelf.drop(1, step)
    for step in (20, 13):
        assert len(travelled(experiment, step)) == step
        assert_same_states(before[step], experiment.shelf.states[1, step].runs)
    branch = experiment.branch()
    advanced(experiment, 12)
    assert_same_curves(experiment.tracks[1], branch)
    assert branch.changes == experiment.tracks[1].changes


def test_a_branch_at_the_step_of_a_switch_can_undo_it():
    experiment, alone = begun(decoder, 13), begun(decoder, 20)
    experiment.change(optimizer="sgd", norm_placement="none")
    advanced(experiment, 7)
    travelled(experiment, 13)
    branch = experiment.change(optimizer=alone.row["optimizer"], norm_placement=alone.row["norm_placement"])
    advanced(experiment, 7)
    assert branch.changes == []
    assert_same_curves(branch, alone.track)


def test_going_back_further_than_a_branch_began_gets_to_its_parent():
    experiment = begun(parabola, 20)
    travelled(experiment, 15)
    experiment.change(lr=0.5)
    advanced(experiment, 10)
    assert experiment.kept(2) == [0, 10, 15, 20]
    assert travelled(experiment, 7) == list(range(1, 8))
    assert (experiment.selected, experiment.step, experiment.row["lr"]) == (2, 7, 0.1)
    twig = experiment.branch(lr=0.2)
    assert (twig.parent.number, twig.start, [c.new for c in twig.changes]) == (1, 7, [0.2])
    advanced(experiment, 3)
    np.testing.assert_allclose(curve(twig, "weight")[0], [*0.9 ** np.arange(8), 0.9**7 * 0.8, 0.9**7 * 0.64], rtol=1e-6)


def test_at_the_step_where_a_branch_began_it_is_that_branch():
    experiment = begun(parabola, 20)
    travelled(experiment, 15)
    experiment.change(lr=0.5)
    advanced(experiment, 5)
    assert travelled(experiment, 15) == [] and experiment.row["lr"] == 0.5
    twig = experiment.branch()
    assert twig.parent.number == 2
    advanced(experiment, 5)
    assert_same_curves(experiment.tracks[2], twig)


def test_advancing_goes_on_at_the_end():
    experiment = begun(parabola, 12)
    travelled(experiment, 5)
    advanced(experiment, 1)
    assert (experiment.cursor, experiment.step, list(experiment.tracks)) == (None, 13, [1])


@pytest.mark.parametrize("step", [-1, 13])
def test_a_step_that_has_not_been_reached_cannot_be_gone_back_to(step):
    experiment = begun(parabola, 12)
    with pytest.raises(InputError, match=f"Step {step} has not been reached; 'run 1' stands at step 12, go back to 0 to that"):
        travelled(experiment, step)
    assert experiment.cursor is None


def test_a_journey_that_is_broken_off_leads_nowhere():
    experiment = begun(perceptron, 19)
    before = all_of(experiment)
    way = experiment.travel(15)
    assert [next(way), next(way)] == [11, 12]
    way.close()
    assert all_of(experiment) == before


def test_a_twin_after_going_back_is_a_branch_there():
    experiment = begun(parabola, 12)
    travelled(experiment, 5)
    assert (experiment.twin().kind, experiment.track.start) == ("branch", 5)


def test_a_branch_can_begin_where_a_run_stands():
    experiment = begun(parabola, 7)
    branch = experiment.branch(lr=0.5)
    assert (branch.start, branch.parent.number) == (7, 1)


def test_few_bytes_keep_what_is_needed_and_any_step_can_still_be_gone_back_to():
    experiment = begun(perceptron, 45, memory=1)
    travelled(experiment, 33)
    experiment.branch(lr=0.05)
    advanced(experiment, 40)
    experiment.twin()
    assert {(1, 0), (1, 33), (2, 33), (2, 73), (3, 73)} <= set(experiment.shelf.states)
    original = curve(experiment.tracks[2], "train_loss")
    assert len(travelled(experiment, 65)) == 32
    branch = experiment.branch()
    advanced(experiment, 8)
    np.testing.assert_array_equal(curve(branch, "train_loss"), original[:, : branch.step])


# Whose turn it is


def test_the_branches_that_are_furthest_behind_advance_first():
    experiment = begun(parabola, 10)
    travelled(experiment, 7)
    experiment.branch()
    turns = []
    for _ in range(5):
        turns.append((experiment.advance(), *(track.step for track in experiment.tracks.values())))
    assert turns == [(1, 10, 8), (1, 10, 9), (1, 10, 10), (2, 11, 11), (2, 12, 12)]


def test_branches_that_rest_do_not_advance():
    experiment = begun(parabola, 5)
    experiment.twin()
    experiment.rest(2, True)
    advanced(experiment, 3)
    assert [track.step for track in experiment.tracks.values()] == [8, 5]
    experiment.rest(2, False)
    assert advanced(experiment, 2).training == [1, 2]
    assert [track.step for track in experiment.tracks.values()] == [8, 7]
    experiment.rest(1, True)
    experiment.rest(2, True)
    assert experiment.advance() == 0


def test_a_run_ends_at_its_last_step():
    experiment = begun(parabola, 9, steps=7)
    assert (experiment.step, experiment.training, experiment.advance()) == (7, [], 0)
    travelled(experiment, 3)
    assert experiment.branch().step == 3 and experiment.training == [2]
    advanced(experiment, 9)
    assert_same_curves(*experiment.tracks.values())


def test_branches_are_selected_by_number():
    experiment = begun(parabola, 5)
    experiment.twin(lr=0.5)
    travelled(experiment, 2)
    experiment.select(1)
    assert (experiment.track.name, experiment.row["lr"], experiment.cursor) == ("run 1", 0.1, None)
    for refused in (experiment.select, experiment.forget, lambda number: experiment.rest(number, True)):
        with pytest.raises(InputError, match="There is no branch 7; there are 1, 2"):
            refused(7)


def test_a_branch_is_forgotten_with_its_states_and_its_parent_is_selected():
    experiment = begun(parabola, 25)
    travelled(experiment, 15)
    experiment.branch()
    advanced(experiment, 10)
    with pytest.raises(InputError, match="'run 1' has branches of its own; remove these first"):
        experiment.forget(1)
    experiment.forget(2)
    assert list(experiment.tracks) == [1] == [experiment.selected] and experiment.shelf.of(2) == []
    with pytest.raises(InputError, match="'run 1' is the only run; reset instead"):
        experiment.forget(1)
    advanced(experiment, 1)


def test_forgetting_another_branch_leaves_the_selected_one_where_it_is():
    experiment = begun(parabola, 12)
    experiment.twin()
    experiment.select(1)
    travelled(experiment, 5)
    experiment.forget(2)
    assert (experiment.selected, experiment.cursor) == (1, 5)
    assert experiment.branch(lr=0.5).name == "branch 3"


# Divergence


def test_a_branch_that_has_diverged_stops_and_the_others_go_on():
    experiment = begun(parabola, 5)
    experiment.twin(lr=1e30)
    advanced(experiment, 10)
    steady, lost = experiment.tracks.values()
    assert (steady.step, steady.diverged.tolist()) == (15, [-1])
    assert (lost.step, lost.diverged.tolist(), experiment.training) == (7, [6], [1])
    np.testing.assert_array_equal(np.isnan(curve(lost, "weight")[0]), np.arange(7) == 6)


def test_before_it_diverged_a_branch_can_be_saved():
    experiment = begun(parabola, 5, seeds=(0, 1))
    experiment.change(lr=1e30)
    advanced(experiment, 5)
    assert experiment.training == []
    travelled(experiment, 5)
    saved = experiment.change(lr=0.5)
    advanced(experiment, 4)
    assert saved.diverged.tolist() == [-1, -1]
    np.testing.assert_allclose(curve(saved, "weight")[1, 5:], 0.9**5 * 0.5 ** np.arange(4), rtol=1e-6)


class Lottery(Descent):
    """Every second seed explodes."""

    def init(self, key, knobs, shared):
        return dict(params=dict(w=wb.noise.uniform(key, "w")))

    def step(self, state, batch, knobs, shared, now):
        _, moment = super().step(state, batch, knobs, shared, now)
        w = state["params"]["w"]
        return dict(params=dict(w=torch.where(w > 0.5, w * 1e20, w * (1 - knobs.lr)))), moment


def test_a_branch_goes_on_while_one_of_its_runs_has_not_diverged():
    study = replace(parabola, learner=Lottery())
    first = {seed: wb.run(study, seed=seed, steps=1).wb["weight"].values[0, 0] for seed in range(8)}
    seeds = max(first, key=first.get), min(first, key=first.get)
    experiment = begun(study, 6, seeds)
    twin = experiment.twin()
    advanced(experiment, 6)
    assert twin.step == 12 and twin.diverged.tolist() == [1, -1]
    assert_same_curves(experiment.tracks[1], twin)
    travelled(experiment, 0)
    assert experiment.branch().diverged.tolist() == [-1, -1]
    events = record_of(experiment)["events"]
    np.testing.assert_array_equal(events["diverged_step"], [1, np.nan, 1, np.nan, np.nan, np.nan])
    assert events["steps_done"].values.tolist() == [12, 12, 12, 12, 0, 0]


# Learners that have little in common


@pytest.mark.parametrize("name", UNLIKE)
def test_every_learner_can_be_experimented_with(name):
    study = UNLIKE[name]
    steps = study.budget("smoke").steps
    experiment = begun(study, 11, (1,), steps=steps)
    twin = experiment.twin()
    advanced(experiment, steps - 11)
    travelled(experiment, 7)
    branch = experiment.branch()
    advanced(experiment, steps)
    assert experiment.training == []
    assert_same_curves(experiment.tracks[1], twin)
    assert_same_curves(experiment.tracks[1], branch)
    record, run = record_of(experiment), wb.run(study, seed=1, steps=steps, mode="loop")
    for place in range(3):
        assert_same_runs(record, run, place)


@pytest.mark.parametrize("name", UNLIKE)
def test_a_knob_of_every_learner_can_be_changed(name):
    study = UNLIKE[name]
    lr = next(each for each in row(study) if each.endswith("lr"))
    experiment = begun(study, 10, (1, 2), steps=study.budget("smoke").steps)
    experiment.change(**{lr: 0.7})
    advanced(experiment, 5)
    travelled(experiment, 13)
    experiment.branch()
    advanced(experiment, 2)
    assert_same_curves(*experiment.tracks.values())
    assert record_of(experiment)["timeline"]["at_step"].values.tolist() == [10] * 4


def test_phases_divide_the_run_that_is_planned_and_not_what_has_been_done():
    experiment = begun(student, 5, steps=30)
    for updates, phase in ((0, "first"), (4, "first"), (1, "first"), (1, "second"), (10, "second")):
        record = record_of(advanced(experiment, updates))
        assert record["every_1"]["phase"].values[-1] == phase
    long = wb.run(student, steps=30, seed=0, mode="loop")
    np.testing.assert_array_equal(record.wb["loss"], long.wb["loss"][:, :22])
    first = wb.run(replace(student, phases=student.phases[:1]), steps=10, seed=0, mode="loop")
    for updates in (6, 10):
        early = record_of(begun(student, updates, steps=30))
        np.testing.assert_array_equal(early.wb["loss"], first.wb["loss"][:, : updates + 1])
