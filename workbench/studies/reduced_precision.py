"""Training with fewer bits.

Question.   Which learning rates and seeds still train as mantissa and exponent bits are taken away one at a time, and does the loss
            landscape say beforehand which runs will diverge?
Phenomenon. With six exponent bits nothing leaves the range. From five down each bit less lets activations overflow at a lower rate, which
            cuts off the band of rates that train from above; with four, gradients that are rounded too fall below the range. Mantissa
            bits can go, almost to the last, before anything is seen.
Try.        Start at `lr` 0.1 and drag `exponent_bits` down to 4 while it trains, then go back and drag `mantissa_bits` to 1 instead; round
            the gradients too, and switch `loss_scaling` on; let what overflows `saturate`.
Cites.      Lee et al. 2024, arXiv:2405.18710 (bits removed one at a time, rates and seeds, sharpness in the logits); Wortsman et al. 2023,
            arXiv:2309.14322 (LR sensitivity, the loss at initialization standing for a diverged run).
Differs.    No code is released. The paper masks bits of the inputs of matrix products in GPT-2 and Llama models of 120 million parameters
            and more; here all weights are rounded, and activations where the model taps them: residual stream, queries, keys, values and
            hidden layers, but not what a norm or the softmax puts out. Rounding is toward zero and without scales, as there, and to nearest
            in comparison. What exceeds the exponent range becomes infinite (in E4M3 NaN), as in conversions to nearest, and saturates in
            comparison; the paper clips the range. Subnormals are kept. Gradients of activations and parameters are rounded in a part of
            the runs only. A decoder of 32,032 parameters reads characters for 250 steps of 8 x 32, with warmup and cosine decay as in
            nanoGPT, without clipping of gradients; sums are float32. The sharpness is its closed form, not the outcome of a search.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from torch import Tensor

from ..claim import Claim
from ..design import Design, grid
from ..events import LAST_SHARE, final_loss
from ..gauge import Gauge, Level
from ..learners import Loss, Supervised
from ..models import Decoder, Transformer
from ..numerics import LossScaling, Rounding, format_of
from ..optimizers import Optimizers
from ..probes import (
    activation_max,
    applied_loss_scale,
    attention_entropy,
    attention_logit_max,
    gradient_norm_total,
    learning_rate,
    logit_sharpness,
    overflow_share,
    residual_rms,
    train_loss,
    underflow_share,
    update_skipped,
    validation_loss,
    weight_norm,
)
from ..probes.ranges import PLACES
from ..progress import counted
from ..schedules import Schedule
from ..sensitivity import trained_decades
from ..study import Budget, Event, Prediction, Preset, Study
from ..tasks import Text, TextKnobs
from ..view import view
from ..views import curves
from ..views.approach import approach
from ..views.cells import cell_map, group_intervals
from ..views.curves import initial
from ..views.layout import VARIANT, Factor
from ..views.panels import MOST_PANELS

RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
GRADIENT_RATES = (3e-3, 1e-2, 3e-2)
FULL = (8, 23)
MANTISSAS = (23, 7, 4, 3, 2, 1, 0)
EXPONENTS = (7, 6, 5, 4, 3)
FP8 = ((5, 2), (4, 3))
BASE = {"rounding": "truncate", "saturate": False, "round_gradients": "no"}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "toward zero": {},
    "to nearest": {"rounding": "nearest"},
    "saturating": {"saturate": True},
    "gradients too": {"round_gradients": "bits"},
}
STEPS = 250
WARMUP = STEPS // 20
SEEDS = range(4, 8)  # 0 to 3 were used to choose rates, steps and the margin
MARGIN = 0.2
BEFORE = 30
EVERY_WINDOW = 8
SOME_MANTISSAS = (23, 7, 3, 1, 0)


class Settings(
    Transformer,
    TextKnobs,
    Schedule,
    Optimizers,
    Rounding,
    LossScaling,
    Loss,
    defaults={
        "context": 32,
        "batch": 8,
        "heads": 2,
        "beta2": 0.95,
        "lr": 3e-2,
        "warmup": WARMUP,
        "schedule": "cosine",
        "round_weights": "bits",
        "round_activations": "bits",
        "rounding": "truncate",
    },
):
    """A small decoder, its text, its optimizer and its number format."""


TEXT = Text()


def model(knobs: Any) -> Decoder:
    """A decoder over the characters of the text."""
    return Decoder(knobs, TEXT.vocabulary(knobs))


def held_out(knobs: Any, device: Any) -> dict[str, Tensor]:
    """Every eighth window of the held-out text: x and y int64 and weight float32, each (window, context)."""
    return {name: x[::EVERY_WINDOW] for name, x in TEXT.evaluation(knobs, device).items()}


def formats(record: xr.DataTree) -> Factor:
    """The runs by their format of the two knobs, those with more exponent bits first."""
    bits = pd.DataFrame({"e": record["exponent_bits"].values, "m": record["mantissa_bits"].values})
    found = bits.drop_duplicates().sort_values(["e", "m"], ascending=False)
    place = {pair: i for i, pair in enumerate(found.itertuples(index=False, name=None))}
    codes = np.array([place[pair] for pair in bits.itertuples(index=False, name=None)])
    names = tuple(f"E{e}M{m}" for e, m in place)
    return Factor("format", names, codes, ordered=True, heads=names)


def variants(record: xr.DataTree) -> Factor:
    """The runs by how they were rounded; what is of none of the variants stands apart."""
    codes = np.full(record.sizes["run"], len(VARIANTS))
    for place, knobs in enumerate(VARIANTS.values()):
        codes[_runs_with(record, knobs)] = place
    present, codes = np.unique(codes, return_inverse=True)
    return Factor(VARIANT, tuple([*VARIANTS, "others"][place] for place in present), codes)


def _runs_with(record: xr.DataTree, knobs: Mapping[str, Any]) -> np.ndarray:
    return np.all([record[name].values == value for name, value in {**BASE, **knobs}.items()], axis=0)


def is_full(record: xr.DataTree) -> np.ndarray:
    """Which runs have all bits of float32."""
    return (record["exponent_bits"].values == FULL[0]) & (record["mantissa_bits"].values == FULL[1])


def cells(record: xr.DataTree, quantity: xr.DataArray, variant: str = "toward zero") -> xr.DataArray:
    """A number a run as (exponent_bits, mantissa_bits, lr, seed), of the runs of a variant; NaN where there is no run."""
    chosen = _runs_with(record, VARIANTS[variant])
    axes = {name: record[name].values[chosen] for name in ("exponent_bits", "mantissa_bits", "lr", "seed")}
    each = pd.Series(np.asarray(quantity.values, float)[chosen], pd.MultiIndex.from_arrays([*axes.values()], names=[*axes]))
    return each.groupby(level=[*axes]).agg(lambda values: values.mean(skipna=False)).to_xarray()


def of_format(values: xr.DataArray, name: str) -> xr.DataArray:
    """Those of a format such as E8M3; KeyError if there is none."""
    fmt = format_of(name)
    return values.sel(exponent_bits=fmt.exponent_bits, mantissa_bits=fmt.mantissa_bits, drop=True)


def diverged(record: xr.DataTree) -> xr.DataArray:
    """Over `run`, 1 for a run that diverged: a number stopped being finite, or the loss ended above that at initialization; else 0."""
    loss = record.wb["train_loss"]
    last = loss.isel(step=slice(-max(1, round(LAST_SHARE * loss.sizes["step"])), None)).mean("step", skipna=False)
    return (~(last <= loss.isel(step=0, drop=True)) | record["events"]["diverged_step"].notnull()).astype(float)


def diverged_share(record: xr.DataTree, name: str, variant: str = "toward zero") -> xr.DataArray:
    """Share of the learning rates at which a format diverges, over `seed`."""
    return of_format(cells(record, diverged(record), variant), name).mean("lr", skipna=False)


def band(record: xr.DataTree, name: str, variant: str = "toward zero") -> xr.DataArray:
    """Decades of learning rate, over `seed`, at which a format ends within MARGIN of the lowest loss of full precision."""
    best = of_format(cells(record, final_loss(record)), "fp32").min("lr")
    return trained_decades(of_format(cells(record, final_loss(record), variant), name), best + MARGIN)


def narrowed(record: xr.DataTree, more: str, fewer: str, variant: str = "toward zero") -> xr.DataArray:
    """Effect per seed, in decades: the band of one format less that of one with fewer bits."""
    return band(record, more, variant) - band(record, fewer, variant)


def narrowed_by_each_mantissa_bit(record: xr.DataTree, most: int, variant: str = "toward zero") -> xr.DataArray:
    """Effect per seed, in decades: the least that one mantissa bit takes off the band, from E8 with `most` of them to none."""
    steps = [narrowed(record, f"E8M{bits}", f"E8M{bits - 1}", variant) for bits in range(most, 0, -1)]
    return xr.concat(steps, "bit").min("bit", skipna=False)


def narrowed_by_exponent_bits(record: xr.DataTree, variant: str = "toward zero") -> xr.DataArray:
    """Effect per seed, in decades: what each of the five exponent bits from 8 to 3 takes off the band, on average.

    The variant is that of E3M7. E8M7 is taken as rounded toward zero: nothing leaves its range, so that saturating changes no bit of it.
    """
    return (band(record, "E8M7") - band(record, "E3M7", variant)) / 5


def more_diverge(record: xr.DataTree, more: str, fewer: str, variant: str = "toward zero") -> xr.DataArray:
    """Effect per seed: the share of rates at which the second format, in a variant, diverges, less that of the first toward zero."""
    return diverged_share(record, fewer, variant) - diverged_share(record, more)


def excess(record: xr.DataTree, worse: str, better: str, variant: str = "toward zero", rates: Sequence[float] = RATES) -> xr.DataArray:
    """Effect per seed, in nats: mean over learning rates of the final loss of one format less that of another."""
    loss = cells(record, final_loss(record), variant).sel(lr=list(rates))
    return (of_format(loss, worse) - of_format(loss, better)).mean("lr", skipna=False)


def sharpness_ratio(record: xr.DataTree) -> xr.DataArray:
    """Sharpness of each run over that of its twin in full precision, (run, step): same rate, seed and batches. NaN where that lacks."""
    sharpness = record.wb["logit_sharpness"].transpose("run", "step")
    twin = _runs_with(record, {}) & is_full(record)
    keys = list(zip(record["lr"].values.tolist(), record["seed"].values.tolist(), strict=True))
    full = {keys[run]: sharpness.values[run] for run in np.flatnonzero(twin)}
    return sharpness / np.array([full.get(key, np.full(sharpness.sizes["step"], np.nan)) for key in keys])


def sharper_before(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed: log10 of the sharpness ratio in the last BEFORE steps of the runs that stop being finite, mean over these.

    The moment before the first update does not count, nor do runs that have no other.
    """
    log = np.log10(sharpness_ratio(record))
    before = record["events"]["diverged_step"].values[:, None] - log["step"].values
    inside = (before > 0) & (before <= BEFORE) & (log["step"].values > 0)
    each = log.where(xr.DataArray(inside & _runs_with(record, {})[:, None], dims=("run", "step"))).mean("step")
    return each.drop_vars("run").groupby("seed").mean()


