import math

import ml_dtypes
import numpy as np
import pytest
import torch
from torch.func import grad, hessian, jvp, vmap

from workbench.errors import InputError
from workbench.numerics import FORMATS, Format, Rounding, edits, format_of, round_to, round_tree, straight_through
from workbench.taps import recording, tap

TRUTHS = {
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e3m4": ml_dtypes.float8_e3m4,
}
formats = pytest.mark.parametrize("name", TRUTHS)
inf, nan = math.inf, math.nan
# torch itself meets this when a forward-mode derivative is first taken.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


class Settings(Rounding):
    pass


def rounded(x: np.ndarray, fmt: Format, saturate: bool = False) -> np.ndarray:
    return round_to(torch.from_numpy(x), fmt.exponent_bits, fmt.mantissa_bits, saturate=saturate, finite_only=fmt.finite_only).numpy()


def cast(x: np.ndarray, dtype: type) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return x.astype(dtype).astype(x.dtype)


def assert_same_bits(ours: np.ndarray, truth: np.ndarray) -> None:
    assert ours.dtype == truth.dtype
    differ = (ours.view(np.uint32) != truth.view(np.uint32)) & ~(np.isnan(ours) & np.isnan(truth))
    assert not differ.any(), (ours[differ][:5], truth[differ][:5])


def all_values(dtype: type) -> np.ndarray:
    width = np.dtype(dtype).itemsize * 8
    return np.arange(2**width, dtype=f"uint{width}").view(dtype).astype(np.float32)


def random_floats(n: int, seed: int = 0) -> np.ndarray:
    bits = np.random.default_rng(seed).integers(0, 2**32, n, dtype=np.uint32)
    return bits.view(np.float32)


@formats
def test_every_representable_value_stays(name):
    values = all_values(TRUTHS[name])
    assert_same_bits(rounded(values, format_of(name)), values)


@formats
def test_midpoints_and_their_neighbours_equal_ml_dtypes(name):
    fmt, values = format_of(name), all_values(TRUTHS[name])
    values = np.unique(values[np.isfinite(values)])
    beyond = np.float32(2 * values[-1] - values[-2]) if name != "bf16" else values[-1]
    values = np.concatenate([[-beyond], values, [beyond]])
    middle = ((values[1:].astype(np.float64) + values[:-1]) / 2).astype(np.float32)
    for x in (middle, np.nextafter(middle, np.float32(inf)), np.nextafter(middle, np.float32(-inf))):
        assert_same_bits(rounded(x, fmt), cast(x, TRUTHS[name]))


@formats
def test_random_floats_equal_ml_dtypes(name):
    near = np.random.default_rng(1).standard_normal(100_000).astype(np.float32)
    small = near * np.float32(format_of(name).smallest_normal)
    edges = np.array([0.0, -0.0, inf, -inf, nan, 3.4028235e38, -3.4028235e38, 1e-45, -1e-45, 1.1754944e-38], np.float32)
    for x in (random_floats(300_000), near, near * 100, small, edges):
        assert_same_bits(rounded(x, format_of(name)), cast(x, TRUTHS[name]))


def test_single_precision_is_the_identity_on_float32():
    x = np.concatenate([random_floats(300_000, seed=2), np.array([0.0, -0.0, inf, -inf, nan, 1e-45, -1e-45], np.float32)])
    assert_same_bits(rounded(x, FORMATS["fp32"]), x)
    finite = x[np.isfinite(x)]
    assert_same_bits(rounded(finite, FORMATS["fp32"], saturate=True), finite)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_float64_is_rounded_once(dtype):
    x = random_floats(100_000, seed=3)
    x = x[np.isfinite(x)].astype(np.float64)
    x *= 1 + np.random.default_rng(4).uniform(0, 2**-23, len(x))
    x = np.concatenate([x, [1 + 2**-11 + 2**-40, 2.0**-150, 2.0**-150 * (1 + 2**-52), 5e-324, -0.0, inf]])
    fmt = FORMATS["fp32" if dtype is np.float32 else "fp16"]
    np.testing.assert_array_equal(rounded(x, fmt), cast(x, dtype))
    np.testing.assert_array_equal(rounded(x, Format("fp64", 11, 52)), x)


def test_rounding_works_on_any_strides():
    x = torch.from_numpy(random_floats(24, seed=5)).reshape(2, 3, 4).permute(2, 0, 1)[::2]
    assert_same_bits(round_to(x, 8, 7, saturate=False).numpy(), cast(x.contiguous().numpy(), ml_dtypes.bfloat16))


