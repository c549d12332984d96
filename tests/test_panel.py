"""The panel without a screen: opening, knobs, twins, going back, the Python that makes the same runs, closing."""

import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from learners_for_tests import UNLIKE, parabola, perceptron
from panels_for_tests import TINY, closing, desk_of, failing, loss, opened, slow, trained

import workbench as wb
from workbench.errors import InputError
from workbench.panel.panel import Panel
from workbench.panel.player import Task

# Opening


def test_it_opens_paused_at_step_0_with_one_run_of_the_default_knobs():
    with closing(wb.explore("lr_sensitivity")) as panel:
        study = wb.find("lr_sensitivity")
        state = panel.state
        assert (state["step"], state["running"], state["seeds"], len(state["branches"])) == (0, False, 1, 1)
        assert dict(panel.knobs) == {name: spec.default for name, spec in panel.desk.source.knobs.items()}
        assert state["shown"] == [g.name for g in study.gauges if g.shown]
        assert "step 0, paused" in repr(panel) and state["glance"] == ["Nothing has been trained yet."]


def test_it_opens_with_a_preset_seeds_knobs_and_gauges():
    with opened(preset="saved by QK-norm", seeds=4, beta2=0.5, gauges=["learning_rate-curve"]) as panel:
        assert panel.knobs["qk_norm"] and panel.knobs["lr"] == 0.1 and panel.knobs["beta2"] == 0.5
        assert panel.state["seeds"] == 4 and panel.state["shown"] == ["learning_rate-curve"]


@pytest.mark.parametrize(
    ("study", "given", "sentence"),
    [
        ("entropy_colapse", {}, "There is no study 'entropy_colapse'; did you mean 'entropy_collapse'"),
        (3, {}, "study is 3; give a study's name"),
        (xr.DataTree(), {}, "no record of a study"),
        ("entropy_collapse", dict(ir=0.1), "There is no knob 'ir'; did you mean 'lr'"),
        ("entropy_collapse", dict(lr=-1), "Knob 'lr' is -1"),
        ("entropy_collapse", dict(width=15), "width"),
        ("entropy_collapse", dict(preset="calm"), "There is no preset 'calm'"),
        ("entropy_collapse", dict(gauges=["loss-curve"]), "There is no gauge 'loss-curve'; did you mean 'train_loss-curve'"),
        ("entropy_collapse", dict(gauges="loss-curve"), "There is no gauge 'loss-curve'"),
        ("entropy_collapse", dict(seeds=0), "seeds is 0; it must be a whole number from 1 to 16"),
        ("entropy_collapse", dict(seeds=17), "seeds is 17"),
        ("entropy_collapse", dict(seeds=True), "seeds is True"),
        ("entropy_collapse", dict(seeds=4.0), "seeds is 4.0"),
        ("entropy_collapse", dict(memory=0), "memory is 0; give a whole number of megabytes"),
        ("entropy_collapse", dict(memory=True), "memory is True"),
        ("entropy_collapse", dict(memory="much"), "memory is 'much'"),
        ("entropy_collapse", dict(device="abacus"), "Device 'abacus' cannot be used here"),
        ("entropy_collapse", dict(device=None), "Device 'None' cannot be used here"),
        ("entropy_collapse", dict(replay="nothing.nc"), "There is no file 'nothing.nc'"),
        ("entropy_collapse", dict(replay="text.nc"), "'text.nc' cannot be read as a record"),
        ("entropy_collapse", dict(replay=3), "replay is 3; give True for the shipped record"),
        ("entropy_collapse", dict(replay="lr_sensitivity"), "is a record of study 'lr_sensitivity'"),
        (parabola, dict(predict=True), "has no question to ask"),
        (parabola, dict(replay=True), "There is no shipped record 'learners_for_tests'"),
    ],
)
def test_what_cannot_be_explored_is_refused_in_a_sentence_and_leaves_no_thread(study, given, sentence, tmp_path):
    (tmp_path / "text.nc").write_text("no record")
    before = threading.active_count()
    with pytest.raises(InputError, match=sentence) as refusal:
        wb.explore(study, **given)
    assert "\n" not in str(refusal.value) and str(refusal.value).endswith((".", "?"))
    assert threading.active_count() == before


