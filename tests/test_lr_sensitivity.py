"""What the effects of `lr_sensitivity` measure, on records whose answer is known by hand."""

import numpy as np
import pytest

from workbench import noise
from workbench.design import axes
from workbench.record import blank, fill, with_nodes
from workbench.schema import Progress, Schema, Slab, Variable
from workbench.studies import lr_sensitivity as ls

STEPS, START = 10, 50.0
DIMS = {"validation_loss": (1000, ()), "attention_logit_max": (100, ("layer",)), "mlp_gradient_rms": (100, ("layer",))}


def made(loss=lambda *run: 3.0, logit=lambda *run: 1.0, gradient=lambda *run: 1.0, diverged=lambda *run: False, sizes=ls.SIZES):
    """A record of all recipes, two seeds; each quantity is a function of (recipe, weights, rate, seed)."""
    rows, names = [], []
    for recipe, knobs in ls.VARIANTS.items():
        for size in sizes:
            for lr in ls.RATES:
                for seed in (4, 5):
                    rows.append(vars(ls.Settings()) | {"seed": seed, "lr": lr} | size | knobs)
                    names.append((recipe, 12 * size["width"] ** 2 * size["depth"], lr, seed))
    variables = [Variable(name, clock, dims, "float64", {}) for name, (clock, dims) in DIMS.items()]
    labels = {"layer": [0, 1]}
    columns = {name: dict(units=spec.units, long_name=spec.doc) for name, spec in axes(ls.Settings).items()}
    record = blank(Schema(rows, columns, variables, labels, [("train", 0)], 0, STEPS, {"start": 0, "study": "lr_sensitivity"}))
    runs, last = range(len(rows)), np.array([[START, loss(*name)] for name in names])
    fill(record, Slab(runs, 1000, [0, STEPS], {"validation_loss": last}, {}))
    for variable, fn in (("attention_logit_max", logit), ("mlp_gradient_rms", gradient)):
        values = np.array([fn(*name) for name in names])[:, None, None] * np.array([[1.0, 0.5]])
        fill(record, Slab(runs, 100, [0, STEPS], {variable: np.repeat(values, 2, axis=1)}, labels))
    fill(record, Progress(runs, STEPS, [5 if diverged(*name) else -1 for name in names]))
    return record


def with_knobs(record, **knobs):
    """The record with other values of some knobs."""
    root = record.to_dataset()
    return with_nodes(
        record, **{"/": root.assign_coords({name: ("run", np.broadcast_to(v, root.sizes["run"])) for name, v in knobs.items()})}
    )


def test_size_counts_the_matrices_of_the_blocks():
    record = made()
    assert sorted(set(ls.size(record).values.tolist())) == [3072, 24576, 82944, 196608]
    shell = ls.study.learner.prepare(ls.Settings(width=32, depth=2), noise.key_of(0))["model"]
    matrices = [p for name, p in shell.named_parameters() if name.startswith("blocks.") and p.ndim == 2]
    assert sum(p.numel() for p in matrices) == 24576


def test_sensitivity_is_that_of_the_paper():
    """Losses 3 but for 4 at the lowest rate, 3.5 at 0.1, and a diverged run, which counts as the start, at 0.3."""
    special = {3e-4: 4.0, 1e-1: 3.5, 3e-1: np.nan}
    found = ls.sensitivity(made(lambda recipe, n, lr, seed: special.get(lr, 3.0)), "no z-loss")
    assert found.dims == ("size", "seed") and found["seed"].values.tolist() == [4, 5]
    np.testing.assert_allclose(found, (1 + 0.5 + START - 3) / 7)
    high = ls.sensitivity(made(lambda recipe, n, lr, seed: special.get(lr, 3.0)), "no z-loss", lowest=3e-3)
    np.testing.assert_allclose(high, (0.5 + START - 3) / 5)


def test_growth_is_per_decade_of_size():
    record = made(
        lambda recipe, n, lr, seed: 3.0 + (lr == 1e-1) * 7 * np.log10(n) * {"no QK-norm": 0.1, "base recipe": -0.05}.get(recipe, 0)
    )
    np.testing.assert_allclose(ls.growth_without_qk_norm(record), [0.1, 0.1])
    np.testing.assert_allclose(ls.growth_at_high_rates_without_qk_norm(record), [0.14, 0.14])


def test_a_part_of_the_recipe_is_judged_in_the_largest_net():
    excess = {"no QK-norm": 1.4, "no warmup": 0.7, "no z-loss": 0.0, "coupled decay": -0.7}
    record = made(lambda recipe, n, lr, seed: 3.0 + (lr == 3e-1) * (n > 1e5) * (1 + excess.get(recipe, 0.0)))
    for recipe, value in excess.items():
        np.testing.assert_allclose(ls.saved_by(record, recipe), value / 7, atol=1e-12)


