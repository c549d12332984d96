"""Controls: what a front is told of each knob, and knobs as a short text."""

import json
from dataclasses import replace
from typing import Literal

import pytest
from learners_for_tests import parabola, transformer

import workbench as wb
from workbench.errors import InputError
from workbench.knobs import Knobs, knob, specs
from workbench.panel.controls import groups, read_shared, seeds_of, shared


class Kinds(Knobs):
    rate: float = knob(0.1, 1e-5, 1.0, log=True, doc="a number", group="optimizer")
    count: int = knob(3, 0, 9, doc="a whole number")
    is_on: bool = knob(False, doc="true or false")
    name: str = knob("plain", doc="a text")
    way: Literal["left", "right"] = knob("left", doc="a choice")
    places: Literal[1, 2, 4] = knob(2, doc="a choice of numbers", acts="live")


kinds = replace(parabola, knobs=Kinds)
DEFAULTS = {name: spec.default for name, spec in specs(Kinds).items()}


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        dict(rate=0.1 + 0.2),
        dict(rate=3e-5),
        dict(rate=1e300),
        dict(count=7),
        dict(is_on=True),
        dict(name="two words"),
        dict(name=""),
        dict(name='it\'s "quoted" = $x; \\ ü'),
        dict(way="right", places=4),
        dict(rate=1.0, count=0, is_on=True, name="a=b c", way="right", places=1),
    ],
)
@pytest.mark.parametrize("seeds", [1, 16])
def test_every_kind_of_knob_survives_as_a_text(knobs, seeds):
    row = DEFAULTS | knobs
    text = shared(kinds, row, seeds)
    assert read_shared(kinds, text) == (row, seeds) and "\n" not in text
    assert all(isinstance(value, type(DEFAULTS[name])) for name, value in read_shared(kinds, text)[0].items())


@pytest.mark.parametrize("name", ["entropy_collapse", "lr_sensitivity"])
def test_every_preset_survives_as_a_text(name):
    study = wb.find(name)
    for preset in study.presets:
        row = {n: spec.default for n, spec in specs(study.knobs).items()} | dict(preset.knobs)
        assert read_shared(study, shared(study, row, 4)) == (row, 4)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "does not describe knobs|is for study"),
        ("learners_for_tests 'rate=1", "does not describe knobs; write one like 'learners_for_tests lr=0.1 seeds=4'"),
        ("entropy_collapse lr=0.1", "The text is for study 'entropy_collapse' and this panel has 'learners_for_tests'"),
        ("learners_for_tests rate", "'rate' sets nothing; write knob=value"),
        ("learners_for_tests rat=1", "There is no knob 'rat'; did you mean 'rate'"),
        ("learners_for_tests rate=fast", "Knob 'rate' is 'fast'"),
        ("learners_for_tests rate=-1", "Knob 'rate' is -1.0"),
        ("learners_for_tests count=1.5", "Knob 'count' is '1.5'"),
        ("learners_for_tests is_on=perhaps", "Knob 'is_on' is 'perhaps'"),
        ("learners_for_tests way=up", "Knob 'way' is 'up'; choose one of left, right"),
        ("learners_for_tests seeds=0", "seeds is 0"),
        ("learners_for_tests seeds=17", "seeds is 17; it must be a whole number from 1 to 16"),
        ("learners_for_tests seeds=many", "'many'"),
        (None, "is for study"),
        (["rate=1"], "is for study"),
    ],
)
def test_a_text_that_describes_nothing_is_refused_in_a_sentence(text, sentence):
    with pytest.raises(InputError, match=sentence) as refusal:
        read_shared(kinds, text)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("value", [0, 17, -1, True, 1.0, "4", None, [1]])
def test_what_is_no_number_of_seeds_is_refused(value):
    with pytest.raises(InputError, match="it must be a whole number from 1 to 16"):
        seeds_of(value)


def test_controls_are_plain_and_those_that_begin_a_new_run_are_marked():
    found = {each["name"]: each for group in groups(transformer) for each in group["controls"]}
    assert set(found) == set(specs(transformer.knobs)) and json.dumps(found)
    assert found["depth"]["restarts"] and found["width"]["restarts"] and found["init_scale"]["restarts"]
    assert not (found["lr"]["restarts"] or found["qk_norm"]["restarts"] or found["warmup"]["restarts"])
    assert all(each["doc"] for each in found.values())


def test_kinds_of_controls_follow_the_types_of_knobs():
    found = {each["name"]: each for group in groups(kinds) for each in group["controls"]}
    assert {name: each["kind"] for name, each in found.items()} == dict(
        rate="number", count="number", is_on="switch", name="text", way="choice", places="choice"
    )
    assert found["rate"]["log"] and found["count"]["whole"] and found["places"]["choices"] == [1, 2, 4]
    assert found["is_on"]["restarts"] and not found["places"]["restarts"]
    assert [group["name"] for group in groups(kinds)] == ["optimizer", "other"]
