"""Exact results: what a probe must show where theory leaves no choice."""

import math

import numpy as np
import pytest
import torch

from workbench import noise, optimizers, probes
from workbench.learners import Loss, Supervised
from workbench.models import Decoder, Transformer
from workbench.numerics import Rounding
from workbench.optimizers import Momentum, Optimizers, Traits
from workbench.schedules import Schedule
from workbench.study import Moment, Now

VOCABULARY, CONTEXT = 5, 6
BOUNDS = [(8, 1, 1.979691), (8, 5, 0.205592), (16, 4, 1.018040), (64, 2, 4.041087), (64, 10, 0.029206), (256, 5, 4.149079)]


class Settings(Transformer, Schedule, Optimizers, Rounding, Loss, defaults={"width": 8, "heads": 2}):
    pass


def random(name, *shape, seed=0):
    return noise.normal(noise.key_of(seed), name, shape, torch.float64)


def entropy(logits):
    return torch.distributions.Categorical(logits=logits).entropy()


def one_moment(change=lambda params: params, seed=0, **values):
    """The moment of the first step of a small decoder in float64, its parameters changed beforehand."""
    knobs = Settings(**values)
    learner = Supervised(lambda k: Decoder(k, VOCABULARY, CONTEXT))
    shared = learner.prepare(knobs, noise.key_of(0))
    state = learner.init(noise.key_of(seed), knobs, shared)
    state = torch.utils._pytree.tree_map(lambda x: x.double(), state)
    tokens = noise.randint(noise.key_of(seed), "tokens", VOCABULARY, (3, CONTEXT))
    state["params"] = change(state["params"])
    batch = dict(x=tokens, y=tokens.flip(1))
    return learner.step(state, batch, knobs, shared, Now(torch.tensor(0.0, dtype=torch.float64), noise.key_of(1), "train"))[1]


def without_queries(params):
    return {name: torch.zeros_like(p) if ".query.weight" in name else p for name, p in params.items()}


def quadratic(eigenvalues):
    """A loss with these Hessian eigenvalues in random directions, and the Hessian."""
    axes = torch.linalg.qr(random("axes", len(eigenvalues), len(eigenvalues)))[0]
    hessian = axes @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ axes.T
    return lambda at: 0.5 * at["w"] @ hessian @ at["w"], hessian


def test_uniform_attention_has_the_entropy_of_the_number_of_keys():
    everywhere = Moment(taps={"0.attention": torch.full((2, 3, 7, 7), 1 / 7, dtype=torch.float64)})
    torch.testing.assert_close(probes.attention_entropy(everywhere), torch.full((1, 3), math.log(7), dtype=torch.float64))
    causal = one_moment(without_queries)
    expected = np.log(np.arange(1, CONTEXT + 1)).mean()
    np.testing.assert_allclose(probes.attention_entropy(causal), np.full((2, 2), expected), rtol=1e-12)


def test_the_bound_of_uniform_attention_is_its_entropy():
    m = one_moment(without_queries)
    torch.testing.assert_close(probes.attention_entropy_bound(m), probes.attention_entropy(m), rtol=1e-12, atol=0)
    torch.testing.assert_close(probes.spectral_entropy_bound(m), probes.attention_entropy(m), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("keys", "norm", "expected"), BOUNDS)
def test_the_entropy_bound_is_reached_by_one_logit_above_equal_ones(keys, norm, expected):
    bound = probes.entropy_bound(torch.tensor(norm, dtype=torch.float64), keys)
    logits = torch.zeros(keys, dtype=torch.float64)
    logits[0] = norm * math.sqrt(keys / (keys - 1))
    np.testing.assert_allclose(bound, expected, atol=1e-6)
    np.testing.assert_allclose(bound, entropy(logits), rtol=1e-12)


@pytest.mark.parametrize("keys", [2, 3, 8, 64])
def test_no_logits_have_an_entropy_below_their_bound(keys):
    scale = torch.logspace(-2, 2, 2000, dtype=torch.float64).unsqueeze(1)
    worst = torch.eye(keys, dtype=torch.float64)[0]
    for near in (0.0, 0.01, 1.0):
        logits = scale * (worst + near * random("logits", 2000, keys) if near < 1 else random("logits", 2000, keys))
        norm = (logits - logits.mean(-1, keepdim=True)).norm(dim=-1)
        assert (entropy(logits) >= probes.entropy_bound(norm, keys) - 1e-12).all()


