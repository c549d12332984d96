"""What `edge_of_stability` measures: exact cases of its probes and tasks, and its effects on records whose answer is known by hand."""

import numpy as np
import pytest
import torch
from torch.func import hessian

import workbench as wb
from workbench import noise
from workbench.design import axes
from workbench.probes import gauss_newton, hutchinson_trace, per_sample_gradients, top_eigenvalue
from workbench.record import blank, fill
from workbench.schema import Progress, Schema, Slab, Variable
from workbench.studies import edge_of_stability as es
from workbench.study import Now

STEPS = 100
VARIABLES = {"train_loss": 10, "sharpness": 10, "gauss_newton_trace": 10, "gauss_newton_norm": 100, "test_loss": 100}
KEY = noise.key_of(3)


def moment(**knobs):
    """The moment before the first update, in double precision, and its state."""
    knobs = es.Settings(**knobs)
    shared = es.study.learner.prepare(knobs, KEY)
    state = es.study.learner.init(KEY, knobs, shared)
    for part in ("params", "samples"):
        state[part] = {name: x.double() for name, x in state[part].items()}
    new, found = es.study.learner.step(state, es.TASK(knobs, KEY), knobs, shared, Now(torch.tensor(0.0), KEY, "train"))
    return found, state, new


def flat_hessian(m):
    """The Hessian of the training loss as a matrix, by differentiating twice."""
    names, sizes = list(m.params), [p.numel() for p in m.params.values()]

    def loss(flat):
        parts = zip(names, flat.split(sizes), strict=True)
        return es.loss_at(m)({name: part.view_as(m.params[name]) for name, part in parts})

    return hessian(loss)(torch.cat([p.flatten() for p in m.params.values()]))


def diagonal_hessian(x, y, u, v):
    """The Hessian of the diagonal net in closed form: 4 D C D plus 2 diag(g, -g), with C = x^T x / n and g the gradient over weights."""
    n, signed = len(x), torch.cat([u, -v])
    g = x.T @ (x @ (u**2 - v**2) - y) / n
    return 4 * signed[:, None] * (x.T @ x / n).repeat(2, 2) * signed + 2 * torch.diag(torch.cat([g, -g]))


DIAGONAL = {"data": "sparse", "model": "diagonal", "samples": 7, "features": 5, "nonzeros": 2, "batch": 7}


def at_random(m):
    """Other u and v than those a run begins with, which are all equal."""
    for name, p in m.params.items():
        m.params[name] = p + 0.3 * noise.normal(KEY, f"away {name}", p.shape, p.dtype)
    return m


def test_the_curvature_of_a_diagonal_net_is_that_of_the_closed_form():
    m, *_ = moment(**DIAGONAL)
    m = at_random(m)
    x, y, u, v = m.batch["x"], m.batch["y"], m.params["u"], m.params["v"]
    exact = diagonal_hessian(x, y, u, v)
    torch.testing.assert_close(exact, flat_hessian(m))
    torch.testing.assert_close(es.sharpness(m), torch.linalg.eigvalsh(exact)[-1])
    gauss_newton_part = 4 * torch.outer(torch.cat([u, -v]), torch.cat([u, -v])) * (x.T @ x / len(x)).repeat(2, 2)
    torch.testing.assert_close(es.gauss_newton_trace(m), gauss_newton_part.trace())
    torch.testing.assert_close(es.gauss_newton_norm(m), torch.linalg.matrix_norm(gauss_newton_part))


def test_the_trace_is_estimated_without_bias_and_exactly_where_the_hessian_is_diagonal():
    m, *_ = moment(**DIAGONAL)
    exact = flat_hessian(at_random(m))
    off_diagonal = (exact - torch.diag(exact.diag())).square().sum()
    error = hutchinson_trace(es.loss_at(m), m.params, draws=400) - exact.trace()
    assert 0 < abs(error) < 4 * (2 * off_diagonal / 400).sqrt()
    weights = {"a": torch.arange(1.0, 4.0), "b": torch.tensor([[-2.0]])}
    torch.testing.assert_close(hutchinson_trace(lambda p: (p["a"] ** 3).sum() + 5 * (p["b"] ** 2).sum(), weights), torch.tensor(46.0))


def test_where_every_sample_is_fitted_the_gauss_newton_matrix_is_the_hessian():
    m, *_ = moment(samples=6, width=3, batch=6)
    m.batch["y"] = m.taps["readout"][:, 0]
    exact = flat_hessian(m)
    torch.testing.assert_close(es.gauss_newton_trace(m), exact.trace())
    torch.testing.assert_close(es.gauss_newton_norm(m), torch.linalg.matrix_norm(exact))


