"""Sensitivity to the learning rate.

Question.   Which learning rates can small transformers stand, which part of the recipe widens that range, and does a larger net narrow it?
Phenomenon. Without QK-norm attention logits grow with rate and size, and the loss at high rates ends ever further above the best one.
Try.        Set `lr` to 0.1 and switch `qk_norm` off; then compare the width 16 with 64 at the same rate.
Cites.      Wortsman et al. 2023, arXiv:2309.14322 (recipe, rates, sensitivity, scaling of logits and gradients); Yang et al. 2022,
            arXiv:2203.03466 (muParam).
Differs.    Characters of State of the Union speeches, nets of 3,000 to 200,000 parameters, and 500 steps of 8 x 32 characters stand for
            C4, 2 million to 5 billion and 100,000 steps of 256 x 512 tokens. Positions are learned, not rotations; the rate decays to 0,
            not to 1e-5; float32, not bfloat16. The size is the number of weights in the matrices of the blocks.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from torch import Tensor

from ..claim import Claim
from ..design import Design, grid
from ..gauge import Gauge, Level
from ..learners import Loss, Supervised
from ..models import Decoder, Transformer
from ..numerics import Rounding
from ..optimizers import Optimizers
from ..probes import (
    attention_entropy,
    attention_logit_max,
    attention_map,
    critical_sharpness,
    effective_step,
    gradient_norm,
    gradient_norm_total,
    gradient_rms,
    hessian_top_eigenvalue,
    learning_rate,
    log_z,
    mlp_gradient_rms,
    residual_rms,
    spectral_norm,
    train_loss,
    update_rms,
    validation_accuracy,
    validation_loss,
    weight_norm,
)
from ..progress import counted
from ..schedules import Schedule
from ..sensitivity import exponent, extrapolated, lr_sensitivity, slope
from ..study import Budget, Event, Prediction, Preset, Published, Study
from ..tasks import Text, TextKnobs
from ..view import view
from ..views import curves, intervals, sweep
from ..views.layout import VARIANT, Factor
from ..views.theme import number, word

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
SIZES = ({"width": 16, "depth": 1, "heads": 1}, {"width": 32, "depth": 2, "heads": 2}, {"width": 48, "depth": 3, "heads": 3})
SIZES += ({"width": 64, "depth": 4, "heads": 4},)
STEPS = 500
WARMUP = STEPS // 20
BASE = {"qk_norm": True, "z_loss": 1e-4, "warmup": WARMUP, "weight_decay": 1e-4, "weight_decay_kind": "independent"}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "base recipe": {},
    "no QK-norm": {"qk_norm": False},
    "no z-loss": {"z_loss": 0.0},
    "no warmup": {"warmup": 0},
    "coupled decay": {"weight_decay": 0.1, "weight_decay_kind": "coupled"},
}
SEEDS = range(4, 8)  # 0 to 3 were used to choose sizes and steps
OF_SIZE = ("width", "depth", "heads")
EVERY_WINDOW = 8
PREDICTED_AT = 1e-2
LINE, PARABOLA = 1, 2  # degrees of a law in logarithms; the paper fits a parabola
WELL_TRAINED = 3e-3
SLOW = {"train_loss": 10, "learning_rate": 100, "attention_logit_max": 100, "mlp_gradient_rms": 100}


class Settings(
    Transformer,
    TextKnobs,
    Schedule,
    Optimizers,
    Rounding,
    Loss,
    defaults={"context": 32, "batch": 8, "beta2": 0.95, "clip": 1.0, "schedule": "cosine", "heads": 2, **BASE},
):
    """A small decoder, its text and the recipe of Wortsman et al."""


TEXT = Text()


def held_out(knobs: Any, device: Any) -> dict[str, Tensor]:
    """Every eighth window of the held-out text: x and y int64 and weight float32, each (window, context)."""
    return {name: x[::EVERY_WINDOW] for name, x in TEXT.evaluation(knobs, device).items()}


def size(record: xr.DataTree) -> xr.DataArray:
    """Weights in the matrices of the blocks, over `run`: 12 width^2 depth, without embedding and readout as in the paper."""
    return 12 * record["width"] ** 2 * record["depth"]


def final_validation_loss(record: xr.DataTree) -> xr.DataArray:
    """Validation loss after the last update, over `run`; NaN for a diverged run."""
    return record.wb["validation_loss"].isel(step=-1, drop=True)


def largest_logit(record: xr.DataTree) -> xr.DataArray:
    """The largest attention logit of any layer at the last step, over `run`."""
    return record.wb["attention_logit_max"].isel(step=-1, drop=True).max("layer")


def first_gradient_rms(record: xr.DataTree) -> xr.DataArray:
    """RMS of the gradient of the first feed-forward matrix of block 0 at the last step, over `run`."""
    return record.wb["mlp_gradient_rms"].isel(step=-1, drop=True).sel(layer=0)


def recipes(record: xr.DataTree) -> dict[str, np.ndarray]:
    """Which runs are of each recipe. Where some are of none of ours: which are of each setting of the knobs that vary beside rate and size.

    A recipe's warmup may be of any length but 0.
    """
    wanted = {name: BASE | knobs for name, knobs in VARIANTS.items()}
    others = [name for name in record.wb.varied if name not in ("lr", "seed", *OF_SIZE)]
    found = {name: _runs_with(record, knobs) for name, knobs in wanted.items()}
    if set(others) <= set(BASE) and np.any(list(found.values()), axis=0).all():
        return {name: runs for name, runs in found.items() if runs.any()}
    settings = np.array([", ".join(f"{name} {word(record[name].values[run])}" for name in others) for run in range(record.sizes["run"])])
    return {str(name) or "all runs": settings == name for name in dict.fromkeys(settings.tolist())}


def _runs_with(record: xr.DataTree, knobs: Mapping[str, Any]) -> np.ndarray:
    matches = {name: record[name].values == value for name, value in knobs.items() if name != "warmup"}
    return np.all([*matches.values(), (record["warmup"].values > 0) == (knobs["warmup"] > 0)], axis=0)


def cells(record: xr.DataTree, quantity: xr.DataArray, recipe: str) -> xr.DataArray:
    """A number per run as (size, lr, seed), of the runs of a recipe; the mean where shapes are of the same size."""
    chosen = recipes(record).get(recipe, np.zeros(record.sizes["run"], bool))
    axes = {"size": size(record).values[chosen], "lr": record["lr"].values[chosen], "seed": record["seed"].values[chosen]}
    each = pd.Series(quantity.values[chosen], pd.MultiIndex.from_arrays([*axes.values()], names=[*axes]))
    found = each.groupby(level=[*axes]).agg(lambda values: values.mean(skipna=False)).to_xarray()
    found["size"].attrs["long_name"] = "weights in the matrices of the blocks"
    return found


def sensitivity(record: xr.DataTree, recipe: str, lowest: float = RATES[0]) -> xr.DataArray:
    """LR sensitivity in nats over (size, seed), by the definition of the paper; from another lowest rate where that is given."""
    initial = cells(record, record.wb["validation_loss"].isel(step=0, drop=True), recipe).isel(lr=0, drop=True)
    final = cells(record, final_validation_loss(record), recipe)
    return lr_sensitivity(final, initial, lowest).assign_coords(size=final["size"])


def growth(values: xr.DataArray) -> xr.DataArray:
    """Slope of `values` (size, seed) over log10 of the size, over `seed`."""
    return slope(values, np.log10(values["size"]), "size")


def saved_by(record: xr.DataTree, without: str) -> xr.DataArray:
    """Effect per seed, in nats: sensitivity of the largest net without a part of the recipe, minus that with all of it."""
    return (sensitivity(record, without) - sensitivity(record, "base recipe")).isel(size=-1, drop=True)


def logits(record: xr.DataTree) -> xr.DataArray:
    """Largest attention logits without QK-norm over (size, seed), at the rate where they are predicted."""
    return cells(record, largest_logit(record), "no QK-norm").sel(lr=PREDICTED_AT, drop=True)


def law_of_smaller(values: xr.DataArray, degree: int) -> xr.DataArray:
    """What the polynomial in logarithms through all sizes but the largest says at every size, over `size` and what else `values` has."""
    return extrapolated(values.isel(size=slice(None, -1)), "size", values["size"], degree)


def misprediction(record: xr.DataTree, degree: int) -> xr.DataArray:
    """Effect per seed: the decades between the predicted and the measured logit of the largest net."""
    found = logits(record)
    return abs(np.log10(law_of_smaller(found, degree) / found)).isel(size=-1, drop=True)


def logit_growth(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed: exponent of the power law of the largest logit over size, without QK-norm."""
    return exponent(logits(record), "size")