def test_the_bound_falls_as_the_norm_grows_and_is_zero_for_one_key():
    norms = torch.logspace(-3, 3, 500, dtype=torch.float64)
    for keys in (2, 64):
        bound = probes.entropy_bound(norms, keys)
        assert (bound.diff() <= 0).all()
        assert bound[0] == pytest.approx(math.log(keys), abs=1e-6)
        assert bound[-1] == 0
    assert (probes.entropy_bound(norms, 1) == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bound_of_huge_logits_is_zero_and_not_nan(dtype):
    norms = torch.tensor([1e3, 1e10, 1e38, math.inf], dtype=dtype)
    assert (probes.entropy_bound(norms, 64) == 0).all()
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    huge = 1e38 * torch.eye(4, dtype=dtype).expand(1, 2, 4, 4)
    assert (probes.attention_entropy_bound(Moment(taps={"0.logits": huge, "mask": mask})) == 0).all()


def test_masked_logits_and_rows_of_one_key_add_nothing_to_the_bound():
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    logits = random("logits", 2, 3, 5, 5)
    bound = probes.attention_entropy_bound(Moment(taps={"0.logits": logits, "mask": mask}))
    hidden = torch.where(mask, logits, math.inf)
    assert torch.equal(probes.attention_entropy_bound(Moment(taps={"0.logits": hidden, "mask": mask})), bound)
    rows = [probes.entropy_bound((x := logits[:, :, i, : i + 1] - logits[:, :, i, : i + 1].mean(-1, keepdim=True)).norm(dim=-1), i + 1)
            for i in range(5)]  # fmt: skip
    assert x.shape == (2, 3, 5)
    assert (rows[0] == 0).all()
    torch.testing.assert_close(bound[0], torch.stack(rows, -1).mean((0, 2)))


SETTINGS = [
    dict(init_scale=0.2),
    dict(),
    dict(init_scale=3.0),
    dict(norm_placement="none", temperature=0.2),
    dict(muparam=True, norm="rms"),
    dict(sigma_reparam=True, sigma_init="one"),
    dict(sigma_reparam=True, norm_placement="post"),
    dict(round_weights="bits", mantissa_bits=1),
]


@pytest.mark.parametrize("values", SETTINGS, ids=str)
def test_spectral_bound_below_row_bound_below_entropy(values):
    for seed in range(5):
        m = one_moment(seed=seed, **values)
        spectral, rows, real = probes.spectral_entropy_bound(m), probes.attention_entropy_bound(m), probes.attention_entropy(m)
        assert (spectral <= rows).all()
        assert (rows <= real + 1e-12).all()
        assert (spectral >= 0).all()
        if values.get("init_scale") == 0.2:
            assert (spectral > 0.5 * real).all()


def test_the_spectral_bound_equals_its_formula():
    m = one_moment(temperature=0.7, depth=1)
    x, query, key = (m.taps["0.attention_input"], m.params["blocks.0.attention.query.weight"], m.params["blocks.0.attention.key.weight"])
    for head in range(2):
        rows = slice(4 * head, 4 * head + 4)
        of_weights = np.linalg.norm(key[rows].T.numpy() @ query[rows].numpy(), 2) / math.sqrt(4) / 0.7
        norms = [of_weights * np.linalg.norm(one.numpy() @ one.T.numpy(), 2) for one in x]
        bounds = [probes.entropy_bound(torch.tensor(norm), keys) for norm in norms for keys in range(1, CONTEXT + 1)]
        np.testing.assert_allclose(probes.spectral_entropy_bound(m)[0, head], np.mean(bounds), rtol=1e-10)


@pytest.mark.parametrize("values", [dict(qk_norm=True), dict(softcap=5.0), dict(bias=True), dict(round_activations="bits")], ids=str)
def test_the_spectral_bound_is_nan_where_its_premise_is_void(values):
    m = one_moment(**values)
    assert torch.isnan(probes.spectral_entropy_bound(m)).all()
    assert (probes.attention_entropy_bound(m) <= probes.attention_entropy(m) + 1e-12).all()


def flattened(m):
    """The objective of a moment as a function of one vector, and the vector."""
    shapes = {name: p.shape for name, p in m.params.items()}

    def at(flat):
        parts = flat.split([shape.numel() for shape in shapes.values()])
        return m.loss_at({name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)})

    return at, torch.cat([p.flatten() for p in m.params.values()])


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch.func.hessian calls it
@pytest.mark.parametrize("values", [dict(norm="rms"), dict(norm_placement="none", sigma_reparam=True, z_loss=1e-2)], ids=str)
def test_the_top_hessian_eigenvalue_is_that_of_the_dense_hessian(values):
    m = one_moment(depth=1, **values)
    at, flat = flattened(m)
    dense = torch.linalg.eigvalsh(torch.func.hessian(at)(flat))[-1]
    torch.testing.assert_close(probes.hessian_top_eigenvalue(m), dense, rtol=1e-4, atol=0)


