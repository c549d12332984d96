"""The front without a browser: what is sent is plain, and whatever comes back can only press buttons."""

import json
import time

import pytest
from panels_for_tests import closing, desk_of, opened, trained

import workbench as wb
from workbench.panel import front as front_module
from workbench.panel.desk import COMMANDS
from workbench.panel.front import front_of
from workbench.panel.player import Player


@pytest.fixture(autouse=True)
def _no_vega(monkeypatch):
    """Its bundle takes seconds to make, and no browser is here to read it."""
    monkeypatch.setattr(front_module, "bundle", lambda: "export default null")
    monkeypatch.setattr(front_module, "_kept", [])


def shown(panel):
    panel.front = front_of(panel.desk, panel._player)
    panel.state  # noqa: B018  # its turn comes after the front's
    return panel.front


def settled(panel):
    """After all that was pressed has been carried out."""
    return panel.state


def sent(front):
    """The traits as the wire has them: JSON that every browser reads, without NaN."""
    names = ("setup", "charts", "state", "data", "slow", "theme", "interpreted")
    return json.loads(json.dumps({name: getattr(front, name) for name in names}, allow_nan=False))


@pytest.mark.parametrize(
    ("study", "given"), [("entropy_collapse", {}), ("lr_sensitivity", dict(seeds=4)), ("entropy_collapse", dict(replay=True))]
)
def test_all_that_is_sent_is_json(study, given):
    with opened(study, **given) as panel:
        front = shown(panel)
        if not panel.desk.is_replay:
            trained(panel, 12).press("twin", lr=0.1)
        else:
            panel.press("twin", lr=0.1)
        panel.press("compare", what="published")
        panel.press("back", step=5)
        panel.press("pin")
        settled(panel)
        everything = sent(front)
        tables = everything["data"]["tables"] | everything["slow"]["tables"]
        assert set(tables) == set(everything["state"]["shown"]) == set(everything["charts"]) and all(tables.values())
        assert {gauge["name"] for gauge in everything["setup"]["gauges"]} == set(panel.desk.gauges)


BAD = [
    None,
    [],
    "run",
    7,
    {},
    {"button": None},
    {"button": "advance"},
    {"button": "__class__"},
    {"button": "_begin", "arguments": {"row": {}, "seeds": 1}},
    {"button": ["run"]},
    {"button": {"run": 1}},
    {"button": "set", "arguments": [1]},
    {"button": "set", "arguments": "lr"},
    {"button": "set", "arguments": {"lr": "x"}},
    {"button": "set", "arguments": {"lr": None}},
    {"button": "set", "arguments": {"__class__": 1, "self": 2}},
    {"button": "set", "arguments": {1: 2}},
    {"button": "set"},
    {"button": "back", "arguments": {"step": "1"}},
    {"button": "back", "arguments": {"where": 1}},
    {"button": "select", "arguments": {"number": {}}},
    {"button": "show", "arguments": {"gauge": ["x"]}},
    {"button": "load", "arguments": {"text": None}},
    {"button": "speed", "arguments": {"limit": "fast"}},
    {"button": "save", "arguments": {"path": None}},
    {"button": "save", "arguments": {"path": ""}},
    {"page": None},
    {"page": [1], "seen": 1},
    {"ask": "record"},
    {"ask": "__dict__"},
    {"ask": ["python"]},
]


def test_malformed_messages_do_nothing_and_raise_nothing():
    with opened() as panel:
        front = shown(panel)
        before = trained(panel, 3).state
        for content in BAD:
            front._pressed(None, content, [])
            after = settled(panel)
            assert after | {"message": ""} == before | {"message": ""}, content
        assert panel._player.is_alive()


def test_only_commands_reach_the_queue(monkeypatch):
    with opened() as panel:
        front, asked = shown(panel), []
        monkeypatch.setattr(panel._player, "ask", asked.append)
        for content in [*BAD, *({"button": name} for name in (*COMMANDS, *dir(panel.desk)))]:
            front._pressed(None, content, [])
        assert {task.name for task in asked} == set(COMMANDS) and all(task.compute is None for task in asked)
        monkeypatch.undo()


