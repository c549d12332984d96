"""AdaBelief on pictures and text.

Question.   Does it help to divide by how far gradients lie from their mean, instead of by how large they are?
Phenomenon. Here gradients are little else than noise. Of noise AdaBelief's s is a fixed share of Adam's v, and AdaBelief is Adam at a rate
            8 % higher. What sets its recipe for pictures apart is epsilon, which joins s at every step and adds up to 1e-5 to it.
Try.        Watch `step_ratio` with `epsilon` 1e-8 and with 1e-16, or with `adabelief_adds_epsilon` off; then raise `batch` to 256.
Cites.      Zhuang et al. 2020, arXiv:2010.07468 (AdaBelief and its recipes; steps that are large where gradients are believed); Zhang et
            al. 2022, arXiv:2203.13273 (epsilon at every step narrows the range of the steps, towards SGD).
Differs.    Of the paper's three claims this is two, on classifiers and on text; that on GANs, and with it the verdict on the whole, comes
            with the studies of GANs. An MLP with batch norm on 2,000 pictures of Fashion-MNIST, without augmentation, and 1,000 updates of
            64 along a cosine stand for VGG, ResNet and DenseNet on CIFAR and 200 epochs of 128; a decoder of characters for LSTMs of words.
            Decays, betas and the LSTM's clipping are theirs, epsilon is 1e-8 for pictures and 1e-16, as for their transformer, for text.
            Without rectification, as in the paper's algorithm and its recipe for CIFAR; the released default has it. The decay is L2, that
            of AdamW coupled.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor, nn

from .. import inputs, noise
from ..claim import Claim
from ..design import Design, grid
from ..errors import InputError
from ..events import final_loss
from ..gauge import Gauge, Level
from ..knobs import above, at_least, knob
from ..learners import Supervised
from ..models import MLP, Convnet, Convolutional, Decoder, Perceptron, Transformer
from ..optimizers import AdaBelief, Optimizer, Optimizers, adam, carried, clip_global_norm
from ..optimizers import effective_step as steps_of_parameters
from ..optimizers.adam import effective_step as steps_of_adam
from ..probe import probe
from ..probes import (
    effective_step,
    gradient_norm_total,
    learning_rate,
    train_accuracy,
    train_loss,
    update_norm_total,
    validation_accuracy,
    validation_loss,
)
from ..progress import counted
from ..schedules import Schedule
from ..sensitivity import exponent
from ..study import Budget, Event, Moment, Now, Prediction, Preset, Study, Terms
from ..tasks import ImageKnobs, Images, Text, TextKnobs, choose
from ..view import view
from ..views import curves, intervals, sweep
from ..views.layout import VARIANT, Factor
from ..views.medians import medians
from ..views.theme import number, word

L2 = {"weight_decay": 5e-4, "weight_decay_kind": "l2"}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "SGD": {"optimizer": "sgd", **L2},
    "Adam": {"optimizer": "adamw", **L2},
    "AdamW": {"optimizer": "adamw", "weight_decay": 1e-2, "weight_decay_kind": "coupled"},
    "AdaBelief": {"optimizer": "adabelief", "adabelief_adds_epsilon": True, **L2},
    "epsilon once": {"optimizer": "adabelief", "adabelief_adds_epsilon": False, **L2},
}
TEXT_DECAY = {"weight_decay": 1.2e-6}
DECODER = {"network": "decoder", "width": 32, "batch": 8, "clip": 0.25, **TEXT_DECAY}
SIZES: Mapping[str, Mapping[str, Any]] = {"mlp": {"network": "mlp", "width": 64, "batch": 64, "clip": 0.0}, "decoder": DECODER}
TEXT_VARIANTS: Mapping[str, Mapping[str, Any]] = {
    name: VARIANTS[name] | TEXT_DECAY | ({"epsilon": 1e-16} if name == "AdaBelief" else {}) for name in ("SGD", "Adam", "AdaBelief")
}
SHOWN = {"mlp": "pictures", "decoder": "text"}
OF_NETWORK = {"mlp": VARIANTS, "decoder": TEXT_VARIANTS}
# Of the adaptive methods, and of SGD.
RATES = {
    "mlp": ((3e-4, 1e-3, 3e-3, 1e-2, 3e-2), (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)),
    "decoder": ((3e-3, 1e-2, 3e-2), (1e-1, 3e-1, 1.0)),
}
PUBLISHED_RATE = 1e-3
# The most accurate on test pictures, or the lowest loss on held-out text, mean over seeds 0 to 3.
BEST: Mapping[str, Mapping[str, float]] = {
    "mlp": {"SGD": 3e-2, "Adam": 1e-3, "AdamW": 3e-3, "AdaBelief": 1e-3, "epsilon once": 3e-3},
    "decoder": {"SGD": 3e-1, "Adam": 1e-2, "AdaBelief": 1e-2},
}
BATCHES = (16, 64, 256)
SEEDS = range(4, 12)  # 0 to 3 were used to choose sizes, steps and rates
FEW_SEEDS = range(4, 8)  # of the rates that are not the best
STEPS = 1000
EARLY = 0.2
MARGIN = 0.5
SLOWER = 1.05
EPSILON = 1e-8
PICTURE = 28 * 28
EVERY_WINDOW = 32


class Settings(
    ImageKnobs,
    TextKnobs,
    Convolutional,
    Perceptron,
    Transformer,
    Schedule,
    Optimizers,
    AdaBelief,
    defaults={
        "batch": 64,
        "context": 32,
        "heads": 2,
        "bias": False,
        "schedule": "cosine",
        "weight_decay": 5e-4,
        "weight_decay_kind": "l2",
    },
):
    """A classifier of pictures or a small decoder of text, and its optimizer."""

    network: Literal["mlp", "convnet", "decoder"] = knob("mlp", group="model", doc="MLP or convnet of pictures, or decoder of text")
    samples: int = knob(2000, 100, 10_000, valid=at_least(1), units="example", group="data", doc="images to train on")
    depth: int = knob(2, 1, 6, valid=at_least(1), group="model", doc="hidden layers, convolutions or blocks")
    width: int = knob(64, 8, 512, valid=at_least(1), group="model", doc="units, first channels, or width of the residual stream")
    lr: float = knob(1e-3, 1e-5, 100.0, valid=above(0.0), log=True, group="optimizer", doc="learning rate (peak)")
    optimizer: Literal["sgd", "adamw", "adabelief"] = knob("adabelief", acts="switch", group="optimizer", doc="optimizer")
    epsilon: float = knob(EPSILON, 1e-20, 1e-3, log=True, group="optimizer", doc="what Adam adds to its denominator, AdaBelief to s too")


@dataclass(frozen=True)
class FewImages(Images):
    """Images drawn at random with replacement from the first `samples` of the training set."""

    reads: ClassVar[tuple[str, ...]] = ("images", "batch", "samples")

    def __call__(self, knobs: Any, key: Tensor) -> dict[str, Tensor]:
        """x float32 (batch, 28, 28), y int64 (batch,)."""
        pixels, labels = _first(inputs.images(knobs.images), knobs.samples, key.device)
        index = noise.randint(key, "images", len(labels), (knobs.batch,))
        return {"x": pixels[index], "y": labels[index]}


@lru_cache(maxsize=16)
def _first(pictures: inputs.Pictures, samples: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images and labels, standardized by mean and deviation of all training pixels as held-out images are."""
    if samples > len(pictures.training_labels):
        raise InputError(f"Knob 'samples' is {samples}, and there are {len(pictures.training_labels)} images to train on; choose fewer.")
    mean, deviation = pictures.training.mean(dtype=np.float64), pictures.training.std(dtype=np.float64)
    x = torch.tensor((pictures.training[:samples] - mean) / deviation, dtype=torch.float32, device=device)
    return x, torch.tensor(pictures.training_labels[:samples], device=device)