@formats
def test_saturation_clamps_to_the_largest_finite_value(name):
    fmt = format_of(name)
    x = np.array([fmt.largest, 1.1 * fmt.largest if fmt.exponent_bits < 8 else inf, 3.4028235e38, inf, 1.0], np.float32)
    truth = np.array([fmt.largest] * 4 + [1.0], np.float32)
    assert_same_bits(rounded(x, fmt, saturate=True), truth)
    assert_same_bits(rounded(-x, fmt, saturate=True), -truth)
    assert np.isnan(rounded(np.array([nan], np.float32), fmt, saturate=True)).all()


def test_a_format_without_mantissa_bits_has_only_powers_of_two():
    x = torch.tensor([1.0, 1.49, 1.5, 2.9, 3.0, 0.75, 0.25, 0.24])
    assert round_to(x, 3, 0, saturate=False).tolist() == [1.0, 1.0, 2.0, 2.0, 4.0, 1.0, 0.25, 0.25]
    assert round_to(torch.tensor([1.0, 0.5, 0.51, 2.9, 3.1]), 2, 0, saturate=False).tolist() == [1.0, 0.0, 1.0, 2.0, inf]


def test_bits_may_be_lanes():
    x = torch.from_numpy(random_floats(2000, seed=6))
    pairs = [(e, m) for e in (2, 4, 5, 8) for m in (0, 3, 10, 23)]
    lanes = vmap(lambda e, m: round_to(x, e, m, saturate=False))(*(torch.tensor(bits) for bits in zip(*pairs, strict=True)))
    for (e, m), lane in zip(pairs, lanes, strict=True):
        assert_same_bits(lane.numpy(), round_to(x, e, m, saturate=False).numpy())
    as_floats = round_to(x, torch.tensor(4.0), torch.tensor(3.0), saturate=True, finite_only=torch.tensor(True))
    assert_same_bits(as_floats.numpy(), round_to(x, 4, 3, saturate=True, finite_only=True).numpy())


def through(x: torch.Tensor, e: int | torch.Tensor = 4, m: int | torch.Tensor = 3) -> torch.Tensor:
    return straight_through(x, round_to(x, e, m, saturate=False))


def test_straight_through_has_the_rounded_value_exactly():
    x = torch.from_numpy(random_floats(100_000, seed=7))
    x = torch.cat([x, torch.tensor([inf, -inf, nan, 0.0, -0.0, 1e-40, -1e-40, 1e30])])
    for saturate in (False, True):
        y = round_to(x, 4, 3, saturate=saturate)
        assert_same_bits(straight_through(x, y).numpy(), y.numpy())


def test_straight_through_has_the_derivatives_of_the_identity():
    x = torch.tensor([0.3, -7.7, 1e9, 1e-9])
    y = round_to(x, 4, 3, saturate=True)

    def cube(x):
        return (straight_through(x, round_to(x, 4, 3, saturate=True)) ** 3).sum()

    torch.testing.assert_close(grad(cube)(x), 3 * y**2)
    torch.testing.assert_close(hessian(cube)(x), torch.diag(6 * y))
    torch.testing.assert_close(grad(lambda x: grad(cube)(x).sum())(x), 6 * y)
    torch.testing.assert_close(jvp(cube, (x,), (torch.ones(4),))[1], (3 * y**2).sum())
    leaf = x.clone().requires_grad_()
    cube(leaf).backward()
    torch.testing.assert_close(leaf.grad, 3 * y**2)


def test_infinities_give_no_nan_gradient():
    x = torch.tensor([inf, -inf, 1.0, 2.0])
    assert grad(lambda x: through(x).sum())(x).tolist() == [0.0, 0.0, 1.0, 1.0]
    masked = torch.tensor([-inf, 0.3, 1.0])
    assert torch.isfinite(grad(lambda x: torch.softmax(through(x), 0)[1])(masked)).all()


def test_gradient_and_curvature_per_lane():
    x, e, m = torch.tensor([[0.3, -7.7], [0.3, -7.7]]), torch.tensor([4, 5]), torch.tensor([3, 2])

    def loss(x, e, m):
        return (through(x, e, m) ** 3).sum()

    for order, truth in ((grad(loss), lambda y: 3 * y**2), (hessian(loss), lambda y: torch.diag(6 * y))):
        for lane in range(2):
            y = round_to(x[lane], int(e[lane]), int(m[lane]), saturate=False)
            torch.testing.assert_close(vmap(order)(x, e, m)[lane], truth(y))