def gradient_over_size(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed: exponent of the gradient's RMS over size at the rate 0.1, base recipe."""
    return exponent(cells(record, first_gradient_rms(record), "base recipe").sel(lr=1e-1, drop=True), "size")


def gradient_over_rate(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed: exponent of the gradient's RMS over the rate in the largest net, base recipe."""
    return exponent(cells(record, first_gradient_rms(record), "base recipe").isel(size=-1, drop=True), "lr")


def growth_without_qk_norm(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed, in nats per decade of size."""
    return growth(sensitivity(record, "no QK-norm"))


def growth_at_high_rates_without_qk_norm(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed, in nats per decade of size, over the rates at which every size is trained to its end."""
    return growth(sensitivity(record, "no QK-norm", lowest=WELL_TRAINED))


def growth_of_base(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed, in nats per decade of size."""
    return growth(sensitivity(record, "base recipe"))


def factors(record: xr.DataTree) -> list[Factor] | None:
    """Sizes and recipes as what colours and panels of a chart tell apart; None where runs are of none of the recipes."""
    found = recipes(record)
    if not set(found) <= set(VARIANTS):
        return None
    sizes, codes = np.unique(size(record).values, return_inverse=True)
    weights = Factor("weights", tuple(f"{n:,}" for n in sizes), codes, ordered=True)
    return [weights, Factor(VARIANT, tuple(found), np.array(list(found.values())).argmax(0))]


@view("validation_loss")
def validation_loss_against_lr(record: xr.DataTree) -> Any:
    """Validation loss at the end against the learning rate, a colour a size; diverged runs at the upper edge, rings round the lowest."""
    start = record.wb["validation_loss"].isel(step=0).values
    references = {"loss at initialization": start}
    return sweep(record, "validation_loss", factors=factors(record), references=references, ceiling=float(np.nanmax(start)))


@view("validation_loss")
def sensitivity_against_size(record: xr.DataTree) -> Any:
    """LR sensitivity against size, with the base recipe and with one part of it removed: mean over seeds and its 95 % interval."""
    found = {name: sensitivity(record, name) for name in recipes(record)}
    return intervals(found, title="LR sensitivity [nat]", colour="recipe")


@view("attention_logit_max")
def logit_scaling(record: xr.DataTree) -> Any:
    """Largest attention logit at the end, without QK-norm where that varies; dashed the parabola of the smaller nets and what it says."""
    names = list(recipes(record))
    shown = "no QK-norm" if "no QK-norm" in names else names[0]
    found = cells(record, largest_logit(record), shown)
    groups = {number(rate): found.sel(lr=rate, drop=True) for rate in found["lr"].values}
    enough = found.sizes["size"] > PARABOLA + 1
    laws = {name: 10 ** np.log10(law_of_smaller(values, PARABOLA)).mean("seed") for name, values in groups.items()} if enough else {}
    return intervals(groups, title=f"largest attention logit, {shown}", colour="lr", in_order=True, fits=laws, logarithmic=True)


@view("train_loss")
def loss_of_each_run(record: xr.DataTree) -> Any:
    """Training loss of every run against step: a row a size, a column a recipe."""
    return curves(record, "train_loss", factors=factors(record))


@view("mlp_gradient_rms")
def gradient_against_lr(record: xr.DataTree) -> Any:
    """RMS of the gradient of the first feed-forward matrix at the end, against the learning rate, beside Adam's epsilon."""
    references = {"Adam's epsilon": record["epsilon"].values}
    return sweep(record, first_gradient_rms(record), factors=factors(record), references=references, rings=False)


def summary(record: xr.DataTree) -> list[str]:
    """Six lines at most: sensitivity of each variant by size, and how many runs diverged."""
    lost = int(record["events"]["diverged_step"].count())
    total = f"{counted(record.sizes['run'], 'run')} of {counted(record.attrs['steps'], 'step')}: {lost} diverged."
    several = [name for name, runs in recipes(record).items() if len(set(record["lr"].values[runs])) > 1]
    if not several:
        return [f"{total} There is a single learning rate, and sensitivity compares several."]
    lines = [f"{total} LR sensitivity in nats, mean over seeds:"]
    for name in several:
        found = sensitivity(record, name).mean("seed")
        lines.append(
            f"{name}: " + ", ".join(f"{value:.3f} at {int(n):,} weights" for n, value in zip(found["size"], found, strict=True)) + "."
        )
    return lines


def epsilon(row: Mapping[str, Any]) -> tuple[Level, ...]:
    """Adam's epsilon, under which gradients are damped instead of normalized."""
    return (Level("Adam's epsilon", row["epsilon"], "under"),)


def logit_reached(record: xr.DataTree) -> int:
    """Which of LOGITS came true: the largest logit of any layer after LATER steps, mean over seeds; a diverged run has the largest."""
    found = record.wb["attention_logit_max"].sel(step=LATER, method="nearest").max("layer").fillna(np.inf).mean().item()
    return int(np.searchsorted(CUTS, found))


LATER, CUTS = 100, (30.0, 300.0)
LOGITS = ("below 30", "30 to 300", "above 300")
PREDICTIONS = (Prediction(f"How large will the largest attention logit be after {LATER} steps?", LOGITS, logit_reached, LATER),)
GAUGES = (
    Gauge("train_loss", title="training loss"),
    Gauge("attention_logit_max", title="largest attention logit", over={"layer": "max"}, logarithmic=True),
    Gauge("log_z", title="log Z of the output softmax"),
    Gauge("attention_entropy", "map", "attention entropy of each head", shown=False),
    Gauge("attention_map", "picture", "attention of one sequence"),
    Gauge("learning_rate", title="learning rate"),
    Gauge("mlp_gradient_rms", title="gradient RMS, feed-forward matrices", levels=epsilon, logarithmic=True, shown=False),
    Gauge("validation_loss", title="validation loss", shown=False),
)
WORTSMAN = "arXiv:2309.14322"
PUBLISHED = (
    Published("attention_logit_max", 1e3, "this size costs loss", WORTSMAN),
    Published("attention_logit_max", 1e4, "larger ones diverged", WORTSMAN),
)
PAIRED = "data, batches, rates and first weights"
CLAIMS = (
    Claim(
        "small-scale-proxies",
        "Without QK-norm LR sensitivity grows with size (per decade, over the paper's rates 3e-4 to 3e-1)",
        growth_without_qk_norm,
        threshold=0.0,
        threshold_source="any growth",
        paired=PAIRED,
        units="nat",
    ),
    Claim(
        "small-scale-proxies",
        "Without QK-norm LR sensitivity grows with size over the rates that train all sizes to their end (per decade, 3e-3 to 3e-1)",
        growth_at_high_rates_without_qk_norm,
        threshold=0.0,
        threshold_source="any growth",
        paired=PAIRED,
        units="nat",
    ),
    Claim(
        "small-scale-proxies",
        "With QK-norm LR sensitivity still grows with size (per decade, over the paper's rates)",
        growth_of_base,
        threshold=0.0,
        threshold_source="any growth",
        paired=PAIRED,
        units="nat",
    ),
    Claim(
        "small-scale-proxies",
        "QK-norm lowers the LR sensitivity of the largest net",
        partial(saved_by, without="no QK-norm"),
        threshold=0.0,
        threshold_source="any reduction",
        paired=PAIRED,
        units="nat",
    ),
    Claim(
        "small-scale-proxies",
        "z-loss lowers the LR sensitivity of the largest net",
        partial(saved_by, without="no z-loss"),
        threshold=0.0,
        threshold_source="any reduction",
        paired=PAIRED,
        units="nat",
    ),
    Claim(
        "small-scale-proxies",
        "Warmup lowers the LR sensitivity of the largest net",
        partial(saved_by, without="no warmup"),
        threshold=0.0,
        threshold_source="any reduction",
        paired=f"{PAIRED}; {WARMUP} steps of warmup against none",
        units="nat",
    ),
    Claim(
        "small-scale-proxies",
        "Independent weight decay lowers the LR sensitivity of the largest net, compared with coupled decay",
        partial(saved_by, without="coupled decay"),
        threshold=0.0,
        threshold_source="any reduction",
        paired=f"{PAIRED}; 1e-4 independent against 0.1 coupled",
        units="nat",
    ),
    Claim(
        "small-scale-proxies",
        "Without QK-norm the largest attention logit grows with size as a power (exponent, at the rate 0.01)",
        logit_growth,
        threshold=0.0,
        threshold_source="any growth",
        paired=PAIRED,
    ),
    Claim(
        "small-scale-proxies",
        "A parabola through the smaller nets predicts the largest net's attention logit to a factor of 2 (decades, at the rate 0.01)",
        partial(misprediction, degree=PARABOLA),
        threshold=float(np.log10(2)),
        threshold_source="our choice; the paper shows a prediction and names no error",
        paired=PAIRED,
        above=False,
    ),
    Claim(
        "small-scale-proxies",
        "A power law through the smaller nets predicts the largest net's attention logit to a factor of 2 (decades, at the rate 0.01)",
        partial(misprediction, degree=LINE),
        threshold=float(np.log10(2)),
        threshold_source="our choice; the paper shows a prediction and names no error",
        paired=PAIRED,
        above=False,
    ),
    Claim(
        "small-scale-proxies",
        "The gradient's RMS in the first feed-forward matrix falls with size (exponent, at the rate 0.1)",
        gradient_over_size,
        threshold=0.0,
        threshold_source="any fall",
        paired=PAIRED,
        above=False,
    ),
    Claim(
        "small-scale-proxies",
        "The gradient's RMS in the first feed-forward matrix falls with the learning rate (exponent, largest net)",
        gradient_over_rate,
        threshold=0.0,
        threshold_source="any fall",
        paired=PAIRED,
        above=False,
    ),
)


def _design(sizes: Sequence[Mapping[str, int]], variants: Sequence[str], **axes: Any) -> Design:
    return _sum(grid(**(axes | size | VARIANTS[name])) for name in variants for size in sizes)


def _shapes() -> Design:
    """Width at one depth, with and without muParam, and depth at one width, all with the base recipe."""
    axes = dict(lr=RATES, seed=SEEDS, base_width=16)
    wide = [grid(width=w, depth=2, heads=w // 16, muparam=m, **axes) for m in (False, True) for w in (16, 32, 64)]
    return _sum([*wide, *(grid(width=32, depth=depth, heads=2, **axes) for depth in (1, 4))])


def _sum(designs: Iterable[Design]) -> Design:
    return Design(tuple(each for design in designs for each in design.grids))


study = Study(
    __name__,
    title="Sensitivity to the learning rate",
    knobs=Settings,
    task=TEXT,
    learner=Supervised(lambda knobs: Decoder(knobs, TEXT.vocabulary(knobs)), evaluation=held_out),
    probes=(train_loss, learning_rate, validation_loss, attention_logit_max, log_z, mlp_gradient_rms.on_clock(10)),
    optional_probes=(
        attention_entropy,
        attention_map,
        validation_accuracy,
        residual_rms,
        spectral_norm,
        gradient_norm,
        gradient_norm_total,
        gradient_rms,
        update_rms,
        weight_norm,
        effective_step,
        hessian_top_eigenvalue,
        critical_sharpness,
    ),
    coords=lambda knobs: dict(layer=range(knobs.depth), head=range(knobs.heads), y=range(knobs.context), x=range(knobs.context)),
    budgets={
        "smoke": Budget(_design(SIZES[:1], ("base recipe", "no QK-norm"), lr=(3e-3, 1e-1), seed=(0,), batch=4, context=16), 20),
        "demo": Budget(_design(SIZES[:2], ("base recipe", "no QK-norm"), lr=RATES, seed=range(2), warmup=10), 200),
        "full": Budget(
            _design(SIZES, tuple(VARIANTS), lr=RATES, seed=SEEDS),
            STEPS,
            clocks=SLOW,
        ),
        "shapes": Budget(_shapes(), STEPS, clocks=SLOW),
    },
    presets=(
        Preset("a high rate without QK-norm", {"lr": 1e-1, "qk_norm": False}, "Attention logits run into the thousands, the loss stalls."),
        Preset("a high rate with QK-norm", {"lr": 1e-1}, "The same rate with the base recipe: the logits stay below a hundred."),
        Preset("no warmup", {"lr": 1e-1, "warmup": 0}, "The full rate from the first step on."),
        Preset("coupled decay", {"lr": 3e-2, **VARIANTS["coupled decay"]}, "Decay in proportion to the rate, as AdamW has it."),
    ),
    events=(
        Event("final_validation_loss", final_validation_loss, "nat", "validation loss after the last update (NaN: diverged)"),
        Event("largest_logit", largest_logit, "1", "largest attention logit of any layer at the last step (NaN: diverged)"),
    ),
    views=(validation_loss_against_lr, sensitivity_against_size, logit_scaling, gradient_against_lr, loss_of_each_run),
    gauges=GAUGES,
    predictions=PREDICTIONS,
    published=PUBLISHED,
    claims=CLAIMS,
    summary=summary,
)