def test_a_press_stores_and_returns_at_once():
    with opened() as panel:
        front = shown(panel)
        front._pressed(None, {"button": "run", "arguments": {"until": 300}}, [])
        began = time.perf_counter()
        for lr in range(1, 201):
            front._pressed(None, {"button": "set", "arguments": {"lr": lr / 1000}}, [])
        assert time.perf_counter() - began < 0.5
        settled(panel)
        assert panel.knobs["lr"] == 0.2


def test_python_and_shared_are_sent_when_they_are_asked_for(monkeypatch):
    with opened() as panel:
        front, said = shown(panel), []
        monkeypatch.setattr(front, "send", said.append)
        trained(panel, 2)
        for wanted in ("python", "shared"):
            front._pressed(None, {"ask": wanted}, [])
        settled(panel)
        assert said == [{"said": "python", "text": panel.python}, {"said": "shared", "text": panel.shared}]


def test_it_pauses_when_the_last_page_of_it_is_gone():
    with opened() as panel:
        front = shown(panel)
        for message in ({"page": "a", "seen": 1}, {"page": "b", "seen": 1}, {"page": "a"}):
            front._pressed(None, message, [])
        panel.press("run")
        assert settled(panel)["running"]
        front._pressed(None, {"page": "b"}, [])
        assert not settled(panel)["running"] and panel._player.is_alive()


def test_it_pauses_when_no_page_has_been_heard_of_for_a_minute():
    with opened() as panel:
        front = shown(panel)
        front._pressed(None, {"page": "a", "seen": 1}, [])
        front._pages["a"] -= 61
        panel.press("run")
        panel.wait(seconds=30)
        assert panel.state["message"] == "Paused, as no page has shown it for a minute."


def test_while_it_trains_nothing_is_sent_before_what_was_sent_has_been_seen():
    desk = desk_of(running=True)
    front = front_of(desk, Player(desk, lambda: None))
    for sent in (1, 1):
        front.take(desk, 1.0)
        assert front.data["sent"] == sent
    front._pressed(None, {"page": "a", "seen": 1}, [])
    front.take(desk, 1.0)
    assert front.data["sent"] == 2


def test_a_chart_that_cannot_be_drawn_is_said_and_the_others_are_shown(monkeypatch):
    with opened() as panel:
        front, tables = shown(panel), type(panel.desk).tables
        monkeypatch.setattr(type(panel.desk), "tables", lambda desk, name: 1 / 0 if name == "train_loss-curve" else tables(desk, name))
        panel.press("step")
        settled(panel)
        assert "The chart 'train_loss-curve' cannot be drawn: ZeroDivisionError" in panel.desk.message
        assert front.data["tables"]["train_loss-curve"] == {} and front.data["tables"]["attention_entropy-curve"]


def test_it_shows_itself_once_and_is_gone_when_closed():
    with opened() as panel:
        view = "application/vnd.jupyter.widget-view+json"
        first, again = panel._repr_mimebundle_(), panel._repr_mimebundle_()
        bundles = [each[0] if isinstance(each, tuple) else each for each in (first, again)]
        assert bundles[0][view]["model_id"] == bundles[1][view]["model_id"] == panel.front.model_id
    assert panel.front is None


def test_publishing_takes_a_small_share_of_the_time():
    with closing(wb.explore("entropy_collapse")) as panel:
        shown(panel)
        trained(panel, 5)
        panel._player.busy.update(training=0.0, publishing=0.0)  # the first time charts are made, which is later not needed
        panel.press("run")
        time.sleep(3)
        panel.press("pause")
        assert panel.publishing < 0.25, panel.publishing


def test_what_a_step_sends_is_small_however_long_the_run():
    with opened() as panel:
        front = shown(panel)
        trained(panel, 600)
        settled(panel)
        assert len(json.dumps(front.data)) < 120_000 and len(json.dumps(front.state)) < 20_000
