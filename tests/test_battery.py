"""The conformance battery: every study passes, and each kind of fault is caught with a sentence that says what to do."""

import importlib
import sys
import types
from dataclasses import replace
from functools import cache

import altair as alt
import numpy as np
import pytest
import torch
import xarray as xr
from learners_for_tests import (
    UNLIKE,
    Descent,
    Server,
    Student,
    convnet,
    duel,
    inputs,
    nothing,
    parabola,
    perceptron,
    position,
    server,
    student,
    weight,
)

import workbench as wb
from workbench import noise
from workbench.catalogue import entries, find
from workbench.claim import Claim
from workbench.design import grid
from workbench.gauge import Gauge, Level
from workbench.knobs import Knobs, knob
from workbench.probe import probe
from workbench.study import Budget, Event, Moment, Phase, Prediction, Preset, Published
from workbench.testing import (
    CHECKS,
    DECLARED,
    RECORDED,
    SHOWN,
    Case,
    check,
    check_learner,
    check_probe,
    check_study,
    check_task,
    check_view,
    collected,
)
from workbench.view import view

HERE = {**UNLIKE, "convnet": convnet, "parabola": parabola}


@cache
def case(name):
    return Case(HERE.get(name) or find(name))


def id_of(value):
    return getattr(value, "__name__", value)


@pytest.mark.parametrize("check", CHECKS, ids=id_of)
@pytest.mark.parametrize("name", [*(entry.name for entry in entries()), *HERE])
def test_every_study_conforms(name, check):
    assert collected([check], case(name)) == []


# Faults in what a study says


def module_with(doc, name):
    sys.modules[name] = types.ModuleType(name, doc)
    return name


def claim_of(effect=lambda record: xr.DataArray(np.zeros(4), dims="seed"), **changes):
    return replace(Claim("entropy-collapse", "said", effect, 0.0, "source", "seed"), **changes)


class Undocumented(Knobs):
    lr: float = knob(0.1, 1e-3, 1.0, log=True, doc="")
    steps: int = knob(1, 0, 10, doc="an argument of run")
    head: int = knob(1, 0, 10, doc="a dimension")
    span: float = knob(0.1, doc="no slider")
    far: float = knob(0.1, -1.0, 1.0, doc="slider beyond")


def said(*needed):
    @view(*needed)
    def chart(record):
        """Nothing"""
        return alt.Chart({"values": []}).mark_point()

    return chart


@probe(cost="backward")
def dear(m):
    """Costly"""
    return m.loss


def asked(question="Up?", answers=("yes", "no"), outcome=lambda record: 0, steps=10):
    return Prediction(question, answers, outcome, steps)


