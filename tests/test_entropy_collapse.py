"""What the effects of `entropy_collapse` measure, on records whose answer is known by hand."""

import numpy as np
import pytest
import xarray as xr

import workbench as wb
from workbench.record import blank, fill
from workbench.schema import Progress, Schema, Slab, Variable
from workbench.studies import entropy_collapse as ec

STEPS = 10
VARIANTS = {"plain": {}, "qk": {"qk_norm": True}, "sigma": {"sigma_reparam": True}, "warm": {"warmup": ec.WARMUP}}


def made(share, loss, diverged=()):
    """A record of one data set, rates 0.01 and 0.1, two seeds: entropy falls linearly to `share` of uniform, loss to `loss`."""
    rows = [
        ec.Settings().__dict__ | {"seed": seed, "lr": lr} | knobs for knobs in VARIANTS.values() for lr in (0.01, 0.1) for seed in (0, 1)
    ]
    names = [(name, lr, seed) for name in VARIANTS for lr in (0.01, 0.1) for seed in (0, 1)]
    dims = {"train_loss": (1, ()), "attention_entropy": (10, ("layer", "head")), "attention_entropy_bound": (10, ("layer", "head"))}
    variables = [Variable(name, clock, axes, "float64", {}) for name, (clock, axes) in dims.items()]
    labels = {"layer": [0], "head": [0, 1]}
    record = blank(Schema(rows, {}, variables, labels, [("train", 0)], 0, STEPS, {"start": 0, "study": "entropy_collapse"}))
    uniform = ec.uniform_entropy(record).values
    last = uniform * np.array([share(*name) for name in names])
    entropy = np.stack([uniform, last], 1)[:, :, None, None] * np.ones((1, 1, 1, 2))
    losses = np.linspace(np.full(len(rows), 5.0), [loss(*name) for name in names], STEPS + 1, axis=1)
    runs = range(len(rows))
    fill(record, Slab(runs, 10, [0, 10], {"attention_entropy": entropy, "attention_entropy_bound": entropy - 0.25}, labels))
    fill(record, Slab(runs, 1, range(STEPS + 1), {"train_loss": losses}, labels))
    fill(record, Progress(runs, STEPS, [5 if names[run] in diverged else -1 for run in runs]))
    return record


def share(name, lr, seed):
    if name == "plain":
        return 0.05 if lr == 0.1 or seed == 1 else 0.5
    return {"qk": 0.6, "sigma": 0.4, "warm": 0.3}[name] - lr


def loss(name, lr, seed):
    return {"plain": 3.0, "qk": 2.5, "sigma": 2.0, "warm": 2.25}[name] + (0.5 if (name, lr) == ("plain", 0.1) else 0.0)


def test_uniform_entropy_is_the_mean_over_causal_rows_and_log_of_the_patches():
    record = made(share, loss)
    assert ec.uniform_entropy(record).values[0] == pytest.approx(np.log(np.arange(1, 33)).mean())
    images = record.to_dataset().assign_coords(data=("run", ["images"] * record.sizes["run"]))
    assert ec.uniform_entropy(xr.DataTree(images)).values[0] == pytest.approx(np.log(16))


def test_gauges_draw_uniform_attention_of_their_knobs_and_a_tenth_of_it():
    for row, entropy in (
        (dict(data="text", context=32, patch=7), np.log(np.arange(1, 33)).mean()),
        (dict(data="images", context=32, patch=4), np.log(49)),
    ):
        collapse, highest = ec.heights_to_compare(row)
        assert (collapse.value, highest.value) == pytest.approx((entropy / 10, entropy))
        assert (collapse.alarm, highest.alarm) == ("under", "")


@pytest.mark.parametrize("knobs", [dict(data="text", context=16), dict(data="images", patch=14), dict(data="images", patch=4)])
def test_attention_has_as_many_rows_as_the_model_has_tokens(knobs):
    record = wb.run("entropy_collapse", steps=1, probes=["attention_map"], batch=2, width=16, depth=1, progress=False, **knobs)
    (pictures,) = record.wb["attention_map"].isel(step=0).values
    assert pictures.shape[-1] == pictures.shape[-2] == len(ec.coords(ec.Settings(**knobs))["y"])
    rows = pictures.astype(float).sum(-1)
    assert (abs(rows - 255) <= pictures.shape[-1] / 2).all()


@pytest.mark.parametrize(("left", "answer"), [(0.6, 0), (0.51, 0), (0.49, 1), (0.11, 1), (0.09, 2), (0.0, 2)])
def test_the_prediction_is_settled_by_the_mean_of_the_seeds(left, answer):
    record = made(lambda name, lr, seed: left + 0.005 * (2 * seed - 1), loss).wb.where(qk_norm=True, lr=0.1)
    assert ec.entropy_left(record) == answer


def test_where_every_run_diverged_no_entropy_is_left():
    record = made(share, loss).wb.where(qk_norm=True, lr=0.1)
    record["every_10"].dataset["attention_entropy"].values[:, 1] = np.nan
    assert ec.entropy_left(record) == 2


def test_collapse_is_a_layer_under_a_tenth_of_uniform():
    step = ec.cells(made(share, loss), ec.collapse_step(made(share, loss)))
    assert step.sel(data="text", lr=0.1).values.tolist() == [10, 10]
    assert np.isnan(step.sel(data="text", lr=0.01, seed=0)) and step.sel(data="text", lr=0.01, seed=1) == 10


def test_effects_are_taken_where_the_plain_net_collapses():
    record = made(share, loss)
    # seed 0 collapses at 0.1 alone; seed 1 at 0.01 too, where the excess is 0.5 smaller
    np.testing.assert_allclose(ec.excess_over_sigma_reparam(record), [1.5, 1.25])
    np.testing.assert_allclose(ec.excess_over_qk_norm(record), [1.0, 0.75])
    np.testing.assert_allclose(ec.warmup_needed(record), [1.25, 1.0])
    np.testing.assert_allclose(ec.no_warmup_with_sigma_reparam(record), [0.25, 0.25])
    np.testing.assert_allclose(ec.kept_by_qk_norm(record), [0.5, 0.59])
    np.testing.assert_allclose(ec.kept_everywhere_by_qk_norm(record), [0.5, 0.5])
    np.testing.assert_allclose(ec.kept_everywhere_by_sigma_reparam(record), [0.3, 0.3])
    np.testing.assert_allclose(ec.above_bound(record), [0.0, 0.0])
    record["every_10"].dataset["attention_entropy_bound"].values[0, 0] += 0.75
    np.testing.assert_allclose(ec.above_bound(record), [-0.5, 0.0], atol=1e-6)


def test_a_diverged_remedy_has_kept_nothing():
    record = made(share, loss, diverged={("sigma", 0.1, 0)})
    np.testing.assert_allclose(ec.kept_by_sigma_reparam(record), [0.0, 0.39])


def test_a_rate_that_was_not_measured_is_not_left_out_of_the_mean():
    record = made(share, loss)
    keep = np.flatnonzero(~((record["warmup"].values > 0) & (record["lr"].values == 0.1)))
    nodes = {name: node.to_dataset(inherit=False) for name, node in record.children.items()}
    parts = {name: node.isel(run=keep) if "run" in node.dims else node for name, node in nodes.items()}
    record = xr.DataTree.from_dict({"/": record.to_dataset().isel(run=keep), **parts})
    assert np.isnan(ec.warmup_needed(record)).all()
