"""A first layer that picks columns is the linear layer over one-hot vectors, in every mode."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad

from workbench import noise
from workbench.models import MLP, PairMLP, Perceptron, apply, build, initialize, roles
from workbench.tasks import Modular, ModularKnobs


class Settings(Perceptron, ModularKnobs, defaults={"width": 20, "modulus": 11}):
    """Small."""


def both(bias):
    """Knobs, the two shells, values for both, x as numbers and as one-hot vectors, and y."""
    knobs = Settings(bias=bias)
    pairs, plain = build(lambda k: PairMLP(k, 11, 11), knobs), build(lambda k: MLP(k, 22, 11), knobs)
    values = initialize(pairs, noise.key_of(3), knobs)[0]
    batch = Modular()(knobs, noise.key_of(0))
    return knobs, pairs, plain, values, batch["x"], F.one_hot(batch["x"], 11).flatten(1).float(), batch["y"]


def loss(shell, x, y, values):
    return F.cross_entropy(apply(shell, values, {}, x), y)


@pytest.mark.parametrize("bias", [False, True])
def test_values_readout_and_gradients_are_those_of_one_hot_inputs(bias):
    knobs, pairs, plain, values, x, one_hot, y = both(bias)
    assert all(torch.equal(value, values[name]) for name, value in initialize(plain, noise.key_of(3), knobs)[0].items())
    assert roles(pairs) == roles(plain)
    torch.testing.assert_close(apply(pairs, values, {}, x), apply(plain, values, {}, one_hot))
    found, expected = grad(partial(loss, pairs, x, y))(values), grad(partial(loss, plain, one_hot, y))(values)
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=1e-5)


def test_lanes_give_the_gradients_of_each_run():
    _, pairs, _, values, x, _, y = both(False)
    many = {name: torch.stack([value, 2 * value]) for name, value in values.items()}
    found = torch.vmap(grad(partial(loss, pairs, x, y)))(many)
    for i in range(2):
        alone = grad(partial(loss, pairs, x, y))({name: value[i] for name, value in many.items()})
        for name, value in alone.items():
            torch.testing.assert_close(found[name][i], value, atol=1e-6, rtol=1e-5)


def test_the_published_net_has_107_800_weights_begun_as_torch_does():
    knobs = Settings(modulus=113, width=200, depth=2, bias=False)
    values, _ = initialize(build(lambda k: PairMLP(k, k.modulus, k.modulus), knobs), noise.key_of(0), knobs)
    assert sum(value.numel() for value in values.values()) == 107_800
    for value in values.values():
        bound = value.shape[1] ** -0.5
        assert value.abs().max() <= bound and value.abs().max() > 0.99 * bound
        assert abs(value.std() / bound - 3**-0.5) < 0.01