@view("train_loss")
def loss_by_format_and_rate(record: xr.DataTree) -> Any:
    """Final training loss by format and learning rate, mean over the runs that did not diverge; how many of how many did."""
    factors = [variants(record)] if len(variants(record).names) > 1 else []
    quantity = final_loss(record).assign_attrs(units="nat", long_name="final training loss")
    return cell_map(record, quantity, formats(record), "lr", factors=factors)


@view("logit_sharpness")
def sharpness_before_divergence(record: xr.DataTree) -> Any:
    """Sharpness in the logits over that of the twin in full precision, before a run stops being finite; thick the median."""
    at = record["events"]["diverged_step"].values
    title = ["sharpness in the last token's logits", "over that in full precision"]
    ratio = sharpness_ratio(record).isel(step=slice(1, None))  # before the first update it is that of rounding alone
    return approach(ratio, at, formats(record), title=title, event="divergence", within=2 * BEFORE)


@view("train_loss")
def bands(record: xr.DataTree) -> Any:
    """Decades of learning rate that end near the lowest loss of full precision, by format: mean over seeds and its 95 % interval."""
    found = {variant: found for variant in variants(record).names if (found := _bands(record, variant))}
    return group_intervals(found, [*formats(record).names], title="decades of learning rate that train", colour="rounding")


