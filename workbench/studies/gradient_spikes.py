"""Gradient spikes.

Question.   How long does a spike of the gradient harm training, and which optimizer gets over it?
Phenomenon. Adam's mean square remembers a spike for thousands of steps and makes every later step of the same weights smaller. SPAM clips
            entries by that mean square and forgets it from time to time; Stable-SPAM also holds each gradient at its usual norm.
Try.        Watch how slowly Adam's loss falls after the first spikes, then switch `optimizer` to spam, or give Adam a `clip` of 1. Then
            take the spikes away (`spike_rate` 0), round weights and activations to int4, and raise `lr`.
Cites.      Huang et al. 2025, arXiv:2501.06842 (SPAM, the gradient spike score); Huang et al. 2025, arXiv:2502.17055 (Stable-SPAM); OLMo 2
            2025, arXiv:2501.00656 (the spike score).
Differs.    A decoder of two layers on characters, 300 steps of 8 windows, stands for LLaMA of 60 million to 1 billion weights on C4. SPAM
            resets each 60 steps with a warmup of 18, Stable-SPAM each 120, in place of 500, 150 and 1000; thresholds and decay rates are
            theirs, epsilon is Adam's. Spikes are injected where SPAM's come by themselves. Rounding to 4 bits is simulated, of weights and
            activations alone, in blocks of 32 with a common scale. SPAM follows the released code in not restarting the bias correction
            at a reset, and has epsilon where Adam has it. The released training script takes the learning rate's warmup, 1000 steps, for
            that after a reset, so that no warmup ends before the next reset; that is a preset here. Stable-SPAM follows the paper: in the
            released code a reset acts a step late and also restarts the corrections of its means of norms, which switches its clipping
            off for hundreds of steps (`stable_spam_released`).
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from ..claim import Claim
from ..design import Design, grid
from ..events import recovery_time, spike_score
from ..gauge import Gauge, Level
from ..knobs import specs
from ..learners import Loss, Spiked, Spikes
from ..models import Decoder, Transformer
from ..numerics import Rounding
from ..optimizers import EveryOptimizer, global_norm
from ..probe import probe
from ..probes import (
    attention_entropy,
    attention_logit_max,
    effective_step,
    gradient_norm,
    gradient_norm_total,
    learning_rate,
    train_loss,
    update_norm,
    update_norm_total,
    validation_accuracy,
    validation_loss,
    weight_norm,
)
from ..progress import counted
from ..schedules import Schedule
from ..sensitivity import lr_sensitivity
from ..study import Budget, Event, Prediction, Preset, Published, Study
from ..taps import by_layer
from ..tasks import Text, TextKnobs
from ..view import view
from ..views import curves, sweep
from ..views.extras import alt
from ..views.layout import Factor
from ..views.panels import categories, inline, panels
from ..views.span import span
from ..views.theme import rounded

STEPS = 300
SEEDS = range(4, 8)  # 0 to 3 were used to choose spikes, intervals, rates and number format
RATES = (0.01, 0.05, 0.2, 1.0)
LOWEST, HIGH, HIGHEST = 0.01, 0.2, 1.0
INTERVAL = STEPS // 5
SPAM_WARMUP = 3 * INTERVAL // 10
SPIKES_FROM, SPIKES_UNTIL = 50, 150
RATE_OF_SPIKES, FEW, ALL = 0.05, 0.1, 1.0
BIN = 10
CEILING = 6.0
SMALLEST, LARGEST = (float(x) for x in (np.finfo("float32").tiny, np.finfo("float32").max))
MARGIN = 0.02
RECOVERED, WINDOW = 0.05, 20
SPIKE = 50  # times the usual gradient, from which the SPAM paper draws a spike
SCORED = 50  # values before each that a spike score compares it with; OLMo's 1000 are longer than the run
SLOW = {"zero_residuals": 100, "spike_share": 100, "largest_spike": 100, "first_moment_norm": 100, "second_moment_norm": 100}
OPTIMIZERS = {
    "adamw": "Adam",
    "sgd": "SGD",
    "adabelief": "AdaBelief",
    "lion": "Lion",
    "muon": "Muon",
    "spam": "SPAM",
    "stable_spam": "Stable-SPAM",
}
ADAM, CLIPPED = {"optimizer": "adamw"}, {"optimizer": "adamw", "clip": 1.0}
SPAM, STABLE_SPAM = {"optimizer": "spam"}, {"optimizer": "stable_spam"}
SPARSE, LONG_WARMUP = SPAM | {"spam_density": 0.5}, SPAM | {"spam_warmup": 2 * INTERVAL}
COMPARED = (ADAM, CLIPPED, SPAM, STABLE_SPAM)
CALM, IN_FEW, IN_ALL = (
    {"spike_rate": rate, "spike_tensors": share} for rate, share in ((0.0, FEW), (RATE_OF_SPIKES, FEW), (RATE_OF_SPIKES, ALL))
)
INT4 = {"round_weights": "int4", "round_activations": "int4", "scaling": "block"}
PER_TENSOR = INT4 | {"scaling": "tensor"}
HALF = {"horizon": STEPS // 2}
PLAIN = ADAM | CALM | {"clip": 0.0, "spam_density": 1.0, "spam_warmup": SPAM_WARMUP, "round_weights": "no"}

Measure = Callable[[xr.DataTree], xr.DataArray]


class Settings(
    Transformer,
    TextKnobs,
    Schedule,
    EveryOptimizer,
    Rounding,
    Loss,
    Spikes,
    defaults={
        "context": 32,
        "batch": 8,
        "heads": 2,
        "qk_norm": True,
        "lr": LOWEST,
        "schedule": "cosine",
        "warmup": STEPS // 20,
        "spam_interval": INTERVAL,
        "spam_warmup": SPAM_WARMUP,
        "stable_spam_interval": 2 * INTERVAL,
        "spike_rate": RATE_OF_SPIKES,
        "spike_tensors": FEW,
        "spike_from": SPIKES_FROM,
        "spike_until": SPIKES_UNTIL,
    },
):
    """A small decoder, its text, its optimizer and number format, and the spikes."""


TEXT = Text()
EVERY_WINDOW = 8


def held_out(knobs: Any, device: Any) -> dict[str, Tensor]:
    """Every eighth window of the held-out text: x and y int64 and weight float32, each (window, context)."""
    return {name: x[::EVERY_WINDOW] for name, x in TEXT.evaluation(knobs, device).items()}


@probe()
def injected_share(m):
    """Share of the gradient's entries that an injected spike multiplied"""
    total = sum(g.numel() for g in m.grads.values())
    return torch.stack([m.hit[name] * (g.numel() / total) for name, g in m.grads.items()]).sum()


