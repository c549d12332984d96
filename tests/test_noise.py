"""Draws: distributed as they should be, independent, the same in every layout, and pinned so that records stay reproducible."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from workbench import noise

KEY = noise.key_of(7)
MANY = (200_000,)


def correlation(a, b):
    return abs(np.corrcoef(a.double().flatten(), b.double().flatten())[0, 1])


# Distributions, at fixed seeds


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_uniform_is_uniform(seed):
    u = noise.uniform(noise.key_of(seed), "u", MANY, torch.float64)
    assert 0 <= u.min() < 1e-4 and 1 - 1e-4 < u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 0.01


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_normal_is_normal(seed):
    x = noise.normal(noise.key_of(seed), "x", MANY, torch.float64)
    assert stats.kstest(x, "norm").pvalue > 0.01
    assert abs(stats.kurtosis(x)) < 0.05


def test_normal_has_no_value_that_is_not_finite():
    x = noise.normal(KEY, "x", (2**21,))
    assert x.isfinite().all() and 4.5 < x.abs().max() < math.sqrt(2 * 24 * math.log(2)) + 1e-3


@pytest.mark.parametrize("bound", [1.0, 2.0, 3.0])
def test_truncated_normal_is_a_normal_cut_at_its_bound(bound):
    x = noise.truncated_normal(KEY, "x", MANY, bound, torch.float64)
    assert x.abs().max() <= bound
    assert stats.kstest(x, stats.truncnorm(-bound, bound).cdf).pvalue > 0.01


@pytest.mark.parametrize("high", [1, 2, 10, 2**31 - 1])
def test_integers_are_in_range_and_equally_likely(high):
    x = noise.randint(KEY, "x", high, MANY)
    assert x.dtype == torch.int64 and x.min() >= 0 and x.max() < high
    bins = min(high, 10)
    counts = torch.bincount(x * bins // high, minlength=bins)
    assert bins == 1 or stats.chisquare(counts).pvalue > 0.01


def test_a_permutation_holds_each_number_once_and_all_orders_come_up():
    orders = {tuple(noise.permutation(noise.fold(KEY, step), "order", 4).tolist()) for step in range(400)}
    assert len(orders) == 24 and all(sorted(order) == [0, 1, 2, 3] for order in orders)


def test_each_bit_is_fair():
    bits = noise.bits(KEY, "bits", MANY)
    share = torch.stack([(bits >> i & 1).double().mean() for i in range(32)])
    assert (share - 0.5).abs().max() < 4 * 0.5 / math.sqrt(MANY[0])
    assert bits.min() >= 0 and bits.max() < 2**32


# Independence


def test_neighbouring_seeds_steps_and_names_are_uncorrelated():
    draws = [
        noise.uniform(noise.fold(noise.key_of(seed), step), name, (4000,))
        for seed in (0, 1, 2)
        for step in (0, 1, 2)
        for name in ("a", "b")
    ]
    table = np.corrcoef(torch.stack(draws).double())
    assert np.abs(table - np.eye(len(draws))).max() < 5 / math.sqrt(4000)


def test_positions_of_one_draw_are_uncorrelated():
    u = noise.uniform(KEY, "u", MANY)
    assert max(correlation(u[:-lag], u[lag:]) for lag in (1, 2, 3, 64, 1000)) < 5 / math.sqrt(MANY[0])


def test_first_values_of_many_keys_are_uniform_and_uncorrelated():
    first = noise.uniform(noise.key_of(torch.arange(20_000)), "u", (), torch.float64)
    assert stats.kstest(first, "uniform").pvalue > 0.01
    assert correlation(first[:-1], first[1:]) < 5 / math.sqrt(20_000)


def test_keys_do_not_collide():
    keys = noise.fold(noise.key_of(torch.arange(300))[:, None], torch.arange(300)[None])
    assert len({tuple(key) for key in keys.reshape(-1, 2).tolist()}) == 300 * 300


def test_the_order_of_folding_matters():
    assert noise.fold(noise.fold(KEY, 1), 2).tolist() != noise.fold(noise.fold(KEY, 2), 1).tolist()


def test_numbers_up_to_64_bits_give_keys_of_their_own():
    numbers = [0, 1, -1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**40, 2**62, -(2**63)]
    assert len({tuple(noise.fold(KEY, n).tolist()) for n in numbers}) == len(numbers)
    assert len({tuple(noise.key_of(n).tolist()) for n in numbers}) == len(numbers)
    for n in numbers:
        assert torch.equal(noise.fold(KEY, n), noise.fold(KEY, torch.tensor(n)))


# Layouts


@pytest.mark.parametrize(
    "draw",
    [
        lambda key: noise.uniform(key, "x", (3, 4)),
        lambda key: noise.normal(key, "x", (5,)),
        lambda key: noise.truncated_normal(key, "x", (5,)),
        lambda key: noise.randint(key, "x", 7, (5,)),
        lambda key: noise.permutation(key, "x", 6),
        lambda key: noise.fold(noise.fold(key, "name"), 3),
    ],
)
def test_draws_mapped_over_keys_are_the_draws_of_each_key(draw):
    keys = noise.key_of(torch.arange(4))
    assert torch.equal(torch.vmap(draw)(keys), torch.stack([draw(key) for key in keys]))


def test_a_longer_draw_begins_like_a_shorter_one():
    assert torch.equal(noise.normal(KEY, "x", (100,))[:10], noise.normal(KEY, "x", (10,)))
    assert torch.equal(noise.uniform(KEY, "x", (4, 25)).flatten(), noise.uniform(KEY, "x", (100,)))


def test_both_dtypes_have_the_same_uniform_draws():
    assert torch.equal(noise.uniform(KEY, "x", (1000,)).double(), noise.uniform(KEY, "x", (1000,), torch.float64))


def test_torch_generators_are_left_alone():
    before = torch.get_rng_state()
    noise.permutation(KEY, "x", 10), noise.normal(KEY, "x", (10,))
    assert torch.equal(before, torch.get_rng_state())


# Values that may never change: records would no longer be reproducible


def test_golden_keys():
    assert KEY.tolist() == [256695110, 1452537220]
    assert noise.fold(KEY, 3).tolist() == [2032562236, 3753746201]
    assert noise.fold(KEY, "task").tolist() == [2554600665, 4003396006]
    assert noise.fold(KEY, 2**40 + 5).tolist() == [272849365, 1910594338]


def test_golden_draws():
    drawn = [1241046290, 3768897852, 2741813249]
    assert noise.bits(KEY, "x", (3,)).tolist() == drawn
    assert noise.uniform(KEY, "x", (3,)).tolist() == [(bits >> 8) / 2**24 for bits in drawn]
    assert noise.randint(KEY, "x", 10, (3,)).tolist() == [bits * 10 >> 32 for bits in drawn]
    np.testing.assert_allclose(
        noise.normal(KEY, "x", (3,), torch.float64), [1.530592643375709, -0.8335852702155985, -1.0350825011942493], rtol=1e-12
    )
