"""Replays: a record looked at as if it were training, and nothing that needs torch."""

import subprocess
import sys
import time

import numpy as np
import pytest
from learners_for_tests import parabola
from panels_for_tests import closing, desk_of, opened

import workbench as wb
from workbench.errors import InputError
from workbench.panel.desk import Desk
from workbench.panel.replay import Replay, nearest

RATES = (0.01, 0.1, 0.5)


def replayed(**axes):
    record = wb.run(parabola, steps=20, seed=(0, 1), **{"lr": RATES, **axes})
    return Desk(parabola, Replay(parabola, record, dict(lr=0.1)), "a replay"), record


def test_nothing_of_a_replay_imports_torch():
    names = ", ".join(f"workbench.panel.{name}" for name in ("replay", "desk", "controls", "script", "words", "packing", "player", "panel"))
    code = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_it_begins_at_step_0_of_the_setting_that_is_nearest():
    desk, record = replayed()
    assert desk.source.row["lr"] == 0.1 and desk.state()["seeds"] == 2 and desk.source.varied == ["lr"]
    assert desk.source.step == 0 and desk.state()["replay"] and desk.record() is record
    assert desk.tables("weight-curve")["lines"]["step"].tolist() == [0]
    desk.run()
    for _ in range(7):
        desk.advance()
    assert desk.source.step == 7
    np.testing.assert_allclose(desk.tables("weight-curve")["lines"]["value"], 0.9 ** np.arange(8), rtol=1e-6)
    for _ in range(20):
        desk.advance()
    assert desk.source.step == 20 and not desk.running
    desk.run()
    assert desk.source.step == 0 and desk.running


def test_a_replay_says_where_its_setting_is_not_the_one_that_was_asked_for():
    record = wb.run(parabola, steps=5, lr=RATES)
    for knobs, message in (
        (dict(lr=0.4), "The nearest setting of the record has lr 0.5 (asked: 0.4)."),
        (dict(lr=0.1), ""),
        ({}, ""),
    ):
        with closing(wb.explore(parabola, replay=wb.save(record, "replayed.nc", overwrite=True), **knobs)) as panel:
            assert panel.state["message"] == message


def test_it_moves_at_once_to_any_step_and_branches_nothing():
    desk, _ = replayed()
    for step in (17, 3, 20, 0):
        desk.back(step)
        list(desk.work)
        assert desk.source.step == step and not desk.state()["past"]
    for step in (21, -1):
        with pytest.raises(InputError, match=f"Step {step} is outside the record, which goes from step 0 to 20"):
            desk.back(step)
    desk.latest()
    assert desk.source.step == 20


@pytest.mark.parametrize(("asked", "found"), [(0.5, 0.5), (0.4, 0.5), (0.06, 0.1), (1e-5, 0.01), (0.011, 0.01)])
def test_a_knob_goes_to_the_nearest_setting(asked, found):
    desk, _ = replayed()
    desk.set(lr=asked)
    assert desk.source.row["lr"] == found and desk.source.track.seeds == (0, 1)
    np.testing.assert_allclose(desk.source.track.series("weight")[1][0], (1 - found) ** np.arange(21), rtol=1e-4)


def test_the_knob_that_is_changed_counts_before_the_others():
    settings = Replay(wb.find("entropy_collapse"), wb.open("entropy_collapse"), {}).settings
    row = dict(settings[0]) | dict(lr=0.3, warmup=100, qk_norm=True, sigma_reparam=True)
    assert nearest(settings, row, first=["warmup"])["warmup"] == 100 and nearest(settings, row, first=["qk_norm"])["qk_norm"]


def test_what_does_not_vary_or_is_wrong_is_refused_and_nothing_has_changed():
    desk, _ = replayed(lr=0.1)
    two, _ = replayed()
    for where, act, sentence in (
        (desk, lambda: desk.set(lr=0.5), "Every run of this record has lr = 0.1; perturb it in a live panel"),
        (desk, lambda: desk.twin(lr=0.5), "Every run of this record has lr = 0.1"),
        (two, lambda: two.set(ir=0.5), "There is no knob 'ir'; did you mean 'lr'"),
        (two, lambda: two.twin(lr="fast"), "Knob 'lr' is 'fast'"),
        (two, lambda: two.seeds(4), "A replay shows the seeds that its record has"),
        (two, lambda: two.rest(1), "A replay goes by as a whole"),
        (two, lambda: two.forget(1), "It is the only setting shown"),
        (two, lambda: two.select(4), "There is no branch 4; there are 1"),
    ):
        before = where.state()
        with pytest.raises(InputError, match=sentence):
            act()
        assert where.state() == before


def test_settings_stand_beside_one_another():
    desk, _ = replayed()
    desk.twin(lr=0.5)
    assert "choose its knobs" in desk.message
    assert [b["name"] for b in desk.state()["branches"]] == ["setting 1", "setting 2"] and desk.source.selected == 2
    desk.latest()
    assert set(desk.tables("weight-curve")["lines"]["line"]) == {"setting 1", "setting 2"}
    desk.pin()
    desk.forget(2)
    assert desk.source.selected == 1 and len(desk.pins) == 1
    desk.reset()
    assert desk.source.step == 0 and len(desk.source.tracks) == 1 and len(desk.source.selection()["run"]) == 2


def test_a_replay_of_a_record_with_branches_tells_them_apart():
    live = desk_of(parabola)
    for _ in range(3):
        live.advance()
    live.twin(lr=0.5)
    for _ in range(3):
        live.advance()
    desk = Desk(parabola, Replay(parabola, live.record(), dict(lr=0.1)), "a replay")
    assert [b["name"] for b in desk.state()["branches"]] == ["run 1", "twin 2"] and desk.source.track.seeds == (0,)
    assert [(c.step, c.knob, c.old, c.new) for c in desk.source.tracks[2].changes] == [(3, "lr", 0.1, 0.5)]
    desk.select(2)
    assert desk.source.selection()["branch"].values.tolist() == ["twin 2"]


def test_the_shipped_record_is_replayed_without_training():
    with opened(replay=True) as panel:
        assert panel.state["device"].startswith("a replay; trained on ")
        began = time.perf_counter()
        panel.press("back", step=200)
        panel.press("set", lr=0.1)
        panel.press("set", warmup=100)
        assert time.perf_counter() - began < 2 and panel.state["step"] == 200 and panel.state["offer"] is None
        assert panel.knobs["lr"] == 0.1 and panel.knobs["warmup"] == 100
        assert all("cannot be drawn" not in panel.state["problem"] and panel.tables(name) for name in panel.state["shown"])
        assert panel.python.endswith("wb.open('entropy_collapse')\n")
        panel.press("speed", limit=100_000)
        panel.press("run", until=210)
        panel.wait()
        assert panel.state["step"] == 210


def test_predictions_are_judged_by_the_setting_that_is_shown():
    with closing(wb.explore("entropy_collapse", replay=True, predict=True, preset="collapse at a high rate")) as panel:
        panel.press("run")
        assert panel.state["guess"]["answer"] is None
        panel.press("speed", limit=1_000_000)
        panel.press("answer", place=2)
        panel.wait()
        assert panel.state["step"] == 100
        assert panel.state["guess"]["outcome"] == wb.find("entropy_collapse").predictions[0].outcome(panel.desk.source.selection())
        assert len(panel.desk.source.selection()["run"]) == panel.state["seeds"] < 10