@probe()
def spike_share(m):
    """Share of the gradient's entries that are spikes by SPAM's rule

    Those whose square is more than `spam_threshold` times v, the mean square before the update, which is not bias-corrected; none in the
    first `spam_patience` updates after the start or a reset. NaN for an optimizer that keeps no such mean.
    """
    spikes = _spikes(m)
    if spikes is None:
        return m.loss * torch.nan
    return torch.stack([found.sum() for found in spikes.values()]).sum() / sum(found.numel() for found in spikes.values())


@probe("tensor")
def spike_share_of_tensor(m):
    """Share of the entries of a parameter's gradient that are spikes by SPAM's rule"""
    spikes = _spikes(m)
    if spikes is None:
        return m.loss.new_full((len(m.grads),), torch.nan)
    return torch.stack([found.to(m.loss.dtype).mean() for found in spikes.values()])


@probe()
def largest_spike(m):
    """Largest squared entry of the gradient over its mean square v before the update; NaN without such a mean"""
    if "v" not in m.before:
        return m.loss * torch.nan
    ratios = {name: torch.where(v > 0, m.grads[name].square() / torch.where(v > 0, v, 1.0), 0.0) for name, v in m.before["v"].items()}
    return torch.stack([ratio.amax() for ratio in ratios.values()]).amax()


@probe(every=10)
def first_moment_norm(m):
    """L2 norm of the optimizer's mean of gradients, m; NaN if it keeps none"""
    return global_norm(m.optimizer["m"]) if "m" in m.optimizer else m.loss * torch.nan


@probe(every=10)
def second_moment_norm(m):
    """Root of the sum of the optimizer's mean squares of gradients, v; NaN if it keeps none"""
    if "v" not in m.optimizer:
        return m.loss * torch.nan
    return torch.stack([v.sum() for v in m.optimizer["v"].values()]).sum().sqrt()


@probe()
def zero_residuals(m):
    """Share of the residual vectors, in the block where most are, that rounding has left all zero"""
    return torch.stack([(x == 0).all(-1).to(m.loss.dtype).mean() for x in by_layer(m.taps, "residual")]).amax()


def _spikes(m: Any) -> dict[str, Tensor] | None:
    """Which entries of the gradient are spikes by SPAM's rule; None without a mean square."""
    if "v" not in m.before:
        return None
    since = m.before["count"] + 1 - m.before.get("reset", 0)
    ready = since >= m.knobs.spam_patience
    return {name: ready & (m.grads[name].square() > m.knobs.spam_threshold * v) for name, v in m.before["v"].items()}


def final_validation_loss(record: xr.DataTree) -> xr.DataArray:
    """Validation loss after the last update, over `run`; NaN for a diverged run."""
    return record.wb["validation_loss"].isel(step=-1, drop=True)


def last_spike(record: xr.DataTree) -> xr.DataArray:
    """Last step at which an injected spike hit a tensor, over `run`; NaN without one."""
    injected = record.wb["injected_share"]
    return injected["step"].where(injected > 0).max("step")