def test_per_sample_gradients_are_those_of_each_sample_alone():
    x, params = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), {"w": torch.tensor([1.0, -2.0, 0.5]), "c": torch.tensor(2.0)}
    found = per_sample_gradients(lambda p, x: p["c"] * (x @ p["w"]) ** 2, params, x)
    inner = x @ params["w"]
    torch.testing.assert_close(found, torch.cat([2 * 2.0 * inner[:, None] * x, inner[:, None] ** 2], 1))
    torch.testing.assert_close(gauss_newton.trace(found), (found.T @ found / 4).trace())
    torch.testing.assert_close(gauss_newton.frobenius_norm(found), torch.linalg.matrix_norm(found.T @ found / 4))


def test_orthogonal_inputs_make_the_identity_and_descent_multiplies_every_error_by_one_minus_the_rate():
    m, state, new = moment(**es.QUADRATIC, batch=es.AXES, lr=0.3)
    torch.testing.assert_close(flat_hessian(m), torch.eye(es.AXES, dtype=torch.float64))
    target = m.batch["y"] / es.AXES**0.5
    before, after = (s["params"]["readout.weight"][0] - target for s in (state, new))
    torch.testing.assert_close(after, 0.7 * before, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, es.AXES])
def test_a_batch_moves_only_its_own_samples_and_those_by_its_own_curvature(batch):
    """There the edge is at 2 B / n: the factor of a sample that is seen is 1 - lr n / B, of others 1."""
    m, state, new = moment(**es.QUADRATIC, batch=batch, lr=2 * batch / es.AXES)
    target = m.batch["y"] / es.AXES**0.5
    factor = (new["params"]["readout.weight"][0] - target) / (state["params"]["readout.weight"][0] - target)
    seen = m.batch["order"] < batch
    torch.testing.assert_close(factor, torch.where(seen, -1.0, 1.0).double(), atol=1e-5, rtol=1e-5)
    assert seen.sum() == batch


def test_batches_hold_one_another_and_a_large_one_is_all_samples():
    readout, y = torch.tensor([[1.0], [3.0], [0.0]]), torch.tensor([0.0, 0.0, 4.0])
    batch = {"y": y, "order": torch.tensor([2, 0, 1])}
    losses = [es.half_square(readout, batch, es.Settings(batch=b)).item() for b in (1, 2, 3, 50)]
    assert losses == pytest.approx([4.5, 6.25, 13 / 3, 13 / 3])
    assert es.half_square(readout, {"y": y}, es.Settings(batch=1)).item() == pytest.approx(13 / 3)


def test_samples_are_a_runs_own_and_the_held_out_error_of_a_linear_map_is_its_expectation():
    task, knobs = es.TASK.of(es.Settings(data="sparse")), es.Settings(data="sparse", features=6, nonzeros=3)
    x, y = task.training(knobs, KEY).values()
    target = torch.tensor([1.0, -1, 1, 0, 0, 0])
    torch.testing.assert_close(y, x @ target)
    assert not torch.equal(x, task.training(knobs, noise.key_of(4))["x"])
    held_out, w = task.evaluation(knobs), torch.arange(6.0)
    error = es.half_square((held_out["x"] @ w)[:, None], held_out, knobs)
    torch.testing.assert_close(error, ((w - target) ** 2).sum() / 2)


def test_images_are_two_halves_of_the_classes_without_repeats():
    task, knobs = es.TASK.of(es.Settings()), es.Settings(samples=500)
    x, y = task.training(knobs, KEY).values()
    assert x.shape == (500, 14, 14) and set(y.tolist()) == {-1.0, 1.0} and len(torch.unique(x.flatten(1), dim=0)) > 495
    with pytest.raises(wb.errors.InputError, match=r"'samples' is 20000.* has 10000"):
        task.training(es.Settings(samples=20_000), KEY)


def test_descent_finds_two_over_the_rate():
    """u^2 - v^2 = 1 on one sample: a minimum's sharpness is 4 (u^2 + v^2), and descent that begins above 2 / lr ends below it."""
    u, v, rate = torch.tensor(1.5, dtype=torch.float64), torch.tensor(1.2, dtype=torch.float64), 0.2
    first = top_eigenvalue(lambda p: (p["u"] ** 2 - p["v"] ** 2 - 1) ** 2 / 2, {"u": u, "v": v})
    losses = []
    for _ in range(400):
        error = u**2 - v**2 - 1
        losses.append(error.item() ** 2 / 2)
        u, v = u - rate * 2 * u * error, v + rate * 2 * v * error
    last = top_eigenvalue(lambda p: (p["u"] ** 2 - p["v"] ** 2 - 1) ** 2 / 2, {"u": u, "v": v})
    assert first > 2 / rate > last and last == pytest.approx(4 * (u**2 + v**2).item(), rel=1e-6)
    assert max(losses) > losses[0] and losses[-1] < 1e-20