@pytest.mark.parametrize("values", [dict(), dict(norm_placement="peri", qk_norm=True)], ids=str)
def test_the_top_hessian_eigenvalue_with_layer_norm_is_that_of_differences_of_gradients(values):
    # torch.func.hessian is wrong for LayerNorm (torch 2.13): its inner vmap takes a wrong derivative of the gradient.
    m = one_moment(depth=1, **values)
    at, flat = flattened(m)
    gradient, small = torch.func.grad(at), 1e-5
    sides = [torch.vmap(gradient)(flat + sign * small * torch.eye(len(flat), dtype=flat.dtype)) for sign in (1, -1)]
    dense = (sides[0] - sides[1]) / (2 * small)
    torch.testing.assert_close(dense, dense.T, rtol=0, atol=1e-6)
    top = torch.linalg.eigvalsh((dense + dense.T) / 2)[-1]
    torch.testing.assert_close(probes.hessian_top_eigenvalue(m), top, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    "eigenvalues",
    [[3.0, 1.0, -50.0], [-2.0, -7.0, -30.0], [4.0], [-4.0], [0.0, 0.0], [5.0] * 6, [*np.linspace(0, 1, 60), 9.0]],
    ids=lambda values: f"{len(values)} up to {max(values)}",
)
def test_the_top_eigenvalue_of_a_quadratic_is_signed_and_survives_an_early_end(eigenvalues):
    loss_at, _ = quadratic(list(eigenvalues))
    found = probes.top_eigenvalue(loss_at, {"w": random("w", len(eigenvalues))})
    assert float(found) == pytest.approx(max(eigenvalues), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("rate", "diverges"), [(0.95, False), (0.99, False), (1.01, True), (1.05, True)])
def test_gradient_descent_on_a_quadratic_diverges_exactly_above_two_over_the_top_eigenvalue(rate, diverges):
    class Descent(Schedule, Momentum):
        pass

    loss_at, hessian = quadratic([8.0, 2.0, 0.5])
    params = {"w": random("w", 3)}
    knobs, optimizer = Descent(momentum=0.0), optimizers.sgd()
    top = probes.top_eigenvalue(loss_at, params)
    assert float(top) == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-12)
    state, losses = optimizer.init(params), []
    for _ in range(600):
        losses.append(float(loss_at(params)))
        updates, state = optimizer.update(torch.func.grad(loss_at)(params), state, params, knobs, None, rate * 2 / top)
        params = {"w": params["w"] + updates["w"]}
    assert (losses[-1] > 100 * losses[0]) == diverges
    assert (losses[-1] < losses[0] / 100) != diverges


@pytest.mark.parametrize("rate", [1e-5, 1e-2, 0.3, 20.0])
def test_critical_sharpness_of_a_quadratic_is_exact(rate):
    loss_at, hessian = quadratic([8.0, 2.0, 0.5, -0.1])
    w = random("w", 4)
    g = hessian @ w
    m = Moment(params={"w": w}, updates={"w": -rate * g}, rate=rate, loss_at=loss_at)
    assert float(probes.critical_sharpness(m)) == pytest.approx(float(g @ hessian @ g / (g @ g)), rel=1e-5)
    direction = torch.sign(g)
    m = Moment(params={"w": w}, updates={"w": -rate * direction}, rate=rate, loss_at=loss_at)
    assert float(probes.critical_sharpness(m)) == pytest.approx(float(direction @ hessian @ direction / (g @ direction)), rel=1e-5)


def test_critical_sharpness_along_the_top_eigenvector_is_the_top_eigenvalue():
    loss_at, hessian = quadratic([8.0, 2.0, 0.5])
    w = torch.linalg.eigh(hessian)[1][:, -1]
    m = Moment(params={"w": w}, updates={"w": -0.1 * hessian @ w}, rate=0.1, loss_at=loss_at)
    assert float(probes.critical_sharpness(m)) == pytest.approx(8.0, rel=1e-6)


@pytest.mark.parametrize(("loss_at", "step", "rate"), [
    (lambda at: (at["w"] ** 2).sum(), 0.1, 0.1),  # uphill
    (lambda at: -at["w"].sum(), 0.1, 0.1),  # downhill for ever
    (lambda at: (at["w"] ** 2).sum(), 0.0, 0.0),  # no step
    (lambda at: at["w"].sum() * math.nan, 0.1, 0.1),
])  # fmt: skip
def test_critical_sharpness_is_nan_where_no_length_is_critical(loss_at, step, rate):
    w = torch.ones(2)
    assert torch.isnan(probes.critical_sharpness(Moment(params={"w": w}, updates={"w": step * w}, rate=rate, loss_at=loss_at)))


def test_a_loss_that_overflows_bounds_the_length_from_above():
    def barrier(at):
        return torch.where(at["w"] < 3.7, -at["w"], math.inf)

    assert float(probes.critical_length(barrier, {"w": torch.tensor(0.0)}, {"w": torch.tensor(1.0)})) == pytest.approx(3.7, rel=0.02)


