"""Scales: blocks against gfloat's OCP Microscaling, tensors and channels of integers against torch's fake quantization."""

import math

import ml_dtypes
import numpy as np
import pytest
import torch
from gfloat import block, formats
from hypothesis import given
from hypothesis import strategies as st

from workbench import noise
from workbench.numerics import format_of, round_to
from workbench.numerics.scaling import BLOCK, power_scale, reach

MX = {
    "e5m2": formats.format_info_mxfp8_e5m2,
    "e4m3": formats.format_info_mxfp8_e4m3,
    "e3m2": formats.format_info_mxfp6_e3m2,
    "e2m3": formats.format_info_mxfp6_e2m3,
    "e2m1": formats.format_info_mxfp4_e2m1,
    "int8": formats.format_info_mxint8,
}
KEY = noise.key_of(0)
inf, nan = math.inf, math.nan
every_way = pytest.mark.parametrize("rounding", ["nearest", "truncate", "stochastic"])


def rounded(x, name, scaling, **how):
    return round_to(x, format_of(name), scaling=scaling, key=KEY, **how)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rows_of_blocks():
    """(40, 72): two whole blocks a row and one of 8; rows of many sizes, outliers, zeros, and powers of two at the edge of a binade."""
    x = normal(40, 72) * torch.logspace(-44, 35, 40)[:, None]
    x[::3, 5] *= 60
    x[7] = 0
    x[8, :32] = 0
    x[9] = torch.exp2(torch.arange(72.0) - 36)
    x[10] = torch.nextafter(x[9], torch.zeros(72))
    return x


# Blocks


@pytest.mark.parametrize("name", MX)
def test_blocks_equal_gfloat(name):
    x = rows_of_blocks()
    ours = rounded(x, name, "block").double().numpy()
    for row, own in zip(x.double().numpy(), ours, strict=True):
        for start in range(0, 72, BLOCK):
            part = slice(start, start + BLOCK)
            truth = block.quantize_block(MX[name], row[part], block.compute_scale_amax)
            if name == "int8":  # whose lowest code the symmetric integers leave out
                scale = block.compute_scale_amax(MX[name].etype.emax, row[part])
                truth = np.maximum(truth, -127 / 64 * scale)
            np.testing.assert_array_equal(own[part], truth.astype(np.float32))


def test_a_block_by_hand():
    """The largest lies above 2^11, so the scale is 2^11 / 2^8 = 8. In e4m3 17 / 8 lies midway between 2 and 2.25, 3700 / 8 beyond 448."""
    x, tiny = torch.zeros(1, 40), 1.5 * 2.0**-9
    x[0, :5] = torch.tensor([3584.0, 16.0, 17.0, 3700.0, tiny])
    x[0, 32] = tiny
    assert rounded(x, "e4m3", "block")[0, [0, 1, 2, 3, 4, 32]].tolist() == [3584.0, 16.0, 16.0, 3584.0, 0.0, tiny]
    scale = power_scale(reach(x, "block", 0), 448.0)
    assert scale[0, [0, 31, 32, 39]].tolist() == [8.0, 8.0, 2.0**-17, 2.0**-17]


def test_shared_scales_end_where_their_format_does():
    x = torch.tensor([[1e-45, 0.0], [3e38, 1.0]])
    assert power_scale(reach(x, "block", 0), 448.0)[:, 0].tolist() == [2.0**-127, 2.0**119]
    assert power_scale(reach(x.double() * 1e-50, "block", 0), 448.0)[0, 0] == 2.0**-127


@pytest.mark.parametrize("name", ["e4m3", "e5m2", "e2m1", "int8", "bf16"])
def test_what_is_not_finite_in_a_block_leaves_the_others_alone(name):
    x = normal(2, 64)
    sick = x.clone()
    sick[0, 3], sick[0, 4], sick[0, 5] = inf, -inf, nan
    clean = x.clone()
    clean[0, 3:6] = 0
    for scaling in ("block", "tensor", "channel"):
        ours, truth = rounded(sick, name, scaling), rounded(clean, name, scaling)
        others = torch.ones_like(x, dtype=torch.bool)
        others[0, 3:6] = False
        assert torch.equal(ours[others], truth[others])
        assert ours[0, 5].isnan()
        over = {"e4m3": lambda y: y.isnan(), "e5m2": torch.isinf, "bf16": torch.isinf}.get(name, lambda y: y.isfinite() & (y.abs() > 1))
        assert over(ours[0, 3:5]).all()
        assert rounded(sick, name, scaling, saturate=True)[0, 3:5].isfinite().all()


# Tensors and channels


