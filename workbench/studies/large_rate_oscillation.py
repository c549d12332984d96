"""Benign oscillation at large learning rates.

Question.   Why can a learning rate that is too large to settle teach a network a feature that a small one passes over?
Phenomenon. Above the edge the strong feature is over- and undershot again and again, and meanwhile the weak feature grows until the
            oscillation stops; below it the strong feature explains the data at once, and the weak one never grows.
Try.        Begin with `lr` 0.1, wait until the training loss is near zero, and raise it to 1.1: only then does the accuracy on samples
            without the strong feature rise. Or begin with 1.1 and watch the sharpness come down to 2 / lr.
Cites.      Lu et al. 2023, arXiv:2310.17074 (the data, the network, the phenomenon and its proof); Cohen et al. 2021, arXiv:2103.00065
            (2 / lr as the edge of stability).
Differs.    No code is released. From the paper's abstract and its public reviews come weak feature, strong feature and noise, squared ReLU,
            a fixed second layer, squared loss, one sample an update, and weights of standard deviation 1 / sqrt(dimension). Their
            dimensions, norms, shares and rates could not be looked up: all numbers here are ours, and so are three patches, shared filters,
            and noise across both features. The paper assumes that |1 - y f(x)| stays above some number; here it is measured.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from .. import models, taps
from ..claim import Claim
from ..design import grid
from ..events import first_step
from ..gauge import Gauge, Level
from ..knobs import above, at_least, knob
from ..learners import OwnSamples
from ..models import Initialization, Rule
from ..models.initialize import normal
from ..optimizers import Momentum
from ..probe import probe
from ..probes import learning_rate
from ..progress import counted
from ..schedules import Schedule
from ..study import Budget, Event, Prediction, Preset, Study
from ..tasks import WeakStrong, WeakStrongKnobs
from ..tasks.weak_strong import STRONG, WEAK
from ..view import view
from ..views import curves, sweep

SMALL, BELOW, JUST_ABOVE, LARGE = 0.1, 0.8, 1.0, 1.1
RATES = (SMALL, 0.2, 0.4, BELOW, JUST_ABOVE, LARGE)
ALL_SAMPLES = 60
FULL_SMALL, FULL_LARGE = 0.2, 2.4  # all samples an update: a feature is seen once, not twice, in two updates of half of the samples
SEEDS = range(4, 8)  # 0 to 3 were used to choose norms, rates and steps
STEPS = 1500
OVERSHOT, WINDOW = 0.2, 50
LEARNED = 0.1
FITTED = 0.01
FAITHFUL = 0.1


class Settings(WeakStrongKnobs, Initialization, Schedule, Momentum, defaults={"momentum": 0.0, "samples": ALL_SAMPLES}):
    """The data, a two-layer network and its descent."""

    lr: float = knob(LARGE, 0.01, 3.0, valid=above(0.0), log=True, group="optimizer", doc="learning rate (peak)")
    filters: int = knob(16, 1, 64, valid=at_least(1), group="model", doc="filters that add to the output; as many subtract from it")


TASK = WeakStrong()


class Filters(nn.Module):
    """(B, patch, dimension) to (B,): mean over filters of the sum over patches of relu(w x)^2, minus the same of other filters.

    The weights (2, filters, dimension) start normal with standard deviation 1 / sqrt(dimension). Taps hidden (B, patch, 2, filters).
    """

    def __init__(self, knobs: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(2, knobs.filters, knobs.dimension))

    def rules(self) -> dict[str, Rule]:
        """See `models.initialize`."""
        return {"weight": normal("matrix", self.weight.shape[-1] ** -0.5)}

    def forward(self, x_BPD: Tensor) -> Tensor:
        hidden = taps.tap("hidden", squared_relu(torch.einsum("bpd,srd->bpsr", x_BPD, self.weight)))
        plus, minus = hidden.sum(1).mean(-1).unbind(-1)
        return taps.tap("readout", plus - minus)


def squared_relu(z: Tensor) -> Tensor:
    """relu(z)^2."""
    return z.clamp(min=0).square()


def half_square(readout: Tensor, batch: Any, knobs: Any = None) -> Tensor:
    """Mean of (f(x) - y)^2 / 2."""
    return (readout - batch["y"]).square().mean() / 2


def seen(samples: Any, batch: Any, knobs: Any) -> dict[str, Tensor]:
    """What an update sees: those of a run's samples whose places the batch names."""
    return TASK.samples(knobs, samples, batch["index"])


@probe()
def residual(m):
    """1 - y f(x) of the samples of the update; below 0 they are overshot"""
    return 1 - (m.batch["y"] * m.taps["readout"]).mean()