IMAGES, TEXT = FewImages(), Text()
TASK = choose("network", mlp=IMAGES, convnet=IMAGES, decoder=TEXT)


def model(knobs: Any) -> nn.Module:
    """The net that these knobs describe."""
    if knobs.network == "decoder":
        return Decoder(knobs, TEXT.vocabulary(knobs))
    classes = IMAGES.classes(knobs)
    return Convnet(knobs, classes) if knobs.network == "convnet" else MLP(knobs, PICTURE, classes)


def held_out(knobs: Any, device: Any) -> dict[str, Tensor]:
    """All held-out pictures, or every 32nd window of the held-out text."""
    every = EVERY_WINDOW if knobs.network == "decoder" else 1
    return {name: x[::every] for name, x in TASK.evaluation(knobs, device).items()}


@dataclass(frozen=True)
class BesideAdam(Supervised):
    """Supervised learning that also keeps, for AdaBelief, the state of an Adam that is fed the same gradients but moves nothing."""

    def init(self, key: Tensor, knobs: Any, shared: Mapping[str, Any]) -> dict[str, Any]:
        """As of `Supervised`, and `adam`; empty for other optimizers."""
        state = super().init(key, knobs, shared)
        return {**state, "adam": _adam(shared).init(state["params"]) if knobs.optimizer == "adabelief" else {}}

    def step(self, state: Mapping[str, Any], batch: Any, knobs: Any, shared: Mapping[str, Any], now: Now) -> tuple[dict[str, Any], Moment]:
        """One update; the moment gets `adam`."""
        new, moment = super().step(state, batch, knobs, shared, now)
        fed = state["adam"] and _adam(shared).update(moment.grads, state["adam"], state["params"], knobs, now.key, moment.rate)[1]
        return {**new, "adam": fed}, Moment(**vars(moment), adam=fed)

    def adapt(self, state: Mapping[str, Any], key: Tensor, old: Terms, new: Terms) -> dict[str, Any]:
        """The state carried over to other static knobs; what is new of Adam's begins at zero."""
        adapted = super().adapt(state, key, old, new)
        fresh = _adam(new.shared).init(adapted["params"]) if new.knobs.optimizer == "adabelief" else {}
        return {**adapted, "adam": carried(fresh, state["adam"])}