# Knobs, twins, going back


def test_a_knob_acts_at_the_next_step_and_is_in_the_timeline_of_the_record():
    with opened(parabola) as panel:
        trained(panel, 4)
        panel.knobs["lr"] = 0.5
        assert panel.knobs["lr"] == 0.5 and panel.state["message"] == "lr 0.1 → 0.5 from step 4 on."
        trained(panel, 7)
        record = panel.record
        np.testing.assert_allclose(record.wb["weight"][0], [*0.9 ** np.arange(5), *0.9**4 * 0.5 ** np.arange(1, 4)], rtol=1e-6)
        change = record["timeline"].to_dataset().isel(change=0)
        assert [change[name].item() for name in ("at_step", "knob", "old", "new")] == [4, "lr", "0.1", "0.5"]
        del panel.knobs["lr"]
        assert panel.knobs["lr"] == 0.1


def test_knobs_are_a_mapping_of_which_an_unknown_name_is_refused():
    with opened() as panel:
        assert "lr" in panel.knobs and "ir" not in panel.knobs and len(panel.knobs) == len(dict(panel.knobs))
        assert "'width': 16" in repr(panel.knobs)
        for act in (lambda: panel.knobs["ir"], lambda: panel.knobs.update(ir=1), lambda: panel.knobs.pop("ir")):
            with pytest.raises(InputError, match="There is no knob 'ir'; did you mean 'lr'"):
                act()
        with pytest.raises(AttributeError):
            panel.knobs.lr = 0.1  # not a knob: a new attribute would do nothing, without a word


@pytest.mark.parametrize("seeds", [1, 4])
def test_a_twin_with_nothing_changed_is_equal_over_200_steps(seeds):
    with opened(perceptron, seeds=seeds, lr=0.1) as panel:
        trained(panel, 17).press("twin")
        trained(panel, 217)
        np.testing.assert_array_equal(loss(panel, "run 1"), loss(panel, "twin 2"))
        assert np.isfinite(loss(panel, "twin 2")).all() and len(np.unique(loss(panel, "twin 2")[0])) > 200
        differences = panel.tables("train_loss-curve")["differences"]
        assert len(differences["value"]) and not np.asarray(differences["value"]).any()


@pytest.mark.parametrize("name", sorted(UNLIKE))
def test_learners_that_have_little_in_common_can_all_be_perturbed(name):
    with opened(UNLIKE[name]) as panel:
        trained(panel, 12)
        rate = next(knob for knob in panel.knobs if knob.endswith("lr"))
        panel.press("twin", **{rate: 0.05})
        trained(panel, 15)
        panel.press("select", number=1)
        panel.press("back", step=7)
        panel.knobs[rate] = 0.2
        trained(panel, 15)
        assert panel.record["branch"].values.tolist() == ["run 1", "twin 2", "branch 3"]
        assert np.isfinite(loss(panel, name="loss")).all() and len(panel.tables("loss-curve")["lines"]["step"]) == 15 + 3 + 8


def test_a_panel_holds_16_seeds_as_bands_or_lines():
    with opened(perceptron, seeds=16) as panel:
        trained(panel, 5)
        tables = panel.tables("train_loss-curve")
        assert set(tables["lines"]["line"]) == {"run 1"} and (tables["bands"]["low"] < tables["bands"]["high"]).all()
        panel.press("band")
        assert len(set(panel.tables("train_loss-curve")["lines"]["line"])) == 16 and panel.record.sizes["run"] == 16


# The Python that makes the same runs


def perturbed(panel):
    """In place, a switch, a twin, a twin of a twin at the same step, branches from the past, one of them changed back."""
    trained(panel, 8).press("set", lr=0.05)
    trained(panel, 12).press("set", qk_norm=True, warmup=30)
    trained(panel, 15).press("twin", lr=0.2)
    panel.press("twin", weight_decay=0.1)
    for step, knobs in ((12, dict(qk_norm=False)), (8, dict(lr=3e-3))):
        panel.press("select", number=1)
        panel.press("back", step=step)
        panel.press("set", **knobs)
    return trained(panel, 20)


