"""What the effects of `reduced_precision` measure, its probes against a search and by hand, and its shipped record."""

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.optimize import minimize

from workbench import noise
from workbench.design import axes, grid
from workbench.engine import plan
from workbench.probes import activation_max, logit_sharpness, overflow_share, sharpness_in_logits, underflow_share
from workbench.record import blank, fill
from workbench.schema import Progress, Schema, Slab, Variable
from workbench.sensitivity import trained_decades
from workbench.studies import reduced_precision as rp
from workbench.study import Moment, Now
from workbench.testing.case import train

STEPS, START = 100, 5.0
SEEDS = (4, 5)
TINY = dict(width=16, depth=1, context=8, batch=4)


def full_design():
    return rp.study.budget("full").design.rows(rp.Settings)


def made(loss=lambda row: 2.0, diverged=lambda row: -1, sharpness=lambda row: 0.1, rows=None):
    """A record of the full design for two seeds; each quantity is a function of the knobs, -1 where a run does not diverge."""
    rows = [row for row in rows or full_design() if row["seed"] in SEEDS]
    variables = [Variable("train_loss", 10, (), "float64", {}), Variable("logit_sharpness", 10, (), "float64", {})]
    columns = {name: dict(units=spec.units, long_name=spec.doc) for name, spec in axes(rp.Settings).items()}
    record = blank(Schema(rows, columns, variables, {}, [("train", 0)], 0, STEPS, {"start": 0, "study": "reduced_precision"}))
    runs, steps = range(len(rows)), np.arange(0, STEPS + 1, 10)
    ends = np.array([diverged(row) for row in rows])
    lost = (ends[:, None] >= 0) & (steps >= ends[:, None])
    losses = np.array([[START] + [loss(row)] * (len(steps) - 1) for row in rows])
    values = {"train_loss": losses, "logit_sharpness": np.array([[sharpness(row)] * len(steps) for row in rows])}
    fill(record, Slab(runs, 10, steps, {name: np.where(lost, np.nan, x) for name, x in values.items()}, {}))
    fill(record, Progress(runs, STEPS, ends))
    return record


def bits(row):
    return row["exponent_bits"], row["mantissa_bits"]


def test_decades_that_train_are_counted_between_the_rates():
    losses = [[3, 2, 2, 4.0], [3, np.nan, 2, 4], [2, 2, 2, 2]]
    loss = xr.DataArray(losses, dims=("seed", "lr"), coords={"lr": [0.01, 0.1, 1, 10], "seed": [0, 1, 2]})
    np.testing.assert_allclose(trained_decades(loss, 2.5), [0.5 + 1 + 0.25, np.nan, 3])
    np.testing.assert_allclose(trained_decades(loss.isel(lr=[2, 0, 3, 1]), xr.DataArray([2.0, 2.5, 1.9], dims="seed")), [1, np.nan, 0])


def test_a_band_is_measured_from_the_best_of_full_precision():
    """At 1e-2 and 3e-2 the loss is 2, elsewhere 2 + 2 MARGIN: half of each neighbouring stretch trains too."""

    def loss(row):
        worse = 0.0 if row["lr"] in (1e-2, 3e-2) else 2 * rp.MARGIN
        return 2.0 + worse + (1.0 if bits(row) == (8, 3) else 0.0)

    record = made(loss)
    ends = 0.5 * (np.log10(1e-2 / 3e-3) + np.log10(1e-1 / 3e-2))
    np.testing.assert_allclose(rp.band(record, "E8M7"), [np.log10(3) + ends] * 2)
    np.testing.assert_allclose(rp.band(record, "fp32"), rp.band(record, "E8M0"))
    assert (rp.band(record, "E8M3") == 0).all()
    np.testing.assert_allclose(rp.narrowed(record, "E8M7", "E8M3"), np.log10(3) + ends)
    assert (rp.narrowed_by_each_mantissa_bit(record, 4) < 0).all()  # E8M2 is wider than E8M3


def test_each_mantissa_bit_counts_with_the_least_it_takes_off():
    """A rate less trains with each bit less, but from 1 bit to none; between two rates a share of MARGIN / 3 of the stretch trains."""
    trains = dict(zip((23, 7, 4, 3, 2, 1, 0), (7, 7, 5, 4, 3, 2, 2), strict=True))
    record = made(lambda row: 2.0 if rp.RATES.index(row["lr"]) < trains.get(row["mantissa_bits"], 7) else START)
    assert np.allclose(rp.narrowed_by_each_mantissa_bit(record, 4), 0)
    expected = np.log10(0.1 / 0.03) + rp.MARGIN / 3 * (np.log10(0.3 / 0.1) - np.log10(0.1 / 0.03))
    np.testing.assert_allclose(rp.narrowed(record, "E8M4", "E8M3"), expected)


