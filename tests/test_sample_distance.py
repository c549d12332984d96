"""Distances of sets of points on cases whose answers are known."""

import math

import pytest
import torch

from workbench.sample_distance import density, distances, mode_shares, modes_covered, precision, sliced_wasserstein

SQUARE = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def cloud(count=200, seed=0):
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shift", [(3.0, 0.0), (0.0, -3.0), (1.8, 2.4)])
def test_point_masses_and_translations_are_two_over_pi_times_their_length_apart(shift):
    points = torch.zeros(7, 2)
    assert sliced_wasserstein(points, points + torch.tensor(shift)).item() == pytest.approx(3 * 2 / math.pi, rel=3e-4)
    assert sliced_wasserstein(cloud(), cloud() + torch.tensor(shift)).item() == pytest.approx(3 * 2 / math.pi, rel=3e-4)


def test_the_order_of_the_points_does_not_matter():
    a = cloud()
    assert sliced_wasserstein(a, a[torch.randperm(len(a), generator=torch.Generator().manual_seed(1))]).item() == 0


def test_a_set_stretched_in_all_directions_is_as_far_as_its_radius_grows():
    angle = 2 * math.pi * torch.arange(2000) / 2000
    ring = torch.stack([angle.cos(), angle.sin()], 1)
    assert sliced_wasserstein(ring, 3 * ring).item() == pytest.approx(2 * 2 / math.pi, rel=1e-3)


def test_shares_go_to_the_nearest_mode_and_within_three_widths_if_said():
    modes = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = torch.tensor([[0.0, 0.0], [0.2, 0.2], [0.0, 0.31], [9.0, 0.0]])
    assert mode_shares(points, modes).tolist() == [0.75, 0.25, 0.0]
    assert mode_shares(points, modes, 0.1).tolist() == [0.5, 0.0, 0.0]
    assert mode_shares(points * torch.nan, modes, 0.1).tolist() == [0.0, 0.0, 0.0]


def test_a_mode_counts_from_a_fifth_of_its_share_on():
    assert modes_covered(torch.tensor([0.25, 0.25, 0.25, 0.25])).item() == 4
    assert modes_covered(torch.tensor([0.9, 0.06, 0.04, 0.0])).item() == 2


def test_of_half_of_the_modes_all_is_precise_and_half_is_recalled():
    real = torch.cat([cloud(50), 100 + cloud(50, 1)])
    half = torch.cat([real[:50], real[:50]])
    assert precision(half, real).item() == 1.0 and precision(real, half).item() == 0.5
    assert precision(real, real).item() == 1.0 and precision(real + 1000, real).item() == 0.0


def test_a_real_point_reaches_as_far_as_its_third_neighbour():
    reach = math.sqrt(2)  # of a corner of the unit square, the corner across
    assert precision(torch.tensor([[-reach + 1e-3, 0.0], [-reach - 1e-3, 0.0]]), SQUARE).item() == 0.5


def test_distances_are_those_of_torch():
    torch.testing.assert_close(distances(cloud(), SQUARE), torch.cdist(cloud(), SQUARE))


def test_density_counts_points_with_the_upper_row_first():
    points = torch.tensor([[-0.9, 0.9], [-0.8, 0.8], [0.9, -0.9], [5.0, 0.0]])
    assert density(points, 1.0, 2).tolist() == [[2.0, 0.0], [0.0, 1.0]]
