"""Attention entropy collapse.

Question.   Does a large learning rate drive the entropy of attention to zero, and is that what spoils training?
Phenomenon. Attention logits grow, each query ends up looking at a single key, and the loss stalls, oscillates or diverges.
Try.        Raise `lr` from 0.003 to 0.1 and watch `attention_entropy`; then switch `qk_norm` or `sigma_reparam` on, or give the
            net some `warmup`.
Cites.      Zhai et al. 2023, arXiv:2303.06296 (sigmaReparam, the entropy bound); Wortsman et al. 2023, arXiv:2309.14322 (QK-norm,
            the learning rates, the loss at initialization standing for a diverged run).
Differs.    Characters of State of the Union speeches and Fashion-MNIST stand for the papers' tasks, with nets of some 30,000
            parameters. sigmaReparam is applied to every linear layer while the norms stay; the authors' vision recipe also removes
            them (here `norm_placement`). Its gain starts at the spectral norm, as in their released vision code, not at 1, as in the
            paper's text (here `sigma_init`). No run diverges at this size: where entropy collapses the loss stalls high instead. At
            the top rate, 0.3, entropy reaches the floor with sigmaReparam in most runs (with QK-norm in few or none, as the last bits
            fall), yet sigmaReparam's loss stays low: low entropy alone does not spoil training. See docs/entropy_collapse.md.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import xarray as xr
from torch import nn

from ..claim import Claim
from ..design import grid
from ..events import final_loss, first_step, loss_exceeded_step
from ..gauge import Gauge, Level
from ..knobs import knob
from ..learners import Loss, Supervised
from ..models import Decoder, Patches, Transformer, VisionTransformer
from ..numerics import Rounding
from ..optimizers import Optimizers
from ..probes import (
    attention_entropy,
    attention_entropy_bound,
    attention_logit_max,
    attention_map,
    critical_sharpness,
    effective_step,
    gradient_norm,
    gradient_norm_total,
    hessian_top_eigenvalue,
    learning_rate,
    log_z,
    residual_rms,
    spectral_entropy_bound,
    spectral_norm,
    train_loss,
    update_norm,
    validation_accuracy,
    validation_loss,
    weight_norm,
)
from ..progress import counted
from ..schedules import Schedule
from ..study import Budget, Event, Prediction, Preset, Published, Study
from ..tasks import ImageKnobs, Images, Text, TextKnobs, choose
from ..view import view
from ..views import entropy, entropy_map, event_shares, final_loss_against_lr, loss_curves
from ..views import uniform_entropy as entropy_of_uniform

FLOOR = 0.1
FLOOR_SOURCE = "our definition of collapse, a tenth of the entropy of uniform attention; the paper names no number"
VARIANTS = {"plain": {}, "QK-norm": {"qk_norm": True}, "sigmaReparam": {"sigma_reparam": True}}
RATES = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
WARM_RATES = (3e-2, 1e-1, 3e-1)
WARMUP = 100


class Settings(
    Transformer, Patches, TextKnobs, ImageKnobs, Schedule, Optimizers, Rounding, Loss, defaults={"beta2": 0.95, "context": 32, "batch": 16}
):
    """A small transformer, its task, its optimizer and its number format. Adam's beta2 is that of Wortsman et al."""

    data: Literal["text", "images"] = knob("text", doc="what is learned: the next character, or the class of a picture", group="data")


TASK = choose("data", text=Text(), images=Images())


def model(knobs: Any) -> nn.Module:
    """A decoder for text, a vision transformer for images, made of the same blocks."""
    if knobs.data == "text":
        return Decoder(knobs, Text().vocabulary(knobs))
    return VisionTransformer(knobs, Images().classes(knobs))


