"""Designs: sums of crossed axes."""

import numpy as np
import pytest

from workbench.design import Design, axes, grid
from workbench.errors import InputError
from workbench.knobs import Knobs, at_least, knob


class Settings(Knobs):
    lr: float = knob(0.1, 1e-3, 1.0, log=True, doc="learning rate")
    width: int = knob(8, 1, 16, valid=at_least(1), doc="width")
    norm: bool = knob(False, doc="norm")


def values(design, *names):
    return [tuple(row[name] for name in names) for row in design.rows(Settings)]


def test_a_grid_crosses_its_axes_the_last_running_fastest():
    assert values(grid(lr=[0.1, 0.2], seed=range(2)), "lr", "seed") == [(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)]


def test_rows_hold_every_knob_and_the_seed():
    assert grid(lr=0.5).rows(Settings) == [dict(seed=0, lr=0.5, width=8, norm=False)]
    assert list(axes(Settings)) == ["seed", "lr", "width", "norm"]


def test_a_sum_puts_runs_together_without_repeating_any():
    design = grid(lr=[0.1, 0.2]) + grid(lr=[0.2, 0.3]) + grid(width=[8, 9])
    assert values(design, "lr", "width") == [(0.1, 8), (0.2, 8), (0.3, 8), (0.1, 9)]


@pytest.mark.parametrize("axis", [[0.1, 0.2], (0.1, 0.2), np.array([0.1, 0.2]), iter([0.1, 0.2])])
def test_an_axis_is_anything_with_values(axis):
    if not hasattr(axis, "__len__"):
        axis = list(axis)
    assert values(grid(lr=axis), "lr") == [(0.1,), (0.2,)]


def test_a_text_or_a_single_number_is_one_value():
    assert values(grid(lr=np.float64(0.2)), "lr") == [(0.2,)]
    assert values(grid(lr=np.array(0.2), norm=True), "lr", "norm") == [(0.2, True)]


def test_the_empty_design_is_the_defaults():
    assert len(grid().rows(Settings)) == 1
    assert Design(()).rows(Settings) == []


def test_designs_survive_as_json():
    design = grid(lr=np.array([0.1, 0.2]), seed=range(3)) + grid(norm=[True, False], width=np.int64(3))
    assert Design.from_json(design.to_json()).rows(Settings) == design.rows(Settings)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (dict(ir=[1.0]), "There is no knob 'ir'; did you mean 'lr'"),
        (dict(lr=[0.1, -1.0]), "Knob 'lr' is -1.0; it must be above 0"),
        (dict(seed=-1), "Knob 'seed' is -1; it must be at least 0"),
        (dict(seed=0.5), r"Knob 'seed' is 0.5 \(float\); it must be a whole number"),
        (dict(width=[True]), r"Knob 'width' is True \(bool\)"),
    ],
)
def test_bad_values_are_refused(wrong, sentence):
    with pytest.raises(InputError, match=sentence):
        grid(**wrong).rows(Settings)


def test_an_empty_axis_is_refused():
    with pytest.raises(InputError, match="Axis 'lr' is empty; give at least one value"):
        grid(lr=[])
