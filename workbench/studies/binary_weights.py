"""Binary networks and the estimator of their gradients.

Question.   What should stand for the derivative of the sign in a net of binary weights and activations: something true or something tame?
Phenomenon. A power function comes nearer to the sign the higher its power, and gradients then differ ever more in size; somewhere between
            a net is trained best.
Try.        Raise `power` from 3 to 30 and watch the error fall and the spread of the gradients rise; then switch `binary_activations` off.
Cites.      Wu et al. 2023, arXiv:2308.06689 (ReSTE, the two indicators, the course of the power).
Differs.    A perceptron on Fashion-MNIST stands for ResNets and VGG on CIFAR-10 and ImageNet, 1,000 updates of 64 pictures for 1,000 epochs
            of 256. First layer and readout are of full precision as there. The recipe is theirs (SGD with momentum 0.9, rate 0.1 along a
            cosine to 0, decay 1e-4), without their optional warmup, and decay is for matrices alone. The error is that of the power as it
            stands, where their code takes the last one from the start. Their code's baseline, the clipped straight-through estimator,
            cannot run as it is published; ours is what it says.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor

from .. import taps
from ..claim import Claim
from ..design import grid
from ..events import final_loss
from ..gauge import Gauge
from ..knobs import at_least, knob
from ..learners import Supervised
from ..models import MLP, Perceptron, Regularization
from ..models.mlp import Dense
from ..numerics import binary
from ..numerics.binary import Binarization
from ..optimizers import Momentum
from ..probe import probe
from ..probes import learning_rate, train_accuracy, train_loss, validation_accuracy
from ..progress import counted
from ..schedules import Schedule
from ..sensitivity import exponent
from ..study import Budget, Event, Moment, Now, Prediction, Preset, Study
from ..tasks import ImageKnobs, Images
from ..view import view
from ..views import curves, intervals
from ..views.theme import number

POWERS = (1.0, 2.0, 3.0, 5.0, 10.0, 30.0)
LOWEST, PUBLISHED, HIGHEST = 1.0, 3.0, 30.0
MIDDLE, ABOVE = 2.0, 5.0  # the middle was best on seeds 0 to 3
SEEDS = range(4, 12)  # 0 to 3 were used to choose size and steps too
STEPS = 1000
PICTURE = 28 * 28


class Settings(
    ImageKnobs,
    Binarization,
    Perceptron,
    Regularization,
    Schedule,
    Momentum,
    defaults={"batch": 64, "width": 64, "bias": False, "batch_norm": True, "lr": 0.1, "schedule": "cosine", "weight_decay": 1e-4},
):
    """Pictures, a perceptron whose inner layers are binary, and its descent."""

    depth: int = knob(4, 2, 8, valid=at_least(2), group="model", doc="hidden layers, of which all but the first are binary")


class Tapped(Dense):
    """A linear layer that taps its weight, as `weight`, where it can be binarized."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, taps.tap(f"{self.path}.weight", self.weight), self.bias)


class BinaryMLP(MLP):
    """`MLP` whose layers between the first and the readout tap their weights."""

    def __init__(self, knobs: Any, inputs: int, outputs: int) -> None:
        super().__init__(knobs, inputs, outputs)
        for i in range(1, knobs.depth):
            self.layers[i] = Tapped(knobs.width, knobs.width, knobs.bias)


def model(knobs: Any) -> BinaryMLP:
    """The perceptron for pictures of 28 x 28."""
    return BinaryMLP(knobs, PICTURE, Images().classes(knobs))


def power_at(knobs: Any, step: Tensor) -> Tensor:
    """Power at update number `step`: 1 + (1 - cos(pi / 2 x step / horizon)) (power - 1) if it rises, held at its end afterwards."""
    power = torch.as_tensor(knobs.power, dtype=step.dtype, device=step.device)
    if knobs.power_course == "constant":
        return power
    return 1 + (1 - torch.cos(math.pi / 2 * (step / knobs.horizon).clamp(max=1))) * (power - 1)


