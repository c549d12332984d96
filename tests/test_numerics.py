"""Number formats and rounding to them, value by value against ml_dtypes, and what may be asked of every format and way to round."""

import math
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import grad, hessian, jvp, vmap

from workbench import noise
from workbench.errors import InputError
from workbench.numerics import FORMATS, Bits, Format, Integer, format_of, round_to, straight_through

TRUTHS = {
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "e5m2": ml_dtypes.float8_e5m2,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e3m4": ml_dtypes.float8_e3m4,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e2m1": ml_dtypes.float4_e2m1fn,
}
SMALL = [name for name in TRUTHS if name not in ("fp16", "bf16")]
formats = pytest.mark.parametrize("name", TRUTHS)
every_way = pytest.mark.parametrize("rounding", ["nearest", "truncate", "stochastic"])
inf, nan = math.inf, math.nan
KEY = noise.key_of(0)
# torch itself meets this when a forward-mode derivative is first taken.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


def rounded(x, fmt, **how):
    fmt = format_of(fmt) if isinstance(fmt, str) else fmt
    return round_to(torch.from_numpy(x), fmt, key=KEY, **how).numpy()


def cast(x, name):
    """As ml_dtypes casts; where it gives the zeros that formats without NaN have for NaN, NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(np.isnan(x), x, x.astype(TRUTHS[name]).astype(x.dtype))


def assert_same_bits(ours, truth):
    assert ours.dtype == truth.dtype
    differ = (ours.view(np.uint32) != truth.view(np.uint32)) & ~(np.isnan(ours) & np.isnan(truth))
    assert not differ.any(), (ours[differ][:5], truth[differ][:5])


def all_values(name):
    width = np.dtype(TRUTHS[name]).itemsize * 8
    codes = np.arange(2 ** (4 if name == "e2m1" else 6 if name in ("e3m2", "e2m3") else width), dtype=f"uint{width}")
    return codes.view(TRUTHS[name]).astype(np.float32)


def finite_values(name):
    values = all_values(name)
    return np.unique(values[np.isfinite(values)])


def random_floats(n, seed=0):
    return np.random.default_rng(seed).integers(0, 2**32, n, dtype=np.uint32).view(np.float32)


def floats_near(name, n=100_000):
    """Some among the subnormals, some in the middle, some beyond the largest, and every number of half precision."""
    fmt, near = format_of(name), np.random.default_rng(1).standard_normal(n).astype(np.float32)
    edges = np.array([0.0, -0.0, inf, -inf, nan, 3.4028235e38, -3.4028235e38, 1e-45, -1e-45, 1.1754944e-38], np.float32)
    sizes = [np.float32(s) for s in (1, 100, fmt.smallest_normal, min(fmt.largest, 1e37))]
    return np.concatenate([edges, *(near * size for size in sizes), all_values("fp16"), random_floats(3 * n)])


def neighbours(x, name):
    """The values of the format at and below |x|, and above; x must be finite and within the format."""
    values = finite_values(name)
    values = values[values >= 0]
    place = np.searchsorted(values, np.abs(x), side="right") - 1
    return values[place], values[np.minimum(place + (values[place] < np.abs(x)), len(values) - 1)]


# To nearest, ties to even


@formats
def test_every_representable_value_stays_in_every_way_to_round(name):
    values = all_values(name)
    for rounding in ("nearest", "truncate", "stochastic"):
        assert_same_bits(rounded(values, name, rounding=rounding), values)


@formats
def test_midpoints_and_their_neighbours_equal_ml_dtypes(name):
    """With the values themselves this settles every float32, since rounding is monotone."""
    fmt, values = format_of(name), finite_values(name)
    beyond = np.float32(2 * values[-1] - values[-2]) if name != "bf16" else values[-1]
    values = np.concatenate([[-beyond], values, [beyond]])
    middle = ((values[1:].astype(np.float64) + values[:-1]) / 2).astype(np.float32)
    for x in (middle, np.nextafter(middle, np.float32(inf)), np.nextafter(middle, np.float32(-inf))):
        assert_same_bits(rounded(x, fmt), cast(x, name))


@formats
def test_many_floats_equal_ml_dtypes(name):
    x = floats_near(name)
    assert_same_bits(rounded(x, name), cast(x, name))


def test_tf32_is_float32_without_its_last_thirteen_bits():
    x = random_floats(300_000, seed=8)
    bits = x[np.isfinite(x)].view(np.uint32).astype(np.uint64)
    truth = ((bits + 0xFFF + (bits >> 13 & 1)) & ~np.uint64(0x1FFF)).astype(np.uint32).view(np.float32)
    assert_same_bits(rounded(x[np.isfinite(x)], "tf32"), truth)


def test_single_precision_is_the_identity_on_float32():
    x = np.concatenate([random_floats(300_000, seed=2), np.array([0.0, -0.0, inf, -inf, nan, 1e-45, -1e-45], np.float32)])
    for rounding in ("nearest", "truncate", "stochastic"):
        assert_same_bits(rounded(x, "fp32", rounding=rounding), x)
    finite = x[np.isfinite(x)]
    assert_same_bits(rounded(finite, "fp32", saturate=True), finite)


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_float64_is_rounded_once(name):
    x = random_floats(100_000, seed=3)
    x = x[np.isfinite(x)].astype(np.float64)
    x *= 1 + np.random.default_rng(4).uniform(0, 2**-23, len(x))
    x = np.concatenate([x, [1 + 2**-11 + 2**-40, 2.0**-150, 2.0**-150 * (1 + 2**-52), 5e-324, -0.0, inf]])
    with np.errstate(over="ignore"):
        truth = x.astype(np.float32 if name == "fp32" else np.float16).astype(x.dtype)
    np.testing.assert_array_equal(rounded(x, name), truth)
    np.testing.assert_array_equal(rounded(x, "fp64"), x)


def test_rounding_works_on_any_strides():
    x = torch.from_numpy(random_floats(24, seed=5)).reshape(2, 3, 4).permute(2, 0, 1)[::2]
    assert_same_bits(round_to(x, format_of("bf16")).numpy(), cast(x.contiguous().numpy(), "bf16"))


def test_a_format_without_mantissa_bits_has_only_powers_of_two():
    x = torch.tensor([1.0, 1.49, 1.5, 2.9, 3.0, 0.75, 0.25, 0.24])
    assert round_to(x, format_of("e3m0")).tolist() == [1.0, 1.0, 2.0, 2.0, 4.0, 1.0, 0.25, 0.25]
    assert round_to(torch.tensor([1.0, 0.5, 0.51, 2.9, 3.1]), format_of("e2m0")).tolist() == [1.0, 0.0, 1.0, 2.0, inf]


# Toward zero


@pytest.mark.parametrize("mantissa_bits", [0, 3, 7, 10, 16])
def test_truncation_with_all_exponents_is_a_mask_on_the_bits(mantissa_bits):
    x = random_floats(300_000, seed=9)
    x = x[np.isfinite(x) & (np.abs(x) >= np.float32(2.0**-126))]
    masked = (x.view(np.uint32) & np.uint32(0xFFFFFFFF << (23 - mantissa_bits) & 0xFFFFFFFF)).view(np.float32)
    assert_same_bits(rounded(x, Format("", 8, mantissa_bits), rounding="truncate"), masked)


@formats
def test_truncation_gives_the_value_toward_zero(name):
    x = floats_near(name)
    x = x[np.abs(x) <= format_of(name).largest]
    below, _ = neighbours(x, name)
    assert_same_bits(rounded(x, name, rounding="truncate"), np.copysign(below, x))


# Stochastic


@formats
def test_stochastic_rounding_gives_a_neighbour(name):
    x = floats_near(name)
    x = x[np.abs(x) <= format_of(name).largest]
    ours = rounded(x, name, rounding="stochastic")
    below, above = neighbours(x, name)
    assert (np.signbit(ours) == np.signbit(x)).all()
    assert ((np.abs(ours) == below) | (np.abs(ours) == above)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["bf16", "e4m3", "e2m1", "int4"])
def test_stochastic_rounding_is_unbiased(name, dtype):
    """Each of 24 numbers, from subnormals to the largest, 40000 times: mean within 4.5 standard errors, shares of both neighbours too."""
    fmt, many = format_of(name), 40_000
    largest = min(fmt.largest, 100.0)
    x = torch.cat([torch.linspace(-0.97, 0.93, 16), torch.tensor([0.01, -0.003, 0.3, 0.49, 0.51, 0.99, -0.999, 1.0])]).to(dtype) * largest
    y = round_to(x.repeat(many, 1), fmt, rounding="stochastic", key=KEY)
    assert all(len(each.unique()) <= 2 for each in y.T)
    error, step = (y.double() - x.double()).mean(0), y.amax(0).double() - y.amin(0).double()
    assert (error.abs() <= 4.5 * step / 2 / math.sqrt(many) + 1e-6 * x.double().abs()).all()


def test_equal_keys_give_equal_draws_and_other_keys_others():
    x = torch.randn(2000, generator=torch.Generator().manual_seed(0))

    def draw(seed, step, name):
        key = noise.fold(noise.fold(noise.key_of(seed), step), name)
        return round_to(x, format_of("e4m3"), rounding="stochastic", key=key)

    first = draw(0, 7, "a")
    assert torch.equal(first, draw(0, 7, "a"))
    others = [draw(1, 7, "a"), draw(0, 8, "a"), draw(0, 7, "b")]
    assert all((first != other).float().mean() > 0.2 for other in others)


def test_stochastic_rounding_of_many_runs_is_that_of_each():
    x = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    keys = noise.key_of(torch.tensor([3, 4, 5]))
    fn = vmap(lambda x, key: round_to(x, format_of("e5m2"), rounding="stochastic", key=key))
    for i in range(3):
        assert torch.equal(fn(x, keys)[i], round_to(x[i], format_of("e5m2"), rounding="stochastic", key=keys[i]))


def test_a_draw_never_rounds_what_is_representable_nor_zero():
    x = torch.tensor([0.0, -0.0, 1.0, -1.5, inf, -inf, nan]).repeat(10_000, 1)
    y = round_to(x, format_of("e5m2"), rounding="stochastic", key=KEY)
    assert_same_bits(y.numpy(), x.numpy())


def test_stochastic_rounding_without_a_key_is_refused():
    with pytest.raises(InputError, match="has no key here"):
        round_to(torch.ones(2), format_of("bf16"), rounding="stochastic")


# Too large


@formats
@every_way
def test_saturation_clamps_to_the_largest_finite_value(name, rounding):
    fmt = format_of(name)
    x = np.array([fmt.largest, 1.1 * fmt.largest if fmt.exponent_bits < 8 else inf, 3.4028235e38, inf, 1.0], np.float32)
    truth = np.array([fmt.largest] * 4 + [1.0], np.float32)
    assert_same_bits(rounded(x, fmt, saturate=True, rounding=rounding), truth)
    assert_same_bits(rounded(-x, fmt, saturate=True, rounding=rounding), -truth)
    assert np.isnan(rounded(np.array([nan], np.float32), fmt, saturate=True, rounding=rounding)).all()


@every_way
def test_overflow_is_what_the_format_has_for_it(rounding):
    x = np.array([1e6, -1e6, inf, -inf, nan], np.float32)
    for name, truth in {"e5m2": [inf, -inf, inf, -inf, nan], "e4m3": [nan] * 5, "e2m1": [6, -6, 6, -6, nan], "fp32": x}.items():
        assert_same_bits(rounded(x, name, rounding=rounding), np.array(truth, np.float32))


# Bits of live knobs


def test_bits_may_be_lanes_and_equal_the_format_of_that_name():
    x = torch.cat([torch.from_numpy(random_floats(2000, seed=6)), torch.tensor([1e6, -1e6, inf, nan])])
    pairs = [(e, m) for e in (2, 3, 4, 5, 8) for m in (0, 1, 2, 3, 10, 23)]
    for saturate in (False, True):
        columns = [torch.tensor(bits) for bits in zip(*pairs, strict=True)]
        lanes = vmap(lambda e, m, saturate=saturate: round_to(x, Bits(e, m), saturate=saturate))(*columns)
        for (e, m), lane in zip(pairs, lanes, strict=True):
            assert_same_bits(lane.numpy(), round_to(x, format_of(f"e{e}m{m}"), saturate=saturate).numpy())
    as_floats = round_to(x, Bits(torch.tensor(4.0), torch.tensor(3.0)))
    assert_same_bits(as_floats.numpy(), round_to(x, format_of("e4m3")).numpy())
    wide = round_to(x.double() * (1 + 2.0**-40), Bits(torch.tensor(5.0), torch.tensor(10.0)))
    assert torch.equal(wide.nan_to_num(), round_to(x.double() * (1 + 2.0**-40), format_of("fp16")).nan_to_num())


@pytest.mark.parametrize("scaling", ["tensor", "block"])
def test_bits_are_scaled_like_the_format_of_that_name(scaling):
    x = torch.from_numpy(random_floats(3000, seed=7)).reshape(30, 100)
    for e, m in ((2, 1), (4, 3), (5, 2), (3, 4)):
        ours = round_to(x, Bits(torch.tensor(float(e)), torch.tensor(float(m))), scaling=scaling)
        assert_same_bits(ours.numpy(), round_to(x, format_of(f"e{e}m{m}"), scaling=scaling).numpy())


# What holds for every float


finite_floats = st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=40).map(lambda xs: torch.tensor(xs))
any_format = st.sampled_from([*TRUTHS, "tf32", "int8", "int4", "e6m1"])
any_way = st.sampled_from(["nearest", "truncate", "stochastic"])


@given(finite_floats, any_format, any_way)
def test_rounding_is_odd_and_keeps_the_sign(x, name, rounding):
    how = dict(fmt=format_of(name), rounding=rounding, key=KEY)
    y, other = round_to(x, **how), round_to(-x, **how)
    assert_same_bits(y.numpy(), -other.numpy())
    assert torch.equal(torch.signbit(y[~y.isnan()]), torch.signbit(x[~y.isnan()]))


@given(finite_floats, st.sampled_from(list(TRUTHS)), any_way)
def test_rounding_twice_is_rounding_once(x, name, rounding):
    once = round_to(x, format_of(name), rounding=rounding, key=KEY)
    assert_same_bits(round_to(once, format_of(name), rounding=rounding, key=KEY).numpy(), once.numpy())


@given(finite_floats, st.sampled_from(list(TRUTHS)), st.sampled_from(["nearest", "truncate"]))
def test_rounding_is_monotone(x, name, rounding):
    y = round_to(x.sort().values, format_of(name), rounding=rounding, saturate=True)
    assert (y.diff() >= 0).all()


@given(finite_floats, st.sampled_from(list(TRUTHS)))
def test_the_error_of_a_normal_value_is_at_most_the_unit_roundoff(x, name):
    fmt = format_of(name)
    x = x[(x.abs() >= fmt.smallest_normal) & (x.abs() <= fmt.largest)].double()
    assert ((round_to(x, fmt) - x).abs() <= fmt.unit_roundoff * x.abs()).all()


# Derivatives


def through(x, e=4, m=3):
    return straight_through(x, round_to(x, Bits(e, m)))


def test_straight_through_has_the_rounded_value_exactly():
    x = torch.from_numpy(random_floats(100_000, seed=7))
    x = torch.cat([x, torch.tensor([inf, -inf, nan, 0.0, -0.0, 1e-40, -1e-40, 1e30])])
    for saturate in (False, True):
        y = round_to(x, format_of("e4m3"), saturate=saturate)
        assert_same_bits(straight_through(x, y).numpy(), y.numpy())


def test_straight_through_has_the_derivatives_of_the_identity():
    x = torch.tensor([0.3, -7.7, 1e9, 1e-9])
    y = round_to(x, format_of("e4m3"), saturate=True)

    def cube(x):
        return (straight_through(x, round_to(x, format_of("e4m3"), saturate=True)) ** 3).sum()

    torch.testing.assert_close(grad(cube)(x), 3 * y**2)
    torch.testing.assert_close(hessian(cube)(x), torch.diag(6 * y))
    torch.testing.assert_close(grad(lambda x: grad(cube)(x).sum())(x), 6 * y)
    torch.testing.assert_close(jvp(cube, (x,), (torch.ones(4),))[1], (3 * y**2).sum())
    leaf = x.clone().requires_grad_()
    cube(leaf).backward()
    torch.testing.assert_close(leaf.grad, 3 * y**2)


def test_infinities_give_no_nan_gradient():
    x = torch.tensor([inf, -inf, 1.0, 2.0])
    assert grad(lambda x: through(x, 5, 2).sum())(x).tolist() == [0.0, 0.0, 1.0, 1.0]
    masked = torch.tensor([-inf, 0.3, 1.0])
    assert torch.isfinite(grad(lambda x: torch.softmax(through(x, 5, 2), 0)[1])(masked)).all()


def test_gradient_and_curvature_per_lane():
    x, e, m = torch.tensor([[0.3, -7.7], [0.3, -7.7]]), torch.tensor([4, 5]), torch.tensor([3, 2])

    def loss(x, e, m):
        return (through(x, e, m) ** 3).sum()

    for order, truth in ((grad(loss), lambda y: 3 * y**2), (hessian(loss), lambda y: torch.diag(6 * y))):
        for lane in range(2):
            y = round_to(x[lane], Bits(e[lane], m[lane]))
            torch.testing.assert_close(vmap(order)(x, e, m)[lane], truth(y))


def test_rounding_compiles_without_a_graph_break():
    def step(x, e, m):
        return vmap(grad(lambda x, e, m: (through(x, e, m) ** 2).sum()))(x, e, m)

    arguments = torch.randn(2, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([4, 5]), torch.tensor([3, 2])
    torch.testing.assert_close(torch.compile(step, fullgraph=True, backend="eager")(*arguments), step(*arguments))


# Formats by name


@pytest.mark.parametrize("name", [*TRUTHS, "fp32", "fp64"])
def test_format_limits_equal_ml_dtypes(name):
    fmt, truth = format_of(name), ml_dtypes.finfo({"fp32": np.float32, "fp64": np.float64, **TRUTHS}[name])
    assert (fmt.largest, fmt.smallest_normal, fmt.smallest) == (truth.max, truth.smallest_normal, truth.smallest_subnormal)
    assert 2 * fmt.unit_roundoff == truth.eps


def test_named_formats():
    assert (format_of("e4m3").largest, format_of("e5m2").largest) == (448, 57344)
    assert format_of(" E3M4 ") == Format("e3m4", 3, 4)
    assert [format_of(name).largest for name in ("e3m2", "e2m3", "e2m1")] == [28, 7.5, 6]
    assert format_of("tf32").unit_roundoff == 2.0**-11
    assert (format_of("int8"), format_of("int8").largest, format_of("int4").largest) == (Integer("int8", 8), 127, 7)
    assert Format("e8m0", 8, 0, "nan").largest == 2.0**127
    assert -math.log(format_of("fp16").unit_roundoff) == pytest.approx(7.62, abs=5e-3)
    assert {"fp64", "fp32", "tf32", "bf16", "fp16", "e4m3", "e5m2", "e3m2", "e2m3", "e2m1", "int8", "int4"} == set(FORMATS)


def test_the_table_of_formats_is_that_of_the_formats():
    page = (Path(__file__).parents[1] / "docs" / "numerics.md").read_text(encoding="utf-8")
    table = page.split("| name | exponent, mantissa bits |")[1].split("\n\n")[0].replace("`", "").splitlines()[2:]
    floats = [fmt for fmt in FORMATS.values() if isinstance(fmt, Format)]
    becomes = {"infinity": "infinity", "nan": "nan", "none": "largest"}
    for line, fmt in zip(table, floats, strict=True):
        numbers = [f"{x:.{4 - (i == 3)}g}" for i, x in enumerate((fmt.largest, fmt.smallest_normal, fmt.smallest, fmt.unit_roundoff))]
        if fmt.largest < 1e5:
            numbers[0] = f"{fmt.largest:g}"
        cells = [fmt.name, f"{fmt.exponent_bits}, {fmt.mantissa_bits}", *numbers, becomes[fmt.specials]]
        assert [cell.strip() for cell in line.strip("|").split("|")] == cells


def test_bad_formats_are_named():
    with pytest.raises(InputError, match="number format 'bf61'; did you mean 'bf16'"):
        format_of("bf61")
    for name in ("e1m2", "e12m3", "e5m60"):
        with pytest.raises(InputError, match=f"'{name}' cannot be simulated"):
            format_of(name)
    with pytest.raises(InputError, match="11 exponent bits"):
        round_to(torch.ones(2), format_of("fp64"))
    with pytest.raises(InputError, match="24 mantissa bits"):
        round_to(torch.ones(2), Format("", 8, 24))
    with pytest.raises(InputError, match="bfloat16"):
        round_to(torch.ones(2, dtype=torch.bfloat16), format_of("e4m3"))


@pytest.mark.parametrize(("given", "sentence"), [({"rounding": "up"}, "no rounding 'up'"), ({"scaling": "row"}, "no scaling 'row'")])
def test_a_way_of_rounding_that_there_is_not_is_named(given, sentence):
    with pytest.raises(InputError, match=sentence):
        round_to(torch.ones(2), format_of("e4m3"), **given)


def test_bits_that_are_numbers_must_fit_as_whole_ones_must():
    for bits in (Bits(9.0, 3.0), Bits(4.0, 30.0)):
        with pytest.raises(InputError, match="cannot be simulated in"):
            round_to(torch.ones(2), bits)