def excess(record: xr.DataTree) -> xr.DataArray:
    """Training loss over (run, step) above that of the run that differs in nothing but having no spikes; NaN where there is none."""
    loss, others = record.wb["train_loss"], [name for name in record.wb.knobs if name not in specs(Spikes)]
    settings = list(zip(*(record[name].values.tolist() for name in others), strict=True))
    calm = {setting: run for run, setting in enumerate(settings) if record["spike_rate"].values[run] == 0}
    twins = np.array([calm.get(setting, -1) for setting in settings])
    return (loss - loss.values[twins]).where(xr.DataArray(twins >= 0, dims="run"))


def recovery(record: xr.DataTree) -> xr.DataArray:
    """Steps from the last spike until 20 training losses are on average at most 0.05 nat above those of the run without spikes."""
    return recovery_time(excess(record), last_spike(record), RECOVERED, WINDOW)


def recovery_or_end(record: xr.DataTree) -> xr.DataArray:
    """Steps over `run` from the last spike until the loss is back, or to the end of a run whose loss does not come back."""
    return recovery(record).fillna(record.attrs["steps"] - last_spike(record))


def loss_spike_score(record: xr.DataTree) -> xr.DataArray:
    """Share of the training losses over `run` that lie more than 7 standard deviations above the mean of the 50 before."""
    return spike_score(record.wb["train_loss"], SCORED)


def gradient_spike_score(record: xr.DataTree) -> xr.DataArray:
    """Share of the gradient norms over `run` that lie more than 7 standard deviations above the mean of the 50 before."""
    return spike_score(record.wb["gradient_norm_total"], SCORED)


def largest_gradient_spike(record: xr.DataTree) -> xr.DataArray:
    """The largest gradient norm over its mean over all steps, over `run` (the score of arXiv:2501.06842, which takes single entries)."""
    norm = record.wb["gradient_norm_total"].astype(float).clip(max=LARGEST)
    return (norm / norm.mean("step")).max("step")


def provoked_spikes(record: xr.DataTree) -> xr.DataArray:
    """Share of the steps over `run`, up to where it diverged, with a gradient norm more than 50 times its finite median."""
    norm = record.wb["gradient_norm_total"]
    return (norm > SPIKE * norm.where(np.isfinite(norm)).median("step")).where(norm.notnull()).mean("step")