FULL = Budget(grid(seed=range(4)), 5)
SAYINGS = {
    "no docstring": (dict(module=module_with(None, "silent")), "lacks the field 'Question'; write a line that begins with 'Question.'"),
    "a missing field": (
        dict(module=module_with("A.\n\nQuestion.   Why?\nPhenomenon. So.\nCites.      None.", "terse")),
        "lacks the field 'Try'",
    ),
    "no title": (dict(title=" "), "The study has no title"),
    "a knob without text": (dict(knobs=Undocumented), "Knob 'lr' lacks a doc"),
    "a knob that is an argument": (dict(knobs=Undocumented), "Knob 'steps' has the name of an argument or of a dimension"),
    "a knob that is a dimension": (dict(knobs=Undocumented), "Knob 'head' has the name of an argument or of a dimension"),
    "a knob without span": (dict(knobs=Undocumented), "Knob 'span' has no span for its slider"),
    "a slider beyond": (dict(knobs=Undocumented), "The slider of knob 'far' reaches from -1 to 1, beyond what is valid"),
    "a missing budget": (dict(budgets={"smoke": FULL, "full": FULL}), "There is no 'demo' budget"),
    "a budget of no knob": (dict(budgets=parabola.budgets | {"demo": Budget(grid(ir=1.0), 5)}), "Budget 'demo': There is no knob 'ir'"),
    "a budget of no probe": (
        dict(budgets=parabola.budgets | {"full": Budget(grid(), 5, ("norm",))}),
        "Budget 'full': There is no probe 'norm'",
    ),
    "a budget of no steps": (dict(budgets=parabola.budgets | {"full": Budget(grid(), 0)}), "Budget 'full' has 0 steps"),
    "a preset of no knob": (dict(presets=(Preset("fast", {"ir": 1.0}, "doc"),)), "Preset 'fast': There is no knob 'ir'"),
    "a preset beyond": (dict(presets=(Preset("fast", {"lr": 0.0}, "doc"),)), "Preset 'fast': Knob 'lr' is 0.0"),
    "a preset twice": (dict(presets=(Preset("fast", {}, "doc"),) * 2), "The name 'fast' stands for more than one preset"),
    "a preset without text": (dict(presets=(Preset("fast", {}, ""),)), "Preset 'fast' has no doc"),
    "a probe twice": (dict(optional_probes=(weight,)), "The name 'weight' stands for more than one variable"),
    "a probe named like a knob": (dict(probes=(replace(weight, name="lr"),)), "The name 'lr' stands for more than one variable"),
    "a costly default": (
        dict(probes=(dear,)),
        "The cost of default probe 'dear' is 'backward'; make it an optional probe, or one of cost free or forward",
    ),
    "an event without text": (dict(events=(Event("last", lambda r: r.wb["loss"][:, -1], "", "doc"),)), "Event 'last' lacks a doc or units"),
    "a view of nothing": (dict(views=(said("accuracy"),)), "There is no variable 'accuracy', which view 'chart' needs"),
    "an unknown slug": (dict(claims=(claim_of(slug="perpetual-motion"),)), "has slug 'perpetual-motion', which is not in the atlas"),
    "an unfounded claim": (dict(claims=(claim_of(threshold_source=""),)), "lacks a statement, threshold_source, paired or units"),
    "no threshold": (dict(claims=(claim_of(threshold=float("nan")),)), "has the threshold nan; give a finite number"),
    "a gauge twice": (dict(gauges=(Gauge("loss"), Gauge("loss", title="again"))), "The name 'loss-curve' stands for more than one gauge"),
    "a gauge of nothing": (dict(gauges=(Gauge("accuracy"),)), "There is no variable 'accuracy', which gauge 'accuracy-curve' shows"),
    "a gauge over nothing": (dict(gauges=(Gauge("loss", over={"head": "min"}),)), "reduces over 'head', which 'loss' lacks; it has none"),
    "a picture of a number": (dict(gauges=(Gauge("loss", "picture"),)), "is a picture of 'loss', whose last dimensions are not y and x"),
    "a map of a number": (dict(gauges=(Gauge("loss", "map"),)), "is a map of 'loss', which has no dimension to make rows of"),
    "a gauge with a long title": (dict(gauges=(Gauge("loss", title="l" * 81),)), "give it one line of at most 80 letters"),
    "a question without choice": (dict(predictions=(asked(answers=("yes",)),)), "lacks a question or two answers that differ"),
    "a question with one answer twice": (
        dict(predictions=(asked(answers=("a", "b", "a")),)),
        "lacks a question or two answers that differ",
    ),
    "a question without words": (dict(predictions=(asked(" "),)), "lacks a question or two answers that differ"),
    "a question settled at once": (dict(predictions=(asked(steps=0),)), "is settled after 0 steps; it must be at least 1"),
    "a published number of nothing": (
        dict(published=(Published("accuracy", 1.0, "best", "paper"),)),
        "There is no variable 'accuracy', for",
    ),
    "a published number from nowhere": (
        dict(published=(Published("loss", 1.0, "best", ""),)),
        "lacks a text or a source, or is not finite",
    ),
    "a published number of no step": (
        dict(published=(Published("loss", 1.0, "best", "paper", step=-1),)),
        "is of step -1; it must be at least 0",
    ),
    "a published number of no knobs": (
        dict(published=(Published("loss", 1.0, "best", "paper", knobs={"rate": 1.0}),)),
        "is of other knobs: There is no knob 'rate'",
    ),
    "a phase twice": (dict(phases=(Phase("a"), Phase("a"))), "The name 'a' stands for more than one phase"),
    "a phase of no length": (dict(phases=(Phase("a", 0.0), Phase("b"))), "Every phase needs a share above 0"),
}


