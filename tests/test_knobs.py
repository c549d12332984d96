"""Knobs: typed, bounded, composable settings."""

import sys
import types
from typing import Literal

import numpy as np
import pytest
import torch

from workbench.errors import InputError
from workbench.knobs import Interval, Knobs, above, at_least, between, knob, prefixed, specs
from workbench.schedules import Schedule


class Adam(Knobs):
    lr: float = knob(1e-3, 1e-5, 1.0, log=True, doc="learning rate")
    beta: float = knob(0.9, 0.0, 0.99, valid=between(0.0, 1.0), doc="decay rate")


class Net(Knobs):
    width: int = knob(32, 16, 128, valid=at_least(1), units="unit", doc="width")
    norm: Literal["layer", "rms"] = knob("layer", acts="switch", doc="norm")
    bias: bool = knob(False, doc="biases")
    data: str = knob("text", doc="data")


class Settings(Net, Adam, defaults={"lr": 0.01, "norm": "rms"}):
    warmup: int = knob(0, 0, 100, acts="live", doc="warmup")


def test_knobs_of_groups_come_together_with_new_defaults():
    assert set(specs(Settings)) == {"lr", "beta", "width", "norm", "bias", "data", "warmup"}
    settings = Settings(width=64)
    assert (settings.lr, settings.norm, settings.width, settings.beta) == (0.01, "rms", 64, 0.9)
    assert (Adam().lr, Net().norm) == (1e-3, "layer")


def test_knobs_do_not_change():
    with pytest.raises(AttributeError):
        Settings().lr = 1.0
    assert Settings().replace(lr=0.5).lr == 0.5


def test_how_knobs_act_follows_from_their_type_unless_said():
    acts = {name: spec.acts for name, spec in specs(Settings).items()}
    assert acts == dict(lr="live", beta="live", width="shape", norm="switch", bias="shape", data="shape", warmup="live")
    assert {name for name, spec in specs(Settings).items() if spec.is_lane} == {"lr", "beta", "warmup"}


def test_a_spec_holds_what_a_widget_needs():
    spec = specs(Settings)["width"]
    assert (spec.low, spec.high, spec.units, spec.doc, spec.default, spec.type) == (16, 128, "unit", "width", 32, int)
    assert specs(Settings)["norm"].choices == ("layer", "rms")


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        (above(0.0), [1e-300, 1e300], [0.0, -1.0, float("inf"), float("nan")]),
        (at_least(1), [1, 5], [0, float("nan")]),
        (between(0.0, 1.0), [0.0, 0.5, 1.0], [-1e-9, 1.0000001, float("nan")]),
        (Interval(), [-1e9, 0.0], [float("inf"), float("nan")]),
    ],
)
def test_intervals(interval, inside, outside):
    assert all(value in interval for value in inside) and not any(value in interval for value in outside)


def test_intervals_in_words():
    assert [str(i) for i in (above(0.0), at_least(1), between(0, 2), Interval())] == [
        "above 0",
        "at least 1",
        "at least 0 and at most 2",
        "finite",
    ]


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("lr", 1, 1.0),
        ("lr", np.float32(0.5), 0.5),
        ("lr", torch.tensor(0.5), 0.5),
        ("width", 16.0, 16),
        ("width", np.int64(8), 8),
        ("bias", np.bool_(True), True),
        ("norm", np.str_("rms"), "rms"),
        ("lr", 1e9, 1e9),
    ],
)
def test_values_become_the_knob_s_own_type(name, value, kept):
    found = specs(Settings)[name].check(value)
    assert found == kept and type(found) is type(kept)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("lr", 0.0, "Knob 'lr' is 0.0; it must be above 0."),
        ("lr", float("nan"), "Knob 'lr' is nan; it must be above 0."),
        ("lr", float("inf"), "Knob 'lr' is inf; it must be above 0."),
        ("beta", 1.5, "Knob 'beta' is 1.5; it must be at least 0 and at most 1."),
        ("lr", "fast", "Knob 'lr' is 'fast' (str); it must be a number, above 0."),
        ("lr", True, "Knob 'lr' is True (bool); it must be a number, above 0."),
        ("lr", None, "Knob 'lr' is None (NoneType); it must be a number, above 0."),
        ("width", 1.5, "Knob 'width' is 1.5 (float); it must be a whole number, at least 1."),
        ("width", 0, "Knob 'width' is 0; it must be at least 1."),
        ("bias", 1, "Knob 'bias' is 1 (int); it must be true or false."),
        ("norm", "batch", "Knob 'norm' is 'batch'; choose one of layer, rms."),
        ("data", 3, "Knob 'data' is 3 (int); it must be a text."),
    ],
)
def test_bad_values_are_named_with_bounds(name, value, sentence):
    for refuse in (specs(Settings)[name].check, lambda value: Settings().replace(**{name: value})):
        with pytest.raises(InputError) as error:
            refuse(value)
        assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("lr", " 1e-3 ", 1e-3),
        ("width", "8", 8),
        ("bias", "Yes", True),
        ("bias", "off", False),
        ("norm", "rms", "rms"),
        ("data", "a, b", "a, b"),
    ],
)
def test_values_written_as_text(name, text, value):
    assert specs(Settings)[name].parse(text) == value