def _bands(record: xr.DataTree, variant: str) -> dict[str, np.ndarray]:
    """Of a variant that has the rates of full precision: the bands of the seeds by format, of those formats that have them all."""
    chosen = _runs_with(record, VARIANTS[variant]) if variant in VARIANTS else np.zeros(record.sizes["run"], bool)
    full = _runs_with(record, {}) & is_full(record)
    if not chosen.any() or set(record["lr"].values[chosen]) != set(record["lr"].values[full]):
        return {}
    names = formats(record)
    values = {names.names[code]: band(record, names.names[code], variant).values for code in np.unique(names.codes[chosen])}
    return {name: each for name, each in values.items() if np.isfinite(each).all()}


@view("train_loss")
def loss_of_each_run(record: xr.DataTree) -> Any:
    """Training loss of every run up to that at initialization, a panel a format; rounded toward zero where that varies."""
    shown = _shown(record)
    ceiling = np.nanmax(initial(shown.wb["train_loss"])).item()
    return curves(shown, "train_loss", factors=[formats(shown)], ceiling=ceiling, logarithmic=False)


@view("logit_sharpness")
def sharpness_of_each_run(record: xr.DataTree) -> Any:
    """Sharpness in the last token's logits against step, a panel a format; rounded toward zero where that varies."""
    shown = _shown(record)
    return curves(shown, "logit_sharpness", factors=[formats(shown)], title="sharpness in the logits")


