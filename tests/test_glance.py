"""What is said of a run at a glance: exact sentences on curves made by hand."""

import numpy as np
import pytest

from workbench.gauge import Gauge, Level
from workbench.glance import at_a_glance, course, crossings, trend
from workbench.history import Track
from workbench.schema import Variable

LOSS = Variable("loss", 1, (), "float32", {"long_name": "Training loss", "units": "nat"})
ENTROPY = Variable("entropy", 10, ("layer", "head"), "float32", {"long_name": "Attention entropy", "units": "nat"})
RMS = Variable("rms", 1, (), "float32", {"long_name": "RMS of the gradient", "units": "1"})
VARIABLES = {v.name: v for v in (LOSS, ENTROPY, RMS)}


def quarter(knobs):
    return [Level("collapse", knobs["floor"], "under"), Level("uniform attention", 2.5)]


SMALLEST = Gauge("entropy", title="attention entropy, smallest layer", over={"head": "mean", "layer": "min"}, levels=quarter)
GAUGES = (Gauge("loss"), SMALLEST, Gauge("entropy", "map"))


def track(runs=1, **more):
    labels = {"layer": ["in", "out"], "head": [0, 1]}
    knobs = {"floor": 0.255}
    return Track(1, "run 1", "new run", tuple(range(runs)), knobs, knobs, VARIABLES, labels, diverged=np.full(runs, -1), **more)


def with_curve(name, heights, every=1, runs=1):
    """A track with these heights (step, ...), the same for every run unless they have an axis for it."""
    own = track(runs)
    for i, height in enumerate(heights):
        shape = (runs, *(2 for _ in VARIABLES[name].dims))
        own.add(name, i * every, np.broadcast_to(np.asarray(height, float).reshape(-1, *[1] * (len(shape) - 1)), shape))
        own.step = i * every
    return own


def with_layers(inner, outer):
    """A track with the entropies of two layers at steps 0, 10, ..., each the mean of two unlike heads."""
    own = track()
    for i, pair in enumerate(zip(inner, outer, strict=True)):
        own.add("entropy", 10 * i, np.array([[[0.5 * each, 1.5 * each] for each in pair]]))
        own.step = 10 * i + 5
    return own


# Where a curve stands


@pytest.mark.parametrize(
    ("heights", "said"),
    [
        (np.linspace(4, 2.31, 60), ", falling"),
        (np.linspace(2, 4, 60), ", rising"),
        (np.tile([2.0, 2.2], 30), ", steady"),
        (np.full(60, 1.0), ", steady"),
        ([3.0, 2.0], ""),
        ([4.0, 4.1, 3.9, 2.0, 2.1, 1.9], ", falling"),
        ([], ""),
    ],
)
def test_a_curve_falls_or_rises_where_its_last_measurements_differ_from_those_before(heights, said):
    assert trend(np.array(heights)) == said


def test_the_course_of_a_loss_has_its_latest_value_and_its_units():
    assert course(Gauge("loss"), LOSS, with_curve("loss", np.linspace(4, 2.314, 60))) == "training loss 2.31 nat, falling"


def test_a_course_is_told_up_to_a_step():
    turned = with_curve("loss", [*np.linspace(4, 2, 60), *np.full(60, 9.0)])
    assert course(Gauge("loss"), LOSS, turned, until=59) == "training loss 2 nat, falling"
    assert course(Gauge("loss"), LOSS, turned) == "training loss 9 nat, steady"


def test_a_course_is_the_mean_over_the_runs_that_are_left():
    two = with_curve("loss", [(1.0, 3.0), (2.0, np.nan)], runs=2)
    assert course(Gauge("loss"), LOSS, two) == "training loss 2 nat"
    assert course(Gauge("loss"), LOSS, two, until=0) == "training loss 2 nat"


def test_a_curve_that_was_never_a_number_or_never_measured_is_not_spoken_of():
    assert course(Gauge("loss"), LOSS, with_curve("loss", [np.nan, np.nan])) == ""
    assert course(Gauge("loss"), LOSS, track()) == ""
    assert crossings(SMALLEST, ENTROPY, track()) == []