def problems(checks, study):
    return "\n".join(collected(checks, Case(study)))


@pytest.mark.parametrize(("changes", "sentence"), SAYINGS.values(), ids=SAYINGS)
def test_faults_in_what_a_study_says_are_found(changes, sentence):
    assert sentence in problems(DECLARED, replace(parabola, **changes))


# Faults in learners


def learner(change, base=Descent, **attributes):
    """A learner whose step is wrapped: change(step) -> step."""
    made = type("Faulty", (base,), {"step": lambda self, *args: change(super(made, self).step, *args), **attributes})
    return made()


def zero(knobs, key):
    return dict(zero=torch.zeros(()))


zero.constant = "there is no data"


def branches(step, state, batch, knobs, shared, now):
    return step(state, batch, knobs if knobs.lr > 0.05 else knobs.replace(lr=0.05), shared, now)


def takes_a_number(step, state, batch, knobs, shared, now):
    return step(state, batch, knobs.replace(lr=float(knobs.lr.item())), shared, now)


def draws_from_torch(step, state, batch, knobs, shared, now):
    w = state["params"]["w"]
    return step(dict(params=dict(w=w + 0 * torch.rand(()))), batch, knobs, shared, now)


def fills_in_place(step, state, batch, knobs, shared, now):
    w = torch.zeros_like(batch["zero"])
    w.add_(state["params"]["w"])
    return step(dict(params=dict(w=w)), batch, knobs, shared, now)


def changes_its_state(step, state, batch, knobs, shared, now):
    new, moment = step(state, batch, knobs, shared, now)
    state["params"]["w"].mul_(0.5)
    return new, moment


def counts_aside(step, *args):
    counts_aside.calls += 1
    new, moment = step(*args)
    return dict(params=dict(w=new["params"]["w"] + counts_aside.calls)), moment


counts_aside.calls = 0


def branches_on_the_step(step, state, batch, knobs, shared, now):
    return step(state, batch, knobs.filled({"lr": knobs.lr * 0.5}) if int(now.step) > 100 else knobs, shared, now)


def mixes_layouts(step, state, batch, knobs, shared, now):
    mapped = torch._C._functorch.is_batchedtensor(state["params"]["w"])
    return step(dict(params=dict(w=state["params"]["w"] * (1.0 + 0.1 * mapped))), batch, knobs, shared, now)


def cannot_bear_nan(step, state, batch, knobs, shared, now):
    w = torch.linalg.svdvals(state["params"]["w"] * torch.eye(2, dtype=state["params"]["w"].dtype))[0]
    return step(dict(params=dict(w=w)), batch, knobs, shared, now)


def pushes_in_place(step, state, batch, knobs, shared, now):
    state["queue"].append((1e9, 0, 0.0))
    return step(state, batch, knobs, shared, now)


LEARNERS = {
    "a Python branch on a lane": (learner(branches), "It branches in Python on a value that differs between runs; use torch.where"),
    "a number taken out": (learner(takes_a_number), "It takes a Python number out of a value that differs between runs"),
    "torch's generator": (learner(draws_from_torch), "draws from torch's generator"),
    "a shared tensor changed in place": (learner(fills_in_place), "changes in place a tensor that all runs share; make a new one"),
    "a state changed in place": (learner(changes_its_state), "changes the state that its step is given ([0]['params']['w']"),
    "something kept aside": (learner(counts_aside), "all that changes belongs into the state"),
    "a Python branch on the step": (learner(branches_on_the_step), "does not trace as one graph"),
    "lanes unlike a loop": (learner(mixes_layouts), "gives another result for runs mapped together than one by one ([0]['params']['w'] by"),
    "divergence that spreads": (learner(cannot_bear_nan), "linalg"),
    "no reason for a loop": (learner(lambda step, *args: step(*args), lanes=False), "has lanes = False without a reason"),
    "prepared from a lane": (
        learner(lambda step, *args: step(*args), prepare=lambda self, knobs, key: knobs.lr),
        "read knob 'lr'; it differs",
    ),
}