def _toward_zero(record: xr.DataTree) -> xr.DataTree:
    """The runs rounded toward zero where the record has others too."""
    return record.wb.where(**BASE) if len(variants(record).names) > 1 and _runs_with(record, {}).any() else record


def _shown(record: xr.DataTree) -> xr.DataTree:
    """The runs rounded toward zero; of many formats those with certain numbers of mantissa bits."""
    record = _toward_zero(record)
    some = np.isin(record["mantissa_bits"].values, SOME_MANTISSAS)
    return record.wb.where(mantissa_bits=SOME_MANTISSAS) if len(formats(record).names) > MOST_PANELS and some.any() else record


def largest_number(row: Mapping[str, Any]) -> tuple[Level, ...]:
    """The largest number of the format, if activations are rounded to it: what is above overflows."""
    if row["round_activations"] != "bits":
        return ()
    largest = format_of(f"e{row['exponent_bits']}m{row['mantissa_bits']}").largest
    return (Level("largest number of the format", largest),)


def what_became(record: xr.DataTree) -> int:
    """Which of OUTCOMES came true after LATER steps: that a number is not finite counts first, else the mean loss over seeds."""
    if record["events"]["diverged_step"].notnull().any():
        return 2
    loss = record.wb["train_loss"]
    return int(loss.sel(step=slice(LATER - 10, LATER)).mean().item() > HALF_WAY)