def begun_again(panel):
    """A new run of another width."""
    trained(panel, 3).press("set", width=32)
    trained(panel, 6).press("set", lr=0.1)
    return trained(panel, 8)


def curves_of(script):
    """Of each branch the values of every variable by step, as the records that a script makes hold them."""
    made = {}
    exec(script, made)
    found = {}
    records = {name: record for name, record in made.items() if isinstance(record, xr.DataTree)}
    for name, record in sorted(records.items(), key=lambda item: item[1].attrs["start"]):
        curves = found.setdefault(name.split("_from_")[0].replace("_", " "), {})
        for variable in record.wb.variables:
            values = record.wb[variable].isel(run=0)
            if "step" in values.dims:
                curves.setdefault(variable, {}).update(zip(values["step"].values.tolist(), values.values, strict=True))
    return found


@pytest.mark.parametrize(("study", "perturb", "branches"), [("entropy_collapse", perturbed, 5), ("lr_sensitivity", begun_again, 2)])
def test_the_python_makes_the_same_runs_to_the_last_bit(study, perturb, branches):
    with opened(study) as panel:
        record, script = perturb(panel).record, panel.python
        names = [branch["name"] for branch in panel.state["branches"]]
    made = curves_of(script)
    assert set(made) == set(names) and len(names) == branches
    for branch, curves in made.items():
        ours = record.wb.where(branch=branch).isel(run=0)
        end = ours["events"]["steps_done"].item()  # what is measured after the last update is there where the record ends
        for variable, values in ((name, values) for name, values in curves.items() if name in ours.wb):
            there = [step for step in values if step in ours.wb[variable]["step"] and (step < end or end == record.attrs["steps"])]
            np.testing.assert_array_equal(ours.wb[variable].sel(step=there), np.stack([values[step] for step in there]), f"{branch}")
        assert len(curves["train_loss"]) >= 3


def test_the_python_of_a_twin_of_a_run_that_never_trained_makes_it_too():
    with opened() as panel:
        panel.press("twin", lr=0.1)
        panel.press("select", number=1)
        panel.press("set", lr=0.2)
        panel.press("rest", number=1)
        panel.press("select", number=2)
        trained(panel, 3)
        assert panel.state["branches"][0]["step"] == 0
        made, values = curves_of(panel.python), loss(panel, "twin 2")[0]
    assert list(made["twin 2"]["train_loss"].values()) == values.tolist()


def test_the_python_measures_what_was_measured():
    with opened(gauges=["weight_norm-curve"]) as panel:
        script = trained(panel, 2).python
        assert curves_of(script)["run 1"]["weight_norm"].keys() and "attention_map" not in script


def test_the_python_of_several_seeds_trains_them_all_again():
    with opened(seeds=4, lr=0.05) as panel:
        trained(panel, 5).press("twin", lr=0.1)
        trained(panel, 8)
        panel.press("twin", lr=0.2)
        trained(panel, 10)
        made, script, expected = {}, panel.python, loss(panel, "twin 3")
    exec(script, made)
    again = np.stack([one.wb["train_loss"].values[0] for one in made["twin_3"]])
    np.testing.assert_allclose(again, expected[:, 8:], rtol=1e-4)


# Many commands


def test_a_storm_of_a_slider_ends_with_its_last_value_and_few_changes():
    with opened(slow) as panel:
        panel.press("run")
        done = [panel._player.ask(Task("set", {"lr": float(lr)})) for lr in np.linspace(0.01, 0.5, 200)]
        for each in done:
            each.result(10)
        panel.press("pause")
        assert panel.knobs["lr"] == 0.5 and 1 <= len(panel.desk.source.track.changes) <= 10