@pytest.mark.parametrize(("faulty", "sentence"), LEARNERS.values(), ids=LEARNERS)
def test_faults_in_learners_are_found(faulty, sentence):
    assert sentence in "\n".join(check_learner(faulty, zero, parabola.knobs()))


def test_a_looped_learner_that_changes_its_state_is_found():
    faulty = learner(pushes_in_place, Server)
    assert "changes the state that its step is given" in "\n".join(check_learner(faulty, server.task, server.knobs()))


def test_divergence_that_does_not_count_is_found():
    class Silent(Descent):
        def init(self, key, knobs, shared):
            return dict(params={}, w=torch.ones(()))

        def step(self, state, batch, knobs, shared, now):
            return dict(params={}, w=state["w"] * knobs.lr), Moment()

    assert "does not count as diverged; put a loss into the moment" in "\n".join(check_learner(Silent(), nothing, parabola.knobs()))


@pytest.mark.parametrize("study", [parabola, duel, server, student, perceptron])
def test_sound_learners_pass_on_their_own(study):
    assert check_learner(study.learner, study.task, study.knobs(), study.phases) == []


# Faults in tasks


def undeclared(knobs, key):
    return dict(x=noise.normal(key, "x", (8, knobs.width)))


def unseeded(knobs, key):
    return dict(x=torch.ones(8, 3))


def from_torch(knobs, key):
    return dict(x=torch.rand(8, 3))


def unmappable(knobs, key):
    return dict(x=torch.tensor([float(key.sum().item())]))


def unlike_under_vmap(knobs, key):
    return dict(x=noise.normal(key, "x", (8, 3)) + torch._C._functorch.is_batchedtensor(key))


def looped(knobs, key):
    return unmappable(knobs, key)


looped.lanes = False


def reads_nothing_of_the_kind(knobs, key):
    return inputs(knobs, key)


reads_nothing_of_the_kind.reads = ("width", "breadth")

TASKS = {
    "an undeclared read": (undeclared, "Task 'undeclared' read knob 'width'; name it in the task's reads"),
    "no seed": (unseeded, "gives the same batch for every seed; draw it with its key, or set its attribute constant"),
    "torch's generator": (from_torch, "draws from torch's generator; use workbench.noise"),
    "no mapping": (unmappable, "It takes a Python number out of a value that differs between runs"),
    "another batch under vmap": (unlike_under_vmap, "gives other batches under vmap than for one run"),
    "no reason": (looped, "has lanes = False without a reason"),
    "a read of no knob": (reads_nothing_of_the_kind, "says that it reads 'breadth', which is no knob of StudentKnobs"),
}


@pytest.mark.parametrize(("task", "sentence"), TASKS.values(), ids=TASKS)
def test_faults_in_tasks_are_found(task, sentence):
    assert sentence in "\n".join(check_task(task, student.knobs()))


def test_sound_tasks_pass_and_exceptions_are_declared():
    assert check_task(student.task, student.knobs()) == check_task(nothing, parabola.knobs()) == []
    unseeded.constant = "the whole data set is one batch"
    looped.reason = "an outside library draws"
    assert check_task(unseeded, student.knobs()) == check_task(looped, student.knobs()) == []
    del unseeded.constant, looped.reason


# Faults in probes, records, views


@probe("player")
def single(m):
    """One number for two players"""
    return m.loss


@probe("layer")
def unlabelled(m):
    """A dimension that the study has no labels for"""
    return m.loss


@probe()
def empty(m):
    """Nothing finite"""
    return m.loss * torch.nan


@probe()
def missing(m):
    """Something the moment lacks"""
    return m.momentum


@probe()
def batched(m):
    """Another value under vmap"""
    return m.loss + torch._C._functorch.is_batchedtensor(m.loss)