@pytest.mark.parametrize(
    ("name", "text"), [("lr", "fast"), ("lr", "-1"), ("width", "1.5"), ("bias", "maybe"), ("norm", "batch"), ("lr", "")]
)
def test_text_that_is_no_value(name, text):
    with pytest.raises(InputError, match=f"Knob '{name}' is "):
        specs(Settings)[name].parse(text)


def test_unknown_names_are_answered_with_near_ones():
    with pytest.raises(InputError, match="There is no knob 'widht'; did you mean 'width'"):
        Settings().replace(widht=3)
    with pytest.raises(InputError, match="There is no knob 'rate'"):
        type("Other", (Adam,), {}, defaults={"rate": 1.0})


@pytest.mark.parametrize("fields", [{"__annotations__": {"a": tuple}, "a": knob((), doc="a")}, {"__annotations__": {"a": float}, "a": 1.0}])
def test_a_field_that_is_no_knob_is_a_mistake_of_the_author(fields):
    with pytest.raises(TypeError, match="Knob 'a' must be a float, int, bool, str or Literal made with knob"):
        type("Wrong", (Knobs,), fields)()


def test_lanes_are_put_in_unchecked():
    filled = Settings().filled({"lr": torch.tensor(-1.0)})
    assert filled.lr == -1.0 and filled.width == 32 and Settings().lr == 0.01


class Duel(prefixed("generator", Adam), prefixed("critic", Adam)):
    pass


def test_a_group_used_twice_is_prefixed_and_read_through_a_view():
    knobs = Duel(generator_lr=0.1, critic_lr=0.2)
    assert set(specs(Duel)) == {"generator_lr", "generator_beta", "critic_lr", "critic_beta"}
    assert (knobs.view("generator").lr, knobs.view("critic").lr, knobs.view("critic").beta) == (0.1, 0.2, 0.9)
    assert specs(Duel)["critic_lr"].doc == "critic: learning rate" and specs(Duel)["critic_lr"].log
    assert knobs.filled({"critic_lr": 3.0}).view("critic").lr == 3.0
    assert knobs.view("critic").generator_lr == 0.1


def test_a_view_of_no_knob_is_refused():
    with pytest.raises(InputError, match="No knob of Duel begins with 'actor_'"):
        Duel().view("actor")


def test_a_stretch_of_steps_begins_at_the_knob_of_its_own_player():
    stretches = specs(prefixed("critic", Schedule))
    assert stretches["critic_warmup"].begins == "critic_warmup_from" and stretches["critic_horizon"].follows == "steps"
    assert stretches["critic_lr"].begins == ""


def test_a_group_of_a_module_with_postponed_annotations_is_used_like_any_other():
    module = types.ModuleType("postponed")
    module.__dict__.update(Literal=Literal, Knobs=Knobs, knob=knob)
    text = "from __future__ import annotations\nKind = Literal['a', 'b']\nclass Group(Knobs):\n    kind: Kind = knob('a', doc='d')\n"
    sys.modules["postponed"] = module
    exec(text, module.__dict__)
    assert prefixed("critic", module.Group)(critic_kind="b").critic_kind == "b"
    assert type("Other", (module.Group,), {}, defaults={"kind": "b"})().kind == "b"


@pytest.mark.parametrize("value", [10**400, np.array(["layer", "rms"]), ["layer"]])
def test_what_no_knob_can_hold_is_an_input_error(value):
    for name in ("lr", "norm"):
        with pytest.raises(InputError, match=f"Knob '{name}' is"):
            Settings(**{name: value})