LATER, HALF_WAY = 100, 2.8
OUTCOMES = (f"all is finite, and the loss under {HALF_WAY} nats", "all is finite, and the loss above that", "a number is no longer finite")
PREDICTIONS = (Prediction(f"What will have become of this run after {LATER} steps?", OUTCOMES, what_became, LATER),)
GAUGES = (
    Gauge("train_loss", title="training loss"),
    Gauge("activation_max", title="largest activation", levels=largest_number, logarithmic=True),
    Gauge("logit_sharpness", title="sharpness in the last token's logits"),
    Gauge("learning_rate", title="learning rate"),
    Gauge("underflow_share", "map", "share of numbers below the format's range", shown=False),
    Gauge("overflow_share", "map", "share of numbers above the format's range", shown=False),
    Gauge("attention_logit_max", title="largest attention logit", over={"layer": "max"}, logarithmic=True, shown=False),
    Gauge("applied_loss_scale", title="factor on the loss", logarithmic=True, shown=False),
)
PAIRED = "data, batches, rates and first weights"
BAND = f"decades of learning rate that end within {MARGIN} nats of the lowest loss of full precision"
CLAIMS = (
    Claim(
        "fp8-and-back",
        f"E8M3 trains over a narrower band of rates than E8M7 ({BAND})",
        partial(narrowed, more="E8M7", fewer="E8M3"),
        threshold=0.0,
        threshold_source="any narrowing; the paper shows a heat map",
        paired=PAIRED,
        units="decade",
    ),
    Claim(
        "fp8-and-back",
        f"Each mantissa bit removed from E8M4 to E8M0 narrows the band (the least of the four narrowings; {BAND})",
        partial(narrowed_by_each_mantissa_bit, most=4),
        threshold=0.0,
        threshold_source="any narrowing",
        paired=PAIRED,
        units="decade",
    ),
    Claim(
        "fp8-and-back",
        f"Rounded to nearest, each mantissa bit removed from E8M3 to E8M0 narrows the band (the least of the three narrowings; {BAND})",
        partial(narrowed_by_each_mantissa_bit, most=3, variant="to nearest"),
        threshold=0.0,
        threshold_source="any narrowing; the paper truncates",
        paired=PAIRED,
        units="decade",
    ),
    Claim(
        "fp8-and-back",
        "Removing mantissa bits from E8M7 to E8M0 raises the share of rates at which a run diverges",
        partial(more_diverge, more="E8M7", fewer="E8M0"),
        threshold=0.0,
        threshold_source="any rise",
        paired=PAIRED,
    ),
    Claim(
        "fp8-and-back",
        "E7M7 ends with a higher loss than E8M7 (mean over rates)",
        partial(excess, worse="E7M7", better="E8M7"),
        threshold=0.0,
        threshold_source="any excess; in the paper E7M7 fails to train",
        paired=PAIRED,
        units="nat",
    ),
    Claim(
        "fp8-and-back",
        f"Removing exponent bits from E8M7 to E3M7 narrows the band (mean of the five narrowings; {BAND})",
        narrowed_by_exponent_bits,
        threshold=0.0,
        threshold_source="any narrowing",
        paired=PAIRED,
        units="decade",
    ),
    Claim(
        "fp8-and-back",
        "Removing exponent bits from E8M7 to E3M7 raises the share of rates at which a run diverges",
        partial(more_diverge, more="E8M7", fewer="E3M7"),
        threshold=0.0,
        threshold_source="any rise",
        paired=PAIRED,
    ),
    Claim(
        "fp8-and-back",
        f"Where overflow saturates, removing exponent bits from E8M7 to E3M7 narrows the band (mean of the five narrowings; {BAND})",
        partial(narrowed_by_exponent_bits, variant="saturating"),
        threshold=0.0,
        threshold_source="any narrowing; the paper clips the range",
        paired=PAIRED,
        units="decade",
    ),
    Claim(
        "fp8-and-back",
        "Where overflow saturates, removing exponent bits from E8M7 to E3M7 raises the share of rates at which a run diverges",
        partial(more_diverge, more="E8M7", fewer="E3M7", variant="saturating"),
        threshold=0.0,
        threshold_source="any rise; the paper clips the range",
        paired=PAIRED,
    ),
    Claim(
        "fp8-and-back",
        "Of two formats of 12 bits the one with fewer exponent bits, E4M7, diverges at more rates than E8M3",
        partial(more_diverge, more="E8M3", fewer="E4M7"),
        threshold=0.0,
        threshold_source="any difference; the paper finds exponent bits far more important",
        paired=PAIRED,
    ),
    Claim(
        "fp8-and-back",
        f"With gradients rounded too, E8M3 trains over a narrower band of rates than E8M7 ({BAND})",
        partial(narrowed, more="E8M7", fewer="E8M3", variant="gradients too"),
        threshold=0.0,
        threshold_source="any narrowing",
        paired=PAIRED,
        units="decade",
    ),
    Claim(
        "fp8-and-back",
        "With gradients rounded too, E4M7 ends with a higher loss than E8M7 (mean over the rates from 3e-3 to 3e-2)",
        partial(excess, worse="E4M7", better="E8M7", variant="gradients too", rates=GRADIENT_RATES),
        threshold=0.0,
        threshold_source="any excess",
        paired=PAIRED,
        units="nat",
    ),
    Claim(
        "fp8-and-back",
        f"In the last {BEFORE} steps before a run stops being finite its logits are sharper than in full precision (log10 of the ratio)",
        sharper_before,
        threshold=0.0,
        threshold_source="any difference",
        paired=PAIRED,
    ),
)


def summary(record: xr.DataTree) -> list[str]:
    """Six lines at most: how many runs diverged, and of the formats that diverge most, rounded toward zero, at which rates."""
    runs = counted(record.sizes["run"], "run")
    total, record = int(diverged(record).sum()), _toward_zero(record)
    lost, loss, names = diverged(record).values, final_loss(record).values, formats(record)
    lines = [f"{runs} of {counted(record.attrs['steps'], 'step')}: {total} diverged."]
    order = np.argsort([-lost[names.codes == code].mean() for code in range(len(names.names))], kind="stable")
    for code in order[:MOST_LINES]:
        here = names.codes == code
        rates = sorted(set(record["lr"].values[here & (lost > 0)].tolist()))
        at = f" (at {', '.join(f'{rate:g}' for rate in rates)})" if rates else ""
        count = f"{int(lost[here].sum())} of {counted(int(here.sum()), 'run')} diverged{at}"
        lines.append(f"{names.names[code]}: {count}; lowest final loss {loss[here].min():.3f} nats.")
    return lines