def _adam(shared: Mapping[str, Any]) -> Optimizer:
    return clip_global_norm(adam(shared["traits"]))


@probe(every=10)
def step_ratio(m):
    """AdaBelief's step as a multiple of Adam's on the same gradients

    Geometric mean over the matrices' weights of (sqrt(v_hat) + 1e-8) / (sqrt(s_hat) + epsilon). NaN for other optimizers.
    """
    if not m.adam:
        return m.loss * torch.nan
    traits = m.shared["traits"]
    ours = steps_of_parameters(m.optimizer, m.knobs, 1.0, traits)
    adams = steps_of_adam(m.adam, m.knobs.filled({"epsilon": EPSILON}), 1.0, traits)
    inner = [name for name, role in m.shared["roles"].items() if role == "matrix"]
    sizes = m.loss.new_tensor([m.params[name].numel() for name in inner])
    logs = torch.stack([torch.log(ours[name] / adams[name]) for name in inner])
    return torch.exp((sizes * logs).sum() / sizes.sum())


def noise_ratio(beta1: Any) -> Any:
    """The step as a multiple of Adam's where gradients are independent noise: s is 2 beta1^2 / (1 + beta1) of v."""
    return np.sqrt((1 + beta1) / 2) / beta1


@probe(every=10)
def momentum_cosine(m):
    """Cosine of the update and minus the mean gradient; 1 is the direction of SGD"""
    mean = m.optimizer["momentum"] if "momentum" in m.optimizer else m.optimizer["m"]
    update, mean = (torch.cat([tree[name].flatten() for name in m.params]) for tree in (m.updates, mean))
    return -(update @ mean) / (torch.linalg.vector_norm(update) * torch.linalg.vector_norm(mean))