# Effects on records made by hand.


def made(values, grids=None, steps=STEPS):
    """A record of the full design for seeds 4 and 5; `values` gives each variable as a function of (row, share of the run)."""
    rows = [row for row in (grids or es.full_design()).rows(es.Settings) if row["seed"] in (4, 5)]
    variables = [Variable(name, clock, (), "float64", {}) for name, clock in VARIABLES.items()]
    columns = {name: dict(units=spec.units, long_name=spec.doc) for name, spec in axes(es.Settings).items()}
    record = blank(Schema(rows, columns, variables, {}, [("train", 0)], 0, steps, {"start": 0, "study": "edge_of_stability"}))
    for name, clock in VARIABLES.items():
        at = list(range(0, steps + 1, clock))
        fn = values.get(name, lambda row, share: 1.0)
        fill(record, Slab(range(len(rows)), clock, at, {name: np.array([[fn(row, s / steps) for s in at] for row in rows])}, {}))
    fill(record, Progress(range(len(rows)), steps, [-1] * len(rows)))
    return record


def edge_of(row):
    return 2 * (1 + row["momentum"]) / row["lr"]


def effect(record, words):
    (claim,) = [claim for claim in es.CLAIMS if words in claim.statement]
    return claim.effect(record)


def test_sharpness_is_measured_in_units_of_its_edge_over_the_last_fifth():
    record = made({"sharpness": lambda row, share: edge_of(row) * ((0.9 + row["seed"] / 100 + row["lr"]) if share > 0.75 else 50.0)})
    np.testing.assert_allclose(effect(record, "largest eigenvalue at 2 / lr or below (largest"), [0.94 + 0.2, 0.95 + 0.2])
    np.testing.assert_allclose(effect(record, "progressive sharpening"), [0.94 + 0.05, 0.95 + 0.05])
    np.testing.assert_allclose(effect(record, "rises to (2 + 2 momentum) / lr"), [1.04, 1.05])
    np.testing.assert_allclose(effect(record, "ends at (2 + 2 momentum) / lr or below"), [1.04, 1.05])


def test_the_trace_is_bounded_for_single_samples_in_all_three_nets():
    worst = {"diagonal": 0.7, "mlp": 0.5, "linear": 9.0}
    record = made({"gauss_newton_trace": lambda row, share: worst[row["model"]] * 2 / row["lr"] * (3 if row["batch"] > 1 else 1)})
    np.testing.assert_allclose(effect(record, "SGD of single samples keeps"), 0.7)
    np.testing.assert_allclose(effect(record, "does not keep the trace"), 1.5)
    np.testing.assert_allclose(effect(record, "flatter minimum than gradient descent"), np.log10(1 / 3))


def test_a_diverged_run_leaves_its_seed_without_a_value():
    record = made({"gauss_newton_trace": lambda row, share: np.nan if (row["seed"], row["batch"]) == (5, 1) and share == 1 else 1.0})
    found = effect(record, "SGD of single samples keeps")
    assert np.isfinite(found.sel(seed=4)) and np.isnan(found.sel(seed=5))


def test_the_condition_for_batches_is_the_trace_for_single_samples_and_the_norm_for_all():
    record = made({"gauss_newton_trace": lambda row, share: 12.0, "gauss_newton_norm": lambda row, share: 6.0})
    found = es.batch_condition(record).isel(step=-1).values / record["lr"].values * 2
    n, batch = record["samples"].values, np.minimum(record["batch"], record["samples"]).values
    np.testing.assert_allclose(found[batch == 1], 12.0)
    np.testing.assert_allclose(found[batch == n], 36 / 12)
    share = (100 - 4) / (4 * 99)
    np.testing.assert_allclose(found[(batch == 4) & (n == 100)], share * 12 + (1 - share) * 3)
    np.testing.assert_allclose(es.norm_over_bound(record).isel(step=-1).values, 6 * record["lr"].values / np.sqrt(batch))


def test_the_condition_for_batches_follows_from_the_mean_over_all_batches():
    """p is what makes the mean of |H_B|_F^2 over all batches of B, drawn without replacement, p mean |H_i|_F^2 + (1 - p) |H|_F^2."""
    import itertools

    g = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    each = torch.einsum("ia,ib->iab", g, g)
    squares = [each[list(chosen)].mean(0).square().sum() for chosen in itertools.combinations(range(5), 2)]
    p = (5 - 2) / (2 * (5 - 1))
    expected = p * each.square().sum((1, 2)).mean() + (1 - p) * each.mean(0).square().sum()
    torch.testing.assert_close(torch.stack(squares).mean(), expected)