@pytest.mark.parametrize("name", ["int8", "int4"])
@pytest.mark.parametrize("scaling", ["none", "tensor", "channel"])
def test_integers_equal_fake_quantization(name, scaling):
    x, largest = normal(40, 50) * torch.logspace(-3, 3, 40)[:, None], int(format_of(name).largest)
    if scaling == "channel":
        scale = x.abs().amax(1) / largest
        truth = torch.fake_quantize_per_channel_affine(x, scale, torch.zeros(40, dtype=torch.int32), 0, -largest, largest)
        scale = scale[:, None]
    else:
        scale = x.abs().max() / largest
        truth = torch.fake_quantize_per_tensor_affine(x, float(scale), 0, -largest, largest)
    ours = rounded(x, name, scaling)
    codes = [torch.round(y / scale) for y in (ours, truth)]
    midway = ((x / scale).abs() % 1 - 0.5).abs() < 1e-5 * largest  # where the last bit of the scale decides
    assert torch.equal(codes[0][~midway], codes[1][~midway]) and midway.float().mean() < 0.01
    torch.testing.assert_close(ours[~midway], truth[~midway], rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("name", "dtype"), [("e4m3", ml_dtypes.float8_e4m3fn), ("e5m2", ml_dtypes.float8_e5m2), ("e2m1", ml_dtypes.float4_e2m1fn)]
)
def test_scaled_floats_equal_a_cast_of_the_scaled(name, dtype):
    x = normal(60, 70) * torch.logspace(-6, 6, 60)[:, None]
    largest = format_of(name).largest
    for scaling, size in (("tensor", x.abs().max()), ("channel", x.abs().amax(1, keepdim=True))):
        inside = (x / size * largest).numpy()
        truth = torch.from_numpy(inside.astype(dtype).astype(np.float32)) / largest * size
        assert torch.equal(rounded(x, name, scaling), truth)


def test_a_channel_has_the_scale_of_its_own_axis():
    x = normal(3, 4, 5)
    for axis in (0, 1, 2, -1, -2):
        ours = round_to(x, format_of("int8"), scaling="channel", channel=axis)
        for i in range(x.shape[axis]):
            assert torch.equal(ours.select(axis, i), rounded(x.select(axis, i), "int8", "tensor"))


def test_a_vector_and_a_number_have_one_scale():
    vector, number = normal(7), torch.tensor(0.3)
    assert torch.equal(rounded(vector, "int4", "channel"), rounded(vector, "int4", "tensor"))
    for scaling in ("tensor", "channel", "block"):
        assert rounded(number, "e4m3", scaling).shape == ()
    assert rounded(number, "e4m3", "tensor") == number


@every_way
@pytest.mark.parametrize("name", ["e4m3", "e5m2", "e2m1", "int8", "int4"])
def test_the_largest_of_a_tensor_stays_itself(name, rounding):
    x = normal(500, 30, seed=1)
    y = torch.stack([rounded(row, name, "tensor", rounding=rounding) for row in x])
    place = x.abs().argmax(1, keepdim=True)
    assert torch.equal(y.gather(1, place), x.gather(1, place))


@pytest.mark.parametrize("scaling", ["none", "tensor", "channel", "block"])
def test_nothing_but_zeros_stays(scaling):
    x = torch.tensor([[0.0, -0.0]])
    y = rounded(x, "int8", scaling)
    assert torch.equal(y, x) and torch.equal(torch.signbit(y), torch.signbit(x))


# What holds for every tensor

tensors = st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=1, max_size=80).map(lambda xs: torch.tensor(xs))
scalings = st.sampled_from(["tensor", "channel", "block"])
names = st.sampled_from([*MX, "int4"])


@given(tensors, names, st.sampled_from(["nearest", "truncate", "stochastic"]))
def test_rounding_blocks_twice_is_rounding_once(x, name, rounding):
    once = rounded(x, name, "block", rounding=rounding)
    assert torch.equal(rounded(once, name, "block", rounding=rounding), once)


@given(tensors, names, scalings, st.integers(-20, 20))
def test_a_power_of_two_passes_through_every_scale(x, name, scaling, k):
    x = x[(x == 0) | (x.abs() > 2.0**-60)]
    if len(x):
        assert torch.equal(rounded(x * 2.0**k, name, scaling), rounded(x, name, scaling) * 2.0**k)


@given(tensors, names, scalings)
def test_finite_numbers_never_overflow_a_scale(x, name, scaling):
    y = rounded(x, name, scaling)
    assert y.isfinite().all() and y.abs().max() <= x.abs().max() * 2


@given(tensors)
def test_eight_bits_and_a_scale_keep_two_digits_of_a_blocks_largest(x):
    y = rounded(x, "int8", "block")
    for own, each in zip(y.split(BLOCK), x.split(BLOCK), strict=True):
        assert ((own - each).abs() <= max(each.abs().max() / 64, 2.0**-133)).all()


# Many runs


@pytest.mark.parametrize("scaling", ["tensor", "channel", "block"])
def test_every_run_has_scales_of_its_own(scaling):
    x = normal(3, 4, 40) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    mapped = torch.vmap(lambda x: round_to(x, format_of("e2m1"), scaling=scaling))(x)
    for i in range(3):
        assert torch.equal(mapped[i], round_to(x[i], format_of("e2m1"), scaling=scaling))


def test_scales_work_in_float64():
    x = rows_of_blocks()
    for name in MX:
        assert torch.equal(rounded(x.double(), name, "block").float(), rounded(x, name, "block"))