MOST_LINES = 5


def _full_design() -> Design:
    axes = dict(lr=RATES, seed=SEEDS)
    base = grid(mantissa_bits=MANTISSAS, **axes) + grid(exponent_bits=EXPONENTS, mantissa_bits=7, **axes)
    for exponent_bits, mantissa_bits in FP8:
        base += grid(exponent_bits=exponent_bits, mantissa_bits=mantissa_bits, **axes)
    nearest = grid(mantissa_bits=(3, 2, 1, 0), rounding="nearest", **axes)
    saturating = grid(exponent_bits=(5, 4, 3), mantissa_bits=7, saturate=True, **axes)
    gradients = grid(mantissa_bits=(7, 3), round_gradients="bits", **axes)
    gradients += grid(exponent_bits=(6, 5, 4), mantissa_bits=7, round_gradients="bits", lr=GRADIENT_RATES, seed=SEEDS)
    return base + nearest + saturating + gradients


def _demo_design() -> Design:
    axes = dict(lr=(3e-3, 3e-2, 3e-1), seed=range(4))
    return grid(mantissa_bits=(23, 3, 0), **axes) + grid(exponent_bits=(5, 4, 3), mantissa_bits=7, **axes)


def _smoke_design() -> Design:
    axes = dict(lr=(1e-2, 1.0), width=16, depth=1, batch=4)
    return grid(mantissa_bits=23, **axes) + grid(exponent_bits=3, mantissa_bits=7, **axes)


study = Study(
    __name__,
    title="Training with fewer bits",
    knobs=Settings,
    task=TEXT,
    learner=Supervised(model, evaluation=held_out),
    probes=(train_loss, activation_max, logit_sharpness.on_clock(1), learning_rate),
    optional_probes=(
        underflow_share,
        overflow_share,
        attention_logit_max,
        attention_entropy,
        applied_loss_scale,
        update_skipped,
        residual_rms,
        gradient_norm_total,
        weight_norm,
        validation_loss,
    ),
    coords=lambda knobs: dict(layer=range(knobs.depth), head=range(knobs.heads), place=PLACES),
    budgets={
        "smoke": Budget(_smoke_design(), 30),
        "demo": Budget(_demo_design(), 150),
        "full": Budget(
            _full_design(),
            STEPS,
            probes=("underflow_share", "overflow_share"),
            clocks={"train_loss": 10, "logit_sharpness": 10, "activation_max": 100, "learning_rate": 100},
        ),
    },
    presets=(
        Preset("fp32", {"lr": 3e-2}, "All bits: what the others are compared with."),
        Preset("E8M3 at a high rate", {"lr": 1e-1, "mantissa_bits": 3}, "Three mantissa bits, rounded toward zero: hardly a difference."),
        Preset(
            "exponent bits removed",
            {"lr": 1e-1, "exponent_bits": 4, "mantissa_bits": 7},
            "Activations pass the largest number of the format within some thirty steps, and all is lost.",
        ),
        Preset(
            "exponent bits removed, saturating",
            {"lr": 1e-1, "exponent_bits": 4, "mantissa_bits": 7, "saturate": True},
            "The same, but what is too large becomes the largest number: the run goes on.",
        ),
        Preset(
            "FP8 with its gradients",
            {"lr": 1e-2, "exponent_bits": 4, "mantissa_bits": 3, "round_gradients": "bits"},
            "Gradients of activations are below the format's range, and the loss stalls.",
        ),
        Preset(
            "FP8 with its gradients, scaled",
            {
                "lr": 1e-2,
                "exponent_bits": 4,
                "mantissa_bits": 3,
                "round_gradients": "bits",
                "loss_scaling": "static",
                "loss_scale": 256.0,
            },
            "The loss is multiplied before the backward pass, which lifts the gradients into the range.",
        ),
    ),
    events=(Event("final_loss", final_loss, "nat", "mean training loss over the last tenth, at most the initial loss"),),
    views=(loss_by_format_and_rate, bands, sharpness_before_divergence, sharpness_of_each_run, loss_of_each_run),
    gauges=GAUGES,
    predictions=PREDICTIONS,
    claims=CLAIMS,
    summary=summary,
)