@probe()
def weak_output(m):
    """What the weak feature adds to y f(x)"""
    return _added(m.params["weight"][..., WEAK] * m.knobs.weak_norm)


@probe()
def strong_output(m):
    """What the strong feature adds to y f(x) where it is present"""
    return _added(m.params["weight"][..., STRONG] * m.knobs.strong_norm)


@probe("unit", every=10)
def weak_projection(m):
    """Projection of each filter on the weak feature, in the direction of the label that it stands for"""
    plus, minus = m.params["weight"][..., WEAK]
    return torch.cat([plus, -minus])


@probe("unit", every=10)
def strong_projection(m):
    """Projection of each filter on the strong feature, in the direction of the label that it stands for"""
    plus, minus = m.params["weight"][..., STRONG]
    return torch.cat([plus, -minus])


@probe(every=10, on="state", cost="forward", vectorised=True)
def training_loss(state, knobs, shared, key):
    """Training loss, half the squared error of all samples"""
    batch = TASK.all_samples(knobs, state["samples"])
    return half_square(_output(state, shared, batch["x"]), batch)


@probe(every=10, on="state", cost="forward", vectorised=True)
def noise_output(state, knobs, shared, key):
    """What the noise patches add to y f(x), mean over training samples"""
    batch = TASK.all_samples(knobs, state["samples"])
    features = torch.eye(knobs.dimension, dtype=batch["x"].dtype, device=batch["x"].device)[[WEAK, STRONG]].sum(0)
    return (batch["y"] * _output(state, shared, batch["x"] * (1 - features))).mean()


@probe(every=10, on="state", cost="forward", vectorised=True)
def weak_only_accuracy(state, knobs, shared, key):
    """Share of held-out samples without the strong feature that are told right"""
    batch = TASK.weak_only(knobs, shared["evaluation"])
    return (batch["y"] * _output(state, shared, batch["x"]) > 0).to(batch["x"].dtype).mean()


@probe(every=10, on="state", cost="forward", vectorised=True)
def sample_sharpness(state, knobs, shared, key):
    """Sharpness of the loss of one sample where it is fitted, |df/dW|^2, mean over training samples"""
    x_BPD, weight = TASK.all_samples(knobs, state["samples"])["x"], state["params"]["weight"]
    slope = 2 * torch.einsum("bpd,srd->bpsr", x_BPD, weight).clamp(min=0) / knobs.filters
    return torch.einsum("bpsr,bqsr,bpd,bqd->b", slope, slope, x_BPD, x_BPD).mean()


def _output(state: Mapping[str, Any], shared: Mapping[str, Any], x: Tensor) -> Tensor:
    return models.apply(shared["model"], state["params"], state["buffers"], x)


def _added(along: Tensor) -> Tensor:
    """y f of a patch y times a feature, mean over both labels; `along` (2, filters) are the filters' products with the feature."""
    plus, minus = along
    return (squared_relu(plus) - squared_relu(minus) + squared_relu(-minus) - squared_relu(-plus)).mean() / 2


def oscillation_step(record: xr.DataTree) -> xr.DataArray:
    """First step at which y f(x) of the samples of the update is above 1.2."""
    return first_step(record.wb["residual"] < -OVERSHOT)


def overshot_share(residuals: xr.DataArray) -> xr.DataArray:
    """Of residuals (run, step), the share below -0.2 in the 50 measurements up to each."""
    return (residuals < -OVERSHOT).astype(float).rolling(step=WINDOW, min_periods=1).mean()


def weak_step(record: xr.DataTree) -> xr.DataArray:
    """First step at which the weak feature adds more than 0.1 to y f(x)."""
    return first_step(record.wb["weak_output"] > LEARNED)


def last(record: xr.DataTree, variable: str, lr: float, batch: int = 1) -> xr.DataArray:
    """The last measurement over `seed`, of the runs with this rate and batch."""
    return record.wb.where(lr=lr, batch=batch).wb.cube(variable, "seed").isel(step=-1, drop=True)


def more_right(record: xr.DataTree, low: float, high: float, batch: int = 1) -> xr.DataArray:
    """Effect per seed, in percentage points: accuracy without the strong feature at the high rate minus that at the low one.

    NaN for a seed where not both rates have fitted the training set.
    """
    fitted = (last(record, "training_loss", low, batch) < FITTED) & (last(record, "training_loss", high, batch) < FITTED)
    gain = last(record, "weak_only_accuracy", high, batch) - last(record, "weak_only_accuracy", low, batch)
    return 100 * gain.where(fitted)