def test_rounding_compiles_without_a_graph_break():
    def step(x, e, m):
        return vmap(grad(lambda x, e, m: (through(x, e, m) ** 2).sum()))(x, e, m)

    arguments = torch.randn(2, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([4, 5]), torch.tensor([3, 2])
    torch.testing.assert_close(torch.compile(step, fullgraph=True, backend="eager")(*arguments), step(*arguments))


@pytest.mark.parametrize("name", [*TRUTHS, "fp32"])
def test_format_limits_equal_ml_dtypes(name):
    fmt, truth = format_of(name), ml_dtypes.finfo(TRUTHS.get(name, np.float32))
    assert (fmt.largest, fmt.smallest_normal, fmt.smallest) == (truth.max, truth.smallest_normal, truth.smallest_subnormal)
    assert 2 * fmt.unit_roundoff == truth.eps


def test_named_formats():
    assert (format_of("e4m3").largest, format_of("e5m2").largest) == (448, 57344)
    assert format_of(" E3M4 ") == Format("e3m4", 3, 4)
    assert format_of("e3m2").largest == 14
    assert Format("e8m0", 8, 0, finite_only=True).largest == 2.0**127
    assert -math.log(format_of("fp16").unit_roundoff) == pytest.approx(7.62, abs=5e-3)
    assert all(f.simulated for f in FORMATS.values())


def test_bad_formats_are_named():
    with pytest.raises(InputError, match="number format 'bf61'; did you mean 'bf16'"):
        format_of("bf61")
    for name in ("e1m2", "e12m3", "e5m60"):
        with pytest.raises(InputError, match=f"'{name}' cannot be simulated"):
            format_of(name)
    with pytest.raises(InputError, match="9 exponent bits"):
        round_to(torch.ones(2), 9, 3, saturate=False)
    with pytest.raises(InputError, match="24 mantissa bits"):
        round_to(torch.ones(2), 8, 24, saturate=False)
    with pytest.raises(InputError, match="bfloat16"):
        round_to(torch.ones(2, dtype=torch.bfloat16), 4, 3, saturate=False)


def test_places_switched_off_cost_nothing():
    tree = {"w": torch.ones(2)}
    assert edits(Settings()) == {} and edits(object()) == {}
    for place in ("weights", "gradients", "optimizer_state"):
        assert round_tree(tree, Settings(), place) is tree
        assert round_tree(tree, Settings(**{f"round_{place}": True}), place) is not tree


def test_edits_round_where_they_are_switched_on():
    knobs = Settings(exponent_bits=4, mantissa_bits=3, round_activations=True)
    assert set(edits(knobs)) == {"residual", "query", "key", "value", "hidden"}
    assert set(edits(Settings(round_logits=True))) == {"logits"} and set(edits(Settings(round_softmax=True))) == {"attention"}
    with recording(edits(knobs), knobs):
        assert tap("0.query", torch.tensor([0.3])).item() == 0.3125
        assert tap("0.logits", torch.tensor([0.3])).item() == torch.tensor(0.3).item()


def test_four_exponent_and_three_mantissa_bits_are_e4m3fn():
    x = torch.tensor([440.0, 1000.0])
    edit = edits(Settings(round_softmax=True))["attention"]
    assert edit(x, Settings(exponent_bits=4, mantissa_bits=3)).tolist()[0] == 448
    assert edit(x, Settings(exponent_bits=4, mantissa_bits=3)).isnan().tolist() == [False, True]
    assert edit(x, Settings(exponent_bits=4, mantissa_bits=2, saturate=True)).tolist() == [224, 224]
    lanes = vmap(lambda m: edit(x, Settings(exponent_bits=4, saturate=True).filled({"mantissa_bits": m})))(torch.tensor([2, 3, 4]))
    assert lanes.tolist() == [[224, 224], [448, 448], [248, 248]]


def test_masked_logits_stay_masked():
    knobs = Settings(exponent_bits=2, mantissa_bits=1, saturate=True, round_logits=True)
    lowest = torch.finfo(torch.float32).min
    logits = torch.tensor([-inf, lowest, -100.0, 0.7])
    edit = edits(knobs)["logits"]
    assert edit(logits, knobs).tolist() == [-inf, lowest, -3.0, 0.5]
    weight = torch.softmax(edit(logits, knobs), 0)
    assert weight[:2].tolist() == [0, 0]
    assert torch.isfinite(grad(lambda x: torch.softmax(edit(x, knobs), 0)[3])(logits)).all()


def test_trees_are_rounded_except_for_counters():
    knobs = Settings(exponent_bits=4, mantissa_bits=3, round_weights=True, round_optimizer_state=True)
    state = {"count": torch.tensor(17.0), "m": {"w": torch.tensor([0.3, 17.0])}, "ticks": torch.tensor(17)}
    out = round_tree(state, knobs, "optimizer_state")
    assert out["count"].item() == 17 and out["ticks"].item() == 17 and out["m"]["w"].tolist() == [0.3125, 16.0]
    slope = grad(lambda w: round_tree({"w": w}, knobs, "weights")["w"].sum())(torch.tensor([0.3, 17.0]))
    assert slope.tolist() == [1, 1]