def test_the_logit_of_the_largest_net_is_predicted_from_the_smaller_ones():
    def logit(recipe, n, lr, seed):
        return n**0.5 * (4.0 if n > 1e5 and seed == 5 else 1.0) if (recipe, lr) == ("no QK-norm", 1e-2) else 1.0

    record = made(logit=logit)
    assert ls.logit_growth(record)[0] == pytest.approx(0.5) and ls.logit_growth(record)[1] > 0.5
    for degree in (ls.LINE, ls.PARABOLA):
        np.testing.assert_allclose(ls.misprediction(record, degree), [0, np.log10(4)], atol=1e-9)
        np.testing.assert_allclose(ls.law_of_smaller(ls.logits(record), degree).isel(size=-1), 196608**0.5)


def test_growth_that_quickens_is_predicted_by_the_parabola_alone():
    record = made(logit=lambda recipe, n, lr, seed: 10 ** (0.3 * np.log10(n) ** 2))
    np.testing.assert_allclose(ls.misprediction(record, ls.PARABOLA), 0, atol=1e-9)
    assert (ls.misprediction(record, ls.LINE) > 0.1).all()


def test_gradients_fall_with_size_and_rate():
    record = made(gradient=lambda recipe, n, lr, seed: n**-0.3 / lr)
    np.testing.assert_allclose(ls.gradient_over_size(record), -0.3)
    np.testing.assert_allclose(ls.gradient_over_rate(record), -1)


@pytest.mark.parametrize(("logit", "answer"), [(3.0, 0), (29.0, 0), (31.0, 1), (299.0, 1), (301.0, 2), (np.nan, 2)])
def test_the_prediction_is_settled_by_the_mean_of_the_largest_logits(logit, answer):
    record = made(logit=lambda recipe, n, lr, seed: logit + seed - 4.5).wb.where(width=16, depth=1, lr=0.1, qk_norm=False)
    assert record.sizes["run"] == 2 and ls.logit_reached(record) == answer


def test_a_single_rate_says_nothing_about_sensitivity():
    record = made(sizes=ls.SIZES[:1]).wb.where(lr=0.1, seed=4, qk_norm=False)
    assert ls.summary(record) == ["1 run of 10 steps: 0 diverged. There is a single learning rate, and sensitivity compares several."]
    several = made(sizes=ls.SIZES[:1]).wb.where(lr=[0.1, 0.01], qk_norm=False)
    assert ls.summary(several)[0] == "4 runs of 10 steps: 0 diverged. LR sensitivity in nats, mean over seeds:"


def test_warmup_of_any_length_is_warmup():
    record = made(sizes=ls.SIZES[:1])
    short = with_knobs(record, warmup=np.where(record["warmup"].values > 0, 10, 0))
    for each in (record, short):
        assert {name: runs.sum() for name, runs in ls.recipes(each).items()} == dict.fromkeys(ls.VARIANTS, 14)


def test_charts_are_of_recipes_and_weights_or_of_what_varies():
    record = made()
    sizes, recipes = ls.factors(record)
    assert sizes.names == ("3,072", "24,576", "82,944", "196,608") and recipes.names == tuple(ls.VARIANTS)
    assert ls.factors(with_knobs(record, z_loss=1e-2)) is None


def test_runs_of_other_recipes_go_by_the_knobs_that_vary():
    base = made().wb.where(qk_norm=True, z_loss=1e-4, warmup=ls.WARMUP, weight_decay_kind="independent")
    record = with_knobs(base, muparam=base["seed"].values == 5, seed=4)
    found = ls.recipes(record)
    assert list(found) == ["muparam false", "muparam true"] and np.sum(list(found.values()), 0).tolist() == [1] * 56
    assert ls.sensitivity(record, "muparam true").sizes == {"size": 4, "seed": 1}
    assert [line.split(":")[0] for line in ls.summary(record)[1:]] == list(found)
    for view in ls.study.views[:4]:
        view(record).to_dict()
    assert list(ls.recipes(record.wb.where(muparam=True))) == ["base recipe"]
    assert list(ls.recipes(with_knobs(record.wb.where(muparam=True), z_loss=1e-2))) == ["all runs"]


def test_shapes_of_one_size_are_averaged_and_a_diverged_one_counts():
    record = made(
        lambda recipe, n, lr, seed: 3.0 + seed, sizes=[{"width": 16, "depth": 4, "heads": 1}, {"width": 32, "depth": 1, "heads": 2}]
    )
    final = ls.cells(record, ls.final_validation_loss(record), "base recipe")
    assert final["size"].values.tolist() == [12288] and (final.sel(seed=5) == 8).all()
    broken = made(lambda recipe, n, lr, seed: np.nan if lr == 3e-1 else 3.0, sizes=ls.SIZES[:1])
    assert np.isnan(ls.cells(broken, ls.final_validation_loss(broken), "base recipe").sel(lr=3e-1)).all()


def test_the_full_design_is_the_one_of_the_issue():
    rows = ls.study.budget("full").design.rows(ls.Settings)
    assert len(rows) == 560 == 5 * 4 * 7 * 4
    assert {row["lr"] for row in rows} == {3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1}
    assert {(row["width"], row["depth"], row["heads"]) for row in rows} == {(16, 1, 1), (32, 2, 2), (48, 3, 3), (64, 4, 4)}
    assert {row["width"] // row["heads"] for row in rows} == {16}