def tokens(data: str, context: int, patch: int) -> int:
    """How many tokens a sequence has: its characters, or the patches of a picture of 28 x 28."""
    return context if data == "text" else (28 // patch) ** 2


def coords(knobs: Any) -> dict[str, range]:
    """Labels of layers, heads, and rows and columns of attention."""
    seen = range(tokens(knobs.data, knobs.context, knobs.patch))
    return dict(layer=range(knobs.depth), head=range(knobs.heads), y=seen, x=seen)


def uniform(row: Mapping[str, Any]) -> float:
    """Entropy in nats, under these knobs, of attention that weighs all keys alike, averaged over rows like the measured one."""
    return entropy_of_uniform(tokens(row["data"], row["context"], row["patch"]), causal=row["data"] == "text")


def uniform_entropy(record: xr.DataTree) -> xr.DataArray:
    """The entropy of uniform attention over `run`, in nats."""
    names = ("data", "context", "patch")
    rows = zip(*(record[name].values.tolist() for name in names), strict=True)
    return xr.DataArray([uniform(dict(zip(names, row, strict=True))) for row in rows], dims="run")


def lowest_share(record: xr.DataTree) -> xr.DataArray:
    """Over `run`: the lowest entropy a layer (mean over heads) ever had, as a share of uniform attention's; 0 for a diverged run."""
    share = smallest_layer(record).min("step") / uniform_entropy(record)
    return share.where(record["events"]["diverged_step"].isnull().values, 0.0)


def smallest_layer(record: xr.DataTree) -> xr.DataArray:
    """Attention entropy over (run, step): the mean over heads of the layer where that is smallest."""
    return record.wb["attention_entropy"].mean("head").min("layer")


def collapse_step(record: xr.DataTree) -> xr.DataArray:
    """First step at which the attention of some layer has less than a tenth of the entropy of uniform attention."""
    return first_step(smallest_layer(record) < FLOOR * uniform_entropy(record))


def cells(record: xr.DataTree, quantity: xr.DataArray, **knobs: Any) -> xr.DataArray:
    """A number per run as (data, lr, seed), of the runs with exactly these of the knobs that tell variants apart."""
    chosen = _chosen(record, knobs)
    axes = {name: record[name].values[chosen] for name in ("data", "lr", "seed")}
    flat = xr.DataArray(quantity.values[chosen], dims="run", coords={name: ("run", values) for name, values in axes.items()})
    return flat.set_index(run=list(axes)).unstack("run")


def over_collapsed(record: xr.DataTree, effect: xr.DataArray, rates: str = "mean") -> xr.DataArray:
    """Per seed: the smaller of both data sets' effects (data, lr, seed), over the rates where the plain net without warmup collapses.

    `rates` says how they are joined: "mean" or "min" over all of them, or "first", the lowest of them alone. A rate at which the plain
    net collapses but the effect was not measured makes the seed's effect NaN.
    """
    collapsed = cells(record, collapse_step(record)).notnull()
    effect = effect.reindex_like(collapsed).where(collapsed, 0.0)
    if rates == "first":
        collapsed = collapsed & (collapsed["lr"] == collapsed["lr"].where(collapsed).min("lr"))
    if rates == "min":
        return effect.where(collapsed, np.inf).min("lr", skipna=False).min("data", skipna=False)
    return (effect.where(collapsed, 0.0).sum("lr", skipna=False) / collapsed.sum("lr")).min("data", skipna=False)


def excess_over(record: xr.DataTree, **remedy: Any) -> xr.DataArray:
    """(data, lr, seed) in nats: final loss of the plain net minus that of a remedy on the same data."""
    loss = final_loss(record)
    return cells(record, loss) - cells(record, loss, **remedy)


def excess_over_sigma_reparam(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed, in nats."""
    return over_collapsed(record, excess_over(record, sigma_reparam=True))


def excess_over_qk_norm(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed, in nats."""
    return over_collapsed(record, excess_over(record, qk_norm=True))


def kept_by_qk_norm(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed: share of uniform entropy that QK-norm keeps at the lowest rate of collapse."""
    return over_collapsed(record, cells(record, lowest_share(record), qk_norm=True), "first")


def kept_by_sigma_reparam(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed: share of uniform entropy that sigmaReparam keeps at the lowest rate of collapse."""
    return over_collapsed(record, cells(record, lowest_share(record), sigma_reparam=True), "first")


def kept_everywhere_by_qk_norm(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed: the least share of uniform entropy that QK-norm keeps at any rate of collapse."""
    return over_collapsed(record, cells(record, lowest_share(record), qk_norm=True), "min")


def kept_everywhere_by_sigma_reparam(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed: the least share of uniform entropy that sigmaReparam keeps at any rate of collapse."""
    return over_collapsed(record, cells(record, lowest_share(record), sigma_reparam=True), "min")


def warmup_needed(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed, in nats: what the plain net loses by leaving warmup out."""
    return over_collapsed(record, excess_over(record, warmup=WARMUP))


def no_warmup_with_sigma_reparam(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed, in nats: loss of the plain net with warmup minus that of sigmaReparam without."""
    loss = final_loss(record)
    return over_collapsed(record, cells(record, loss, warmup=WARMUP) - cells(record, loss, sigma_reparam=True))


def above_bound(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed, in nats: how far measured entropy falls under its lower bounds at worst (0: never), where these were measured."""
    entropy_ = record.wb["attention_entropy"]
    names = [n for n in ("attention_entropy_bound", "spectral_entropy_bound") if n in record.wb]
    gaps = xr.concat([(entropy_ - record.wb[name]).min(("step", "layer", "head")) for name in names], "bound").min("bound")
    return gaps.clip(max=0.0).drop_vars("run").groupby("seed").min()


@view("attention_entropy")
def entropy_against_floor(record: xr.DataTree) -> Any:
    """Attention entropy of the smallest layer, mean over heads; collapsed below the dashed line, a tenth of uniform attention's."""
    return entropy(record, threshold=FLOOR * uniform_entropy(record).values)


def heights_to_compare(row: Mapping[str, Any]) -> tuple[Level, ...]:
    """The entropy under which attention has collapsed, and that of uniform attention."""
    highest = uniform(row)
    return Level("collapse", FLOOR * highest, "under"), Level("uniform attention", highest)


def entropy_left(record: xr.DataTree) -> int:
    """Which of ENTROPIES came true: the smallest layer's entropy after LATER steps, mean over seeds; a diverged run has none left."""
    share = (smallest_layer(record).sel(step=LATER, method="nearest") / uniform_entropy(record)).fillna(0.0).mean().item()
    return 0 if share > HALF else 2 if share < FLOOR else 1


LATER, HALF = 100, 0.5
ENTROPIES = ("above half of uniform attention's", "in between", "under a tenth of it: collapsed")
PREDICTIONS = (
    Prediction(f"Where will the attention entropy of the smallest layer be after {LATER} steps?", ENTROPIES, entropy_left, LATER),
)
GAUGES = (
    Gauge("train_loss", title="training loss"),
    Gauge(
        "attention_entropy",
        title="attention entropy, smallest layer",
        over={"head": "mean", "layer": "min"},
        levels=heights_to_compare,
    ),
    Gauge("attention_entropy", "map", "attention entropy of each head"),
    Gauge("attention_logit_max", title="largest attention logit", over={"layer": "max"}, logarithmic=True),
    Gauge("attention_map", "picture", "attention of one sequence"),
    Gauge("learning_rate", title="learning rate", shown=False),
    Gauge("attention_map", "histogram", "attention probabilities of one sequence", shown=False),
)
WORTSMAN = "arXiv:2309.14322"
PUBLISHED = (
    Published("attention_logit_max", 1e3, "this size costs loss", WORTSMAN),
    Published("attention_logit_max", 1e4, "larger ones diverged", WORTSMAN),
)
COLLAPSED = "at the rates where the plain net without warmup collapses (mean over rates, smaller of both data sets)"
FIRST = "at the lowest rate where the plain net collapses (lowest share of uniform entropy, smaller of both data sets)"
EVERYWHERE = "at every rate where the plain net collapses (lowest share of uniform entropy, smallest of rates and data sets)"
PAIRED = "data, batches, rate and first weights"
CLAIMS = (
    Claim(
        "entropy-collapse",
        f"Where attention entropy collapses, the loss ends higher than sigmaReparam's {COLLAPSED}",
        excess_over_sigma_reparam,
        threshold=0.0,
        threshold_source="any excess",
        paired=PAIRED,
        units="nat",
    ),
    Claim(
        "entropy-collapse",
        f"Where attention entropy collapses, the loss ends higher than QK-norm's {COLLAPSED}",
        excess_over_qk_norm,
        threshold=0.0,
        threshold_source="any excess",
        paired=PAIRED,
        units="nat",
    ),
    Claim(
        "entropy-collapse",
        f"QK-norm keeps entropy off the floor {FIRST}",
        kept_by_qk_norm,
        threshold=FLOOR,
        threshold_source=FLOOR_SOURCE,
        paired=PAIRED,
    ),
    Claim(
        "entropy-collapse",
        f"sigmaReparam keeps entropy off the floor {FIRST}",
        kept_by_sigma_reparam,
        threshold=FLOOR,
        threshold_source=FLOOR_SOURCE,
        paired=PAIRED,
    ),
    Claim(
        "entropy-collapse",
        f"QK-norm keeps entropy off the floor {EVERYWHERE}",
        kept_everywhere_by_qk_norm,
        threshold=FLOOR,
        threshold_source=FLOOR_SOURCE,
        paired=PAIRED,
    ),
    Claim(
        "entropy-collapse",
        f"sigmaReparam keeps entropy off the floor {EVERYWHERE}",
        kept_everywhere_by_sigma_reparam,
        threshold=FLOOR,
        threshold_source=FLOOR_SOURCE,
        paired=PAIRED,
    ),
    Claim(
        "entropy-collapse",
        f"The plain net needs warmup: without it the loss ends higher {COLLAPSED}",
        warmup_needed,
        threshold=0.0,
        threshold_source="any excess",
        paired=f"{PAIRED}; no warmup against {WARMUP} steps",
        units="nat",
    ),
    Claim(
        "entropy-collapse",
        f"sigmaReparam without warmup ends lower than the plain net with warmup {COLLAPSED}",
        no_warmup_with_sigma_reparam,
        threshold=0.0,
        threshold_source="any difference",
        paired=PAIRED,
        units="nat",
    ),
    Claim(
        "entropy-collapse",
        "Measured entropy never falls under its lower bounds from logits and from spectral norms (every hundredth step and the last)",
        above_bound,
        threshold=-1e-3,
        threshold_source="rounding: four digits in the record, 32-bit sums",
        paired="the same logits",
        units="nat",
    ),
)


def summary(record: xr.DataTree) -> list[str]:
    """Six lines at most: how many runs collapsed or diverged, for each variant at which rates and when, and what it cost."""
    step, diverged, loss = collapse_step(record), record["events"]["diverged_step"], final_loss(record)
    total = f"{int(step.count())} collapsed (a layer under {FLOOR:.0%} of uniform entropy), {int(diverged.count())} diverged"
    lines = [f"{counted(record.sizes['run'], 'run')} of {counted(record.attrs['steps'], 'step')}: {total}."]
    variants = {name: {"warmup": 0} | knobs for name, knobs in VARIANTS.items()} | {f"plain, warmup {WARMUP}": {"warmup": WARMUP}}
    found = {name: _chosen(record, knobs) for name, knobs in variants.items() if _chosen(record, knobs).any()}
    rates = {name: record["lr"].values[chosen] for name, chosen in found.items()}
    lines += [f"{name}: {_collapses(rates[name], step.values[chosen])}." for name, chosen in found.items()]
    common = set.intersection(*map(set, rates.values())) if rates else set()
    if common:
        costs = [f"{name} {np.median(loss.values[chosen][rates[name] == max(common)]):.2f}" for name, chosen in found.items()]
        lines.append(f"Median final loss at lr {max(common):g}, in nats: {'; '.join(costs)}.")
    return lines


def _chosen(record: xr.DataTree, knobs: dict[str, Any]) -> np.ndarray:
    wanted = {"qk_norm": False, "sigma_reparam": False, "warmup": 0} | knobs
    return np.all([record[name].values == value for name, value in wanted.items()], axis=0)


def _collapses(rates: np.ndarray, steps: np.ndarray) -> str:
    parts = []
    for rate in np.unique(rates):
        here = steps[rates == rate]
        if np.isfinite(here).any():
            parts.append(f"lr {rate:g}: {np.isfinite(here).sum()} of {len(here)} runs, median step {np.nanmedian(here):.0f}")
    return "; ".join(parts) or "no collapse"


def _full_design() -> Any:
    data, seeds = ("text", "images"), range(4)
    variants = [grid(data=data, lr=RATES, seed=seeds, **knobs) for knobs in VARIANTS.values()]
    return variants[0] + variants[1] + variants[2] + grid(data=data, lr=WARM_RATES, seed=seeds, warmup=WARMUP)


def _demo_design() -> Any:
    rates, seeds = (3e-3, 3e-2, 1e-1), range(4)
    variants = [grid(lr=rates, seed=seeds, **knobs) for knobs in VARIANTS.values()]
    return variants[0] + variants[1] + variants[2] + grid(lr=(3e-2, 1e-1), seed=seeds, warmup=WARMUP)


study = Study(
    __name__,
    title="Attention entropy collapse",
    knobs=Settings,
    task=TASK,
    learner=Supervised(model, evaluation=TASK.evaluation),
    probes=(train_loss, learning_rate, attention_entropy, attention_entropy_bound.on_clock(100), attention_logit_max),
    optional_probes=(
        attention_map,
        validation_loss,
        validation_accuracy,
        spectral_entropy_bound,
        spectral_norm,
        log_z,
        residual_rms,
        gradient_norm,
        gradient_norm_total,
        update_norm,
        weight_norm,
        effective_step,
        hessian_top_eigenvalue,
        critical_sharpness,
    ),
    coords=coords,
    budgets={
        "smoke": Budget(grid(lr=(3e-3, 1e-1), qk_norm=(False, True), width=16, depth=1, batch=4), 30),
        "demo": Budget(_demo_design(), 200),
        "full": Budget(_full_design(), 240, probes=("spectral_entropy_bound",)),
    },
    presets=(
        Preset("collapse at a high rate", {"lr": 1e-1}, "Entropy falls near zero within some twenty steps and the loss stalls high."),
        Preset("saved by QK-norm", {"lr": 1e-1, "qk_norm": True}, "The same rate, with normalized queries and keys."),
        Preset("saved by sigmaReparam", {"lr": 1e-1, "sigma_reparam": True}, "The same rate, with spectral norms held by a gain."),
        Preset(
            "saved by warmup",
            {"lr": 3e-2, "warmup": WARMUP},
            "A rate that collapses within some hundred steps, reached slowly: on text it does not.",
        ),
    ),
    events=(
        Event("collapse_step", collapse_step, "step", "first step with a layer under a tenth of uniform attention's entropy (NaN: none)"),
        Event("loss_exceeded_step", loss_exceeded_step, "step", "first step with a loss above 1.5 times the initial one (NaN: none)"),
        Event("final_loss", final_loss, "nat", "mean training loss over the last tenth, at most the initial loss"),
    ),
    views=(final_loss_against_lr, event_shares, entropy_against_floor, loss_curves, entropy_map),
    gauges=GAUGES,
    predictions=PREDICTIONS,
    published=PUBLISHED,
    claims=CLAIMS,
    summary=summary,
)