def test_a_diverged_run_counts_as_the_start_and_in_the_share():
    record = made(diverged=lambda row: 20 if row["exponent_bits"] == 3 and row["lr"] > 2e-2 and row["seed"] == 4 else -1)
    np.testing.assert_allclose(rp.diverged_share(record, "E3M7"), [4 / 7, 0])
    np.testing.assert_allclose(rp.more_diverge(record, "E8M7", "E3M7"), [4 / 7, 0])
    assert (rp.more_diverge(record, "E8M3", "E4M7") == 0).all()
    assert rp.narrowed_by_exponent_bits(record)[0] > 0 == rp.narrowed_by_exponent_bits(record)[1]
    assert (rp.more_diverge(record, "E8M7", "E3M7", "saturating") > 0).values.tolist() == [True, False]
    assert (rp.diverged(made(lambda row: START + 1)) == 1).all() and not rp.diverged(made()).any()


def test_an_excess_is_that_of_a_variant():
    record = made(lambda row: 2.0 + (row["exponent_bits"] == 4) * (0.5 if row["round_gradients"] == "bits" else 0.25))
    np.testing.assert_allclose(rp.excess(record, "E4M7", "E8M7", "gradients too", rp.GRADIENT_RATES), 0.5)
    assert np.isnan(rp.excess(record, "E4M7", "E8M7", "gradients too")).all()
    np.testing.assert_allclose(rp.excess(record, "E4M7", "E8M7"), 0.25)
    np.testing.assert_allclose(rp.excess(record, "E7M7", "E8M7"), 0)


def test_sharpness_before_divergence_is_that_over_the_twin_in_full_precision():
    """Tenfold before divergence at step 65 of E4M7, and in a run that is lost before its second moment, which does not count."""

    def diverged(row):
        return {4: 65, 3: 7}.get(row["exponent_bits"], -1) if row["lr"] == 1.0 and row["mantissa_bits"] == 7 else -1

    record = made(diverged=diverged, sharpness=lambda row: row["seed"] * (1.0 if bits(row) == (4, 7) else 0.1))
    np.testing.assert_allclose(rp.sharper_before(record), [1, 1])
    ratio = rp.sharpness_ratio(record)
    rows = (record["exponent_bits"] == 4) & (record["mantissa_bits"] == 7) & (record["lr"] == 1.0) & (record["round_gradients"] == "no")
    assert (ratio.isel(run=np.flatnonzero(rows)).count("step") == 7).all()
    assert np.isnan(rp.sharper_before(made())).all()


def test_formats_and_variants_are_told_apart():
    record = made()
    assert rp.formats(record).names[:7] == ("E8M23", "E8M7", "E8M4", "E8M3", "E8M2", "E8M1", "E8M0")
    assert rp.variants(record).names == tuple(rp.VARIANTS)
    with pytest.raises(KeyError):
        rp.of_format(rp.cells(record, rp.diverged(record)), "e2m1")


def test_the_summary_names_those_that_diverge_most():
    record = made(diverged=lambda row: 20 if row["exponent_bits"] == 3 and row["lr"] == 1.0 else -1)
    lines = rp.summary(record)
    assert len(lines) == 6 and lines[0].endswith("100 steps: 4 diverged.")
    assert lines[1:3] == [
        "E3M7: 2 of 14 runs diverged (at 1); lowest final loss 2.000 nats.",
        "E8M23: 0 of 14 runs diverged; lowest final loss 2.000 nats.",
    ]


@pytest.mark.parametrize(("loss", "end", "answer"), [(2.5, -1, 0), (3.0, -1, 1), (2.5, 30, 2)])
def test_the_prediction_is_settled_by_the_loss_or_by_divergence(loss, end, answer):
    assert rp.what_became(made(lambda row: loss, lambda row: end).wb.where(lr=1.0, mantissa_bits=23)) == answer


def test_sharpness_is_the_largest_rise_that_a_search_finds():
    for trial in range(4):
        key = noise.key_of(trial)
        y = 3 * noise.normal(key, "logits", (5, 6), torch.float64)
        targets = noise.randint(key, "targets", 6, (5,))
        reach, loss = 5e-4 * (y.abs() + 1), torch.nn.functional.cross_entropy(y, targets)

        def lowered(z, y=y, targets=targets):
            z = torch.tensor(z, requires_grad=True)
            value = -torch.nn.functional.cross_entropy(y + z.reshape(y.shape), targets)
            value.backward()
            return value.item(), z.grad.numpy()

        box = list(zip(-reach.flatten().numpy(), reach.flatten().numpy(), strict=True))
        found = minimize(lowered, np.zeros(y.numel()), jac=True, method="L-BFGS-B", bounds=box, options=dict(ftol=0.0, gtol=0.0))
        expected = 100 * (-found.fun - loss) / (1 + loss)
        assert sharpness_in_logits(y, targets).item() == pytest.approx(expected.item(), rel=1e-6)
        assert sharpness_in_logits(y.float(), targets).item() == pytest.approx(expected.item(), rel=1e-5)


def test_sharpness_is_at_least_that_of_any_corner_of_the_box():
    y, target = torch.tensor([[0.5, -2.0, 1.0]], dtype=torch.float64), torch.tensor([2])
    reach, loss = 0.1 * (y.abs() + 1), torch.nn.functional.cross_entropy(y, target)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    rises = [torch.nn.functional.cross_entropy(y + reach * sign, target) - loss for sign in signs]
    assert sharpness_in_logits(y, target, epsilon=0.1).item() == pytest.approx((100 * max(rises) / (1 + loss)).item(), rel=1e-12)