def test_small_numbers_and_abbreviations_are_written_as_people_write_them():
    assert course(Gauge("rms"), RMS, with_curve("rms", [1.234e-5])) == "RMS of the gradient 1.23e-5"


# Levels that are crossed


def test_a_level_that_is_crossed_names_the_layer_the_height_and_since_when():
    own = with_layers([1.0, 1.0, 1.0, 1.0], [1.0, 0.3, 0.2, 0.1])
    assert crossings(SMALLEST, ENTROPY, own) == ["attention entropy of layer out under 0.255 nat (collapse) since step 20"]


def test_since_when_counts_from_the_last_return():
    own = with_layers([0.1, 1.0, 0.1, 0.1], [1.0, 1.0, 1.0, 1.0])
    assert crossings(SMALLEST, ENTROPY, own) == ["attention entropy of layer in under 0.255 nat (collapse) since step 20"]
    assert crossings(SMALLEST, ENTROPY, own, until=19) == []
    assert crossings(SMALLEST, ENTROPY, own, until=9)[0].endswith("since step 0")


def test_a_level_without_alarm_is_never_spoken_of():
    assert crossings(SMALLEST, ENTROPY, with_layers([9.0], [9.0])) == []


def test_a_level_above_is_crossed_upwards_and_a_mean_names_no_label():
    high = Gauge("entropy", levels=lambda knobs: [Level("too much", 2.0, "over")])
    assert crossings(high, ENTROPY, with_layers([1.0, 3.0], [1.0, 3.0])) == ["attention entropy over 2 nat (too much) since step 10"]


def test_of_several_runs_it_is_said_how_many_are_beyond():
    three = with_curve("entropy", [(1.0, 1.0, 1.0), (0.1, 1.0, 1.0), (0.1, 1.0, 0.2)], every=10, runs=3)
    (said,) = crossings(SMALLEST, ENTROPY, three)
    assert said == "attention entropy of layer in under 0.255 nat (collapse) in 2 of 3 runs, the first since step 10"


def test_a_run_that_is_not_finite_does_not_name_the_label():
    own = track(2)
    own.add("entropy", 0, np.array([np.full((2, 2), np.nan), [[1.0, 1.0], [0.1, 0.1]]]))
    assert crossings(SMALLEST, ENTROPY, own) == [
        "attention entropy of layer out under 0.255 nat (collapse) in 1 of 2 runs, the first since step 0"
    ]


# All together


def test_nothing_is_said_before_the_first_step():
    assert at_a_glance(track(), GAUGES, VARIABLES) == ["Nothing has been trained yet."]
    assert at_a_glance(with_layers([1.0, 1.0], [1.0, 1.0]), (Gauge("entropy", "map"),), VARIABLES) == ["Nothing has been trained yet."]


def test_the_first_curve_then_what_is_crossed_then_divergence():
    own = with_layers([0.2, 0.2], [1.0, 1.0])
    for step in range(16):
        own.add("loss", step, np.array([4.0 - step / 10]))
    own.diverged = np.array([15])
    assert at_a_glance(own, GAUGES, VARIABLES) == [
        "training loss 2.5 nat, falling",
        "attention entropy of layer in under 0.255 nat (collapse) since step 0",
        "diverged at step 15",
    ]
    assert at_a_glance(own, GAUGES, VARIABLES, until=12)[-1] == "attention entropy of layer in under 0.255 nat (collapse) since step 0"


def test_of_several_runs_it_is_said_how_many_diverged():
    own = with_curve("loss", [(1.0, 2.0, 3.0)] * 9, runs=3)
    own.diverged = np.array([7, -1, 4])
    assert at_a_glance(own, GAUGES[:1], VARIABLES)[-1] == "2 of 3 runs diverged, first at step 4"
    assert at_a_glance(own, GAUGES[:1], VARIABLES, until=5)[-1] == "1 of 3 runs diverged, first at step 4"