@probe(on="state", vectorised=True)
def numeric(state, knobs, shared, key):
    """A number that vmap cannot take out"""
    return state["params"]["critic"].item()


PROBES = {
    "the wrong shape": (single, "Probe 'single' declares dimensions (player=2) but returned shape ()"),
    "no labels": (unlabelled, "Probe 'unlabelled' has dimension 'layer', for which study 'learners_for_tests' gives no labels"),
    "nothing finite": (empty, "Probe 'empty' gives no finite value"),
    "a lacking by-product": (missing, "this learner's moment has no 'momentum', only loss, params"),
    "another value under vmap": (batched, "Probe 'batched' gives other values for runs mapped together than one by one"),
    "a false promise": (numeric, "It takes a Python number out of a value that differs between runs"),
}


@pytest.mark.parametrize(("faulty", "sentence"), PROBES.values(), ids=PROBES)
def test_faults_in_probes_are_found(faulty, sentence):
    assert sentence in "\n".join(check_probe(faulty, duel))


def test_a_sound_probe_passes():
    assert check_probe(position, duel) == []


@view("loss")
def sound(record):
    """Loss"""
    table = record.wb["loss"].to_dataframe(name="value").reset_index()[["step", "value"]]
    return alt.Chart(table).mark_line().encode(x="step:Q", y="value:Q")


@view("loss")
def meddling(record):
    """Loss, after meddling"""
    record["every_1"].dataset["loss"].values[:] = 0
    return sound(record)


@view("loss")
def invalid(record):
    """Loss, with an encoding that Vega-Lite does not know"""
    return sound(record).encode(x=alt.X("step:Q", axis=alt.Axis(grid="no")))


def test_faults_in_views_are_found():
    record = wb.run(parabola, steps=5)
    assert check_view(sound, record) == []
    assert check_view(said("loss"), record) == ["View 'chart' draws an empty chart."]
    assert check_view(said("accuracy"), record)[0].startswith("View 'chart' needs 'accuracy', which the record lacks")
    assert "SchemaValidationError" in check_view(invalid, record)[0]
    assert check_view(meddling, record) == ["View 'meddling' changes the record; work on a copy."]


def test_a_study_s_views_are_drawn():
    assert problems(SHOWN, replace(parabola, views=(sound,))) == ""
    assert problems(SHOWN, replace(parabola, views=(said("loss"),))) == "View 'chart' draws an empty chart."


def last_loss(record):
    return record.wb.cube("loss", "lr", "seed").isel(lr=-1, step=-1, drop=True)


def short(record):
    return last_loss(record)[:2]


def unlabelled_effect(record):
    return last_loss(record).values


def failing(record):
    return record.wb["momentum"]


FOUR_SEEDS = parabola.budgets | {"full": Budget(grid(lr=[0.1, 0.2], seed=range(4)), 5)}
READINGS = {
    "an effect of too few numbers": (dict(claims=(claim_of(short),)), "has dimensions ('seed',); it must be one number a seed"),
    "an effect without labels": (dict(claims=(claim_of(unlabelled_effect),)), "has dimensions None; it must be one number a seed"),
    "an effect that fails": (dict(claims=(claim_of(failing),)), "There is no variable 'momentum'"),
    "an event that fails": (dict(events=(Event("last", failing, "1", "doc"),)), "There is no variable 'momentum'"),
    "an event of the wrong length": (dict(events=(Event("last", lambda r: r.wb["loss"][0], "1", "doc"),)), "conflicting sizes"),
    "an outcome beyond the answers": (
        dict(predictions=(asked(outcome=lambda record: 2),)),
        "The outcome of prediction 'Up?' is 2; it must",
    ),
    "an outcome that is no place": (dict(predictions=(asked(outcome=lambda record: 0.5),)), "must be the place of one of its 2 answers"),
    "an outcome that fails": (dict(predictions=(asked(outcome=failing),)), "There is no variable 'momentum'"),
    "a silent summary": (dict(summary=lambda record: []), "The summary of the smoke record is []"),
    "a long summary": (dict(summary=lambda record: ["line"] * 7), "it must be one to 6 lines of text"),
    "a variable without values": (dict(probes=(empty,)), "Variable 'empty' has no finite value in the smoke record"),
}