@dataclass(frozen=True)
class RisingPower(Supervised):
    """Supervised learning in which the power of the estimator follows its course; probes see it as it stands."""

    def step(self, state: Mapping[str, Any], batch: Any, knobs: Any, shared: Mapping[str, Any], now: Now) -> tuple[dict[str, Any], Moment]:
        """One update, with the power of this step."""
        return super().step(state, batch, knobs.filled({"power": power_at(knobs, now.step)}), shared, now)


def _binary(tree: Mapping[str, Tensor], m: Any) -> list[Tensor]:
    """What `tree` has for the weights of the binary layers."""
    return [tree[f"layers.{i}.weight"] for i in range(1, m.knobs.depth)]


@probe(every=10)
def applied_power(m):
    """Power of the estimator at this step"""
    return torch.as_tensor(m.knobs.power)


@probe(every=10)
def estimating_error(m):
    """Distance of the estimator's function from the sign at the binary weights, L2, summed over layers"""
    away = [binary.estimate(w, m.knobs) - torch.sign(w) for w in _binary(m.params, m)]
    return torch.stack([torch.linalg.vector_norm(x) for x in away]).sum()


@probe(every=10)
def gradient_variance(m):
    """Variance of the size of the binary weights' gradients, summed over layers; the smaller the more stable"""
    return torch.stack([g.abs().var() for g in _binary(m.grads, m)]).sum()


@probe("layer", every=10)
def flipped_share(m):
    """Share of a binary layer's weights that change their sign in the update"""
    pairs = zip(_binary(m.params, m), _binary(m.updates, m), strict=True)
    return torch.stack([(torch.sign(w) != torch.sign(w + u)).to(w.dtype).mean() for w, u in pairs])


