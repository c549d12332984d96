"""Models: against torch's own layers, their written equations, and what initialization promises."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad, grad_and_value, jvp, vmap

from workbench import taps
from workbench.errors import InputError
from workbench.knobs import knob
from workbench.models import (
    MLP,
    Convnet,
    Convolutional,
    Decoder,
    Patches,
    Perceptron,
    Rule,
    Transformer,
    VisionTransformer,
    apply,
    build,
    effective_weights,
    initialize,
    log_z,
    rate_scales,
    roles,
)
from workbench.models.parts import EPS, Attention, BatchNorm, Block, Linear, Norm, causal_mask, sigma_reparametrized
from workbench.models.transformer import patches
from workbench.noise import fold, key_of, normal, randint

KEY = key_of(3)
PLACEMENTS = ("none", "post", "pre", "peri", "reordered")


class Text(Transformer):
    """Knobs of a small decoder."""

    context: int = knob(9, doc="longest sequence")


class Image(Transformer, Patches):
    """Knobs of a small vision transformer."""


class Live:
    """Live knobs inside a step."""

    def __init__(self, temperature: Any) -> None:
        self.temperature = temperature


def decoder(knobs: Any) -> nn.Module:
    return Decoder(knobs, 11)


def made(make: Callable, knobs: Any, key: Tensor = KEY, double: bool = True) -> tuple[nn.Module, dict, dict]:
    shell = build(make, knobs)
    shell = shell.double() if double else shell
    return shell, *initialize(shell, key, knobs)


def passed(shell: nn.Module, params: dict, buffers: dict, *inputs: Tensor, **kwargs: Any) -> tuple[Tensor, taps.Frame]:
    with taps.recording() as frame:
        out = apply(shell, params, buffers, *inputs, **kwargs)
    return out, frame


def noisy(params: dict) -> dict:
    """The parameters, each moved a little, so that gains and biases are no longer 1 and 0."""
    return {name: x + 0.3 * normal(KEY, f"{name}:noise", x.shape, x.dtype) for name, x in params.items()}


def inputs(*shape: int) -> Tensor:
    return normal(KEY, "input", shape, torch.float64)


def tokens(*shape: int) -> Tensor:
    return randint(KEY, "tokens", 11, shape)


# Initialization


def test_plain_torch_layers_start_as_torch_starts_them():
    shell = build(lambda _: nn.ModuleDict({"a": nn.Linear(64, 500), "c": nn.Conv2d(8, 50, 3), "e": nn.Embedding(200, 50)}), None)
    params, _ = initialize(shell, KEY, None)
    for name, fan_in in (("a.weight", 64), ("a.bias", 64), ("c.weight", 72), ("c.bias", 72)):
        assert params[name].abs().max() <= fan_in**-0.5
        assert params[name].abs().max() > 0.9 * fan_in**-0.5
    assert params["a.weight"].std().item() == pytest.approx((3 * 64) ** -0.5, rel=0.02)
    assert params["e.weight"].std().item() == pytest.approx(1.0, rel=0.03)


@pytest.mark.parametrize("layer", [nn.LayerNorm(5), nn.RMSNorm(5), nn.GroupNorm(1, 5), nn.BatchNorm1d(5), nn.BatchNorm2d(5)])
def test_plain_torch_norms_start_as_torch_starts_them(layer):
    params, buffers = initialize(layer, KEY, None)
    assert (params | buffers).keys() == layer.state_dict().keys()
    assert all(torch.equal(x, layer.state_dict()[name]) for name, x in (params | buffers).items())


def test_own_linear_has_the_stated_standard_deviation():
    weight = made(lambda _: Linear(100, 700), None)[1]["weight"]
    assert weight.std().item() == pytest.approx(0.1, rel=0.01)
    assert weight.abs().max().item() <= 2 * 0.1 / 0.8796


def test_shared_parameters_start_alike_whatever_the_options():
    plain = made(decoder, Text())[1]
    others = [Text(norm_placement=p) for p in PLACEMENTS] + [
        Text(qk_norm=True),
        Text(sigma_reparam=True),
        Text(bias=True),
        Text(norm="rms"),
    ]
    for knobs in others:
        other = made(decoder, knobs)[1]
        shared = plain.keys() & other.keys()
        assert {name for name, role in roles(build(decoder, Text())).items() if role != "gain"} <= shared
        assert all(torch.equal(plain[name], other[name]) for name in shared)


def test_depth_keeps_the_parameters_of_the_first_blocks():
    shallow, deep = made(decoder, Text(depth=1))[1], made(decoder, Text(depth=3))[1]
    assert shallow.keys() < deep.keys()
    assert all(torch.equal(x, deep[name]) for name, x in shallow.items())


def test_initial_values_differ_between_keys_and_names():
    one, two = made(decoder, Text())[1], made(decoder, Text(), key_of(4))[1]
    assert not torch.equal(one["readout.weight"], two["readout.weight"])
    assert not torch.equal(one["blocks.0.attention.query.weight"], one["blocks.0.attention.key.weight"])


@pytest.mark.parametrize("knobs", [Text(), Text(sigma_reparam=True, qk_norm=True), Text(sigma_reparam=True, sigma_init="one", bias=True)])
def test_vmapped_initialization_equals_the_loop(knobs):
    shell, keys, scales = build(decoder, knobs), key_of(torch.arange(3)), torch.tensor([0.5, 1.0, 2.0])
    many = vmap(lambda key, scale: initialize(shell, key, knobs.replace(init_scale=scale)))(keys, scales)
    for i in range(3):
        one = initialize(shell, keys[i], knobs.replace(init_scale=scales[i]))
        for several, single in zip(many, one, strict=True):
            assert several.keys() == single.keys()
            assert all(torch.equal(several[name][i], single[name]) for name in single)


def test_init_scale_multiplies_matrices_and_readout_only():
    knobs = Text(bias=True)
    (shell, plain, _), scaled = made(decoder, knobs), made(decoder, knobs.replace(init_scale=3.0))[1]
    for name, role in roles(shell).items():
        assert torch.equal(scaled[name], plain[name] * (3.0 if role in ("matrix", "readout") else 1.0))


def test_roles_of_a_decoder():
    found = roles(build(decoder, Text(bias=True, qk_norm=True, sigma_reparam=True)))
    expected = {
        "embedding.weight": "embedding",
        "positions.weight": "embedding",
        "readout.weight": "readout",
        "readout.bias": "bias",
        "readout.gamma": "gain",
        "blocks.0.attention.query.weight": "matrix",
        "blocks.0.attention.out.gamma": "gain",
        "blocks.0.attention.query_norm.weight": "gain",
        "blocks.1.mlp.inner.weight": "matrix",
        "blocks.1.mlp_norm.before.weight": "gain",
        "final_norm.bias": "bias",
    }
    assert {name: found[name] for name in expected} == expected
    assert roles(build(lambda k: VisionTransformer(k, 10), Image()))["embedding.weight"] == "embedding"
    assert roles(build(lambda k: MLP(k, 4, 2), Perceptron()))["readout.weight"] == "readout"


def test_tied_parameters_are_made_once():
    def tied(_):
        net = nn.ModuleDict({"first": nn.Linear(4, 4, bias=False), "second": nn.Linear(4, 4, bias=False)})
        net["second"].weight = net["first"].weight
        return net

    assert list(initialize(build(tied, None), KEY, None)[0]) == ["first.weight"]


def test_a_leaf_without_a_rule_is_named():
    with pytest.raises(InputError, match=r"Parameter 'attention.in_proj_weight' has no initialization rule; give MultiheadAttention"):
        initialize(build(lambda _: nn.ModuleDict({"attention": nn.MultiheadAttention(4, 2)}), None), KEY, None)


def test_a_module_brings_its_own_rule():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Parameter(torch.empty(2)), nn.Parameter(torch.empty(2))

        def rules(self):
            return {"a": Rule("gain", lambda key, name, shape, dtype: torch.ones(shape)), "b": Rule("gain", derive=lambda own: -own["a"])}

    params, _ = initialize(build(lambda _: Own(), None), KEY, None)
    assert params["a"].tolist() == [1.0, 1.0] and params["b"].tolist() == [-1.0, -1.0]


def test_adapting_keeps_what_is_given_and_makes_the_rest():
    before = noisy(made(decoder, Text())[1])
    knobs = Text(qk_norm=True, norm_placement="peri")
    shell = build(decoder, knobs).double()
    after, _ = initialize(shell, KEY, knobs, given=before)
    assert all(after[name] is x for name, x in before.items())
    new = after.keys() - before.keys()
    assert "blocks.1.attention.key_norm.weight" in new and "embedding_norm.weight" in new
    assert all((after[name] == 1).all() for name in new)


@pytest.mark.parametrize("sigma_init", ["spectral", "one"])
def test_switching_sigma_reparam_on_leaves_the_function_unchanged(sigma_init):
    shell, params, buffers = made(decoder, Text())
    params, x = noisy(params), tokens(2, 9)
    knobs = Text(sigma_reparam=True, sigma_init=sigma_init)
    switched = build(decoder, knobs).double()
    torch.testing.assert_close(
        apply(switched, *initialize(switched, KEY, knobs, given=params), x), apply(shell, params, buffers, x), rtol=1e-10, atol=1e-10
    )


def test_folding_sigma_reparam_away_leaves_the_function_unchanged():
    shell, params, buffers = made(decoder, Text(sigma_reparam=True))
    params, x = noisy(params), tokens(2, 9)
    plain = build(decoder, Text()).double()
    folded, none = initialize(plain, KEY, Text(), given=effective_weights(shell, params, buffers))
    assert none == {} and not any(name.endswith("gamma") for name in folded)
    torch.testing.assert_close(apply(plain, folded, none, x), apply(shell, params, buffers, x), rtol=1e-12, atol=1e-12)


def test_adapting_a_diverged_lane_spares_its_neighbour():
    shell = build(lambda _: Linear(4, 3, sigma_reparam=True), None)
    weight = torch.stack([torch.full((3, 4), math.nan), torch.ones(3, 4)])
    params, _ = vmap(lambda w: initialize(shell, KEY, None, given={"weight": w}))(weight)
    assert params["gamma"].isnan().tolist() == [True, False]
    assert params["gamma"][1].item() == pytest.approx(math.sqrt(12))


def test_adapting_to_another_shape_is_refused():
    params = made(decoder, Text())[1]
    with pytest.raises(InputError, match=r"'embedding.weight' has shape \(11, 32\) but the model needs \(11, 64\); begin a new run"):
        initialize(build(decoder, Text(width=64)), KEY, Text(width=64), given=params)


# sigmaReparam


def sigma_layer(sigma_init: str = "spectral") -> tuple[nn.Module, dict, dict]:
    return made(lambda _: Linear(7, 5, sigma_reparam=True, sigma_init=sigma_init), None)


def test_sigma_reparam_is_the_identity_at_spectral_init():
    shell, params, buffers = sigma_layer()
    torch.testing.assert_close(params["gamma"], torch.linalg.matrix_norm(params["weight"], 2))
    torch.testing.assert_close(effective_weights(shell, params, buffers)["weight"], params["weight"], rtol=1e-12, atol=1e-12)


def test_sigma_reparam_with_gamma_one_has_spectral_norm_one():
    shell, params, buffers = sigma_layer("one")
    assert params["gamma"].item() == 1.0
    assert torch.linalg.matrix_norm(effective_weights(shell, params, buffers)["weight"], 2).item() == pytest.approx(1.0, abs=1e-12)


def test_power_iteration_brings_the_spectral_norm_to_gamma():
    shell, params, buffers = sigma_layer()
    params = noisy(params)
    errors = []
    for _ in range(200):
        norm = torch.linalg.matrix_norm(effective_weights(shell, params, buffers)["weight"], 2)
        errors.append((norm / params["gamma"] - 1).abs().item())
        buffers = passed(shell, params, buffers, inputs(2, 7))[1].kept
    assert errors[0] > 1e-3 and errors[-1] < 1e-9


def test_sigma_reparam_equals_torch_spectral_norm_and_its_gradient():
    shell, params, buffers = sigma_layer("one")
    weight, x = noisy(params)["weight"], inputs(3, 7)
    theirs = nn.Linear(7, 5, bias=False).double()
    theirs.weight.data = weight.clone()
    torch.nn.utils.parametrizations.spectral_norm(theirs, eps=1e-12)
    theirs.parametrizations.weight[0]._v.copy_(buffers["u"])
    gradient, out = grad_and_value(lambda w: apply(shell, {**params, "weight": w}, buffers, x).square().sum())(weight)
    expected = theirs(x).square().sum()
    expected.backward()
    torch.testing.assert_close(out, expected.detach())
    torch.testing.assert_close(gradient, theirs.parametrizations.weight.original.grad)


def test_gradient_through_sigma_equals_the_analytic_one():
    _, params, buffers = sigma_layer()
    weight, gamma, g = params["weight"], params["gamma"], inputs(5, 7)
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    found = grad(lambda w: (g * sigma_reparametrized(w, gamma, buffers["u"])[0]).sum())(weight)
    expected = gamma / s[0] * (g - (g * weight).sum() / s[0] * torch.outer(u[:, 0], vh[0]))
    torch.testing.assert_close(found, expected)


def test_u_is_kept_in_training_only():
    shell, params, buffers = made(decoder, Text(sigma_reparam=True))
    params = noisy(params)
    assert passed(shell, params, buffers, tokens(2, 9))[1].kept.keys() == buffers.keys()
    assert "blocks.0.attention.query.u" in buffers
    assert passed(shell.eval(), params, buffers, tokens(2, 9))[1].kept == {}


# Norms and placements


@pytest.mark.parametrize(("kind", "torch_norm"), [("layer", nn.LayerNorm), ("rms", nn.RMSNorm)])
def test_norms_equal_torch(kind, torch_norm):
    shell, params, _ = made(lambda _: Norm(6, kind, bias=True), None)
    params, x = noisy(params), inputs(3, 6)
    theirs = torch_norm(6, eps=EPS).double()
    theirs.load_state_dict(params)
    torch.testing.assert_close(apply(shell, params, {}, x), theirs(x).detach())


def equations(placement: str, x: Tensor, branch: Callable, norm: Callable) -> Tensor:
    """One residual branch of each placement, written out."""
    match placement:
        case "none":
            return x + branch(x)
        case "post":
            return norm("sum", x + branch(x))
        case "pre":
            return x + branch(norm("before", x))
        case "peri":
            return x + norm("after", branch(norm("before", x)))
        case "reordered":
            return x + norm("after", branch(x))


@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_block_follows_the_equations_of_its_placement(placement, kind):
    knobs = Text(norm_placement=placement, norm=kind)
    shell, params, _ = made(lambda k: Block(0, k), knobs)
    params, x = noisy(params), inputs(2, 5, 32)

    def inside(part):
        return {name.removeprefix(f"{part}."): w for name, w in params.items() if name.startswith(f"{part}.")}

    def norm(part):
        function = F.layer_norm if kind == "layer" else F.rms_norm
        return lambda place, y: function(y, (32,), params[f"{part}_norm.{place}.weight"], eps=EPS)

    def attend(y):
        return apply(build(lambda k: Attention(0, k), knobs), inside("attention"), {}, y, mask, 1.0)

    def feed(y):
        return F.linear(F.gelu(F.linear(y, params["mlp.inner.weight"])), params["mlp.outer.weight"])

    mask = causal_mask(5)
    expected = equations(placement, equations(placement, x, attend, norm("attention")), feed, norm("mlp"))
    torch.testing.assert_close(apply(shell, params, {}, x, mask, 1.0), expected)
    places = {"none": 0, "post": 1, "pre": 1, "peri": 2, "reordered": 1}[placement]
    assert sum("norm" in name for name in params) == 2 * places


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_norms_outside_the_blocks(placement):
    names = made(decoder, Text(norm_placement=placement))[1].keys()
    assert ("final_norm.weight" in names) == (placement in ("pre", "peri", "reordered"))
    assert ("embedding_norm.weight" in names) == (placement == "peri")


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_block_equals_torch_encoder_layer(placement):
    shell, params, _ = made(lambda k: Block(0, k), Text(norm_placement=placement, bias=True))
    params, x = noisy(params), inputs(2, 5, 32)
    first = placement == "pre"
    theirs = nn.TransformerEncoderLayer(
        32, 4, 128, dropout=0.0, activation=F.gelu, layer_norm_eps=EPS, batch_first=True, norm_first=first, dtype=torch.float64
    )
    place = "before" if first else "sum"
    words = ("attention.query", "attention.key", "attention.value")
    state = {f"self_attn.in_proj_{leaf}": torch.cat([params[f"{word}.{leaf}"] for word in words]) for leaf in ("weight", "bias")}
    pairs = {
        "self_attn.out_proj": "attention.out",
        "linear1": "mlp.inner",
        "linear2": "mlp.outer",
        "norm1": f"attention_norm.{place}",
        "norm2": f"mlp_norm.{place}",
    }
    state |= {f"{torch_name}.{leaf}": params[f"{ours}.{leaf}"] for torch_name, ours in pairs.items() for leaf in ("weight", "bias")}
    theirs.load_state_dict(state)
    expected = theirs(x, src_mask=torch.zeros(5, 5, dtype=torch.float64).masked_fill(~causal_mask(5), -math.inf))
    torch.testing.assert_close(apply(shell, params, {}, x, causal_mask(5), 1.0), expected.detach())


# Attention


def attention(x: Tensor, temperature: float = 1.0, **knobs: Any) -> tuple[dict, Tensor, dict]:
    shell, params, _ = made(lambda k: Attention(0, k), Text(**knobs))
    params = noisy(params)
    out, frame = passed(shell, params, {}, x, causal_mask(x.shape[1]), temperature)
    return params, out, frame.seen


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_attention_equals_torch(temperature):
    params, out, seen = attention(inputs(2, 6, 32), temperature)
    heads = F.scaled_dot_product_attention(
        seen["0.query"], seen["0.key"], seen["0.value"], is_causal=True, scale=1 / (math.sqrt(8) * temperature)
    )
    torch.testing.assert_close(out, heads.transpose(1, 2).flatten(2) @ params["out.weight"].T)


def test_logits_are_tapped_unmasked_and_attention_is_zero_where_masked():
    _, _, seen = attention(inputs(2, 6, 32))
    logits, p = seen["0.logits"], seen["0.attention"]
    torch.testing.assert_close(logits, seen["0.query"] @ seen["0.key"].mT / math.sqrt(8))
    assert logits.isfinite().all() and (logits != 0).all()
    assert (p[..., ~causal_mask(6)] == 0).all() and (p[..., causal_mask(6)] > 0).all()
    torch.testing.assert_close(p.sum(-1), torch.ones(2, 4, 6, dtype=torch.float64))


def test_softcap_bounds_the_logits_after_the_temperature():
    x = 5 * inputs(2, 6, 32)
    plain, capped = attention(x, 0.5)[2]["0.logits"], attention(x, 0.5, softcap=3.0)[2]["0.logits"]
    assert plain.abs().max() > 3
    torch.testing.assert_close(capped, 3 * torch.tanh(plain / 3))


def test_qk_norm_is_a_layer_norm_per_head_with_shared_gains():
    params, _, seen = attention(inputs(2, 6, 32), qk_norm=True)
    raw = (inputs(2, 6, 32) @ params["key.weight"].T).view(2, 6, 4, 8)
    expected = F.layer_norm(raw, (8,), params["key_norm.weight"], eps=EPS).transpose(1, 2)
    torch.testing.assert_close(seen["0.key"], expected)


def test_edits_of_logits_and_mask_take_effect():
    shell, params, buffers = made(decoder, Text())
    with taps.recording({"logits": lambda x, _: 0 * x}) as flat:
        apply(shell, params, buffers, tokens(2, 9))
    expected = causal_mask(9) / torch.arange(1, 10, dtype=torch.float64)[:, None]
    torch.testing.assert_close(flat.seen["1.attention"], expected.expand(2, 4, 9, 9))
    with taps.recording({"mask": lambda mask, _: mask & ~mask.tril(-3)}) as window:
        apply(shell, params, buffers, tokens(2, 9))
    assert ((window.seen["0.attention"] > 0).sum(-1).amax((0, 1)) == torch.tensor([1, 2] + [3] * 7)).all()


# Whole transformers


@pytest.mark.parametrize("knobs", [Text(), Text(qk_norm=True, norm_placement="peri"), Text(sigma_reparam=True, norm_placement="none")])
def test_a_later_token_leaves_earlier_outputs_exactly_equal(knobs):
    shell, params, buffers = made(decoder, knobs)
    x = tokens(2, 9)
    changed = x.clone()
    changed[:, 6] = (x[:, 6] + 1) % 11
    before, after = apply(shell, params, buffers, x), apply(shell, params, buffers, changed)
    assert torch.equal(before[:, :6], after[:, :6])
    assert (before[:, 6:] != after[:, 6:]).any(-1).all()


def test_tap_words_of_a_decoder():
    shell, params, buffers = made(decoder, Text())
    out, frame = passed(shell, params, buffers, tokens(2, 9))
    words = ("attention_input", "query", "key", "value", "logits", "attention", "hidden", "residual")
    assert set(frame.seen) == {f"{i}.{word}" for i in range(2) for word in words} | {"mask", "readout"}
    assert out.shape == (2, 9, 11) and frame.seen["readout"] is out
    assert frame.seen["0.hidden"].shape == (2, 9, 128)
    assert frame.seen["mask"].sum(-1).tolist() == list(range(1, 10))


def test_live_temperature_reaches_the_logits():
    shell, params, buffers = made(decoder, Text(temperature=4.0))
    x = tokens(2, 9)
    built, live = (passed(shell, params, buffers, x, knobs=k)[1].seen["0.logits"] for k in (None, Live(torch.tensor(2.0).double())))
    torch.testing.assert_close(live, 2 * built)


def test_a_shorter_sequence_is_read_and_a_longer_one_refused():
    shell, params, buffers = made(decoder, Text())
    x = tokens(2, 9)
    torch.testing.assert_close(apply(shell, params, buffers, x[:, :4]), apply(shell, params, buffers, x)[:, :4])
    with pytest.raises(InputError, match="10 tokens but the decoder reads at most 9"):
        apply(shell, params, buffers, tokens(2, 10))


@pytest.mark.parametrize("patch", [4, 7, 14])
def test_patch_embedding_equals_a_strided_convolution(patch):
    x, weight = inputs(3, 28, 28), inputs(5, patch * patch)
    expected = F.conv2d(x[:, None], weight.view(5, 1, patch, patch), stride=patch).flatten(2).mT
    torch.testing.assert_close(patches(x, patch) @ weight.T, expected)


def test_vision_transformer_sees_all_patches():
    shell, params, buffers = made(lambda k: VisionTransformer(k, 10), Image(patch=4))
    out, frame = passed(shell, params, buffers, inputs(3, 28, 28))
    assert out.shape == (3, 10)
    assert frame.seen["1.attention"].shape == (3, 4, 49, 49)
    assert (frame.seen["1.attention"] > 0).all() and frame.seen["mask"].all()


def test_bad_shapes_name_both_values():
    with pytest.raises(InputError, match="'width' is 30, which 'heads' = 4 does not divide"):
        Text(width=30)
    with pytest.raises(InputError, match="'patch' is 5, which does not divide the picture's side 28"):
        build(lambda k: VisionTransformer(k, 10), Image(patch=5))


def test_missing_values_are_refused():
    shell, params, buffers = made(decoder, Text())
    params.pop("readout.weight")
    with pytest.raises(RuntimeError, match=r"readout\.weight"):
        apply(shell, params, buffers, tokens(2, 9))


def test_log_z_is_the_log_of_the_softmax_denominator():
    x = inputs(3, 5)
    torch.testing.assert_close(log_z(x), x.exp().sum(-1).log())


# muParam


def test_muparam_changes_nothing_at_the_base_width():
    x = tokens(2, 9)
    shell, params, buffers = made(decoder, Text(width=64, base_width=64))
    other = made(decoder, Text(width=64, base_width=64, muparam=True))
    torch.testing.assert_close(other[1], params, rtol=1e-12, atol=0)
    torch.testing.assert_close(apply(*other, x), apply(shell, params, buffers, x))
    assert set(rate_scales(other[0], Text(width=64, base_width=64, muparam=True)).values()) == {1.0}


def test_muparam_at_four_times_the_base_width():
    knobs = Text(width=128, base_width=32, muparam=True)
    (shell, mu, buffers), (_, plain, _) = made(decoder, knobs), made(decoder, knobs.replace(muparam=False))
    ratio = {"readout.weight": 0.5, "embedding.weight": 2.0, "positions.weight": 2.0}
    for name, x in mu.items():
        torch.testing.assert_close(x, plain[name] * ratio.get(name, 1.0))
    scales = rate_scales(shell, knobs)
    assert {name: scale for name, scale in scales.items() if scale != 1.0} == {
        name: 0.25 for name, role in roles(shell).items() if role in ("matrix", "readout")
    }
    seen = passed(shell, mu, buffers, tokens(2, 9))[1].seen
    torch.testing.assert_close(seen["0.logits"], seen["0.query"] @ seen["0.key"].mT * math.sqrt(8) / 32)


def test_rates_are_untouched_without_muparam():
    assert set(rate_scales(build(decoder, Text(width=64)), Text(width=64)).values()) == {1.0}
    assert set(rate_scales(build(lambda k: MLP(k, 4, 2), Perceptron()), Perceptron()).values()) == {1.0}


# MLP and convnet


@pytest.mark.parametrize(("name", "layer"), [("relu", nn.ReLU), ("gelu", nn.GELU), ("tanh", nn.Tanh)])
def test_mlp_equals_torch_sequential(name, layer):
    shell, params, _ = made(lambda k: MLP(k, 6, 3), Perceptron(width=8, activation=name))
    theirs = nn.Sequential(nn.Linear(6, 8), layer(), nn.Linear(8, 8), layer(), nn.Linear(8, 3)).double()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), params.values(), strict=True)))
    x = inputs(5, 2, 3)
    out, frame = passed(shell, params, {}, x)
    torch.testing.assert_close(out, theirs(x.flatten(1)).detach())
    assert set(frame.seen) == {"0.hidden", "1.hidden", "readout"}


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (6, 4)])
def test_batch_norm_equals_torch_in_training_and_evaluation(shape):
    theirs = (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(4).double()
    shell, params, buffers = made(lambda _: BatchNorm(4), None)
    params = noisy(params)
    theirs.load_state_dict({**params, **buffers, "num_batches_tracked": torch.tensor(0)})
    for step in range(3):
        x = 2 + 3 * normal(fold(KEY, step), "x", shape, torch.float64)
        out, frame = passed(shell, params, buffers, x)
        torch.testing.assert_close(out, theirs(x).detach())
        buffers = {**buffers, **frame.kept}
        torch.testing.assert_close(buffers, {name: x for name, x in theirs.named_buffers() if name in buffers})
    torch.testing.assert_close(apply(shell.eval(), params, buffers, x), theirs.eval()(x).detach())


def test_batch_norm_refuses_a_single_value():
    shell, params, buffers = made(lambda _: BatchNorm(4), None)
    with pytest.raises(InputError, match="one value per channel"):
        apply(shell, params, buffers, inputs(1, 4))


def test_convnet_equals_torch_sequential():
    shell, params, buffers = made(lambda k: Convnet(k, 10), Convolutional(width=4))
    params, x = noisy(params), inputs(3, 28, 28)
    stages = [(nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(), nn.AvgPool2d(2)) for a, b in ((1, 4), (4, 8))]
    theirs = nn.Sequential(*stages[0], *stages[1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)).double()
    renamed = {"layers.0": "0", "norms.0": "1", "layers.1": "4", "norms.1": "5", "readout": "10"}
    for name, value in params.items():
        theirs.get_parameter(f"{renamed[name.rsplit('.', 1)[0]]}.{name.rsplit('.', 1)[1]}").data = value
    out, frame = passed(shell, params, buffers, x)
    torch.testing.assert_close(out, theirs(x[:, None]).detach())
    torch.testing.assert_close(frame.kept["norms.1.running_var"], theirs[5].running_var)
    assert set(frame.kept) == set(buffers)


# Many runs at once, compiled, and differentiated twice

MODELS = {
    "decoder": (decoder, Text(depth=1, sigma_reparam=True, qk_norm=True, softcap=20.0), lambda key: randint(key, "x", 11, (2, 9))),
    "vision": (lambda k: VisionTransformer(k, 11), Image(depth=1, norm="rms"), lambda key: normal(key, "x", (2, 28, 28))),
    "convnet": (lambda k: Convnet(k, 11), Convolutional(width=4), lambda key: normal(key, "x", (2, 28, 28))),
    "mlp": (lambda k: MLP(k, 28 * 28, 11), Perceptron(width=16), lambda key: normal(key, "x", (2, 28, 28))),
}


def gradient_step(shell: nn.Module) -> Callable:
    def step(params, buffers, x, temperature):
        def loss(params):
            with taps.recording({"hidden": lambda h, site: h * site.knobs.temperature}, Live(temperature)) as frame:
                out = apply(shell, params, buffers, x, knobs=Live(temperature)).flatten(0, -2)
            return F.cross_entropy(out, torch.zeros(len(out), dtype=torch.int64)), (frame.seen, frame.kept)

        gradient, (value, (seen, kept)) = grad_and_value(loss, has_aux=True)(params)
        return gradient, value, seen, kept

    return step


def lanes(name: str, double: bool = True) -> tuple[nn.Module, tuple]:
    make, knobs, draw = MODELS[name]
    shell = build(make, knobs)
    keys = key_of(torch.arange(3))
    x = vmap(draw)(keys)
    if double:
        shell, x = shell.double(), x.double() if x.is_floating_point() else x
    params, buffers = vmap(lambda key: initialize(shell, key, knobs))(keys)
    temperature = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64 if double else torch.float32)
    return shell, (params, buffers, x, temperature)


def lane(tree: Any, i: int) -> Any:
    return {name: x[i] for name, x in tree.items()} if isinstance(tree, dict) else tree[i]


@pytest.mark.parametrize("name", MODELS)
def test_lanes_equal_the_loop(name):
    shell, values = lanes(name)
    step = gradient_step(shell)
    many = vmap(step)(*values)
    assert many[3].keys() == values[1].keys()
    for i in range(3):
        one = step(*(lane(tree, i) for tree in values))
        torch.testing.assert_close([lane(tree, i) for tree in many], list(one), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["decoder", "convnet"])
def test_steps_with_taps_compile_to_one_graph(name):
    shell, values = lanes(name, double=False)
    step = vmap(gradient_step(shell))
    compiled = torch.compile(step, fullgraph=True, dynamic=False, backend="eager")(*values)
    expected = step(*values)
    assert [list(tree) for tree in compiled if isinstance(tree, dict)] == [list(tree) for tree in expected if isinstance(tree, dict)]
    torch.testing.assert_close(compiled, expected)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own, on its first jvp
@pytest.mark.parametrize("name", MODELS)
def test_hessian_products_work_in_lanes(name):
    shell, values = lanes(name)
    step = gradient_step(shell)

    def product(params, buffers, x, temperature):
        return jvp(lambda p: step(p, buffers, x, temperature)[0], (params,), (params,))[1]

    products, h = vmap(product)(*values), 1e-5
    moved = [vmap(step)({n: x * (1 + s * h) for n, x in values[0].items()}, *values[1:])[0] for s in (1, -1)]
    for leaf, x in products.items():
        torch.testing.assert_close(x, (moved[0][leaf] - moved[1][leaf]) / (2 * h), rtol=1e-4, atol=1e-5)