def gradient_norm_range(record: xr.DataTree) -> xr.DataArray:
    """Decades from the 5th to the 95th percentile of the gradient norm over the second half of the steps, over `run`; NaN if diverged."""
    norm = record.wb["gradient_norm_total"]
    logs = np.log10(norm.isel(step=slice(norm.sizes["step"] // 2, None)).clip(SMALLEST, LARGEST))
    low, high = (logs.quantile(share, "step", skipna=False).drop_vars("quantile") for share in (0.05, 0.95))
    return high - low


def diverged(record: xr.DataTree) -> xr.DataArray:
    """1 for a run that diverged, else 0, over `run`."""
    return record["events"]["diverged_step"].notnull().astype(float)


def cells(record: xr.DataTree, quantity: xr.DataArray, **knobs: Any) -> xr.DataArray:
    """A number per run as (lr, seed): of plain Adam in float32 without spikes and with all its steps where `knobs` say nothing else."""
    wanted = PLAIN | {"horizon": record["horizon"].values.max()} | knobs
    chosen = np.all([record[name].values == value for name, value in wanted.items()], axis=0)
    axes = {name: ("run", record[name].values[chosen]) for name in ("lr", "seed")}
    return xr.DataArray(quantity.values[chosen], dims="run", coords=axes).set_index(run=list(axes)).unstack("run")


def difference(record: xr.DataTree, quantity: Measure, high: Mapping[str, Any], low: Mapping[str, Any], lr: float = LOWEST) -> xr.DataArray:
    """Effect per seed: a quantity of the runs `high` minus that of the runs `low`, at one rate."""
    found = quantity(record)
    return (cells(record, found, **high) - cells(record, found, **low)).sel(lr=lr, drop=True)


def fall(record: xr.DataTree, lr: float, **knobs: Any) -> xr.DataArray:
    """Effect per seed, in nats: validation loss before the first update minus that after the last."""
    first = record.wb["validation_loss"].isel(step=0, drop=True)
    return cells(record, first - final_validation_loss(record), **knobs).sel(lr=lr, drop=True)


def losses(record: xr.DataTree, **knobs: Any) -> xr.DataArray:
    """Validation loss at the end over (lr, seed), in nats."""
    return cells(record, final_validation_loss(record), **knobs)


def at_best_rates(record: xr.DataTree, high: Mapping[str, Any], low: Mapping[str, Any]) -> xr.DataArray:
    """Effect per seed, in nats: final validation loss of `high` minus that of `low`, of each at its best rate (mean over seeds)."""
    first, second = (found.isel(lr=found.mean("seed").argmin("lr"), drop=True) for found in (losses(record, **high), losses(record, **low)))
    return first - second


def sensitivity(record: xr.DataTree, **knobs: Any) -> xr.DataArray:
    """LR sensitivity over `seed`, in nats (arXiv:2309.14322), over the rates of this study."""
    initial = cells(record, record.wb["validation_loss"].isel(step=0, drop=True), **knobs).isel(lr=0, drop=True)
    return lr_sensitivity(losses(record, **knobs), initial, LOWEST, HIGHEST)


def more_sensitive(record: xr.DataTree, high: Mapping[str, Any], low: Mapping[str, Any]) -> xr.DataArray:
    """Effect per seed, in nats: LR sensitivity of the runs `high` minus that of `low`."""
    return sensitivity(record, **high) - sensitivity(record, **low)


def optimizers(record: xr.DataTree) -> np.ndarray:
    """What each run is trained with, in words."""
    names = [OPTIMIZERS.get(name, name) for name in record["optimizer"].values.tolist()]
    marks = {
        ", clipped": record["clip"].values > 0,
        ", sparse": (record["optimizer"].values == "spam") & (record["spam_density"].values < 1),
        ", long warmup": (record["optimizer"].values == "spam") & (record["spam_warmup"].values > record["spam_interval"].values),
    }
    return np.array([name + "".join(mark for mark, runs in marks.items() if runs[run]) for run, name in enumerate(names)], object)


def precisions(record: xr.DataTree) -> np.ndarray:
    """The number format of the weights that each run computes with, in words."""
    formats = zip(record["round_weights"].values.tolist(), record["scaling"].values.tolist(), strict=True)
    return np.array(["float32" if name == "no" else name if by == "none" else f"{name} scaled by {by}" for name, by in formats], object)


def conditions(record: xr.DataTree) -> np.ndarray:
    """Which spikes are injected into each run, in words; their size and rate where these vary."""
    hit = record["spike_rate"].values > 0
    shares = record["spike_tensors"].values.tolist()
    words = [f"spikes in {share:.0%} of the tensors" if share < 1 else "spikes in all tensors" for share in shares]
    for name, word in {"spike_size": "size", "spike_rate": "rate"}.items():
        values = record[name].values
        if len(np.unique(values[hit])) > 1:
            words = [f"{said}, {word} {value:g}" for said, value in zip(words, values, strict=True)]
    return np.where(hit, np.array(words, object), "no spikes")


def factor(title: str, words: np.ndarray) -> Factor:
    """Runs sorted by these words, the groups in the order in which they come first."""
    names = list(dict.fromkeys(words.tolist()))
    return Factor(title, tuple(names), np.array([names.index(word) for word in words]), heads=tuple(names))


def part(record: xr.DataTree, chosen: np.ndarray) -> xr.DataTree:
    """The runs that are chosen; all of them where none is."""
    return record.isel(run=np.flatnonzero(chosen)) if chosen.any() else record


def without_spikes(record: xr.DataTree) -> xr.DataTree:
    """The runs without injected spikes that train to the end; all runs where there is none."""
    return part(record, (record["spike_rate"].values == 0) & to_the_end(record))


def to_the_end(record: xr.DataTree) -> np.ndarray:
    """Which runs have a rate that falls until the end, not to 0 before it."""
    return record["horizon"].values == record["horizon"].values.max()


def at_rates_of_spikes(record: xr.DataTree) -> xr.DataTree:
    """The runs in float32 at the rates at which spikes are injected into some; all runs where there is none."""
    rates = record["lr"].values
    return part(record, np.isin(rates, rates[record["spike_rate"].values > 0]) & (precisions(record) == "float32"))


@view("train_loss", "injected_share")
def loss_under_spikes(record: xr.DataTree) -> Any:
    """Training loss of each optimizer in float32 from before the spikes on, mean over seeds and ten steps; marks where spikes hit a run."""
    runs = at_rates_of_spikes(record)
    condition, group = factor("spikes", conditions(runs)), factor("optimizer", optimizers(runs))
    table = pd.concat([_mean_losses(runs, condition, group), _marks(runs, condition)], ignore_index=True)
    x = alt.X("step:Q", title="step", scale=alt.Scale(nice=False), axis=alt.Axis(tickCount=5, grid=False))
    y = alt.Y("loss:Q", title="training loss [nat]", scale=span(table["loss"], logarithmic=False).padded(0.05).scale)
    lines = alt.Chart().transform_filter("datum.loss !== null").mark_line(strokeWidth=1.8).encode(x=x, y=y, color=categories(group))
    marks = alt.Chart().transform_filter("datum.spike").mark_tick(thickness=1, size=8, orient="vertical", yOffset=-5)
    layers = [lines, marks.encode(x=x, y=alt.value("height"))]
    return panels(layers, table, [condition], description="training loss against step under each kind of spikes")


def _mean_losses(runs: xr.DataTree, condition: Factor, group: Factor) -> pd.DataFrame:
    first = max(0, int(runs["spike_from"].values.min()) - 2 * BIN)
    loss = runs.wb["train_loss"].sel(step=slice(first, None))
    loss = loss.coarsen(step=min(BIN, loss.sizes["step"]), boundary="trim").mean()
    each = pd.DataFrame(loss.transpose("run", "step").values, columns=loss["step"].values)
    each = each.groupby([condition.of_runs(condition.heads), group.of_runs(group.names)], sort=False).mean()
    table = each.rename_axis(["panel_0", "colour"]).rename_axis("step", axis=1).stack().rename("loss").reset_index()
    return table.assign(loss=rounded(table["loss"]))


def _marks(runs: xr.DataTree, condition: Factor) -> pd.DataFrame:
    """A row for each step at which a spike hit a run of a condition."""
    injected = runs.wb["injected_share"]
    hits = pd.DataFrame(injected.transpose("run", "step").values > 0, columns=injected["step"].values)
    hits = hits.groupby(condition.of_runs(condition.heads), sort=False).any()
    found = hits.rename_axis("panel_0").rename_axis("step", axis=1).stack()
    return found[found].rename("spike").reset_index()


@view("validation_loss")
def cost_of_spikes(record: xr.DataTree) -> Any:
    """Validation loss at the end of every run in float32 at the rates at which spikes were injected; strokes are means over seeds."""
    runs = at_rates_of_spikes(record)
    condition, names = factor("spikes", conditions(runs)), optimizers(runs)
    table = pd.DataFrame({"optimizer": names, "colour": condition.of_runs(condition.names), "loss": rounded(final_validation_loss(runs))})
    table["mean"] = table.groupby(["optimizer", "colour"])["loss"].transform("mean")
    base = alt.Chart(inline(table)).encode(y=alt.Y("optimizer:N", title=None, sort=list(dict.fromkeys(names))), color=categories(condition))
    x = {"title": "validation loss at the end [nat]", "scale": alt.Scale(zero=False, padding=12)}
    points = base.mark_point(filled=True, size=40, opacity=0.5).encode(x=alt.X("loss:Q", **x))
    means = base.mark_tick(thickness=2.5, size=20).encode(x=alt.X("mean:Q", **x))
    return alt.layer(points, means).properties(width=460, height=alt.Step(34), description="validation loss at the end, by optimizer")


@view("validation_loss")
def loss_against_lr(record: xr.DataTree) -> Any:
    """Validation loss at the end of every run without injected spikes against the learning rate; beyond the dashed line it has risen."""
    runs = without_spikes(record)
    names = pd.Series(optimizers(runs) + precisions(runs))
    several = pd.Series(runs["lr"].values).groupby(names).transform("nunique").to_numpy() > 1
    runs = part(runs, several)
    numbers = factor("number format", precisions(runs))
    factors = [factor("optimizer", optimizers(runs)), *([numbers] if len(numbers.names) > 1 else [])]
    start = runs.wb["validation_loss"].isel(step=0).values
    return sweep(runs, "validation_loss", factors=factors, references={"at initialization": start}, ceiling=CEILING)


@view("gradient_norm_total")
def gradient_norms(record: xr.DataTree) -> Any:
    """Gradient norm against step of the runs of the first seed without injected spikes, by rate; a panel an optimizer and number format."""
    runs = without_spikes(record)
    runs = part(runs, runs["seed"].values == runs["seed"].values.min())
    names = optimizers(runs) + np.array([f", {each}" for each in precisions(runs)], object)
    return curves(runs, "gradient_norm_total", title="gradient norm", factors=[factor("optimizer and number format", names)])


def summary(record: xr.DataTree) -> list[str]:
    """Six lines at most: validation loss at the end of each optimizer under each kind of spikes, and in each number format."""
    lost, whole = int(record["events"]["diverged_step"].count()), to_the_end(record)
    loss = final_validation_loss(record).values
    settings = np.array([f"{spikes}, {numbers}" for spikes, numbers in zip(conditions(record), precisions(record), strict=True)])
    lines = [
        f"{counted(record.sizes['run'], 'run')} of {counted(record.attrs['steps'], 'step')}: {lost} diverged. "
        "Validation loss at the end in nats, at the best rate (mean over seeds):"
    ]
    names = optimizers(record)
    for setting in dict.fromkeys(settings[whole].tolist()):
        runs = (settings == setting) & whole
        table = (
            pd.Series(loss[runs])
            .groupby([names[runs], record["lr"].values[runs]], sort=False)
            .agg(lambda values: values.mean(skipna=False))
        )
        lowest = table.groupby(level=0, sort=False).min()
        lines.append(
            f"{setting}: "
            + "; ".join(f"{name} {value:.3f}" if value == value else f"{name} diverged" for name, value in lowest.items())
            + "."
        )
    return lines[:6]


def spam_clips(row: Mapping[str, Any]) -> tuple[Level, ...]:
    """The ratio above which SPAM clips."""
    return (Level("SPAM clips above", row["spam_threshold"]),) if row["spam_threshold"] > 0 else ()


def loss_after_spikes(record: xr.DataTree) -> int:
    """Which of COURSES came true: the fall of the training loss from before the first spike to LATER, ten steps each; mean over seeds."""
    loss = record.wb["train_loss"]
    before, after = (loss.sel(step=slice(end - BIN, end)).mean("step") for end in (SPIKES_FROM, LATER))
    fell = (before - after).fillna(-np.inf).mean().item()
    return 0 if fell > FALL else 1 if fell > 0 else 2


LATER, FALL = 150, 0.3
COURSES = (f"lower by more than {FALL} nat", "lower by less", "higher")
PREDICTIONS = (
    Prediction(
        f"Spikes come from step {SPIKES_FROM} on. Where will the training loss be at step {LATER}?",
        COURSES,
        loss_after_spikes,
        LATER,
    ),
)
GAUGES = (
    Gauge("train_loss", title="training loss"),
    Gauge("gradient_norm_total", title="gradient norm", logarithmic=True),
    Gauge("spike_share", title="share of gradient entries that SPAM takes for spikes"),
    Gauge("second_moment_norm", title="root of the sum of the mean squares v", logarithmic=True),
    Gauge("largest_spike", title="largest squared entry over its mean square v", levels=spam_clips, logarithmic=True, shown=False),
    Gauge("first_moment_norm", title="norm of the mean gradient m", logarithmic=True, shown=False),
    Gauge("zero_residuals", title="share of residual vectors rounded to zero", shown=False),
    Gauge("spike_share_of_tensor", "map", "spikes in each parameter tensor", shown=False),
    Gauge("validation_loss", title="validation loss", shown=False),
)
HUANG = "arXiv:2501.06842"
PUBLISHED = (
    Published("largest_spike", 5000.0, "SPAM's threshold", HUANG),
    Published("largest_spike", 50.0**2, "50 times the usual gradient: a spike", HUANG),
)
PAIRED = "data, batches, spikes, rate and first weights"
SAME_NET = "data, batches, rates and first weights"
IN_SOME = f"spikes in {FEW:.0%} of the tensors"
SPAN = f"rates {LOWEST:g} to {HIGHEST:g}"
NORMED = "Adam with its global gradient norm clipped at 1"


def ends_lower(slug: str, statement: str, winner: Mapping[str, Any], loser: Mapping[str, Any], lr: float = LOWEST, **others: Any) -> Claim:
    """The claim that one setting has a lower validation loss at the end than another, at one rate."""
    effect = partial(difference, quantity=final_validation_loss, high=loser, low=winner, lr=lr)
    said = {"threshold": 0.0, "threshold_source": "any difference", "paired": PAIRED, "units": "nat"}
    return Claim(slug, statement, effect, **(said | others))


CLAIMS = (
    ends_lower(
        "spam",
        f"Spikes harm Adam long after they pass: {STEPS - SPIKES_UNTIL} steps later its loss is higher than without them ({IN_SOME})",
        ADAM | CALM,
        ADAM | IN_FEW,
        paired=SAME_NET,
    ),
    ends_lower("spam", f"Under spikes SPAM ends lower than Adam ({IN_SOME})", SPAM | IN_FEW, ADAM | IN_FEW),
    ends_lower("spam", f"Under spikes SPAM ends lower than {NORMED} ({IN_SOME})", SPAM | IN_FEW, CLIPPED | IN_FEW),
    ends_lower("spam", "Under spikes SPAM ends lower than Adam (spikes in all tensors)", SPAM | IN_ALL, ADAM | IN_ALL),
    ends_lower(
        "spam",
        f"Under spikes SPAM with half of the momentum ends lower than Adam with all of it ({IN_SOME})",
        SPARSE | IN_FEW,
        ADAM | IN_FEW,
    ),
    Claim(
        "spam",
        "Without spikes SPAM ends no higher than Adam (SPAM minus Adam)",
        partial(difference, quantity=final_validation_loss, high=SPAM | CALM, low=ADAM | CALM),
        threshold=MARGIN,
        threshold_source="our choice; the paper names no margin",
        above=False,
        paired=SAME_NET,
        units="nat",
    ),
    Claim(
        "spam",
        f"SPAM is back within {RECOVERED} nat of its run without spikes sooner after the last spike than Adam of its own ({IN_SOME})",
        partial(difference, quantity=recovery_or_end, high=ADAM | IN_FEW, low=SPAM | IN_FEW),
        threshold=0.0,
        threshold_source="any difference; a run that is not back at its end counts as back there",
        paired=PAIRED,
        units="step",
    ),
    ends_lower(
        "spam",
        f"{NORMED} ends lower than SPAM with a warmup longer than the interval of its resets ({IN_SOME})",
        CLIPPED | IN_FEW,
        LONG_WARMUP | IN_FEW,
        threshold_source="any difference; issue 6 of TianjinYellow/SPAM-Optimizer, whose training script passes such a warmup",
    ),
    Claim(
        "stable-spam",
        f"4-bit weights and activations make Adam more sensitive to the learning rate (LR sensitivity, {SPAN})",
        partial(more_sensitive, high=ADAM | INT4, low=ADAM),
        threshold=0.0,
        threshold_source="any difference",
        paired=SAME_NET,
        units="nat",
    ),
    Claim(
        "stable-spam",
        f"In 4 bits Stable-SPAM is less sensitive to the learning rate than Adam (LR sensitivity, {SPAN})",
        partial(more_sensitive, high=ADAM | INT4, low=STABLE_SPAM | INT4),
        threshold=0.0,
        threshold_source="any difference",
        paired=SAME_NET,
        units="nat",
    ),
    Claim(
        "stable-spam",
        f"In 4 bits Adam at the rate {HIGHEST:g} ends above where it began (loss before training minus loss at the end)",
        partial(fall, lr=HIGHEST, **ADAM, **INT4),
        threshold=0.0,
        threshold_source="any rise",
        paired="the same run",
        above=False,
        units="nat",
    ),
    Claim(
        "stable-spam",
        f"In 4 bits Stable-SPAM at the rate {HIGHEST:g} ends below where it began (loss before training minus loss at the end)",
        partial(fall, lr=HIGHEST, **STABLE_SPAM, **INT4),
        threshold=0.0,
        threshold_source="any fall",
        paired="the same run",
        units="nat",
    ),
    *(
        ends_lower("stable-spam", f"In 4 bits Stable-SPAM ends lower than {name} (rate {HIGH:g})", STABLE_SPAM | INT4, other | INT4, HIGH)
        for name, other in {"Adam": ADAM, NORMED: CLIPPED, "SPAM": SPAM}.items()
    ),
    Claim(
        "stable-spam",
        "Stable-SPAM in 4 bits ends lower than Adam in float32, each at its best rate",
        partial(at_best_rates, high=ADAM, low=STABLE_SPAM | INT4),
        threshold=0.0,
        threshold_source="any difference; the paper's Adam is in bfloat16",
        paired="data, batches and first weights",
        units="nat",
    ),
    Claim(
        "stable-spam",
        f"In 4 bits Stable-SPAM with half of the steps ends no higher than Adam with all of them (rate {LOWEST:g}, Stable-SPAM minus Adam)",
        partial(difference, quantity=final_validation_loss, high=STABLE_SPAM | INT4 | HALF, low=ADAM | INT4),
        threshold=MARGIN,
        threshold_source="our choice; the paper has the same loss",
        above=False,
        paired=f"{SAME_NET}; Stable-SPAM's rate has decayed to 0 after half of the steps",
        units="nat",
    ),
    Claim(
        "stable-spam",
        f"In 4 bits the gradient norm ranges less under Stable-SPAM than under Adam (decades, 5th to 95th percentile, rate {HIGH:g})",
        partial(difference, quantity=gradient_norm_range, high=ADAM | INT4, low=STABLE_SPAM | INT4, lr=HIGH),
        threshold=0.0,
        threshold_source="any difference",
        paired=SAME_NET,
        units="decade",
    ),
    Claim(
        "stable-spam",
        f"4 bits with one scale for each tensor provoke gradient spikes under Adam (share of steps, rate {HIGHEST:g}, minus float32's)",
        partial(difference, quantity=provoked_spikes, high=ADAM | PER_TENSOR, low=ADAM, lr=HIGHEST),
        threshold=0.0,
        threshold_source="any difference",
        paired=SAME_NET,
    ),
    Claim(
        "stable-spam",
        f"In 4 bits with one scale for each tensor fewer runs diverge under Stable-SPAM than under Adam (share, rate {HIGHEST:g})",
        partial(difference, quantity=diverged, high=ADAM | PER_TENSOR, low=STABLE_SPAM | PER_TENSOR, lr=HIGHEST),
        threshold=0.0,
        threshold_source="any difference",
        paired=SAME_NET,
    ),
    ends_lower(
        "stable-spam", f"Under injected spikes Stable-SPAM ends lower than SPAM ({IN_SOME}, float32)", STABLE_SPAM | IN_FEW, SPAM | IN_FEW
    ),
)


def _design(settings: Iterable[Mapping[str, Any]], **axes: Any) -> Design:
    return Design(tuple(each for setting in settings for each in grid(**(axes | setting)).grids))


def _demo() -> Design:
    spiked = _design([each | spikes for each in COMPARED for spikes in (CALM, IN_FEW)], seed=range(2))
    in_int4 = _design([each | INT4 | CALM for each in (ADAM, STABLE_SPAM)], lr=(LOWEST, HIGH, HIGHEST), seed=range(2))
    return spiked + in_int4 + _design([ADAM | CALM], lr=(HIGH, HIGHEST), seed=range(2))


def _full() -> Design:
    over_rates = _design([ADAM | CALM, *(each | INT4 | CALM for each in (ADAM, SPAM, STABLE_SPAM))], lr=RATES, seed=SEEDS)
    at_high_rate = _design([CLIPPED | INT4 | CALM], lr=HIGH, seed=SEEDS)
    without_spikes = [*(each | CALM for each in (CLIPPED, SPAM, STABLE_SPAM)), STABLE_SPAM | INT4 | HALF | CALM]
    under_spikes = [each | spikes for spikes in (IN_FEW, IN_ALL) for each in COMPARED] + [SPARSE | IN_FEW, LONG_WARMUP | IN_FEW]
    per_tensor = _design([each | PER_TENSOR | CALM for each in (ADAM, STABLE_SPAM)], lr=HIGHEST, seed=SEEDS)
    return over_rates + at_high_rate + per_tensor + _design(without_spikes + under_spikes, seed=SEEDS)


study = Study(
    __name__,
    title="Gradient spikes",
    knobs=Settings,
    task=TEXT,
    learner=Spiked(lambda knobs: Decoder(knobs, TEXT.vocabulary(knobs)), evaluation=held_out),
    probes=(
        train_loss,
        validation_loss,
        gradient_norm_total,
        injected_share,
        spike_share,
        largest_spike,
        first_moment_norm,
        second_moment_norm,
        zero_residuals,
    ),
    optional_probes=(
        spike_share_of_tensor,
        learning_rate,
        validation_accuracy,
        effective_step,
        gradient_norm,
        update_norm,
        update_norm_total,
        weight_norm,
        attention_entropy,
        attention_logit_max,
    ),
    coords=lambda knobs: dict(layer=range(knobs.depth), head=range(knobs.heads)),
    budgets={
        "smoke": Budget(
            _design(
                [ADAM, STABLE_SPAM | INT4],
                lr=(1e-2, 1e-1),
                spike_rate=(0.0, 0.3),
                spike_tensors=ALL,
                spike_from=5,
                width=16,
                depth=1,
                batch=4,
                context=16,
            ),
            30,
        ),
        "demo": Budget(_demo(), 250),
        "full": Budget(_full(), STEPS, clocks=SLOW),
    },
    presets=(
        Preset("Adam, injected spikes", ADAM | IN_ALL, "With the first spikes the loss rises, and then it hardly moves any more."),
        Preset("SPAM, injected spikes", SPAM | IN_ALL, "The same spikes, clipped entry by entry and forgotten at every reset."),
        Preset("Adam with clipping, injected spikes", CLIPPED | IN_ALL, "The same spikes under a global gradient norm of at most 1."),
        Preset("4-bit Adam at a high rate", ADAM | CALM | INT4 | {"lr": HIGHEST}, "The loss rises far above where it began."),
        Preset("4-bit Stable-SPAM", STABLE_SPAM | CALM | INT4 | {"lr": HIGHEST}, "The same rate on steadied gradients."),
        Preset(
            "4-bit Adam with one scale for each tensor",
            ADAM | CALM | PER_TENSOR | {"lr": HIGHEST},
            "Some residual vectors round to zero, and the gradient norm leaps by many decades.",
        ),
        Preset(
            "SPAM with its published intervals",
            SPAM | IN_FEW | {"spam_interval": 500, "spam_warmup": 150, "epsilon": 1e-6},
            "A reset each 500 steps: until then the mean squares remember the spikes.",
        ),
        Preset("SPAM with a warmup longer than its interval", LONG_WARMUP | IN_FEW, "What the released training script does: slow."),
    ),
    events=(
        Event("final_validation_loss", final_validation_loss, "nat", "validation loss after the last update (NaN: diverged)"),
        Event("loss_spike_score", loss_spike_score, "1", "share of training losses that are spikes"),
        Event("gradient_spike_score", gradient_spike_score, "1", "share of gradient norms that are spikes"),
        Event("largest_gradient_spike", largest_gradient_spike, "1", "largest gradient norm over its mean over all steps"),
        Event("provoked_spikes", provoked_spikes, "1", "share of steps with a gradient norm above 50 times its median"),
        Event("recovery_time", recovery, "step", "steps from the last spike until the loss is that of the run without (NaN: it is not)"),
    ),
    views=(loss_under_spikes, cost_of_spikes, loss_against_lr, gradient_norms),
    gauges=GAUGES,
    predictions=PREDICTIONS,
    published=PUBLISHED,
    claims=CLAIMS,
    summary=summary,
)