def test_sharpness_is_that_of_the_last_token():
    y, targets = noise.normal(noise.key_of(0), "y", (4, 3, 5)), noise.randint(noise.key_of(0), "t", 5, (4, 3))
    assert logit_sharpness(Moment(taps={"readout": y}, batch={"y": targets})) == sharpness_in_logits(y[:, 2], targets[:, 2])
    assert logit_sharpness(Moment(taps={"readout": y[:, 0]}, batch={"y": targets[:, 0]})) == sharpness_in_logits(y[:, 0], targets[:, 0])


def moment_of(**values):
    """The moment of the first step of a tiny net, and its parameters."""
    knobs, key = rp.Settings(**TINY, **values), noise.key_of(0)
    shared = rp.study.learner.prepare(knobs, key)
    state = rp.study.learner.init(key, knobs, shared)
    return rp.study.learner.step(state, rp.TEXT(knobs, key), knobs, shared, Now(torch.tensor(0.0), key, "train"))[1]


def test_ranges_count_what_is_outside_whatever_is_rounded():
    exact = moment_of(round_weights="no", round_activations="no", exponent_bits=4, mantissa_bits=7)
    sizes = torch.cat([p.abs().flatten() for p in exact.params.values()])
    assert underflow_share(exact)[0] == ((sizes < 2.0**-6) & (sizes > 0)).double().mean().float()
    assert underflow_share(exact)[2] > 0.9 and (overflow_share(exact) == 0).all()
    rounded = moment_of(exponent_bits=4, mantissa_bits=7, round_gradients="bits")
    assert torch.equal(underflow_share(exact), underflow_share(rounded))
    activations = [x for name, x in exact.taps.items() if name.split(".")[-1] in ("residual", "query", "key", "value", "hidden")]
    assert activation_max(exact) == max(x.abs().max() for x in activations)
    narrow = moment_of(round_weights="no", round_activations="no", exponent_bits=2, mantissa_bits=3)
    above = sum((x.abs() > 7.5).sum() for x in activations) / sum(x.numel() for x in activations)
    assert overflow_share(narrow)[1] == above


def test_all_bits_are_no_rounding_and_a_seventh_exponent_bit_fewer_changes_nothing():
    rows = grid(**TINY, lr=1e-2, exponent_bits=(7, 8), mantissa_bits=(7, 23)).rows(rp.Settings)
    assert len(plan(rp.study, rows, 10).cohorts) == 1
    rows += grid(**TINY, lr=1e-2, round_weights="no", round_activations="no").rows(rp.Settings)
    loss = train(rp.study, rows, 10, dtype=torch.float32, mode="loop").record.wb["train_loss"].values
    e7m7, e7m23, e8m7, e8m23, plain = loss
    assert np.array_equal(e8m23, plain) and np.array_equal(e7m23, plain)
    assert np.array_equal(e7m7, e8m7) and not np.array_equal(e8m7, plain)


def test_overflow_ends_a_run_unless_it_saturates():
    axes_of = dict(**TINY, lr=1.0, exponent_bits=3, mantissa_bits=7)
    rows = grid(**axes_of).rows(rp.Settings) + grid(**axes_of, saturate=True).rows(rp.Settings)
    trained = train(rp.study, rows, 12, dtype=torch.float32, mode="loop")
    assert 0 <= trained.diverged[0] <= 12 and trained.diverged[1] == -1


def test_the_largest_number_is_shown_where_activations_are_rounded_to_it():
    (level,) = rp.largest_number(vars(rp.Settings(exponent_bits=4, mantissa_bits=3)))
    assert level.value == 448
    assert rp.largest_number(vars(rp.Settings(round_activations="no"))) == ()


def test_the_full_design_takes_bits_away_one_at_a_time():
    rows = full_design()
    base = [row for row in rows if (row["rounding"], row["saturate"], row["round_gradients"]) == ("truncate", False, "no")]
    assert {bits(row) for row in base if row["exponent_bits"] == 8} == {(8, m) for m in (23, 7, 4, 3, 2, 1, 0)}
    assert {e for e, m in map(bits, base) if m == 7} == {8, 7, 6, 5, 4, 3}
    assert {row["seed"] for row in rows} == {4, 5, 6, 7} and {row["lr"] for row in base} == set(rp.RATES)


@pytest.mark.parametrize("view", rp.study.views, ids=lambda view: view.name)
def test_views_show_all_formats_or_some(view):
    rows = [row for row in full_design() if row["lr"] in (1e-2, 1.0)]
    record = made(diverged=lambda row: 25 if row["exponent_bits"] == 4 and row["lr"] == 1.0 else -1, rows=rows)
    for shown in (record, record.wb.where(rounding="nearest"), record.wb.where(exponent_bits=4, mantissa_bits=7, lr=1.0)):
        view(shown).to_dict()