def test_commands_come_from_several_threads():
    def perturb(place):
        for i in range(10):
            panel.press("set", lr=0.1 + 0.01 * place + 0.001 * i)
            panel.press("step")
            assert panel.record.wb["loss"].sizes["run"] == 1
        return panel.state["step"]

    with opened(parabola) as panel, ThreadPoolExecutor(4) as pool:
        assert max(pool.map(perturb, range(4))) == 40
        changes = panel.desk.source.track.changes
        assert all(a.step <= b.step and a.new == b.old for a, b in pairwise(changes)) and panel.state["problem"] == ""


def test_waiting_ends_at_a_step_or_in_a_sentence():
    with opened(slow) as panel:
        panel.press("run")
        panel.wait(step=3)
        assert panel.state["running"] and panel.state["step"] >= 3
        with pytest.raises(InputError, match=r"After 0.05 s the panel stands at step \d+; wait longer, or press pause"):
            panel.wait(seconds=0.05)


def test_a_long_way_back_shows_its_progress_and_is_broken_off_by_a_pause():
    with closing(Panel(desk_of(slow, memory=1))) as panel:
        trained(panel, 60)
        way = panel._player.ask(Task("back", {"step": 55}))
        later = panel._player.ask(Task("set", {"lr": 0.5}))
        end = time.monotonic() + 60
        while (panel.desk.work is None or panel.desk.reached == panel.desk.origin) and time.monotonic() < end:
            pass
        assert panel.desk.work is not None and panel.desk.goal == 55 and 1 <= panel.desk.reached < 55 and not later.done()
        panel.pause()
        with pytest.raises(InputError, match="It was broken off by a pause"):
            way.result(10)
        later.result(10)
        assert panel.state["step"] == 60 and not panel.state["past"] and panel.state["working"] is None
        assert [(c.step, c.new) for c in panel.desk.source.track.changes] == [(60, 0.5)]


def test_what_takes_long_is_said_to_go_on(monkeypatch):
    monkeypatch.setattr("workbench.panel.panel.PATIENCE", 0.05)
    with closing(Panel(desk_of(slow, memory=1))) as panel:
        trained(panel, 40)
        with pytest.raises(InputError, match=r"'back' takes longer than 0.05 s and goes on; panel.pause\(\) breaks it off"):
            panel.press("back", step=39)


# Trouble


def test_an_exception_in_training_is_shown_and_there_is_a_way_to_go_on():
    with opened(failing) as panel:
        panel.press("run", until=20)
        panel.wait()
        state = panel.state
        assert state["step"] == 7 and not state["running"]
        assert re.fullmatch(
            r"RuntimeError: the net caught fire \(step, line \d+ of panels_for_tests.py\) run 1 stands at step 7 and rests.",
            state["problem"],
        )
        panel.press("run", until=20)
        panel.wait()
        assert "caught fire" in panel.state["problem"] and panel.state["step"] == 7
        panel.press("back", step=5)
        panel.press("set", lr=0.5)
        assert trained(panel, 20).state["problem"] == "" and [branch["step"] for branch in panel.state["branches"]] == [7, 20]
        np.testing.assert_allclose(
            loss(panel, "branch 2", "weight")[0], [*0.9 ** np.arange(6), *0.9**5 * 0.5 ** np.arange(1, 16)], rtol=1e-5
        )


def test_a_front_that_fails_pauses_and_is_said_and_the_thread_lives_on():
    class Torn:
        def take(self, desk, speed):
            raise RuntimeError("the page is gone")

        def close(self):
            pass

    with opened(parabola) as panel:
        panel.front = Torn()
        panel.press("run")
        panel.wait()
        assert "the page is gone" in panel.desk.problem
        panel.front = None
        assert trained(panel, panel.state["step"] + 5).state["problem"] == ""


# Sharing, saving, closing


def test_knobs_travel_as_a_short_text():
    with opened(seeds=4, lr=0.1, qk_norm=True) as panel, opened() as other:
        text = panel.shared
        assert text == "entropy_collapse lr=0.1 batch=4 context=8 depth=1 width=16 qk_norm=true seeds=4"
        trained(other, 3).press("load", text=text)
        assert dict(other.knobs) == dict(panel.knobs) and other.state["seeds"] == 4 and other.state["step"] == 0