def test_slopes_and_gains_over_the_rate():
    record = made(
        {
            "sharpness": lambda row, share: 3 / row["lr"],
            "gauss_newton_trace": lambda row, share: row["lr"] ** -0.5,
            "test_loss": lambda row, share: row["lr"] ** (-2 if row["batch"] == 1 else 1) * row["seed"],
        }
    )
    np.testing.assert_allclose(effect(record, "under gradient descent (exponent"), -1)
    np.testing.assert_allclose(effect(record, "under SGD of single samples (exponent"), -0.5)
    np.testing.assert_allclose(effect(record, "gradient descent, on images (log10"), np.log10(4))
    np.testing.assert_allclose(effect(record, "single samples, on images"), -2 * np.log10(4))
    np.testing.assert_allclose(effect(record, "single samples, in a diagonal"), -2 * np.log10(4))
    np.testing.assert_allclose(effect(record, "better test loss than"), np.mean([np.log10(lr**-3) for lr in es.SPARSE_RATES]))


def test_a_catapult_rises_and_lands_lower():
    record = made(
        {
            "train_loss": lambda row, share: {0.0: 2.0, 0.1: 200.0}.get(share, 0.1),
            "sharpness": lambda row, share: edge_of(row) * (1.5 if share == 0 else 0.75),
        }
    )
    np.testing.assert_allclose(effect(record, "first rises"), 2)
    np.testing.assert_allclose(effect(record, "lower largest eigenvalue"), -np.log10(2))
    np.testing.assert_allclose(effect(record, "that is 2 / lr or below"), 0.75)


def test_the_quadratic_is_bracketed_by_growth_and_decay():
    def loss(row, share):
        edge = 2.0 if row["batch"] == es.AXES else 0.1
        return 10.0 ** (5 * share) if row["lr"] > edge else np.nan if share == 1 and row["lr"] > edge else 10.0 ** (-3 * share)

    record = made({"train_loss": loss})
    np.testing.assert_allclose(effect(record, "On a quadratic"), 3)
    np.testing.assert_allclose(effect(record, "On that quadratic"), 3)


def test_growth_counts_to_the_last_finite_loss():
    record = made({"train_loss": lambda row, share: 10.0 ** (10 * share) if share < 0.55 else np.nan})
    np.testing.assert_allclose(es.growth(record), 5)


@pytest.mark.parametrize(("share", "answer"), [(0.1, 0), (0.79, 0), (0.9, 1), (1.19, 1), (1.3, 2), (np.nan, 2)])
def test_the_prediction_is_settled_by_the_mean_sharpness(share, answer):
    record = made({"sharpness": lambda row, _: share * edge_of(row)}, steps=es.LATER).wb.where(data="images", momentum=0.0, lr=0.1, batch=1)
    assert es.sharpness_reached(record) == answer


def test_the_first_step_at_the_edge():
    record = made({"sharpness": lambda row, at: edge_of(row) * (1.0 if at >= 0.3 and row["seed"] == 4 else 0.5)})
    found = es.edge_step(record).values
    assert set(found[record["seed"].values == 4]) == {30.0} and np.isnan(found[record["seed"].values == 5]).all()


def test_settings_are_told_in_words_and_small_batches_come_last():
    names = es.setting(made({})).names
    assert names[:4] == ("relu net, all samples", "relu net, batch 1", "tanh net, all samples", "tanh net, batch 16")
    assert {"tanh net, all samples, momentum 0.5", "diagonal net, batch 4, first weights x 0.1", "linear map, batch 1"} <= set(names)


def test_levels_follow_rate_momentum_and_batch():
    row = vars(es.Settings(lr=0.1, momentum=0.5, batch=4))
    assert [level.value for level in es.edge_of(row)] == pytest.approx([30.0])
    assert [level.value for level in es.bound_of(row)] == pytest.approx([20.0]) and not es.bound_of(row)[0].alarm
    assert [level.value for level in es.norm_bound_of(row)] == pytest.approx([20.0])
    assert es.bound_of(row | {"batch": 1})[0].alarm == "over"


def test_a_batch_that_changes_acts_at_once_and_the_training_set_stays():
    panel = wb.explore("edge_of_stability", samples=16, batch=16, width=16)
    panel.press("run", until=10)
    panel.wait()
    panel.knobs["batch"] = 1
    panel.knobs["lr"] = 0.2
    panel.press("run", until=20)
    panel.wait()
    changes = panel.record["timeline"].to_dataset()
    assert changes["knob"].values.tolist() == ["batch", "lr"] and changes["at_step"].values.tolist() == [10, 10]
    assert np.isfinite(panel.record.wb["sharpness"].values).all()
    panel.close()
