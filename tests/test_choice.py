"""How cohorts train: what is measured, kept and decided; and on how many cores."""

import json
from dataclasses import replace

import pytest
import torch
from learners_for_tests import perceptron, server
from learners_for_tests import transformer as decoder

import workbench as wb
from workbench import places
from workbench.engine import choice, measuring, plan, threads
from workbench.engine.choice import choose, known
from workbench.engine.lanes import Looped, Vectorised
from workbench.engine.measured import Measured, recall, remember
from workbench.engine.programs import Part
from workbench.probe import probe

UPDATE, TENS = Part("train", 1), Part("train", 10)


def planned(study=decoder, steps=100, mode="auto", axes=None, **settings):
    return plan(study, wb.grid(**(axes or dict(seed=range(16)))).rows(study.knobs), steps, mode=mode, memory_budget=2**32, **settings)


def chosen(ready, cores=1, **options):
    """The choices for a plan with so many cores, on which its step was measured as it was here."""
    found = recall(ready.cohorts[0], ready.setting)
    ready.setting = replace(ready.setting, cores=cores)
    if found:
        remember(ready.cohorts[0], ready.setting, found)
    choose(ready, **options)
    return ready.choices


def with_measurements(ready, **found):
    """The plan, its first cohort measured like this before."""
    usual = dict(at_rest=10**5, in_flight=4 * 10**6, operations={str(UPDATE): 2000, str(TENS): 600}, eager={"loop": 8e-3, "lanes": 4e-3})
    remember(ready.cohorts[0], ready.setting, Measured(**usual | found))
    return ready


# Measuring, once


def test_a_step_is_measured_once_on_a_machine(monkeypatch):
    first = known(planned(), planned().cohorts[0])
    assert 0 < first.at_rest < first.in_flight and first.operations == {}
    assert {*first.eager} == {"loop", "lanes"} and min(first.eager.values()) > 0

    def measured_again(*args, **kwargs):
        raise AssertionError("it is known")

    monkeypatch.setattr(measuring, "seconds", measured_again)
    assert known(planned(), planned().cohorts[0]) == first


def test_only_what_is_wanted_is_measured():
    one = planned(axes=dict(seed=0))
    assert {*known(one, one.cohorts[0]).eager} == {"loop"}
    assert {*known(planned(mode="lanes"), planned().cohorts[0]).eager} == {"loop"}, "what is known is kept"
    assert {*known(planned(), planned().cohorts[0]).eager} == {"loop", "lanes"}


@pytest.mark.parametrize("other", [dict(axes=dict(width=8)), dict(dtype=torch.float64), dict(probes=[]), dict(study=perceptron)])
def test_another_model_or_number_format_is_measured_anew(other):
    ready = with_measurements(planned())
    if "probes" in other:
        other = dict(study=replace(decoder, probes=decoder.probes[:1]))
    again = planned(**other)
    assert recall(ready.cohorts[0], ready.setting) is not None and recall(again.cohorts[0], again.setting) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"at_rest": "much"}', '{"eager": {"loop": -1}}', '{"unknown": 1}', "null"])
def test_a_broken_file_is_measured_anew(text):
    ready = planned()
    known(ready, ready.cohorts[0])
    (file,) = (places.cache() / "steps").iterdir()
    file.write_text(text)
    assert recall(ready.cohorts[0], ready.setting) is None
    assert known(ready, ready.cohorts[0]).in_flight > 0


def test_the_cores_of_a_plan_are_those_it_was_made_with():
    """While chunks train each on one core, what they measure is kept where the next plan looks for it."""
    ready = planned()
    ready.setting = replace(ready.setting, cores=4)
    remember(ready.cohorts[0], ready.setting, Measured(1, 1))
    with threads.operations_on(1):
        assert recall(ready.cohorts[0], ready.setting) == Measured(1, 1)
    assert recall(ready.cohorts[0], replace(ready.setting, cores=2)) is None


def test_nothing_is_kept_of_a_study_whose_source_cannot_be_read():
    ready = planned(replace(decoder, module="__main__"))
    assert known(ready, ready.cohorts[0]).in_flight > 0 and recall(ready.cohorts[0], ready.setting) is None