@pytest.mark.parametrize(("changes", "sentence"), READINGS.values(), ids=READINGS)
def test_faults_in_what_is_read_off_a_record_are_found(changes, sentence):
    assert sentence in problems(RECORDED, replace(parabola, budgets=FOUR_SEEDS, **changes))


def test_claims_need_seeds():
    few = replace(parabola, claims=(claim_of(last_loss),), budgets=FOUR_SEEDS | {"full": Budget(grid(lr=[0.1, 0.2], seed=range(3)), 5)})
    assert problems(RECORDED, few) == "The full budget has 3 seeds; claims are judged over at least 4."
    assert problems(RECORDED, replace(few, budgets=FOUR_SEEDS)) == ""


def test_a_fork_that_is_no_twin_is_found():
    class Coupled(Student):
        drift = 0.0

        def step(self, state, batch, knobs, shared, now):
            new, moment = super().step(state, batch, knobs, shared, now)
            self.drift += 0.1
            return dict(params=new["params"] + self.drift), moment

    class Looped(Coupled):
        lanes, reason = False, "for the test"

    assert "differs between a run and its twin that changes nothing" in problems(RECORDED, replace(student, learner=Looped()))


# Gauges


def test_an_outcome_gets_the_record_of_one_run():
    def of_one_run(record):
        assert dict(record.sizes)["run"] == 1
        return int(record.wb["loss"].isel(run=0, step=-1) < 0.4)

    assert problems(RECORDED, replace(parabola, budgets=FOUR_SEEDS, predictions=(asked(outcome=of_one_run),))) == ""


def test_a_study_s_gauges_are_drawn_or_those_of_its_default_probes():
    gauges = (Gauge("loss", levels=lambda knobs: [Level("rate", knobs["lr"])], logarithmic=True), Gauge("weight", "histogram"))
    assert problems(SHOWN, replace(parabola, gauges=gauges)) == problems(SHOWN, parabola) == problems(SHOWN, duel) == ""


def test_a_gauge_with_nothing_to_draw_is_found():
    assert "Gauge 'empty-histogram' is empty after a few steps" in problems(
        SHOWN, replace(parabola, optional_probes=(empty,), gauges=(Gauge("empty", "histogram"),))
    )


def test_a_gauge_whose_levels_fail_is_found():
    def fails(knobs):
        return [Level("rate", knobs["momentum"])]

    assert "KeyError" in problems(SHOWN, replace(parabola, gauges=(Gauge("loss", levels=fails),)))


def test_a_chart_whose_tables_lack_a_field_or_are_ragged_is_found(monkeypatch):
    made = importlib.import_module("workbench.views.gauges")
    faulty = {"lines": {"step": np.zeros(2), "value": np.zeros(3), "line": ["a", "a"]}}
    monkeypatch.setattr(made, "tables", lambda gauge, variable, shown: faulty)
    found = problems(SHOWN, replace(parabola, gauges=(Gauge("loss"),)))
    assert "Gauge 'loss-curve' draws 'colour' of the data 'lines', which its tables lack." in found
    assert "The columns of the table 'lines' of gauge 'loss-curve' are not equally long." in found


# The whole battery


def test_faults_of_every_kind_are_found_at_once():
    faulty = replace(
        parabola,
        title="",
        task=unseeded,
        learner=learner(branches_on_the_step),
        optional_probes=(empty,),
        summary=lambda record: [],
        views=(said("loss"),),
    )
    found = check_study(faulty)
    for part in ("no title", "every seed", "one graph", "no finite value", "summary", "empty chart"):
        assert any(part in sentence for sentence in found), part


def test_studies_are_checked_by_name_too():
    assert check(parabola) == []
    with pytest.raises(wb.errors.InputError, match="There is no study 'parabolla'"):
        check("parabolla")