def is_of(record: xr.DataTree, network: str, variant: str, **knobs: Any) -> np.ndarray:
    """Which runs are of a net and a variant of its optimizer, with the net's published recipe but for these knobs."""
    wanted = {"epsilon": EPSILON, **SIZES[network], **OF_NETWORK[network][variant], **knobs}
    return np.all([record[name].values == value for name, value in wanted.items()], axis=0)


def by_seed(record: xr.DataTree, quantity: xr.DataArray, runs: np.ndarray) -> xr.DataArray:
    """A number per run, of these runs, over `seed`."""
    return xr.DataArray(quantity.values[runs], dims="seed", coords={"seed": record["seed"].values[runs]}).sortby("seed")


def at_best(record: xr.DataTree, quantity: xr.DataArray, network: str, variant: str) -> xr.DataArray:
    """A number per run, of the runs of a variant at its best rate, over `seed`."""
    return by_seed(record, quantity, is_of(record, network, variant, lr=BEST[network][variant]))


def accuracy(record: xr.DataTree) -> xr.DataArray:
    """Held-out accuracy after the last update in percent, over `run`; NaN for a diverged run."""
    return 100 * record.wb["validation_accuracy"].isel(step=-1, drop=True)


def held_out_loss(record: xr.DataTree) -> xr.DataArray:
    """Held-out loss after the last update, over `run`; NaN for a diverged run."""
    return record.wb["validation_loss"].isel(step=-1, drop=True)


def early_loss(record: xr.DataTree) -> xr.DataArray:
    """Mean training loss over the first fifth of the updates, over `run`; NaN for a run that diverged in it."""
    loss = record.wb["train_loss"]
    return loss.isel(step=slice(0, max(1, round(EARLY * loss.sizes["step"])))).mean("step", skipna=False)


