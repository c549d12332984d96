"""The script of an experiment: which calls it consists of. That they make the same runs is tested in test_panel.py."""

import ast

from learners_for_tests import transformer as decoder
from panels_for_tests import advanced, desk_of, worked


def lines(desk):
    ast.parse(desk.python)
    return [line.replace("learners_for_tests", "study") for line in desk.python.splitlines()[2:]]


def test_a_run_says_what_is_not_at_its_default():
    desk = advanced(desk_of(decoder, knobs=dict(lr=0.1)), 3)
    assert lines(desk) == ["run_1 = wb.run('study', lr=0.1, horizon=1000, seed=0, steps=3, mode='loop')"]


def test_what_has_not_trained_is_only_named():
    desk = desk_of(decoder)
    assert lines(desk) == []
    advanced(desk, 3)
    desk.set(lr=0.1)
    desk.twin(lr=0.2)
    assert lines(desk)[1:] == ["# twin 2 left run 1 at step 3 and has not trained since"]


def test_a_change_is_a_fork_of_what_was_before_it():
    desk = advanced(desk_of(decoder), 3)
    desk.set(lr=0.1)
    advanced(desk, 2)
    desk.set(qk_norm=True)
    advanced(desk, 2)
    assert lines(desk)[1:] == [
        "run_1_from_3 = wb.fork(run_1, run=0, step=3, steps=7, lr=0.1)[1]",
        "run_1_from_5 = wb.fork(run_1_from_3, run=0, step=5, steps=7, qk_norm=True)[1]",
    ]


def test_a_branch_at_a_change_leaves_what_was_before_it():
    desk = advanced(desk_of(decoder), 3)
    desk.set(lr=0.1)
    advanced(desk, 2)
    for lr in (3e-3, 0.2):
        desk.select(1)
        desk.back(3)
        worked(desk)
        desk.set(lr=lr)
        advanced(desk, 2)
    assert lines(desk)[2:] == [
        "branch_2 = wb.fork(run_1, run=0, step=3, steps=5)[1]",
        "branch_3 = wb.fork(run_1, run=0, step=3, steps=5, lr=0.2)[1]",
    ]


def test_a_twin_of_a_twin_at_the_same_step_leaves_the_run():
    desk = advanced(desk_of(decoder), 3)
    desk.twin(lr=0.1)
    desk.twin(weight_decay=0.1)
    advanced(desk, 1)
    assert lines(desk)[1:] == [
        "twin_2 = wb.fork(run_1, run=0, step=3, steps=4, lr=0.1)[1]",
        "twin_3 = wb.fork(run_1, run=0, step=3, steps=4, lr=0.1, weight_decay=0.1)[1]",
    ]


def test_several_seeds_are_forked_one_by_one(monkeypatch):
    desk = advanced(desk_of(decoder, seeds=3), 3)
    desk.twin(lr=0.1)
    advanced(desk, 2)
    desk.twin(lr=0.2)
    advanced(desk, 1)
    assert "seed=[0, 1, 2]" in lines(desk)[0] and lines(desk)[1:] == [
        "twin_2 = [wb.fork(run_1, run=run, step=3, steps=6, lr=0.1)[1] for run in range(3)]",
        "twin_3 = [wb.fork(one, run=0, step=5, steps=6, lr=0.2)[1] for one in twin_2]",
    ]


def test_texts_are_quoted():
    assert "optimizer='sgd'" in lines(advanced(desk_of(decoder, knobs=dict(optimizer="sgd")), 1))[0]