def test_a_saved_record_opens_and_is_replayed_with_its_branches(tmp_path):
    with opened() as panel:
        trained(panel, 5).press("twin", lr=0.1)
        trained(panel, 12)
        panel.save(tmp_path / "panel.nc")
        assert "wb.open(" in panel.state["message"]
        written = (tmp_path / "panel.nc").read_bytes()
        with pytest.raises(InputError, match=r"panel\.nc' exists; give another name"):
            panel.save(tmp_path / "panel.nc")
        assert (tmp_path / "panel.nc").read_bytes() == written
        panel.save(tmp_path / "panel.nc", overwrite=True)
        (tmp_path / "file").write_text("")
        for path in (tmp_path / "file" / "panel.nc", tmp_path):
            with pytest.raises(InputError):
                panel.save(path)
        expected = panel.record
    with opened(replay="panel.nc") as replay:
        replay.press("back", step=12)
        assert [branch["name"] for branch in replay.state["branches"]] == ["run 1", "twin 2"]
        replay.press("select", number=2)
        assert replay.state["branches"][1]["changes"] or replay.desk.source.track.changes
        steps, values = replay.desk.source.track.series("train_loss")
        np.testing.assert_array_equal(values, expected.wb.where(branch="twin 2").wb["train_loss"])
        assert replay.python == "import workbench as wb\n\nrecord = wb.open('panel.nc')\n" and len(steps) == 13


def test_a_record_of_one_branch_with_several_seeds_is_replayed_as_one_setting():
    with opened(seeds=4) as panel:
        trained(panel, 3).save("seeds.nc")
    with opened(replay="seeds.nc") as replay:
        assert [branch["name"] for branch in replay.state["branches"]] == ["run 1"] and replay.state["seeds"] == 4


def test_a_record_is_replayed_as_it_is_given_too():
    with closing(wb.explore(wb.open("entropy_collapse"))) as panel:
        assert panel.state["replay"] and panel.python.endswith("wb.open('entropy_collapse')\n") and panel.record.sizes["run"] == 144


def test_closing_ends_the_thread_and_later_presses_are_refused():
    panel = wb.explore(slow)
    panel.press("run")
    panel.close()
    panel._player.join(5)
    assert not panel._player.is_alive() and repr(panel).endswith(", closed>")
    panel.close()
    acts = (panel.wait, lambda: panel.press("run"), lambda: panel.record, lambda: panel.knobs.update(lr=0.2), lambda: panel.save("a.nc"))
    for act in acts:
        with pytest.raises(InputError, match=r"This panel is closed; open another one with wb\.explore"):
            act()


def test_what_waits_when_a_panel_is_closed_is_refused_too():
    panel = Panel(desk_of(slow, memory=1))
    trained(panel, 30)
    waiting = [panel._player.ask(Task("back", {"step": 29})), panel._player.ask(Task("step"))]
    panel.close()
    for each in waiting:
        with pytest.raises(InputError, match="This panel is closed"):
            each.result(5)


def test_opening_and_closing_many_panels_leaves_no_threads():
    before = threading.active_count()
    for _ in range(20):
        with opened(parabola) as panel:
            trained(panel, 2)
    assert threading.active_count() == before


def test_without_a_screen_publishing_takes_next_to_nothing():
    with opened() as panel:
        trained(panel, 100)
        assert panel.front is None and panel.publishing < 0.01


def test_settings_that_fit_no_net_are_refused_and_the_run_stays():
    with opened() as panel:
        before = trained(panel, 3).state
        for button, arguments in (("set", dict(heads=3)), ("load", dict(text="entropy_collapse heads=3")), ("preset", dict(name="x"))):
            with pytest.raises(InputError):
                panel.press(button, **arguments)
            after = panel.state
            assert after.pop("message") and after | {"message": ""} == before | {"message": ""}
        assert TINY.items() <= dict(panel.knobs).items()


def test_python_ends_in_peace_while_a_panel_trains():
    code = "import workbench as wb\npanel = wb.explore('entropy_collapse', width=16, depth=1, context=8, batch=4)\n"
    code += "panel.press('run')\npanel.wait(step=5)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
