"""The player: a queue, one thread, what is joined, what is broken off, how fast it goes."""

import threading
import time
from concurrent.futures import wait

import numpy as np
import pytest
from panels_for_tests import Failing, desk_of, failing, slow

from workbench.errors import InputError
from workbench.panel.desk import COMMANDS
from workbench.panel.player import HZ, Player, Task


@pytest.fixture
def player():
    """Players that are started, and closed in the end."""
    made = []

    def start(desk, publish=lambda: None, begin=True):
        made.append(Player(desk, publish))
        if begin:
            made[-1].start()
        return made[-1]

    yield start
    for each in made:
        each.close()
        if each.ident:
            each.join(10)
            assert not each.is_alive()


def ask(player, name, **arguments):
    return player.ask(Task(name, arguments)).result(10)


def test_commands_are_carried_out_in_turn_and_between_two_steps(player):
    here = player(desk_of())
    steps = [here.ask(Task("step")) for _ in range(5)] + [here.ask(Task("look", compute=lambda desk: desk.source.step))]
    assert [each.result(10) for each in steps] == [None] * 5 + [5]


def test_values_set_one_after_the_other_on_one_knob_are_one_command(player):
    here = player(desk_of(), begin=False)
    done = [here.ask(Task("set", {"lr": lr})) for lr in np.linspace(0.01, 0.5, 200).tolist()]
    assert len(here._tasks) == 1
    here.ask(Task("step"))
    done += [here.ask(Task("set", {"lr": 0.2})), here.ask(Task("set", {"lr": 0.3}))]
    assert len(here._tasks) == 3
    here.start()
    assert not wait(done, 10).not_done and here.desk.source.row["lr"] == 0.3
    assert [(c.step, c.new) for c in here.desk.source.track.changes] == [(1, 0.3)] and here.desk.source.track.first["lr"] == 0.5


def test_all_that_were_joined_are_refused_together(player):
    here = player(desk_of(), begin=False)
    done = [here.ask(Task("set", {"lr": lr})) for lr in (0.2, -1.0)]
    here.start()
    for each in done:
        with pytest.raises(InputError, match=r"Knob 'lr' is -1\.0"):
            each.result(10)
    assert "Knob 'lr' is -1.0" in here.desk.message


@pytest.mark.parametrize("name", ["advance", "__init__", "_begin", "record", "state", "work", "", "exec", None, 3])
def test_only_commands_are_carried_out(player, name):
    here = player(desk_of())
    assert name not in COMMANDS
    with pytest.raises(InputError, match="There is no button"):
        ask(here, name)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("step", {"x": 1}), ("back", {}), ("select", {"number": []}), ("forget", {"number": None}), ("show", {"gauge": []})],
)
def test_wrong_arguments_are_refused_in_a_sentence_and_it_goes_on(player, name, arguments):
    here = player(desk_of(slow))
    ask(here, "run")
    with pytest.raises(InputError):
        ask(here, name, **arguments)
    assert here.desk.problem == "" and here.desk.message and here.desk.running


def test_a_speed_limit_holds_and_lifting_it_acts_at_once(player):
    here = player(desk_of())
    ask(here, "speed", limit=50)
    ask(here, "run")
    time.sleep(1)
    ask(here, "pause")
    made = here.desk.source.step
    assert 25 <= made <= 65
    ask(here, "speed", limit=0.01)
    ask(here, "run")
    time.sleep(0.1)
    assert made <= here.desk.source.step <= made + 2
    ask(here, "speed", limit=0)
    time.sleep(0.3)
    assert here.desk.source.step > made + 20 and here.speed > 50


def test_it_publishes_a_few_times_a_second_and_after_each_command(player):
    published = []
    here = player(desk_of(), lambda: published.append(time.monotonic()))
    ask(here, "run")
    time.sleep(1)
    ask(here, "pause")
    time.sleep(0.1)
    assert HZ / 2 <= len(published) <= HZ + 4
    before = len(published)
    ask(here, "dismiss")
    time.sleep(0.1)
    assert len(published) == before + 1


def test_an_idle_one_waits_without_work(player):
    here = player(desk_of())
    ask(here, "step")
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.05


def test_a_pause_breaks_off_what_is_computed_and_lets_the_rest_go_on(player):
    here = player(desk_of(slow, memory=1))
    ask(here, "run", until=40)
    while here.desk.running:
        time.sleep(0.01)
    way, stopped = here.ask(Task("back", {"step": 38})), here.ask(Task("select", {"number": 1}))
    time.sleep(0.05)
    assert not way.done() and not stopped.done()
    ask(here, "pause")
    with pytest.raises(InputError, match="broken off by a pause"):
        way.result(1)
    assert stopped.result(10) is None and here.desk.source.cursor is None


def test_what_is_not_broken_off_arrives_and_then_the_next_command_acts_there(player):
    here = player(desk_of(slow, memory=1))
    ask(here, "run", until=20)
    while here.desk.running:
        time.sleep(0.01)
    way, change = here.ask(Task("back", {"step": 18})), here.ask(Task("set", {"lr": 0.5}))
    assert way.result(10) is None and change.result(10) is None
    assert here.desk.source.track.kind == "branch" and here.desk.source.track.start == 18 and here.desk.reached == 18


def test_an_exception_on_the_way_back_is_shown_and_ends_the_way(player, monkeypatch):
    here = player(desk_of(failing, memory=1))
    ask(here, "run", until=5)
    while here.desk.running:
        time.sleep(0.01)
    with monkeypatch.context() as broken, pytest.raises(ZeroDivisionError):
        broken.setattr(Failing, "step", lambda *_: 1 / 0)
        ask(here, "back", step=4)
    assert "ZeroDivisionError" in here.desk.problem and here.desk.work is None and here.desk.source.step == 5
    ask(here, "back", step=4)
    assert here.desk.problem == "" and here.desk.source.step == 4


def test_what_is_asked_after_closing_is_refused_and_what_waits_too(player):
    here = player(desk_of(), begin=False)
    waiting = here.ask(Task("step"))
    here.close()
    here.run()
    for each in (waiting, here.ask(Task("step"))):
        with pytest.raises(InputError, match="This panel is closed"):
            each.result(1)


def test_commands_of_many_threads_are_all_carried_out(player):
    here = player(desk_of())
    threads = [threading.Thread(target=lambda: [ask(here, "step") for _ in range(20)]) for _ in range(5)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(10)
    assert here.desk.source.step == 100