def test_the_effective_step_is_the_geometric_mean_over_a_layer():
    m = one_moment(muparam=True, base_width=16, epsilon=1e-6, beta2=0.99)
    expected = []
    for i in range(2):
        logs = []
        for name, v in m.optimizer["v"].items():
            if name.startswith(f"blocks.{i}."):
                scale = 2.0 if v.ndim == 2 else 1.0
                logs.append(torch.log(scale * m.rate / (torch.sqrt(v / (1 - 0.99)) + 1e-6)).flatten())
        expected.append(torch.cat(logs).mean().exp())
    torch.testing.assert_close(probes.effective_step(m), torch.stack(expected), rtol=1e-9, atol=0)
    assert torch.isnan(probes.effective_step(one_moment(optimizer="sgd"))).tolist() == [True, True]


def test_the_effective_step_of_adam_without_momentum_maps_gradients_to_updates():
    m = one_moment(beta1=0.0, epsilon=1e-3, depth=1)
    inside = [name for name in m.params if name.startswith("blocks.")]
    ratios = torch.cat([(-m.updates[name] / m.grads[name]).flatten() for name in inside])
    torch.testing.assert_close(probes.effective_step(m)[0], ratios.log().mean().exp(), rtol=1e-9, atol=0)


def test_norms_are_those_of_torch():
    m = one_moment()
    trees = {"gradient": m.grads, "update": m.updates, "weight": m.params}
    for word, tree in trees.items():
        by_layer = getattr(probes, f"{word}_norm")(m)
        for i in range(2):
            flat = torch.cat([x.flatten() for name, x in tree.items() if name.startswith(f"blocks.{i}.")])
            torch.testing.assert_close(by_layer[i], torch.linalg.vector_norm(flat), rtol=1e-12, atol=0)
        total = torch.nn.utils.get_total_norm(list(tree.values()))
        torch.testing.assert_close(getattr(probes, f"{word}_norm_total")(m), total, rtol=1e-12, atol=0)
    for word, tree in (("gradient", m.grads), ("update", m.updates)):
        expected = torch.stack([(x**2).mean().sqrt() for x in tree.values()])
        torch.testing.assert_close(getattr(probes, f"{word}_rms")(m), expected, rtol=1e-12, atol=0)


def test_logits_and_activations_are_measured_where_they_are_tapped():
    m = one_moment(softcap=3.0)
    mask = np.tril(np.ones((CONTEXT, CONTEXT), bool))
    largest = [np.abs(m.taps[f"{i}.logits"].numpy()[:, :, mask]).max() for i in range(2)]
    np.testing.assert_allclose(probes.attention_logit_max(m), largest, rtol=1e-12)
    readout = m.taps["readout"].numpy()
    np.testing.assert_allclose(probes.log_z(m), np.log(np.exp(readout).sum(-1)).mean(), rtol=1e-12)
    np.testing.assert_allclose(probes.readout_logit_max(m), np.abs(readout).max(), rtol=1e-12)
    rms = [np.sqrt((m.taps[f"{i}.residual"].numpy() ** 2).mean()) for i in range(2)]
    np.testing.assert_allclose(probes.residual_rms(m), rms, rtol=1e-12)
    assert float(probes.learning_rate(m)) == pytest.approx(Settings().lr)


def test_a_logit_behind_the_mask_is_not_the_largest():
    mask = torch.ones(3, 3, dtype=torch.bool).tril()
    logits = torch.where(mask, -2.0, 100.0).expand(1, 1, 3, 3)
    assert probes.attention_logit_max(Moment(taps={"0.logits": logits, "mask": mask})).tolist() == [2.0]


@pytest.mark.parametrize("values", [dict(), dict(round_weights="bits", mantissa_bits=0)], ids=str)
def test_spectral_norms_are_those_of_numpy(values):
    m = one_moment(**values)
    names = [name for name in m.params if name.startswith("blocks.") and m.params[name].ndim == 2]
    applied = {name: torch.exp2(torch.log2(p.abs() / 1.5).ceil()).where(p != 0, p) if values else p for name, p in m.params.items()}
    norms = [np.linalg.norm(applied[n].copysign(m.params[n]).numpy() if values else applied[n].numpy(), 2) for n in names]
    np.testing.assert_allclose(probes.spectral_norm(m), norms, rtol=1e-10)


def test_sigma_reparam_makes_the_spectral_norm_its_gain():
    m = one_moment(sigma_reparam=True, sigma_init="one")
    np.testing.assert_allclose(probes.spectral_norm(m), np.ones(12), rtol=1e-9)


def test_traits_reach_the_effective_step():
    m = one_moment(depth=1)
    before = probes.effective_step(m)
    m.shared = {**m.shared, "traits": Traits(dict.fromkeys(m.params, 3.0))}
    torch.testing.assert_close(probes.effective_step(m), 3 * before)