def loss_left(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed: the training loss in which the small rate ends."""
    return last(record, "training_loss", SMALL)


def weak_beside_strong(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed: what the weak feature adds at the small rate, as a share of what the strong one adds."""
    return last(record, "weak_output", SMALL) / last(record, "strong_output", SMALL)


def head_start(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed, in steps: how long before the weak feature is learned the large rate begins to oscillate."""
    large = record.wb.where(lr=LARGE, batch=1)
    between = weak_step(large) - oscillation_step(large)
    return between.assign_coords(seed=("run", large["seed"].values)).swap_dims(run="seed")


@view("weak_only_accuracy")
def accuracy_against_lr(record: xr.DataTree) -> Any:
    """Accuracy on samples without the strong feature at the end, against the learning rate."""
    return sweep(record, "weak_only_accuracy", title="accuracy without the strong feature, at the end", rings=False)


@view("weak_output")
def weak_feature(record: xr.DataTree) -> Any:
    """What the weak feature adds to y f(x), against step; dashed where it counts as learned."""
    return curves(record, "weak_output", references={"learned": LEARNED}, logarithmic=False)


@view("residual")
def oscillation(record: xr.DataTree) -> Any:
    """Share of the last 50 updates whose samples were overshot, y f(x) above 1.2, against step."""
    title = f"share of the last {WINDOW} updates with y f(x) above {1 + OVERSHOT}"
    return curves(record, "residual", reduce=overshot_share, title=title, logarithmic=False)


@view("sample_sharpness")
def edge(record: xr.DataTree) -> Any:
    """Sharpness of one sample's loss times half the learning rate, against step: above 1 a fitted sample does not stay fitted."""
    rate = xr.DataArray(record["lr"].values, dims="run")
    references = {"edge": np.where(record["batch"].values == 1, 1.0, np.nan)}
    return curves(record, "sample_sharpness", reduce=lambda x: x * rate / 2, title="sharpness x lr / 2", references=references)


@view("training_loss")
def loss_of_each_run(record: xr.DataTree) -> Any:
    """Training loss against step; below the dashed line the samples are fitted."""
    return curves(record, "training_loss", references={"fitted": FITTED})


def summary(record: xr.DataTree) -> list[str]:
    """A line for each batch size, four at most: accuracy without the strong feature and weak feature at the end, for each rate."""
    lines = [f"{counted(record.sizes['run'], 'run')} of {counted(record.attrs['steps'], 'step')}. At the end, mean over runs:"]
    for batch in np.unique(record["batch"].values)[:4].tolist():
        runs = record.wb.where(batch=batch)
        lines.append(f"batch {batch}: " + "; ".join(_ended(runs.wb.where(lr=lr), lr) for lr in np.unique(runs["lr"].values).tolist()) + ".")
    return lines


def _ended(runs: xr.DataTree, lr: float) -> str:
    accuracy, weak = (runs.wb[name].isel(step=-1).mean().item() for name in ("weak_only_accuracy", "weak_output"))
    return f"lr {lr:g}: {accuracy:.0%} right without the strong feature, weak feature {weak:.2f}"


def edge_of_stability(row: Mapping[str, Any]) -> tuple[Level, ...]:
    """2 / lr, above which a sample that is fitted does not stay fitted, where an update sees one sample."""
    return (Level("2 / lr", 2 / row["lr"], "over"),) if row["batch"] == 1 else ()


def learned(row: Mapping[str, Any]) -> tuple[Level, ...]:
    """Where the weak feature counts as learned."""
    return (Level("learned", LEARNED),)


def fitted(row: Mapping[str, Any]) -> tuple[Level, ...]:
    """Where y f(x) is 1."""
    return (Level("y f(x) = 1", 0.0),)


def accuracy_reached(record: xr.DataTree) -> int:
    """Which of ACCURACIES came true, mean over seeds; a diverged run has none right."""
    found = record.wb["weak_only_accuracy"].sel(step=LATER, method="nearest").fillna(0.0).mean().item()
    return int(np.searchsorted(CUTS, found))


LATER, CUTS = 500, (0.75, 0.95)
ACCURACIES = ("below 75 %", "75 % to 95 %", "above 95 %")
PREDICTIONS = (
    Prediction(
        f"Of samples without the strong feature, how many will be told right after {LATER} steps?", ACCURACIES, accuracy_reached, LATER
    ),
)
GAUGES = (
    Gauge("residual", title="1 - y f(x) of the sample drawn", levels=fitted),
    Gauge("weak_output", title="weak feature: what it adds to y f(x)", levels=learned),
    Gauge("weak_only_accuracy", title="accuracy without the strong feature"),
    Gauge("sample_sharpness", title="sharpness of one sample's loss", levels=edge_of_stability),
    Gauge("weak_projection", "map", "weak feature in each filter"),
    Gauge("training_loss", title="training loss, all samples", logarithmic=True, shown=False),
    Gauge("strong_output", title="strong feature: what it adds to y f(x)", shown=False),
    Gauge("noise_output", title="noise of the training samples: what it adds to y f(x)", shown=False),
    Gauge("strong_projection", "map", "strong feature in each filter", shown=False),
    Gauge("learning_rate", title="learning rate", shown=False),
)
PAIRED = "training set, samples drawn and first weights"
POINTS = "percentage points"
CLAIMS = (
    Claim(
        "benign-oscillation",
        f"On samples without the strong feature, the rate {LARGE} ends more accurate than {SMALL}, both with training loss below {FITTED}",
        partial(more_right, low=SMALL, high=LARGE),
        threshold=0.0,
        threshold_source="any gain",
        paired=PAIRED,
        units=POINTS,
    ),
    Claim(
        "benign-oscillation",
        f"The rate {SMALL} fits the training set (training loss at the end)",
        loss_left,
        threshold=FITTED,
        threshold_source="our choice, a fiftieth of the loss at initialization",
        paired="its own end",
        above=False,
    ),
    Claim(
        "benign-oscillation",
        f"At the rate {SMALL} the weak feature adds less than a tenth of what the strong one adds to y f(x) at the end",
        weak_beside_strong,
        threshold=FAITHFUL,
        threshold_source="our choice; the paper says that it makes little progress",
        paired="the same weights",
        above=False,
    ),
    Claim(
        "benign-oscillation",
        f"At the rate {LARGE} oscillation (y f(x) above {1 + OVERSHOT}) begins before the weak feature adds {LEARNED} to y f(x)",
        head_start,
        threshold=0.0,
        threshold_source="any lead",
        paired="the same run",
        units="step",
    ),
    Claim(
        "benign-oscillation",
        f"It takes a rate above the edge, here 0.89: {JUST_ABOVE} ends more accurate without the strong feature than {BELOW}, both fitted",
        partial(more_right, low=BELOW, high=JUST_ABOVE),
        threshold=0.0,
        threshold_source="any gain; a strong feature that is fitted alone is stable below filters / (2 norm^2)",
        paired=PAIRED,
        units=POINTS,
    ),
    Claim(
        "benign-oscillation",
        f"Sampling noise is not needed: with all samples in every update {FULL_LARGE} ends more accurate than {FULL_SMALL}, both fitted",
        partial(more_right, low=FULL_SMALL, high=FULL_LARGE, batch=ALL_SAMPLES),
        threshold=0.0,
        threshold_source="any gain",
        paired=PAIRED,
        units=POINTS,
    ),
)
FULL = grid(lr=RATES, seed=SEEDS) + grid(lr=(FULL_SMALL, FULL_LARGE), batch=ALL_SAMPLES, seed=SEEDS)

study = Study(
    __name__,
    title="Benign oscillation at large learning rates",
    knobs=Settings,
    task=TASK,
    learner=OwnSamples(Filters, half_square, TASK.evaluation, training=TASK.raw, seen=seen),
    probes=(residual, weak_output, strong_output, training_loss, weak_only_accuracy, sample_sharpness),
    optional_probes=(noise_output, weak_projection, strong_projection, learning_rate),
    coords=lambda knobs: dict(unit=range(2 * knobs.filters)),
    views=(accuracy_against_lr, weak_feature, oscillation, edge, loss_of_each_run),
    gauges=GAUGES,
    predictions=PREDICTIONS,
    events=(
        Event("oscillation_step", oscillation_step, "step", "first step with y f(x) of the update's samples above 1.2 (NaN: none)"),
        Event("weak_step", weak_step, "step", "first step at which the weak feature adds more than 0.1 to y f(x) (NaN: none)"),
    ),
    presets=(
        Preset("large rate", {"lr": LARGE}, "The strong feature is overshot and undershot until the weak one has grown."),
        Preset("small rate", {"lr": SMALL}, "The strong feature is learned within some hundred steps; the weak one never is."),
        Preset("just below the edge", {"lr": BELOW}, "Eight times the small rate, and still nothing oscillates for long."),
        Preset(
            "all samples, large rate", {"lr": FULL_LARGE, "batch": ALL_SAMPLES}, "Gradient descent without sampling oscillates as well."
        ),
        Preset("too large", {"lr": 2.0}, "The oscillation has no end, and the run diverges."),
    ),
    budgets={
        "smoke": Budget(grid(lr=(SMALL, LARGE)), 40),
        "demo": Budget(grid(lr=(SMALL, BELOW, LARGE), seed=range(4)), 800),
        "full": Budget(FULL, STEPS, clocks={"weak_output": 10, "strong_output": 10}),
    },
    claims=CLAIMS,
    summary=summary,
)