def ended(record: xr.DataTree, variable: str) -> xr.DataArray:
    """Mean of a variable over the last tenth of its measurements, over `run`; NaN for a diverged run."""
    values = record.wb[variable]
    return values.isel(step=slice(-max(1, values.sizes["step"] // 10), None)).mean("step", skipna=False)


def cells(record: xr.DataTree, quantity: xr.DataArray, estimator: str = "reste") -> xr.DataArray:
    """A number per run as (power, seed), of the runs with this estimator; the mean where other knobs vary."""
    chosen = record["estimator"].values == estimator
    keys = [record[name].values[chosen] for name in ("power", "seed")]
    each = pd.Series(quantity.values[chosen], pd.MultiIndex.from_arrays(keys, names=["power", "seed"]))
    found = each.groupby(level=["power", "seed"]).agg(lambda values: values.mean(skipna=False)).to_xarray()
    found["power"].attrs["long_name"] = "power of the estimator at the end"
    return found


def error_over_power(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed: exponent of the estimating error at the end over the power."""
    return exponent(cells(record, record.wb["estimating_error"].isel(step=-1)), "power")


def variance_over_power(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed: exponent of the gradient variance in the last tenth over the power."""
    return exponent(cells(record, ended(record, "gradient_variance")), "power")


def accuracy(record: xr.DataTree) -> xr.DataArray:
    """Held-out accuracy after the last update in percent, over `run`; NaN for a diverged run."""
    return 100 * record.wb["validation_accuracy"].isel(step=-1)


def gain(record: xr.DataTree, over: float) -> xr.DataArray:
    """Effect per seed, in percentage points: accuracy with the published power minus that with another one."""
    found = cells(record, accuracy(record))
    return found.sel(power=PUBLISHED, drop=True) - found.sel(power=over, drop=True)


def gain_over_ste(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed, in percentage points: accuracy with the published power minus that of the clipped straight-through estimator."""
    return cells(record, accuracy(record)).sel(power=PUBLISHED, drop=True) - cells(record, accuracy(record), "ste").mean("power")


def excess(record: xr.DataTree, of: float) -> xr.DataArray:
    """Effect per seed, in nats: final training loss of a power minus that of the middle one."""
    found = cells(record, final_loss(record))
    return found.sel(power=of, drop=True) - found.sel(power=MIDDLE, drop=True)


def beside_the_lowest(values: xr.DataArray) -> xr.DataArray:
    """Values (power, seed) as multiples of those at the lowest power."""
    return values / values.isel(power=0, drop=True)


def estimators(record: xr.DataTree) -> str:
    """The estimator whose powers are compared: reste where there are such runs."""
    return "reste" if (record["estimator"].values == "reste").any() else "ste"


@view("estimating_error", "gradient_variance")
def trade_off(record: xr.DataTree) -> Any:
    """Estimating error and gradient variance at the end against the power, as multiples of those at the lowest power."""
    name = estimators(record)
    error, variance = record.wb["estimating_error"].isel(step=-1), ended(record, "gradient_variance")
    groups = {"estimating error": cells(record, error, name), "gradient variance": cells(record, variance, name)}
    multiples = {text: beside_the_lowest(values) for text, values in groups.items()}
    return intervals(multiples, title="multiple of that at the lowest power", colour="indicator", logarithmic=True)


@view("validation_accuracy")
def accuracy_against_power(record: xr.DataTree) -> Any:
    """Held-out accuracy after the last update against the power: mean over seeds and its 95 % interval."""
    names = dict.fromkeys(record["estimator"].values.tolist())
    return intervals({name: cells(record, accuracy(record), name) for name in names}, title="held-out accuracy [%]", colour="estimator")


@view("train_loss")
def final_loss_against_power(record: xr.DataTree) -> Any:
    """Training loss of the last tenth of updates against the power: mean over seeds and its 95 % interval."""
    names = dict.fromkeys(record["estimator"].values.tolist())
    return intervals({name: cells(record, final_loss(record), name) for name in names}, title="training loss [nat]", colour="estimator")


@view("estimating_error")
def error_of_each_run(record: xr.DataTree) -> Any:
    """Distance of the estimator's function from the sign at the binary weights, against step."""
    return curves(record, "estimating_error", title="estimating error")


@view("gradient_variance")
def variance_of_each_run(record: xr.DataTree) -> Any:
    """Variance of the size of the binary weights' gradients, against step."""
    return curves(record, "gradient_variance", title="gradient variance")


def summary(record: xr.DataTree) -> list[str]:
    """Four lines at most: accuracy, error and gradient variance at the end for each power, mean over runs."""
    lines = [f"{counted(record.sizes['run'], 'run')} of {counted(record.attrs['steps'], 'step')}; at the end, mean over runs:"]
    rows = {
        "held-out accuracy in %": (accuracy(record), ".1f"),
        "estimating error": (record.wb["estimating_error"].isel(step=-1), ".4g"),
        "gradient variance": (ended(record, "gradient_variance"), ".2g"),
    }
    for text, (quantity, written) in rows.items():
        found = {name: cells(record, quantity, name).mean("seed") for name in dict.fromkeys(record["estimator"].values.tolist())}
        parts = (f"{name} {number(power)}: {x:{written}}" for name, each in found.items() for power, x in each.to_series().items())
        lines.append(f"{text}: " + ", ".join(parts) + ".")
    return lines


def loss_reached(record: xr.DataTree) -> int:
    """Which of LOSSES came true: mean training loss of the last 50 updates up to LATER, over seeds too; a diverged run has the largest."""
    before = record.wb["train_loss"].sel(step=slice(None, LATER)).isel(step=slice(-50, None))
    found = before.mean("step", skipna=False).fillna(np.inf).mean().item()
    return int(np.searchsorted(CUTS, found))


LATER, CUTS = 300, (0.6, 0.75)
LOSSES = ("below 0.6 nat", "0.6 to 0.75 nat", "above 0.75 nat")
PREDICTIONS = (Prediction(f"Where will the training loss be after {LATER} updates?", LOSSES, loss_reached, LATER),)
GAUGES = (
    Gauge("train_loss", title="training loss"),
    Gauge("estimating_error", title="estimating error: distance from the sign"),
    Gauge("gradient_variance", title="gradient variance of the binary weights", logarithmic=True),
    Gauge("flipped_share", title="weights that change their sign in an update", over={"layer": "mean"}, logarithmic=True),
    Gauge("applied_power", title="power of the estimator", shown=False),
    Gauge("train_accuracy", title="training accuracy", shown=False),
    Gauge("validation_accuracy", title="held-out accuracy", shown=False),
    Gauge("learning_rate", title="learning rate", shown=False),
)
PAIRED = "pictures, batches, rates and first weights"
POINTS = "percentage points"
CLAIMS = (
    Claim(
        "reste",
        "The estimating error falls with the power (exponent, at the end, powers 1 to 30)",
        error_over_power,
        threshold=0.0,
        threshold_source="any fall",
        paired=PAIRED,
        above=False,
    ),
    Claim(
        "reste",
        "The variance of the gradients grows with the power (exponent, last tenth of updates, powers 1 to 30)",
        variance_over_power,
        threshold=0.0,
        threshold_source="any growth",
        paired=PAIRED,
    ),
    Claim(
        "reste",
        "The power 3 ends more accurate than the power 1, which is straight-through up to size 1.5",
        partial(gain, over=LOWEST),
        threshold=0.0,
        threshold_source="any gain",
        paired=PAIRED,
        units=POINTS,
    ),
    Claim(
        "reste",
        "The power 3 ends more accurate than the power 30",
        partial(gain, over=HIGHEST),
        threshold=0.0,
        threshold_source="any gain",
        paired=PAIRED,
        units=POINTS,
    ),
    Claim(
        "reste",
        "The power 3 ends more accurate than the clipped straight-through estimator",
        gain_over_ste,
        threshold=0.0,
        threshold_source="any gain",
        paired=PAIRED,
        units=POINTS,
    ),
    Claim(
        "reste",
        "The power 1 ends with a higher training loss than the power 2, the best of the seeds before",
        partial(excess, of=LOWEST),
        threshold=0.0,
        threshold_source="any excess",
        paired=PAIRED,
        units="nat",
    ),
    Claim(
        "reste",
        "The power 5 ends with a higher training loss than the power 2, the best of the seeds before",
        partial(excess, of=ABOVE),
        threshold=0.0,
        threshold_source="any excess",
        paired=PAIRED,
        units="nat",
    ),
)

study = Study(
    __name__,
    title="Binary networks and the estimator of their gradients",
    knobs=Settings,
    task=Images(),
    learner=RisingPower(model, evaluation=Images().evaluation, edits=binary.edits),
    probes=(train_loss, estimating_error, gradient_variance, flipped_share, applied_power),
    optional_probes=(train_accuracy, validation_accuracy.on_clock(100), learning_rate),
    coords=lambda knobs: dict(layer=range(1, knobs.depth)),
    views=(trade_off, accuracy_against_power, final_loss_against_power, error_of_each_run, variance_of_each_run),
    gauges=GAUGES,
    predictions=PREDICTIONS,
    events=(Event("final_loss", final_loss, "nat", "mean training loss over the last tenth, at most the initial loss"),),
    presets=(
        Preset("published power", {"power": PUBLISHED}, "The power rises from 1 to 3 over the run."),
        Preset("straight through", {"power": LOWEST}, "The derivative of the sign is taken to be 1 up to size 1.5."),
        Preset("near the sign", {"power": HIGHEST}, "The error becomes small, the gradients differ widely, and the loss stays high."),
        Preset("weights alone are binary", {"binary_activations": False}, "Nearly as good as full precision, whatever the power."),
        Preset("full precision", {"binary_activations": False, "binary_weights": False}, "The same net without any sign."),
    ),
    budgets={
        "smoke": Budget(grid(power=(LOWEST, PUBLISHED), batch=8, width=16), 20, probes=("validation_accuracy",)),
        "demo": Budget(grid(power=(LOWEST, PUBLISHED, HIGHEST), seed=range(4)), 300, probes=("validation_accuracy",)),
        "full": Budget(
            grid(power=POWERS, seed=SEEDS) + grid(estimator="ste", power=LOWEST, seed=SEEDS),
            STEPS,
            probes=("validation_accuracy",),
            clocks={"flipped_share": 100},
        ),
    },
    claims=CLAIMS,
    summary=summary,
)
