"""The desk: every command of a panel, one after the other, without a thread."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from learners_for_tests import parabola, perceptron, server, student
from learners_for_tests import transformer as decoder
from panels_for_tests import advanced, desk_of, failing, hungry, worked

from workbench.errors import InputError
from workbench.panel.desk import COMMANDS, MOST_TRACKS, Desk
from workbench.study import Prediction, Preset, Published

asked = replace(
    parabola,
    predictions=(Prediction("Where will it be?", ("below a half", "above it"), lambda r: int(r.wb["weight"].sel(step=5).mean() > 0.5), 5),),
    presets=(Preset("fast", {"lr": 0.9}, "It is over soon."),),
    published=(Published("loss", 0.25, "half way", "a paper"),),
)


def seen(desk):
    """What a refused command must leave as it was; what is said aside."""
    return desk.state() | {"message": ""}


# Running


def test_every_command_is_a_method_with_a_sentence():
    assert all(getattr(Desk, name).__doc__ and callable(getattr(Desk, name)) for name in COMMANDS)


def test_it_runs_up_to_a_step_and_steps_singly():
    desk = desk_of()
    desk.run(until=3)
    assert desk.running and advanced(desk, 3).source.step == 3 and not desk.running
    desk.step()
    assert desk.source.step == 4 and not desk.running
    desk.run()
    desk.pause()
    assert not desk.running and desk.state()["running"] is False


@pytest.mark.parametrize(
    ("button", "arguments", "sentence"),
    [
        ("run", dict(until=4), "until is 4, and it stands at step 6 already"),
        ("run", dict(until="9"), "The step is '9'; give a whole number"),
        ("back", dict(step=7), "Step 7 has not been reached"),
        ("back", dict(step=-1), "Step -1 has not been reached"),
        ("back", dict(step=2.5), "The step is 2.5; give a whole number"),
        ("seeds", dict(count=0), "seeds is 0; it must be a whole number from 1 to 16"),
        ("seeds", dict(count=17), "seeds is 17"),
        ("seeds", dict(count=True), "seeds is True"),
        ("seeds", dict(count="4"), "seeds is '4'"),
        ("preset", dict(name="slow"), "There is no preset 'slow'"),
        ("load", dict(text="learners_for_tests lr=-1"), "Knob 'lr' is -1.0"),
        ("load", dict(text=7), "The text is for study '7'"),
        ("set", dict(lr="fast"), "Knob 'lr' is 'fast'"),
        ("set", dict(rate=1), "There is no knob 'rate'"),
        ("default", dict(knob="rate"), "There is no knob 'rate'"),
        ("twin", dict(lr=-1.0), "Knob 'lr' is -1.0"),
        ("select", dict(number=9), "There is no branch 9; there are 1"),
        ("rest", dict(number=9), "There is no branch 9"),
        ("forget", dict(number=1), "'run 1' is the only run; reset instead"),
        ("show", dict(gauge="los-curve"), "There is no gauge 'los-curve'; did you mean 'loss-curve'"),
        ("scale", dict(gauge=""), "There is no gauge ''"),
        ("compare", dict(what="rivals"), "There is no comparison 'rivals'; there are published, shipped"),
        ("compare", dict(what="shipped"), "There is no shipped record 'learners_for_tests'"),
        ("speed", dict(limit=-1), "The limit is -1; give steps per second, or 0 for none"),
        ("speed", dict(limit=float("nan")), "The limit is nan"),
        ("speed", dict(limit="fast"), "The limit is 'fast'"),
        ("answer", dict(place=0), "There is no question to answer"),
        ("choose", dict(way="out"), "There is no way 'out'; there are none"),
        ("save", dict(path="."), "Output '.' is a directory"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence_and_nothing_has_changed(button, arguments, sentence):
    desk = advanced(desk_of(asked), 6)
    desk.run()
    before = seen(desk)
    with pytest.raises(InputError, match=sentence):
        getattr(desk, button)(**arguments)
    assert seen(desk) == before and desk.work is None


def test_it_says_when_nothing_is_left_to_train():
    desk = advanced(desk_of(steps=3), 3)
    desk.message = "something older"
    desk.run()
    assert desk.advance() == 0 and not desk.running and desk.message.startswith("Nothing is left to train")


def test_running_where_one_has_gone_back_and_changed_nothing_is_the_same_run():
    for go_on in (Desk.run, Desk.step):
        desk = advanced(desk_of(), 8)
        desk.back(3)
        worked(desk)
        assert desk.state()["past"] and desk.source.step == 3 and "what you change here begins a branch" in desk.message
        go_on(desk)
        assert desk.message == "Nothing was changed at step 3, so this is the same run: it goes on from its end."
        assert len(desk.source.tracks) == 1 and desk.source.step >= 8


# Beginning anew


def test_a_preset_a_text_and_seeds_begin_a_run_beside_what_was_trained_and_a_reset_begins_anew():
    desk = advanced(desk_of(asked), 4)
    desk.twin()
    desk.run()
    desk.preset("fast")
    assert (desk.source.row["lr"], desk.source.step, desk.message, desk.running) == (0.9, 0, "It is over soon.", False)
    assert list(desk.source.tracks) == [1, 2, 3] and desk.source.training == [desk.source.selected]
    desk.preset("fast")
    assert list(desk.source.tracks) == [1, 2, 4], "a run that has not been trained makes room"
    advanced(desk, 2).seeds(4)
    assert desk.state()["seeds"] == 4 and desk.source.row["lr"] == 0.9 and desk.source.step == 0
    desk.load("learners_for_tests lr=0.3 seeds=2")
    assert desk.source.row["lr"] == 0.3 and len(desk.source.track.seeds) == 2
    advanced(desk, 3).reset()
    assert list(desk.source.tracks) == [1]
    assert desk.source.row["lr"] == 0.3 and desk.source.step == 0 and len(desk.source.track.seeds) == 2


def test_a_reset_that_makes_no_net_loses_nothing():
    desk = advanced(desk_of(decoder), 2)
    desk.pending = {"heads": 3}
    desk.run()
    before = seen(desk)
    with pytest.raises(InputError, match="heads"):
        desk.reset()
    assert seen(desk) == before


# Changing


def test_what_a_switch_kept_and_what_is_new_is_said():
    desk = advanced(desk_of(decoder), 3)
    desk.set(qk_norm=True)
    assert desk.message.startswith("qk_norm false → true from step 3 on. Kept: ") and "with their optimizer state." in desk.message
    assert "New, starting neutral: blocks.0.attention.query_norm.weight, blocks.0.attention.key_norm.weight." in desk.message
    desk.set(optimizer="sgd")
    assert desk.message.endswith("weight tensors as they were. The optimizer state starts anew.")


def test_what_is_fixed_for_a_run_begins_a_new_one_that_is_marked_as_such():
    desk = advanced(desk_of(decoder), 3)
    desk.set(depth=2)
    assert desk.message == "run 2 begins at step 0: depth cannot change while a run trains. The others rest."
    assert desk.source.track.kind == "new run: depth is fixed for a run"
    assert desk.state()["branches"][1]["selected"] and desk.source.training == [2]
    desk.set(depth=3)
    assert len(desk.source.tracks) == 2 and desk.source.row["depth"] == 3


def spent(**knobs):
    return advanced(desk_of(decoder, knobs=knobs), 12)


def test_a_warmup_moved_after_its_end_offers_three_ways():
    desk = spent(warmup=5)
    desk.set(warmup=8, lr=0.01)
    offer = desk.state()["offer"]
    assert offer["text"] == "The warmup was over at step 5; 8 steps now, at step 12, would change nothing."
    assert offer["ways"] == ["warm up again from here", "twin from step 0", "next run"]
    assert desk.source.row["warmup"] == 5 and desk.source.row["lr"] == 0.01


def test_it_is_warmed_up_again_from_where_it_stands_when_that_is_chosen():
    desk = spent(warmup=5)
    desk.set(warmup=8)
    advanced(desk, 2).choose("warm up again from here")
    assert desk.offer is None and (desk.source.row["warmup"], desk.source.row["warmup_from"]) == (8, 14)
    assert spent().offer is None


def test_a_twin_from_step_0_has_the_warmup():
    desk = spent()
    desk.set(warmup=8)
    assert desk.state()["offer"]["text"].startswith("This run began without warmup; 8 steps now")
    desk.choose("twin from step 0")
    worked(desk)
    assert not desk.running and desk.source.track.start == 0 and desk.source.row["warmup"] == 8
    advanced(desk, 12)
    assert [track.step for track in desk.source.tracks.values()] == [12, 12]


def test_the_next_run_has_the_warmup_and_this_one_goes_on():
    desk = spent()
    desk.set(warmup=8)
    desk.choose("next run")
    assert (
        desk.state()["pending"] == {"warmup": 8} and desk.message == "warmup 8 from the next reset on." and desk.source.row["warmup"] == 0
    )
    desk.reset()
    assert desk.source.row["warmup"] == 8 and not desk.pending


def test_an_offer_is_for_the_branch_that_it_was_made_for():
    desk = spent(warmup=5)
    desk.twin()
    desk.set(warmup=8)
    desk.select(1)
    assert desk.offer is None
    with pytest.raises(InputError, match="Knob 'warmup' is 'long'"):
        desk.set(warmup="long")


@pytest.mark.parametrize("value", [5, 20])
def test_a_warmup_that_is_not_over_is_just_changed(value):
    desk = spent(warmup=15)
    desk.set(warmup=value)
    assert (desk.offer is None) and desk.source.row["warmup"] == value


# Branches


def test_there_are_as_many_branches_as_colours_however_they_come_about():
    desk = advanced(desk_of(decoder), 2)
    for _ in range(MOST_TRACKS - 1):
        desk.twin()
    assert len({branch["colour"] for branch in desk.state()["branches"]}) == MOST_TRACKS
    desk.set(lr=0.5)
    before = seen(desk)
    for act in (desk.twin, lambda: desk.set(depth=2), lambda: desk._twin_from_start({"warmup": 3})):
        with pytest.raises(InputError, match="There are 8 branches, as many as colours tell apart; remove one first"):
            act()
    assert seen(desk) == before
    desk.back(1)
    worked(desk)
    with pytest.raises(InputError, match="There are 8 branches"):
        desk.set(lr=0.2)
    assert desk.state()["past"] and len(desk.source.tracks) == MOST_TRACKS


def test_branches_stand_below_what_they_left():
    desk = advanced(desk_of(), 3)
    for parent in (1, 2, 1):
        desk.select(parent)
        desk.twin()
    assert [(b["name"], b["depth"], b["removable"]) for b in desk.state()["branches"]] == [
        ("run 1", 0, False),
        ("twin 2", 1, False),
        ("twin 3", 2, True),
        ("twin 4", 1, True),
    ]


def test_a_removed_branch_leaves_something_that_trains_and_what_rests_at_rest():
    desk = advanced(desk_of(decoder), 3)
    desk.set(depth=2)
    desk.forget(2)
    assert desk.source.selected == 1 and desk.source.training == [1]
    desk.twin()
    desk.select(1)
    desk.rest(1)
    desk.forget(3)
    assert desk.source.resting == {1}
    desk.run()
    assert desk.source.training == [1]


def test_a_branch_that_fails_rests_and_the_others_go_on():
    desk = desk_of(failing)
    desk.twin(lr=0.5)
    with pytest.raises(RuntimeError, match="caught fire"):
        advanced(desk, 8)
    desk.run()
    assert advanced(desk, 5).source.step >= 12 and [b["resting"] for b in desk.state()["branches"]] == [True, False]


@pytest.mark.parametrize(("seeds", "sentence"), [(1, "This net does not fit"), (4, "4 seeds of this net do not fit")])
def test_out_of_memory_is_a_sentence(seeds, sentence):
    desk = desk_of(hungry, seeds)
    with pytest.raises(InputError, match=sentence):
        advanced(desk, 4)
    desk.back(2)
    worked(desk)
    assert desk.source.step == 2


def test_kept_states_are_bounded_and_said():
    desk = advanced(desk_of(perceptron, memory=20_000), 200)
    state = desk.state()
    assert desk.source.shelf.bytes <= 20_000 and 2 < len(state["kept"]) < 20
    assert state["memory"] == f"{len(state['kept'])} states kept, 0.0 of 0 MB"
    assert "of 128 MB" in desk_of(memory=128 * 2**20).state()["memory"]
    desk.back(99)
    steps = worked(desk)
    assert steps == list(range(steps[0], 100)) and desk.source.step == 99


# Looking


def test_what_is_pinned_outlives_a_reset_and_holds_the_history_of_a_twin():
    desk = advanced(desk_of(), 4)
    desk.twin(lr=0.5)
    desk.pin()
    advanced(desk, 2)
    desk.pin()
    desk.reset()
    assert [pin.name for pin in desk.pins] == ["pinned: lr 0.1 → 0.5"] * 2
    references = desk.tables("weight-curve")["references"]
    assert [len(pin.own["weight"].steps) for pin in desk.pins] == [4, 6] and len(references["step"]) > 0
    desk.unpin()
    assert not desk.pins and not len(desk.tables("weight-curve")["references"]["step"])


def test_gauges_are_shown_hidden_and_rescaled_and_only_what_is_shown_or_free_is_measured():
    study = replace(perceptron, optional_probes=(replace(perceptron.probes[0], name="dear", cost="gradient"),))
    desk = advanced(desk_of(study), 2)
    assert "dear" not in desk.source.track.own and "dear-curve" not in desk.shown
    desk.show("dear-curve")
    advanced(desk, 3)
    assert (
        desk.source.track.series("dear")[0].tolist() == [2, 3, 4]
        and {"dear-curve": "gradient"}.items() <= {choice["name"]: choice["cost"] for choice in desk.choices()}.items()
    )
    desk.show("dear-curve")
    advanced(desk, 3)
    assert desk.source.track.series("dear")[0].tolist() == [2, 3, 4]
    desk.scale("train_loss-curve")
    assert desk.state()["logarithmic"] == ["train_loss-curve"]


def test_published_numbers_are_drawn_on_demand():
    desk = advanced(desk_of(asked), 3)
    assert desk.tables("loss-curve")["levels"]["text"] == []
    desk.compare("published")
    assert desk.tables("loss-curve")["levels"]["text"] == ["half way (a paper)"] and desk.tables("weight-curve")["levels"]["text"] == []
    assert desk.state()["compared"] == ["published"]


def test_what_is_published_of_the_very_setting_is_drawn_from_the_start():
    study = replace(asked, published=(Published("loss", 0.5, "there", "a paper", step=1, knobs={"lr": 0.9}),))
    assert desk_of(study, knobs={"lr": 0.9}).compared == {"published"}
    desk = desk_of(study)
    assert desk.compared == set()
    desk.preset("fast")
    assert desk.compared == {"published"} and advanced(desk, 3).tables("loss-curve")["points"]["text"] == ["there (a paper)"]


def test_all_that_is_shown_is_plain_values():
    desk = advanced(desk_of(asked, seeds=2), 3)
    desk.twin()
    desk.compare("published")
    desk.back(1)
    before = json.loads(json.dumps(desk.state()))
    assert before["working"] == {"from": 0, "goal": 1, "reached": 0}
    worked(desk)
    assert json.loads(json.dumps(desk.state()))["past"] and json.dumps(desk.choices())


def test_a_run_that_diverges_says_so():
    desk = advanced(desk_of(knobs=dict(lr=1e30)), 6)
    assert desk.state()["branches"][0]["lost"] and any("diverged at step" in text for text in desk.glance())
    desk.run()
    desk.advance()
    assert desk.message.startswith("Nothing is left to train")


# Predictions


def test_a_question_comes_before_the_first_step_and_its_outcome_after_the_last():
    for go_on in (Desk.run, Desk.step):
        desk = desk_of(asked, predicting=True)
        go_on(desk)
        assert desk.asking and desk.source.step == 0 and not desk.running
        for blocked in (Desk.run, Desk.step):
            with pytest.raises(InputError, match="Answer the question first"):
                blocked(desk)
        with pytest.raises(InputError, match="Answer 2 is none of the 2"):
            desk.answer(2)
        desk.answer(1)
        assert desk.running and advanced(desk, 5).state()["guess"]["outcome"] == 1 and not desk.running
        desk.dismiss()
        assert desk.guess is None


def test_a_prediction_is_judged_where_a_run_ends_early_too():
    desk = desk_of(replace(asked, predictions=(replace(asked.predictions[0], outcome=lambda record: 0),)), knobs=dict(lr=1e30))
    desk.predict()
    desk.run()
    desk.answer(0)
    advanced(desk, 6)
    assert desk.source.step < 6 and desk.guess.outcome == 0
    desk.predict()
    assert not desk.predicting and desk.guess is None
    with pytest.raises(InputError, match="has no question to ask"):
        desk_of(parabola).predict()


def test_phases_end_and_a_state_with_other_things_than_tensors_is_gone_back_to():
    desk = advanced(desk_of(student, steps=30), 30)
    assert desk.advance() == 0
    desk = advanced(desk_of(server), 20)
    weights = desk.source.track.series("loss")[1].copy()
    desk.back(13)
    worked(desk)
    desk.set(jitter=0.5)
    desk.set(jitter=0.0)
    advanced(desk, 7)
    np.testing.assert_array_equal(desk.source.track.series("loss")[1], weights)
    assert torch.is_grad_enabled()
