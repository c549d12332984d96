"""Picking rows against indexing and one-hot products: values, gradients, second derivatives, lanes of either argument."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, hessian, vmap

from workbench.models.rows import rows

INDEX = torch.tensor([3, 0, 3, 3, 1, 0])
TABLE = torch.arange(15.0).reshape(5, 3).sin()


def multiplied(table, index):
    return F.one_hot(index, table.shape[0]).to(table.dtype) @ table


def score(table, index, pick):
    return (pick(table, index) ** 3).sum() + pick(table, index.flip(0))[0].prod()


def test_values_gradients_and_second_derivatives_are_those_of_one_hot_products():
    assert torch.equal(rows(TABLE, INDEX), TABLE[INDEX])
    for derivative in (grad, hessian):
        torch.testing.assert_close(derivative(score)(TABLE, INDEX, rows), derivative(score)(TABLE, INDEX, multiplied))
    assert torch.autograd.gradgradcheck(lambda table: rows(table, INDEX), TABLE.double().requires_grad_())


@pytest.mark.parametrize("in_dims", [(0, None), (None, 0), (0, 0), (1, 1)])
def test_lanes_of_either_argument_give_what_each_run_gives_alone(in_dims):
    tables = torch.stack([TABLE, -2 * TABLE, TABLE.exp()])
    indices = torch.stack([INDEX, INDEX.flip(0), torch.zeros_like(INDEX)])

    def lane(x, dim, one):
        return one if dim is None else x.movedim(0, dim)

    def of_lane(x, dim, one, i):
        return one if dim is None else x[i]

    for f in (rows, grad(lambda table, index: score(table, index, rows))):
        found = vmap(f, in_dims)(lane(tables, in_dims[0], TABLE), lane(indices, in_dims[1], INDEX))
        for i in range(3):
            torch.testing.assert_close(found[i], f(of_lane(tables, in_dims[0], TABLE, i), of_lane(indices, in_dims[1], INDEX, i)))


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_wrong_index_is_refused_in_a_lane_as_it_is_alone(wrong):
    tables = torch.arange(12.0).reshape(2, 3, 2)
    for call in (lambda: rows(tables[0], torch.tensor([wrong])), lambda: vmap(rows)(tables, torch.tensor([[0], [wrong]]))):
        with pytest.raises((IndexError, RuntimeError), match="out of range"):
            call()