def generalization_gap(record: xr.DataTree) -> xr.DataArray:
    """Held-out loss after the last update minus mean training loss of the last tenth of updates, over `run`."""
    loss = record.wb["train_loss"]
    return held_out_loss(record) - loss.isel(step=slice(-max(1, loss.sizes["step"] // 10), None)).mean("step", skipna=False)


def mean_step_ratio(record: xr.DataTree) -> xr.DataArray:
    """Geometric mean over the run of AdaBelief's step as a multiple of Adam's, over `run`."""
    return np.exp(np.log(record.wb["step_ratio"]).mean("step", skipna=False))


def mean_cosine(record: xr.DataTree) -> xr.DataArray:
    """Mean over the run of the cosine of the update and minus the mean gradient, over `run`; moments without an update are left out."""
    return record.wb["momentum_cosine"].mean("step")


def better(record: xr.DataTree, of: Any, network: str, variant: str, than: str) -> xr.DataArray:
    """Effect per seed: `of(record)` of a variant minus that of another, each at its best rate."""
    found = of(record)
    return at_best(record, found, network, variant) - at_best(record, found, network, than)


def slower(record: xr.DataTree, variant: str, than: str) -> xr.DataArray:
    """Effect per seed: early training loss on pictures of a variant as a multiple of that of another, each at its best rate."""
    found = early_loss(record)
    return at_best(record, found, "mlp", variant) / at_best(record, found, "mlp", than)


def nearer(record: xr.DataTree, variant: str, than: str) -> xr.DataArray:
    """Effect per seed: cosine with the mean gradient on pictures of a variant minus that of another, both at the published rate."""
    of, than_that = (by_seed(record, mean_cosine(record), is_of(record, "mlp", name, lr=PUBLISHED_RATE)) for name in (variant, than))
    return of - than_that


def with_batches(record: xr.DataTree) -> np.ndarray:
    """Which runs tell what the batch does: pictures, epsilon added once, published rate."""
    return is_of(record, "mlp", "epsilon once", lr=PUBLISHED_RATE, batch=record["batch"].values)


def over_batch(record: xr.DataTree, runs: np.ndarray) -> xr.DataArray:
    """AdaBelief's step as a multiple of Adam's over (batch, seed), of these runs; the mean where other knobs vary."""
    keys = [record[name].values[runs] for name in ("batch", "seed")]
    each = pd.Series(mean_step_ratio(record).values[runs], pd.MultiIndex.from_arrays(keys, names=["batch", "seed"]))
    found = each.groupby(level=["batch", "seed"]).mean().to_xarray()
    found["batch"].attrs["long_name"] = "examples in an update"
    return found


def growth_over_batch(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed: exponent of AdaBelief's step beside Adam's over the batch."""
    return exponent(over_batch(record, with_batches(record)).dropna("seed"), "batch")


def part(record: xr.DataTree, network: str) -> xr.DataTree:
    """The runs of a net with its usual batch; all runs where there are none."""
    found = np.isin(network, record["network"].values)
    chosen = record.wb.where(network=network) if found else record
    usual = SIZES.get(network, SIZES["mlp"])["batch"]
    return chosen.wb.where(batch=usual) if found and usual in chosen["batch"].values else chosen


def variants(record: xr.DataTree) -> Factor:
    """The runs by variant of the optimizer; where some are of none, by all that varies beside rate and seed."""
    codes, names = np.full(record.sizes["run"], -1), []
    for network, known in OF_NETWORK.items():
        for name, knobs in known.items():
            wanted = {"epsilon": EPSILON, "network": network, **knobs}
            matches = np.all([record[knob].values == value for knob, value in wanted.items()], axis=0)
            if matches.any():
                names += [] if name in names else [name]
                codes[matches] = names.index(name)
    if (codes < 0).any():
        return _by_knobs(record)
    return Factor(VARIANT, tuple(names), codes)


def _by_knobs(record: xr.DataTree) -> Factor:
    varied = [name for name in record.wb.varied if name not in ("seed", "lr")]
    said = [", ".join(f"{name} {word(record[name].values[run])}" for name in varied) or "all runs" for run in range(record.sizes["run"])]
    names, codes = np.unique(said, return_inverse=True)
    return Factor(VARIANT, tuple(map(str, names)), codes)


def on_what(record: xr.DataTree) -> Factor:
    """The runs by net, variant, and batch where it is not the usual one; where some are of no variant, as `variants`."""
    known = variants(record)
    if not set(known.names) <= set(VARIANTS):
        return known
    said = []
    for code, network, batch in zip(known.codes, record["network"].values.tolist(), record["batch"].values.tolist(), strict=True):
        usual = batch == SIZES[network]["batch"]
        said.append(f"{SHOWN[network]}: {known.names[code]}" + ("" if usual else f", batch {batch}"))
    names = list(dict.fromkeys(said))
    return Factor(VARIANT, tuple(names), np.array([names.index(each) for each in said]))


def of_adabelief(record: xr.DataTree) -> xr.DataTree:
    """The runs of AdaBelief; all runs where there are none."""
    found = (record["optimizer"].values == "adabelief").any()
    return record.wb.where(optimizer="adabelief") if found else record


def at_best_rates(record: xr.DataTree, network: str) -> xr.DataTree:
    """The runs of a net in which each variant has its best rate; all of its runs where there are none."""
    shown = part(record, network)
    found = np.any([is_of(shown, network, name, lr=rate) for name, rate in BEST[network].items()], axis=0)
    return shown.isel(run=np.flatnonzero(found)) if found.any() else shown


@view("validation_accuracy")
def accuracy_against_lr(record: xr.DataTree) -> Any:
    """Accuracy on test pictures after the last update against the learning rate, a colour for each variant."""
    shown = part(record, "mlp")
    return sweep(shown, accuracy(shown), title="test accuracy [%]", factors=[variants(shown)], rings=False)


@view("validation_loss")
def text_loss_against_lr(record: xr.DataTree) -> Any:
    """Loss on held-out text after the last update against the learning rate, a colour for each variant."""
    shown = part(record, "decoder")
    return sweep(shown, held_out_loss(shown), title="held-out loss", factors=[variants(shown)])


@view("train_loss")
def early_loss_against_lr(record: xr.DataTree) -> Any:
    """Mean training loss on pictures over the first fifth of the updates against the learning rate, a colour for each variant."""
    shown = part(record, "mlp")
    return sweep(shown, early_loss(shown), title="training loss, first fifth", factors=[variants(shown)])


@view("train_loss", "validation_loss")
def losses_at_the_best_rates(record: xr.DataTree) -> Any:
    """Training and held-out loss on pictures against step, a panel for each variant at its best rate: median over seeds and range."""
    shown = at_best_rates(record, "mlp")
    losses = {"training": "train_loss", "held out": "validation_loss"}
    return medians(shown, losses, variants(shown), title="loss [nat]", logarithmic=True)


@view("step_ratio")
def steps_beside_those_of_adam(record: xr.DataTree) -> Any:
    """AdaBelief's step as a multiple of Adam's on the same gradients, against step; dashed what noise alone gives."""
    shown = of_adabelief(record)
    references = {"noise alone": noise_ratio(shown["beta1"].values), "Adam": 1.0}
    return curves(shown, "step_ratio", title="step as a multiple of Adam's", references=references, factors=[on_what(shown)])


@view("momentum_cosine")
def direction_against_lr(record: xr.DataTree) -> Any:
    """Cosine of update and mean gradient on pictures, mean over the run, against the learning rate, a colour for each variant."""
    shown = part(record, "mlp")
    return sweep(shown, mean_cosine(shown), title="cosine with the direction of SGD", factors=[variants(shown)], rings=False)


@view("step_ratio")
def steps_against_batch(record: xr.DataTree) -> Any:
    """AdaBelief's step as a multiple of Adam's on the same gradients against the batch: mean over seeds and its 95 % interval."""
    on_pictures = (record["network"].values != "decoder") & (record["optimizer"].values == "adabelief")
    wanted = (with_batches(record), on_pictures, np.ones(record.sizes["run"], bool))
    found = over_batch(record, next(runs for runs in wanted if runs.any()))
    return intervals({"AdaBelief": found}, title="step as a multiple of Adam's", colour="optimizer")


def summary(record: xr.DataTree) -> list[str]:
    """One line for each net and variant: its most accurate rate, or that of the lowest loss on text, and what it reaches there."""
    lines = [f"{counted(record.sizes['run'], 'run')} of {counted(record.attrs['steps'], 'step')}; means over runs at the best rate:"]
    for network in dict.fromkeys(record["network"].values.tolist()):
        shown = part(record, network)
        panel, on_text = variants(shown), network == "decoder"
        found = held_out_loss(shown) if on_text else -accuracy(shown)
        for code, name in enumerate(panel.names):
            each = found.assign_coords(lr=shown["lr"])[panel.codes == code].groupby("lr").mean()
            best = each.fillna(np.inf).idxmin().item()
            reached = abs(each.sel(lr=best).item())
            lines.append(f"{network}, {name}, rate {number(best)}: " + (f"{reached:.3f} nat." if on_text else f"{reached:.1f} %."))
    return lines


def loss_reached(record: xr.DataTree) -> int:
    """Which of LOSSES came true: mean training loss of the last 50 updates up to LATER, over seeds too; a diverged run has the largest."""
    before = record.wb["train_loss"].sel(step=slice(None, LATER)).isel(step=slice(-50, None))
    found = before.mean("step", skipna=False).fillna(np.inf).mean().item()
    return int(np.searchsorted(CUTS, found))


LATER, CUTS = 300, (0.1, 0.3)
LOSSES = ("below 0.1 nat", "0.1 to 0.3 nat", "above 0.3 nat")
PREDICTIONS = (Prediction(f"Where will the training loss be after {LATER} updates?", LOSSES, loss_reached, LATER),)


def heights_of_steps(row: Mapping[str, Any]) -> tuple[Level, ...]:
    """Adam's step, and AdaBelief's where gradients are noise and nothing else."""
    noisy = (Level("noise alone", float(noise_ratio(row["beta1"]))),) if row["beta1"] else ()
    return (Level("Adam", 1.0), *noisy)


GAUGES = (
    Gauge("train_loss", title="training loss", logarithmic=True),
    Gauge("step_ratio", title="AdaBelief's step as a multiple of Adam's", levels=heights_of_steps),
    Gauge("momentum_cosine", title="cosine of update and mean gradient"),
    Gauge("train_accuracy", title="training accuracy", shown=False),
    Gauge("validation_accuracy", title="held-out accuracy"),
    Gauge("validation_loss", title="held-out loss", shown=False),
)
PAIRED = "pictures, batches and first weights"
TEXT_PAIRED = "text, batches and first weights"
POINTS = "percentage points"
CLAIMS = (
    Claim(
        "adabelief",
        "AdaBelief's classifier generalizes like SGD's: its test accuracy is at most half a point lower, each at its best rate",
        partial(better, of=accuracy, network="mlp", variant="AdaBelief", than="SGD"),
        threshold=-MARGIN,
        threshold_source="our choice; the paper says comparable, of ImageNet",
        paired=PAIRED,
        units=POINTS,
    ),
    Claim(
        "adabelief",
        "What is to be mended: Adam's classifier is less accurate on test pictures than SGD's, each at its best rate",
        partial(better, of=accuracy, network="mlp", variant="SGD", than="Adam"),
        threshold=0.0,
        threshold_source="any loss",
        paired=PAIRED,
        units=POINTS,
    ),
    Claim(
        "adabelief",
        "AdaBelief's classifier is more accurate on test pictures than Adam's, each at its best rate",
        partial(better, of=accuracy, network="mlp", variant="AdaBelief", than="Adam"),
        threshold=0.0,
        threshold_source="any gain",
        paired=PAIRED,
        units=POINTS,
    ),
    Claim(
        "adabelief",
        "AdaBelief converges as fast as Adam: its training loss over the first fifth of updates is at most 5 % higher",
        partial(slower, variant="AdaBelief", than="Adam"),
        threshold=SLOWER,
        threshold_source="our choice; the paper names no number",
        paired=PAIRED,
        above=False,
    ),
    Claim(
        "adabelief",
        "AdaBelief converges faster than SGD: its training loss over the first fifth of updates is lower",
        partial(slower, variant="AdaBelief", than="SGD"),
        threshold=1.0,
        threshold_source="any lead",
        paired=PAIRED,
        above=False,
    ),
    Claim(
        "adabelief",
        "On text AdaBelief ends with a lower held-out loss than Adam, each at its best rate",
        partial(better, of=held_out_loss, network="decoder", variant="AdaBelief", than="Adam"),
        threshold=0.0,
        threshold_source="any gain",
        paired=TEXT_PAIRED,
        above=False,
        units="nat",
    ),
    Claim(
        "adabelief",
        "On text AdaBelief ends with a lower held-out loss than SGD, each at its best rate",
        partial(better, of=held_out_loss, network="decoder", variant="AdaBelief", than="SGD"),
        threshold=0.0,
        threshold_source="any gain",
        paired=TEXT_PAIRED,
        above=False,
        units="nat",
    ),
    Claim(
        "adabelief",
        "Believed gradients get larger steps: AdaBelief's step beside Adam's grows with the batch (exponent, 16 to 256 pictures)",
        growth_over_batch,
        threshold=0.0,
        threshold_source="any growth",
        paired="pictures and first weights",
    ),
    Claim(
        "adabelief",
        "AdaBelief's updates are nearer to the direction of SGD than Adam's (cosine with the mean gradient, rate 0.001)",
        partial(nearer, variant="AdaBelief", than="Adam"),
        threshold=0.0,
        threshold_source="any gain",
        paired=PAIRED,
    ),
    Claim(
        "adabelief",
        "Belief alone brings them nearer: the same with epsilon added once, to the root alone",
        partial(nearer, variant="epsilon once", than="Adam"),
        threshold=0.0,
        threshold_source="any gain",
        paired=PAIRED,
    ),
)


def _sum(designs: Iterable[Design]) -> Design:
    return Design(tuple(each for design in designs for each in design.grids))


def rates(network: str, variant: str) -> tuple[float, ...]:
    """The learning rates that are tried."""
    return RATES[network][variant == "SGD"]


def _design(network: str, every: Iterable[str], seeds: Iterable[int], **knobs: Any) -> Design:
    """Variants of an optimizer, each at all of its rates."""
    return _sum(
        grid(**{**SIZES[network], **OF_NETWORK[network][name], "lr": rates(network, name), "seed": seeds, **knobs}) for name in every
    )


def _at_best(network: str, every: Iterable[str], seeds: Iterable[int]) -> Design:
    return _sum(_design(network, [name], seeds, lr=BEST[network][name]) for name in every)


study = Study(
    __name__,
    title="AdaBelief on pictures and text",
    knobs=Settings,
    task=TASK,
    learner=BesideAdam(model, evaluation=held_out),
    probes=(
        train_loss,
        train_accuracy,
        validation_accuracy.on_clock(100),
        validation_loss.on_clock(100),
        step_ratio,
        momentum_cosine,
    ),
    optional_probes=(
        learning_rate,
        effective_step,
        gradient_norm_total,
        update_norm_total,
    ),
    coords=lambda knobs: dict(layer=range(knobs.depth)),
    budgets={
        "smoke": Budget(_at_best("mlp", ("SGD", "Adam", "AdaBelief"), (0,)), 20),
        "demo": Budget(_design("mlp", ("SGD", "Adam", "AdaBelief"), range(2)) + _at_best("decoder", TEXT_VARIANTS, range(2)), 400),
        "full": Budget(
            _design("mlp", VARIANTS, FEW_SEEDS)
            + _at_best("mlp", VARIANTS, SEEDS)
            + _design("mlp", ["epsilon once"], SEEDS, lr=PUBLISHED_RATE, batch=BATCHES)
            + _design("decoder", TEXT_VARIANTS, FEW_SEEDS)
            + _at_best("decoder", TEXT_VARIANTS, SEEDS),
            STEPS,
            clocks={"train_loss": 10, "train_accuracy": 100, "momentum_cosine": 100},
        ),
    },
    presets=(
        Preset("AdaBelief, published", {"optimizer": "adabelief"}, "The recipe for pictures: rate 1e-3, epsilon 1e-8 at every step."),
        Preset("epsilon once", VARIANTS["epsilon once"], "Epsilon in the root alone: AdaBelief is Adam with a rate 8 % higher."),
        Preset("Adam", VARIANTS["Adam"], "The same net and rate with Adam."),
        Preset("SGD", {**VARIANTS["SGD"], "lr": BEST["mlp"]["SGD"]}, "Momentum 0.9 at its own best rate."),
        Preset(
            "large batches",
            {**VARIANTS["epsilon once"], "batch": 256},
            "Less noise in the gradients: steps a little further beyond Adam's.",
        ),
        Preset(
            "text with AdaBelief",
            {**DECODER, **TEXT_VARIANTS["AdaBelief"], "lr": BEST["decoder"]["AdaBelief"]},
            "A decoder, epsilon 1e-16.",
        ),
        Preset("text with SGD", {**DECODER, **TEXT_VARIANTS["SGD"], "lr": BEST["decoder"]["SGD"]}, "The same decoder with momentum 0.9."),
    ),
    events=(
        Event("final_loss", final_loss, "nat", "mean training loss over the last tenth, at most the initial loss"),
        Event("early_loss", early_loss, "nat", "mean training loss over the first fifth of the updates"),
        Event(
            "generalization_gap",
            generalization_gap,
            "nat",
            "held-out loss at the end minus training loss of the last tenth",
        ),
    ),
    views=(
        accuracy_against_lr,
        early_loss_against_lr,
        losses_at_the_best_rates,
        steps_beside_those_of_adam,
        steps_against_batch,
        direction_against_lr,
        text_loss_against_lr,
    ),
    gauges=GAUGES,
    predictions=PREDICTIONS,
    claims=CLAIMS,
    summary=summary,
)
