"""Mixtures of the plane: where their modes are, and what is drawn from them."""

import math
from types import SimpleNamespace

import pytest
import torch

from workbench import noise
from workbench.errors import InputError
from workbench.learners import Game
from workbench.sample_distance import distances, mode_shares
from workbench.tasks import MixtureKnobs, Mixtures
from workbench.tasks.mixtures import centres, examples, points
from workbench.testing import check_task


class Settings(Game, MixtureKnobs):
    """What the task reads."""


KEY = noise.key_of(0)


def test_the_task_keeps_the_contract():
    assert check_task(Mixtures(), Settings(batch=8)) == []
    assert check_task(Mixtures(), Settings(batch=8, examples=5)) == []


def test_modes_of_a_ring_are_two_from_the_centre_and_equally_far_from_their_neighbours():
    at = centres(Settings(modes=5))
    torch.testing.assert_close(at.norm(dim=1), torch.full((5,), 2.0))
    torch.testing.assert_close((at - at.roll(1, 0)).norm(dim=1), torch.full((5,), 4 * math.sin(math.pi / 5)))


def test_modes_of_a_grid_are_a_square_of_side_four():
    at = centres(Settings(mixture="grid", modes=9))
    assert sorted(map(tuple, at.tolist())) == [(x, y) for x in (-2, 0, 2) for y in (-2, 0, 2)]
    with pytest.raises(InputError, match="choose 4 or 9"):
        centres(Settings(mixture="grid", modes=8))


def test_points_lie_around_all_modes_alike_and_as_wide_as_said():
    knobs = Settings(modes=4, mode_width=0.2)
    x = points(knobs, KEY, 20_000)
    torch.testing.assert_close(mode_shares(x, centres(knobs)), torch.full((4,), 0.25), atol=0.01, rtol=0)
    mean_square = distances(x, centres(knobs)).amin(1).square().mean().item()
    assert mean_square == pytest.approx(2 * 0.2**2, rel=0.03)


def test_a_batch_has_samples_for_all_updates_of_the_critic():
    assert Mixtures()(Settings(batch=8, critic_steps=3), KEY)["x"].shape == (24, 2)


def test_a_few_examples_are_drawn_again_and_again():
    knobs = Settings(batch=100, examples=7)
    first, second = (Mixtures()(knobs, noise.key_of(seed))["x"] for seed in (0, 1))
    assert not torch.equal(first, second)
    assert {*map(tuple, first.tolist())} == {*map(tuple, second.tolist())} == {*map(tuple, examples(knobs, 7).tolist())}


def test_points_read_nothing_else():
    x = points(SimpleNamespace(mixture="ring", modes=8, mode_width=0.1), KEY, 3)
    assert x.shape == (3, 2) and x.dtype == torch.float32