def test_where_nothing_can_be_kept_it_is_measured_each_time(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(places.CACHE_VARIABLE, str(tmp_path / "file"))
    ready = planned()
    assert known(ready, ready.cohorts[0]).in_flight and recall(ready.cohorts[0], ready.setting) is None


def test_the_cache_lies_where_it_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv(places.CACHE_VARIABLE, str(tmp_path / "here"))
    assert places.cache() == tmp_path / "here"
    monkeypatch.delenv(places.CACHE_VARIABLE)
    assert places.cache().name == "stability-workbench"


# Layout


@pytest.mark.parametrize(("eager", "layout"), [({"loop": 1e-3, "lanes": 2e-3}, Looped), ({"loop": 2e-3, "lanes": 1e-3}, Vectorised)])
def test_the_faster_layout_is_taken(eager, layout):
    (found,) = chosen(with_measurements(planned(steps=1), eager=eager))
    assert found.layout is layout and not found.compiled and found.together == 16


def test_a_named_layout_is_taken_whatever_is_faster():
    for mode, layout in (("loop", Looped), ("lanes", Vectorised)):
        (found,) = chosen(with_measurements(planned(mode=mode, steps=10**6)))
        assert found.layout is layout and not found.compiled


def test_a_learner_that_cannot_be_mapped_is_looped_unmeasured():
    ready = plan(server, wb.grid(seed=range(3)).rows(server.knobs), 10)
    (found,) = chosen(ready)
    assert (found.layout, found.together, found.compiled) == (Looped, 3, ()) and recall(ready.cohorts[0], ready.setting) is None


# Compiling where it pays


def test_what_is_used_long_enough_is_compiled():
    """16 runs at 4 ms a step: compiling 2,000 operations takes about 20 s, on one of two cores."""
    for steps, parts in ((100, ()), (300, (UPDATE,)), (1000, (UPDATE, TENS))):
        (found,) = chosen(with_measurements(planned(steps=steps)), cores=2)
        assert found.compiled == parts


def test_what_has_been_compiled_here_before_is_compiled_sooner():
    before = dict(compiling={str(UPDATE): 19.0}, compiled={str(UPDATE): 1e-3})
    (found,) = chosen(with_measurements(planned(steps=100), **before), cores=2)
    assert found.compiled == (UPDATE,)


def test_what_was_no_faster_compiled_is_not_compiled_again():
    before = dict(compiling={str(UPDATE): 19.0}, compiled={str(UPDATE): 9e-3})
    (found,) = chosen(with_measurements(planned(steps=10**5), **before), cores=2)
    assert found.compiled == ()


@pytest.mark.parametrize("mode", ["auto", "compiled"])
def test_what_would_take_minutes_to_compile_is_not_compiled(mode):
    many = {str(UPDATE): 2000, str(TENS): 100_000}
    (found,) = chosen(with_measurements(planned(steps=10**5, mode=mode), operations=many), cores=2)
    assert found.compiled == (UPDATE,)


def test_the_operations_of_a_part_are_those_of_its_probes_and_some_of_the_step():
    @probe(every=10, cost="curvature")
    def dear(m):
        """Costly"""
        return torch.stack([m.loss_at(m.params) for _ in range(30)]).sum()

    for study, low, high in ((decoder, 0.25, 0.5), (replace(decoder, probes=(*decoder.probes, dear)), 3, 30)):
        ready = planned(study)
        found = known(ready, ready.cohorts[0], [UPDATE, TENS]).operations
        assert low < found[str(TENS)] / found[str(UPDATE)] < high


@pytest.mark.parametrize(
    ("runs", "in_flight", "workers", "together"),
    [
        (16, 4_000_000, 2, 8),  # two chunks of 8
        (16, 30_000_000, 2, 1),  # large models alone
        (16, 10_000_000, 2, 4),
        (4, 1_000, 2, 2),  # a chunk for each worker
        (9, 1_000, 2, 2),  # one lane empty rather than seven
        (1, 1_000, 1, 1),
        (84, 4_000_000, 2, 4),
        (1024, 1, 2, 8),
    ],
)
def test_how_many_lanes_a_program_has(runs, in_flight, workers, together):
    assert choice._together(runs, in_flight, 10**6, workers) == together


def test_what_does_not_fit_into_memory_is_not_put_together():
    assert choice._together(16, 1000, 3, 2) == 2 and choice._together(16, 1000, 0, 2) == 1


# Cores


def test_compiled_chunks_train_on_all_cores_and_others_on_one():
    ready = with_measurements(planned(steps=5000))
    assert chosen(ready, 4)[0].threads == 1 and ready.workers == 4
    ready = with_measurements(planned(steps=10))
    chosen(ready, 4)
    assert ready.workers == 1
    ready = with_measurements(planned(steps=5000))
    chosen(ready, 4, interactive=True)
    assert ready.workers == 1 and ready.choices[0].compiled


@pytest.mark.parametrize(("gain", "cores"), [(1.2, 1), (1.5, 2)])
def test_a_single_run_takes_all_cores_where_they_help(monkeypatch, gain, cores):
    class Cores:
        now = 1

    monkeypatch.setattr(choice.torch, "get_num_threads", lambda: Cores.now)
    monkeypatch.setattr(threads.torch, "set_num_threads", lambda n: setattr(Cores, "now", n))
    monkeypatch.setattr(choice, "seconds", lambda make: 1.0 if Cores.now == 1 else 1 / gain)
    ready = planned(axes=dict(seed=0))
    remember(ready.cohorts[0], ready.setting, Measured(1, 1, {str(UPDATE): 10**6, str(TENS): 10**6}, {"loop": 1e-3}))
    assert chosen(ready, 2)[0].threads == cores and Cores.now == 1


def test_one_core_is_left_unless_the_number_was_chosen(monkeypatch):
    class Torch:
        threads = 4

    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    monkeypatch.setattr(threads.torch, "get_num_threads", lambda: Torch.threads)
    monkeypatch.setattr(threads.torch, "set_num_threads", lambda n: setattr(Torch, "threads", n))
    monkeypatch.setattr(threads, "_left", None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads.leave_a_core()
    threads.leave_a_core()
    assert Torch.threads == 3 and threads.allowed() == 4
    Torch.threads = 2  # a person's choice
    threads.leave_a_core()
    assert Torch.threads == 2 and threads.allowed() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    Torch.threads = 4
    threads.leave_a_core()
    assert Torch.threads == 4


# What a record says of it


def test_a_record_says_how_it_was_computed_and_a_plan_can_read_it():
    record = wb.run(perceptron, width=[4, 8], seed=[0, 1], steps=5, mode="lanes")
    entries = json.loads(record.attrs["layouts"])
    assert [entry["runs"] for entry in entries] == [[0, 1], [2, 3]]
    assert entries[0] == {"layout": "lanes", "together": 2, "threads": 1, "compiled": [], "shared": False, "runs": [0, 1]}
    ready = plan(perceptron, wb.grid(width=[4, 8], seed=[0, 1]).rows(perceptron.knobs), 5)
    choice.choose_again(ready, record.attrs["layouts"])
    assert ready.layouts == record.attrs["layouts"]
