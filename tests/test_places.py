"""Where a training step rounds: each place its own format, forward and backward, and what that is to probes, records and panels."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from experiments_for_tests import advanced, assert_same_curves, begun, curve
from learners_for_tests import Tokens, Vectors, perceptron, transformer
from torch.func import functional_call, grad, grad_and_value, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_map

import workbench as wb
from workbench import noise, probes
from workbench.errors import InputError
from workbench.knobs import Knobs, knob, specs
from workbench.learners import Loss, Supervised
from workbench.models import MLP, Decoder, Transformer
from workbench.numerics import FORMATS, LossScaling, Rounding, edits, format_of, is_on, round_to, round_tree, straight_through
from workbench.numerics.backward import rounding_gradient
from workbench.optimizers import Optimizers
from workbench.panel.controls import control
from workbench.probes.weights import applied_weights
from workbench.schedules import Schedule
from workbench.study import Now
from workbench.taps import Site, recording, tap
from workbench.testing import check_learner

PLACES = ("weights", "activations", "gradients", "optimizer_state", "logits", "softmax", "sums")
ACTIVATIONS = {"residual", "query", "key", "value", "hidden"}
KEY = noise.key_of(0)
inf = math.inf


class Settings(Rounding):
    pass


def everywhere(fmt, **values):
    return {f"round_{place}": fmt for place in PLACES} | values


def site(knobs, key=KEY):
    return Site("0.word", knobs, key)


def of_transformer(key=KEY, step=0, **values):
    """Knobs, shared, state and moment of one step of the small decoder."""
    knobs = Tokens(**values)
    learner = transformer.learner
    shared = learner.prepare(knobs, KEY)
    state = learner.init(noise.key_of(1), knobs, shared)
    batch = transformer.task(knobs, noise.key_of(2))
    _, moment = learner.step(state, batch, knobs, shared, Now(torch.tensor(float(step)), noise.fold(key, step), "train"))
    return knobs, shared, state, moment


# Which places


def test_places_switched_off_cost_nothing():
    tree = {"w": torch.ones(2)}
    assert edits(Settings()) == {} and edits(object()) == {}
    assert not any(is_on(knobs, place) for knobs in (Settings(), object()) for place in PLACES)
    for place in ("weights", "gradients", "optimizer_state"):
        assert round_tree(tree, Settings(), place) is tree
        assert round_tree(tree, Settings(**{f"round_{place}": "bits"}), place) is not tree


def operations(knobs):
    """The operations of one traced step of the decoder, in order."""
    learner, batch = transformer.learner, transformer.task(knobs, KEY)
    shared = learner.prepare(knobs, KEY)
    state = learner.init(KEY, knobs, shared)
    traced = make_fx(lambda state, step, key: learner.step(state, batch, knobs, shared, Now(step, key, "train"))[0])
    return [node.target for node in traced(state, torch.tensor(0.0), KEY).graph.nodes if node.op == "call_function"]


def test_a_step_that_rounds_nothing_is_traced_as_one_without_these_knobs():
    class Without(Transformer, Schedule, Optimizers, Loss, defaults={"width": 16, "depth": 1, "heads": 2}):
        context: int = knob(6, doc="tokens")

    class With(Tokens, LossScaling):
        pass

    assert operations(With()) == operations(Without())
    assert len(operations(With(round_sums="bf16"))) > len(operations(With()))


def test_edits_are_those_of_the_places_switched_on():
    words = {"activations": ACTIVATIONS, "gradients": ACTIVATIONS, "logits": {"logits"}, "softmax": {"attention"}, "sums": {"sums"}}
    for place, expected in words.items():
        assert set(edits(Settings(**{f"round_{place}": "fp16"}))) == expected


def test_every_place_has_a_format_of_its_own():
    names = ["e4m3", "bf16", "e5m2", "fp16", "tf32", "e3m2", "int4"]
    knobs = Settings(**{f"round_{place}": name for place, name in zip(PLACES, names, strict=True)})
    x = torch.tensor([0.3, -1.7, 100.0, 1e-3])
    for place, name in zip(PLACES, names, strict=True):
        if place in ("weights", "gradients", "optimizer_state"):
            ours = round_tree({"w": x}, knobs, place)["w"]
        else:
            word = {"activations": "query", "logits": "logits", "softmax": "attention", "sums": "sums"}[place]
            ours = edits(knobs)[word](x, site(knobs))
        assert torch.equal(ours, round_to(x, format_of(name)))


def test_a_place_names_every_format_that_float32_can_carry():
    for place in PLACES:
        assert specs(Settings)[f"round_{place}"].choices == ("no", "bits", *(name for name in FORMATS if name != "fp64"))
    with pytest.raises(InputError, match="'round_weights' is True; choose one of no, bits, fp32"):
        Settings(round_weights=True)


def test_taps_round_where_they_are_switched_on():
    knobs = Settings(exponent_bits=4, mantissa_bits=3, round_activations="bits")
    with recording(edits(knobs), knobs):
        assert tap("0.query", torch.tensor([0.3])).item() == 0.3125
        assert tap("0.logits", torch.tensor([0.3])).item() == torch.tensor(0.3).item()


def test_trees_are_rounded_except_for_counters():
    knobs = Settings(round_weights="e4m3", round_optimizer_state="e4m3")
    state = {"count": torch.tensor(17.0), "m": {"w": torch.tensor([0.3, 17.0])}, "ticks": torch.tensor(17)}
    out = round_tree(state, knobs, "optimizer_state")
    assert out["count"].item() == 17 and out["ticks"].item() == 17 and out["m"]["w"].tolist() == [0.3125, 16.0]
    slope = grad(lambda w: round_tree({"w": w}, knobs, "weights")["w"].sum())(torch.tensor([0.3, 17.0]))
    assert slope.tolist() == [1, 1]


@pytest.mark.parametrize("scaling", ["none", "tensor", "channel", "block"])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_masked_logits_stay_masked(scaling, rounding):
    knobs = Settings(round_logits="e2m1", saturate=True, scaling=scaling, rounding=rounding)
    lowest = torch.finfo(torch.float32).min
    logits = torch.tensor([[-inf, lowest, -3.0, 1.0]])
    edit = edits(knobs)["logits"]
    assert edit(logits, site(knobs)).tolist() == [[-inf, lowest, -3.0, 1.0]]
    weight = torch.softmax(edit(logits, site(knobs)), 1)
    assert weight[0, :2].tolist() == [0, 0]
    assert torch.isfinite(grad(lambda x: torch.softmax(edit(x, site(knobs)), 1)[0, 3])(logits)).all()


def test_channels_are_heads_and_pictures_channels_where_there_are_four_axes_else_features():
    knobs = Settings(round_activations="int8", scaling="channel")
    edit = edits(knobs)["hidden"]
    for shape, axis in (((2, 3, 4, 5), 1), ((2, 3, 4), 2), ((2, 3), 1)):
        x = noise.normal(KEY, "x", shape)
        assert torch.equal(edit(x, site(knobs)), round_to(x, format_of("int8"), scaling="channel", channel=axis))
    w = noise.normal(KEY, "w", (3, 4))
    rounded = round_tree({"w": w}, Settings(round_weights="int8", scaling="channel"), "weights")["w"]
    assert torch.equal(rounded, round_to(w, format_of("int8"), scaling="channel", channel=0))


# Sums of the softmax


def test_sums_are_tapped_only_where_they_are_rounded():
    assert not [name for name in of_transformer()[3].taps if name.endswith("sums")]
    moment = of_transformer(round_sums="bf16")[3]
    sums, logits = moment.taps["0.sums"], moment.taps["0.logits"].masked_fill(~moment.taps["mask"], -inf)
    exact = torch.exp(logits - logits.amax(-1, keepdim=True))
    assert torch.equal(sums, round_to(exact.sum(-1, keepdim=True), format_of("bf16")))
    assert torch.equal(moment.taps["0.attention"], exact / sums)


def test_a_softmax_over_sums_that_lose_nothing_is_the_softmax():
    plain, summed = of_transformer()[3], of_transformer(round_sums="fp32")[3]
    torch.testing.assert_close(summed.loss, plain.loss, rtol=1e-6, atol=0)
    for name, g in plain.grads.items():
        torch.testing.assert_close(summed.grads[name], g, rtol=1e-4, atol=1e-7)


# What flows back


def test_gradients_of_activations_are_rounded_where_they_arise():
    """Of one hidden layer by hand: what reaches it is rounded, then goes on through the ReLU; gradients of parameters are rounded last."""
    knobs = Vectors(depth=1, round_gradients="e5m2")
    shell = Supervised(lambda k: MLP(k, 4, 2)).prepare(knobs, KEY)["model"]
    params = {name: noise.normal(KEY, name, tuple(p.shape)) for name, p in shell.named_parameters()}
    x, y = noise.normal(KEY, "x", (8, 4)), torch.arange(8) % 2

    def loss(params):
        with recording(edits(knobs), knobs, KEY):
            return torch.nn.functional.cross_entropy(functional_call(shell, params, (x,)), y)

    found = round_tree(grad(loss)(params), knobs, "gradients")
    w, b, v, c = params.values()
    hidden = torch.relu(x @ w.T + b)
    at_logits = (torch.softmax(hidden @ v.T + c, 1) - torch.nn.functional.one_hot(y, 2)) / 8
    at_hidden = round_to(at_logits @ v, format_of("e5m2")) * (hidden > 0)
    by_hand = [at_hidden.T @ x, at_hidden.sum(0), at_logits.T @ hidden, at_logits.sum(0)]
    for ours, exact in zip(found.values(), by_hand, strict=True):
        assert torch.equal(ours, round_to(exact, format_of("e5m2")))
    assert not torch.equal(at_hidden, (at_logits @ v) * (hidden > 0))


TWO = torch.tensor(2.0)


def cube(x, bits=TWO, key=KEY):
    def rounder(gradient, bits, key):
        return straight_through(gradient, round_to(gradient, format_of("e5m2"), rounding="stochastic", key=key) + 0 * bits)

    return (rounding_gradient(x, rounder, bits, key) ** 3).sum()


def test_what_flows_back_a_second_time_is_rounded_too():
    x = torch.tensor([0.3, -1.7, 2.1])
    for derivative, exact in ((grad(cube), 3 * x**2), (grad(lambda x: grad(cube)(x).sum()), 6 * x)):
        assert torch.equal(derivative(x), round_to(exact, format_of("e5m2"), rounding="stochastic", key=KEY))


def test_rounded_gradients_map_and_trace():
    x, bits, keys = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), torch.arange(3.0), noise.key_of(torch.arange(3))
    fn = vmap(grad_and_value(cube))
    slopes, values = fn(x, bits, keys)
    for i in range(3):
        assert torch.equal(slopes[i], grad(cube)(x[i], bits[i], keys[i]))
    traced = make_fx(lambda *given: fn(*given))(x, bits, keys)
    assert all(torch.equal(a, b) for a, b in zip(traced(x, bits, keys), (slopes, values), strict=True))


def test_curvature_is_that_of_the_objective_whatever_rounds_its_gradients():
    plain, rounded = of_transformer()[3], of_transformer(round_gradients="e2m1")[3]
    assert not torch.equal(plain.grads["readout.weight"], rounded.grads["readout.weight"])
    assert torch.equal(probes.hessian_top_eigenvalue(plain), probes.hessian_top_eigenvalue(rounded))


# Draws


def test_draws_are_functions_of_seed_step_and_name():
    how = everywhere("e5m2", rounding="stochastic")
    first = of_transformer(**how)[3]
    again, later, other = of_transformer(**how)[3], of_transformer(step=1, **how)[3], of_transformer(key=noise.key_of(9), **how)[3]
    same = [torch.equal(first.grads[name], again.grads[name]) for name in first.grads]
    assert all(same) and torch.equal(first.loss, again.loss)
    for moment in (later, other):
        assert not torch.equal(first.loss, moment.loss)
        assert all(not torch.equal(first.taps[f"0.{word}"], moment.taps[f"0.{word}"]) for word in ("query", "logits", "attention", "sums"))
    square = torch.full((16, 16), 0.3)
    twins = round_tree({"a": square, "b": square}, Tokens(**how), "weights", KEY)
    assert not torch.equal(twins["a"], twins["b"])
    assert not torch.equal(twins["a"], round_tree({"a": square}, Tokens(**how), "gradients", KEY)["a"])


def test_a_probe_sees_the_weights_that_were_applied():
    moment, name = of_transformer(round_weights="e4m3", rounding="stochastic")[3], "blocks.0.attention.value.weight"
    weight = applied_weights(moment)[name]
    assert not torch.equal(weight, moment.params[name])
    value = (moment.taps["0.attention_input"] @ weight.T).unflatten(-1, (2, -1)).transpose(1, 2)
    torch.testing.assert_close(moment.taps["0.value"], value)


def test_stochastic_rounding_without_a_key_is_refused_with_the_remedy():
    knobs = Settings(round_weights="bf16", round_activations="bf16", rounding="stochastic")
    with pytest.raises(InputError, match=r"now\.key"):
        round_tree({"w": torch.ones(2)}, knobs, "weights")
    with recording(edits(knobs), knobs), pytest.raises(InputError, match=r"now\.key"):
        tap("0.query", torch.ones(2))


def test_held_out_data_are_rounded_with_draws_of_the_probe_s_key():
    knobs = Tokens(**everywhere("e4m3", rounding="stochastic"))
    learner = Supervised(lambda k: Decoder(k, 5), evaluation=lambda k, device: transformer.task(k, noise.key_of(5)))
    shared = learner.prepare(knobs, KEY)
    state = learner.init(noise.key_of(1), knobs, shared)
    first, again, other = (probes.validation_loss(state, knobs, shared, noise.key_of(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


# Learners, runs and records


def test_a_learner_that_rounds_everything_at_random_conforms():
    values = everywhere("bits", exponent_bits=5, mantissa_bits=4, rounding="stochastic", scaling="block")
    assert check_learner(perceptron.learner, perceptron.task, Vectors(**values)) == []


@pytest.mark.parametrize("values", [everywhere("bits", scaling="channel"), everywhere("e4m3", rounding="stochastic", scaling="block")])
def test_decoders_that_round_everywhere_train_together_as_alone(values):
    knobs, learner = Tokens(**values), transformer.learner
    shared, batch = learner.prepare(knobs, KEY), transformer.task(knobs, KEY)
    keys, bits = noise.key_of(torch.arange(3)), torch.tensor([2.0, 3.0, 10.0], dtype=torch.float64)

    def step(key, bits):
        state = learner.init(key, knobs, shared)
        state = tree_map(lambda x: x.double(), state)
        now = Now(torch.zeros((), dtype=torch.float64), key, "train")
        return learner.step(state, batch, knobs.filled(dict(mantissa_bits=bits)), shared, now)[0]["params"]

    together = torch.vmap(step)(keys, bits)
    for i in range(3):
        for name, p in step(keys[i], bits[i]).items():
            torch.testing.assert_close(together[name][i], p, rtol=1e-9, atol=1e-12)


def test_rounding_in_a_wider_format_than_the_run_s_changes_nothing():
    plain, wide = (wb.run(transformer, steps=5, progress=False, mode="loop", **how) for how in ({}, everywhere("fp32", round_sums="no")))
    for name in ("train_loss", "weight_norm_total"):
        np.testing.assert_array_equal(plain.wb[name], wide.wb[name])


def test_a_format_that_changes_while_a_run_trains_acts_from_the_next_update_on():
    experiment = begun(transformer, 12)
    first, twin = experiment.track, experiment.twin(round_weights="e2m1", rounding="stochastic", scaling="block")
    assert (experiment.carried.changed, experiment.carried.new, experiment.carried.gone) == ((), (), ())
    advanced(experiment, 6)
    ours, theirs = curve(first, "train_loss"), curve(twin, "train_loss")
    np.testing.assert_array_equal(ours[:, :12], theirs[:, :12])
    assert (ours[:, 13:] != theirs[:, 13:]).all()
    again = experiment.twin()
    advanced(experiment, 6)
    assert_same_curves(twin, again)


def test_a_fork_into_another_format_begins_where_its_parent_stood():
    record = wb.run(transformer, steps=20, seed=0, lr=0.05, progress=False)
    parent, child = wb.fork(record, 0, 10, study=transformer, steps=20, round_weights="e2m1", rounding="stochastic", progress=False)
    ours, theirs = parent.wb["train_loss"].values[0], child.wb["train_loss"].values[0]
    assert ours[0] != theirs[0] and child["round_weights"].item() == "e2m1"
    assert np.isfinite(theirs).all()
    norm = [each.wb["weight_norm_total"].values[0, 0] for each in (parent, child)]
    assert norm[0] == norm[1]
    changed = dict(zip(child["timeline"]["knob"].values.tolist(), child["timeline"]["new"].values.tolist(), strict=True))
    assert changed == {"round_weights": '"e2m1"', "rounding": '"stochastic"'}


def test_a_record_tells_simulated_formats_from_real_dtypes(tmp_path):
    class Both(Vectors):
        precision: str = knob("fp64", acts="switch", simulated=False, doc="dtype of the sums")

    record = wb.run(replace(perceptron, knobs=Both), steps=2, progress=False)
    wb.save(record, tmp_path / "record.nc")
    for each in (record, wb.open(tmp_path / "record.nc")):
        simulated = {name: each[name].attrs.get("simulated") for name in each.wb.knobs}
        assert {name for name, value in simulated.items() if value == 1} == set(specs(Rounding))
        assert [name for name, value in simulated.items() if value == 0] == ["precision"]
        assert simulated["lr"] is None


def test_hints_say_what_is_simulated():
    class Some(Knobs):
        plain: float = knob(1.0, doc="a number")
        real: str = knob("fp16", simulated=False, doc="a dtype")
        rounded: str = knob("fp16", simulated=True, doc="a format")

    hints = [spec.hint for spec in specs(Some).values()]
    assert hints == ["a number", "a dtype (real dtype)", "a format (simulated)"]
    assert [control(spec, True)["doc"] for spec in specs(Some).values()] == hints
    assert all(spec.simulated for spec in specs(Rounding).values())
