"""The output softmax in three precisions, StableMax, and the probes of saturation, against torch's kernels and worked examples."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.fx.experimental.proxy_tensor import make_fx

from workbench import noise
from workbench.learners import cross_entropy, softmax_loss, softmax_losses
from workbench.numerics import OutputSoftmax, is_saturated, log_probabilities
from workbench.numerics.softmax import stretched
from workbench.probes import gradient_weight_cosine, readout_rms, saturated_share, zero_loss_share

DTYPES = {"fp16": torch.float16, "fp32": torch.float32, "fp64": torch.float64}
KNOBS = {name: OutputSoftmax(softmax_precision=name) for name in DTYPES}
STABLEMAX = OutputSoftmax(output_softmax="stablemax")


def logits_of(rows=600, classes=17):
    """Random logits, with a target whose lead grows from 0 to 45."""
    z, y = noise.normal(noise.key_of(0), "logits", (rows, classes)), torch.arange(rows) % classes
    return z + torch.linspace(0, 45, rows)[:, None] * F.one_hot(y, classes), y


def by_torch(z, y, dtype):
    """Losses and gradient of their mean, as torch's kernels of this dtype have them."""
    z = z.clone().requires_grad_()
    losses = F.cross_entropy(z.to(dtype), y, reduction="none")
    losses.to(torch.float32).mean().backward()
    return losses.detach(), z.grad


def ours(z, y, knobs):
    """Losses, gradient of their mean, and which rows are saturated."""
    gradient = torch.func.grad(lambda at: softmax_loss(at, {"y": y}, knobs))(z)
    return softmax_losses(z, y, knobs), gradient, is_saturated(z, knobs)


@pytest.mark.parametrize("name", DTYPES)
def test_losses_and_gradients_are_those_of_torch_in_that_precision(name):
    (z, y), dtype = logits_of(), DTYPES[name]
    losses, gradient, _ = ours(z, y, KNOBS[name])
    expected, expected_gradient = by_torch(z, y, dtype)
    unit = torch.finfo(dtype).eps
    exact = 0.0 if name == "fp16" else unit
    torch.testing.assert_close(losses.to(dtype), expected, rtol=exact, atol=0.0)
    torch.testing.assert_close(gradient, expected_gradient, rtol=4 * exact, atol=exact / len(y))
    assert torch.equal(losses == 0, expected == 0) and 0 < (losses == 0).float().mean() < 1


@pytest.mark.parametrize(("name", "margin"), [("fp16", 7.62), ("fp32", 16.64), ("fp64", 36.74)])
def test_a_row_with_one_competitor_saturates_at_the_known_margin(name, margin):
    below, above = torch.tensor([[margin - 0.02, 0.0], [margin + 0.02, 0.0]], dtype=torch.float64).unbind()
    assert not is_saturated(below, KNOBS[name]) and is_saturated(above, KNOBS[name])


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")
@pytest.mark.parametrize("knobs", [*KNOBS.values(), STABLEMAX], ids=[*DTYPES, "stablemax"])
def test_lanes_and_compiled_steps_lose_the_same_digits(knobs):
    z, y = logits_of(200)
    alone = ours(z, y, knobs)
    lanes = torch.vmap(lambda at: ours(at, y, knobs))(torch.stack([z, z]))
    graph = make_fx(lambda at: ours(at, y, knobs))(z)
    compiled = torch._inductor.compile(graph, [z])(z)
    for found in ([x[0] for x in lanes], compiled):
        torch.testing.assert_close(found[0], alone[0], rtol=2e-3 if knobs.softmax_precision == "fp16" else 1e-6, atol=1e-12)
        assert (found[0] == 0).sum() == (alone[0] == 0).sum()
        torch.testing.assert_close(found[1], alone[1], rtol=2e-3, atol=6e-8)
        assert abs(found[2].sum() - alone[2].sum()) <= 4  # the order of a sum decides at the edge


def test_stablemax_of_a_worked_example():
    z = torch.tensor([2.0, -1.0, 0.0, -3.0])
    expected = torch.tensor([0.631579, 0.105263, 0.210526, 0.052632], dtype=torch.float64)
    torch.testing.assert_close(log_probabilities(z, STABLEMAX).exp(), expected, atol=1e-6, rtol=0.0)
    grid = torch.linspace(-50, 50, 1001, dtype=torch.float64)
    s = torch.where(grid >= 0, grid + 1, 1 / (1 - grid))
    torch.testing.assert_close(stretched(grid).exp(), s)
    slopes = torch.func.vmap(torch.func.grad(lambda x: stretched(x).exp()))(torch.tensor([0.0, 3.0, -1.0]))
    assert slopes.tolist() == [1.0, 1.0, 0.25]


def test_stablemax_never_saturates_and_keeps_a_gradient():
    z = torch.tensor([[1e6, 0.0, -1e6]])
    assert not is_saturated(z, STABLEMAX).any() and is_saturated(z, KNOBS["fp64"]).all()
    gradient = torch.func.grad(lambda at: softmax_loss(at, {"y": torch.tensor([0])}, STABLEMAX))(z)
    assert (gradient[0] != 0).all() and gradient[0, 0] < 0 < gradient[0, 1]


def test_probes_count_rows_and_losses():
    z = torch.tensor([[30.0, 0.0], [30.0, 0.0], [1.0, 0.0], [0.0, 30.0]])
    moment = SimpleNamespace(taps={"readout": z}, batch={"y": torch.zeros(4, dtype=torch.int64)}, knobs=KNOBS["fp32"])
    assert saturated_share(moment) == 0.75 and zero_loss_share(moment) == 0.5
    assert readout_rms(moment).item() == pytest.approx(math.sqrt((3 * 900 + 1) / 8))


def test_the_cosine_sees_gradients_whose_squares_vanish_in_float32():
    w = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([4.0])}
    moment = SimpleNamespace(params=w, grads={name: -1e-30 * x for name, x in w.items()})
    assert gradient_weight_cosine(moment).item() == pytest.approx(1.0)
    moment.grads = {"a": torch.tensor([0.0, 1.0]), "b": torch.tensor([0.0])}
    assert gradient_weight_cosine(moment).item() == 0.0


def test_the_loss_is_weighed_as_that_of_cross_entropy_is():
    z, y, weight = torch.tensor([[2.0, 0.0], [0.0, 5.0]]), torch.tensor([0, 0]), torch.tensor([1.0, 0.25])
    batch = {"y": y, "weight": weight}
    assert softmax_loss(z, batch, OutputSoftmax()).item() == pytest.approx(cross_entropy(z, batch).item(), rel=1e-6)
