"""Grokking at the edge of numerical stability.

Question.   Why does a net that has memorized its training pairs often never understand the rest, and what lets it?
Phenomenon. Descent lengthens the logits of what is already right until the softmax rounds to exactly 1: its gradient is lost, and with it
            grokking. StableMax does not round, perpGrad does not lengthen, weight decay shortens again: each of them groks.
Try.        Watch `saturated_share` with `softmax_precision` fp16, fp32 and fp64; then set `output_softmax` to stablemax, or switch
            `perp_grad` on in mid-run.
Cites.      Prieto et al. 2025, arXiv:2501.04697 (softmax collapse, naive loss minimization, StableMax, perpGrad; figures 1 and 2); Power et
            al. 2022, arXiv:2201.02177 (grokking).
Differs.    The preset "published perpGrad" is the released run with AdamW's beta2 .999 and epsilon 1e-8, which that code uses whatever
            it is given. All else is small: modulus 67 instead of 113, 128 instead of 200 units, 80 % of the pairs, and beta2 .95
            instead of .99: Adam lets a loss fall by no more than beta2^(1/2) a step, so collapse comes four times sooner. The split is
            not theirs pair by pair, and pairs stay in one order; the released code permutes them at each step, which changes how sums
            are rounded. The transformer has GELU, a feed-forward layer four times as wide and no dropout, instead of ReLU, 2048 units
            and dropout .1, and sees token 0 too.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import xarray as xr
from torch import nn

from ..claim import Claim
from ..design import Design, grid
from ..errors import InputError
from ..events import first_step
from ..gauge import Gauge, Level
from ..knobs import at_least, knob
from ..learners import Supervised, softmax_loss
from ..models import MLP, PairMLP, PairTransformer, Perceptron, Transformer
from ..numerics import OutputSoftmax
from ..optimizers import Optimizers, PerpGrad
from ..probes import (
    effective_step,
    gradient_norm_total,
    gradient_rms,
    gradient_weight_cosine,
    learning_rate,
    log_z,
    readout_logit_max,
    readout_rms,
    saturated_share,
    spectral_norm,
    train_accuracy,
    train_loss,
    update_norm_total,
    validation_accuracy,
    validation_loss,
    weight_norm_total,
    zero_loss_share,
)
from ..progress import counted
from ..schedules import Schedule
from ..study import Budget, Event, Prediction, Preset, Published, Study
from ..tasks import Modular, ModularKnobs, Parity, ParityKnobs, choose
from ..view import view
from ..views.layout import VARIANT, Factor
from ..views.medians import Mark, medians
from ..views.theme import number, word

PLAIN = {"data": "modular", "operation": "add", "model": "mlp", "depth": 2, "optimizer": "adamw", "weight_decay": 0.0, "perp_grad": False}
PLAIN |= {"output_softmax": "softmax", "softmax_precision": "fp32"}
SMALL = {"modulus": 67, "train_share": 0.8, "width": 128, "lr": 1e-2, "beta2": 0.95, "epsilon": 1e-25}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "softmax in float16": {"softmax_precision": "fp16"},
    "softmax in float32": {},
    "softmax in float64": {"softmax_precision": "fp64"},
    "StableMax": {"output_softmax": "stablemax"},
    "perpGrad": {"perp_grad": True},
    "weight decay": {"weight_decay": 2.0},
}
PARITY = {"data": "parity", "bias": True, "train_share": 0.5, "epsilon": 1e-18}
TRANSFORMER = {"model": "transformer", "bias": True, "depth": 1, "width": 64, "modulus": 31, "train_share": 0.6, "lr": 3e-3}
OTHERS = ({"operation": "subtract"}, {"operation": "product"}, PARITY, TRANSFORMER)
PUBLISHED_SIZE = {"modulus": 113, "width": 200}
PUBLISHED_RUN = PUBLISHED_SIZE | {"train_share": 0.4, "lr": 1e-2, "beta2": 0.999, "epsilon": 1e-8, "perp_grad": True}
PUBLISHED_NAME = "published perpGrad run"
PUBLISHED_STEP, PUBLISHED_END = 110, 300
READING_ERROR = 0.02
STEPS = 1300
SEEDS = range(4, 8)  # 0 to 3 were used to choose sizes and steps
UNDERSTOOD = 0.9
MEMORIZED = 0.99
HALF = 0.5
TOUCHED = 0.01
ACCURACY = "share of pairs predicted right"
ACCURACIES = {"training": "train_accuracy", "test": "validation_accuracy"}


class Settings(
    ModularKnobs,
    ParityKnobs,
    Perceptron,
    Transformer,
    Schedule,
    Optimizers,
    PerpGrad,
    OutputSoftmax,
    defaults={"bias": False, "norm_placement": "post", **SMALL},
):
    """A table or a parity, a net, its optimizer, and how the output softmax is computed."""

    data: Literal["modular", "parity"] = knob("modular", group="data", doc="a table of sums or products, or the parity of some bits")
    model: Literal["mlp", "transformer"] = knob("mlp", group="model", doc="an MLP of one-hot tokens or bits, or a transformer of tokens")
    depth: int = knob(2, 1, 6, valid=at_least(1), group="model", doc="hidden layers of the MLP, or blocks of the transformer")
    width: int = knob(
        SMALL["width"], 16, 512, valid=at_least(1), group="model", doc="units of a hidden layer, or width of the residual stream"
    )

    weight_decay: float = knob(0.0, 0.0, 8.0, valid=at_least(0.0), group="optimizer", doc="weight decay")
    epsilon: float = knob(
        SMALL["epsilon"], 1e-30, 1e-3, log=True, group="optimizer", doc="what Adam adds to the root of the mean squared gradient"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data == "parity" and self.model == "transformer":
            raise InputError("Knob 'model' is 'transformer', which reads tokens; for the bits of data='parity' take model='mlp'.")


TASK = choose("data", modular=Modular(), parity=Parity())


def model(knobs: Any) -> nn.Module:
    """The net that these knobs describe."""
    if knobs.data == "parity":
        return MLP(knobs, knobs.parity_bits + knobs.noise_bits, Parity().classes(knobs))
    kind = PairMLP if knobs.model == "mlp" else PairTransformer
    return kind(knobs, knobs.modulus, knobs.modulus)


def of_setting(record: xr.DataTree, variable: str, knobs: Mapping[str, Any]) -> xr.DataArray:
    """A variable over (seed, step), of the runs with these knobs and otherwise the study's defaults."""
    return record.wb.where(**PLAIN | knobs).wb.cube(variable, "seed")


def final(record: xr.DataTree, variable: str, name: str) -> xr.DataArray:
    """A variable after the last update, over `seed`, of one of the VARIANTS."""
    return of_setting(record, variable, SMALL | VARIANTS[name]).isel(step=-1, drop=True)


def memorized_step(record: xr.DataTree) -> xr.DataArray:
    """First step with 99 % of the training pairs predicted right."""
    return first_step(record.wb["train_accuracy"] >= MEMORIZED)


def understood_step(record: xr.DataTree) -> xr.DataArray:
    """First step with 90 % of the test pairs predicted right."""
    return first_step(record.wb["validation_accuracy"] >= UNDERSTOOD)


def collapse_step(record: xr.DataTree) -> xr.DataArray:
    """First step with half of the softmax rows exactly saturated."""
    return first_step(record.wb["saturated_share"] >= HALF)


def final_test_accuracy(record: xr.DataTree) -> xr.DataArray:
    """Share of the test pairs predicted right after the last update, over `run`."""
    return record.wb["validation_accuracy"].isel(step=-1, drop=True)


def first(record: xr.DataTree, event: str, name: str) -> xr.DataArray:
    """The step of an event of one of the VARIANTS, over `seed`; the last step of the runs where it never came."""
    chosen = record.wb.where(**PLAIN | SMALL | VARIANTS[name])
    return chosen.wb.cube(event, "seed").fillna(record.attrs["steps"])


def most_saturated(record: xr.DataTree, name: str) -> xr.DataArray:
    """Effect per seed: the largest share of saturated rows at any moment."""
    return of_setting(record, "saturated_share", SMALL | VARIANTS[name]).max("step")


def later(record: xr.DataTree, event: str, name: str, than: str) -> xr.DataArray:
    """Effect per seed, in steps: how much later an event comes in one variant than in another; at least, where it never comes."""
    return first(record, event, name) - first(record, event, than)


def better(record: xr.DataTree, name: str, than: str) -> xr.DataArray:
    """Effect per seed: test accuracy at the end of one variant minus that of another."""
    return final(record, "validation_accuracy", name) - final(record, "validation_accuracy", than)


def alignment(record: xr.DataTree, name: str) -> xr.DataArray:
    """Effect per seed: mean cosine of -gradient and weights from memorization until 1 % of the rows are saturated."""
    knobs = SMALL | VARIANTS[name]
    memorized = of_setting(record, "train_accuracy", knobs) >= MEMORIZED
    saturated = of_setting(record, "saturated_share", knobs) >= TOUCHED
    between = (memorized.cumsum("step") > 0) & (saturated.cumsum("step") == 0)
    return of_setting(record, "gradient_weight_cosine", knobs).where(between).mean("step")


def at_published_step(record: xr.DataTree, variable: str) -> xr.DataArray:
    """Effect per seed: a variable of the published perpGrad run at the step of the published number."""
    return of_setting(record, variable, PUBLISHED_RUN).sel(step=PUBLISHED_STEP)


def groups(record: xr.DataTree) -> Factor:
    """The runs by variant; those of none by what they were set to."""
    wanted = {name: PLAIN | SMALL | knobs for name, knobs in VARIANTS.items()} | {PUBLISHED_NAME: PLAIN | PUBLISHED_RUN}
    codes, names = np.full(record.sizes["run"], -1), []
    for name, knobs in wanted.items():
        matches = np.all([record[knob].values == value for knob, value in knobs.items()], axis=0)
        if matches.any():
            codes[matches] = len(names)
            names.append(name)
    if (codes < 0).any():
        return _by_knobs(record)
    return Factor(VARIANT, tuple(names), codes)


def _by_knobs(record: xr.DataTree) -> Factor:
    varied = [name for name in record.wb.varied if name != "seed"]
    said = [", ".join(f"{name} {word(record[name].values[run])}" for name in varied) or "all runs" for run in range(record.sizes["run"])]
    names, codes = np.unique(said, return_inverse=True)
    return Factor(VARIANT, tuple(map(str, names)), codes)


def part(record: xr.DataTree, published: bool) -> xr.DataTree:
    """The runs of the published modulus, or of the others; all runs where there are none."""
    found = np.unique(record["modulus"].values)
    chosen = found[(found == PUBLISHED_SIZE["modulus"]) == published]
    return record.wb.where(modulus=chosen) if chosen.size else record


@view("validation_accuracy", "train_accuracy")
def memorized_and_understood(record: xr.DataTree) -> Any:
    """Accuracy in training and test against step, a panel for each variant: median over seeds and their range."""
    small = part(record, published=False)
    return medians(small, ACCURACIES, groups(small), title=ACCURACY, domain=(0, 1.02))


@view("validation_accuracy", "train_accuracy")
def beside_the_published_curve(record: xr.DataTree) -> Any:
    """Accuracy in training and test of the published perpGrad run, median over seeds and their range; diamonds are the paper's."""
    runs = part(record, published=True)
    panel = groups(runs)
    names = {variable: name for name, variable in ACCURACIES.items()}
    found = [p for p in PUBLISHED if p.step is not None and p.knobs == PUBLISHED_RUN] if panel.names == (PUBLISHED_NAME,) else []
    marks = [Mark(PUBLISHED_NAME, names[p.variable], p.step, p.value, f"{names[p.variable]}, {p.text} of the paper") for p in found]
    return medians(runs, ACCURACIES, panel, title=ACCURACY, domain=(0, 1.12), until=PUBLISHED_END, marks=marks)


@view("saturated_share", "gradient_weight_cosine")
def collapse_of_the_gradient(record: xr.DataTree) -> Any:
    """Share of exactly saturated softmax rows, and cosine of -gradient and weights, against step, a panel for each variant."""
    shown = {"saturated rows": "saturated_share", "cosine of -gradient and weights": "gradient_weight_cosine"}
    small = part(record, published=False)
    return medians(small, shown, groups(small), title="share, or cosine", domain=(-0.3, 1.02))


@view("readout_rms")
def logit_scale(record: xr.DataTree) -> Any:
    """Root mean square of the output logits against step, a panel for each variant."""
    small = part(record, published=False)
    return medians(small, {"output logits": "readout_rms"}, groups(small), title="RMS of the output logits", logarithmic=True)


def summary(record: xr.DataTree) -> list[str]:
    """Six lines at most: when the groups memorized, collapsed and understood, and how many test pairs they get right at the end."""
    panel = groups(record)
    columns = {name: record["events"][name].values for name in ("memorized_step", "collapse_step", "understood_step")}
    accuracy = final_test_accuracy(record).values

    def each(say: Any) -> str:
        return "; ".join(f"{name} {say(panel.codes == code)}" for code, name in enumerate(panel.names)) + "."

    return [
        f"{counted(record.sizes['run'], 'run')} of {counted(record.attrs['steps'], 'step')}; medians over seeds:",
        f"{MEMORIZED:.0%} of training pairs right at step: {each(lambda runs: _median(columns['memorized_step'][runs]))}",
        f"{HALF:.0%} of softmax rows saturated at step: {each(lambda runs: _median(columns['collapse_step'][runs]))}",
        f"{UNDERSTOOD:.0%} of test pairs right at step: {each(lambda runs: _median(columns['understood_step'][runs]))}",
        f"Test pairs right at the end: {each(lambda runs: f'{np.median(accuracy[runs]):.3f}')}",
    ]


def _median(steps: np.ndarray) -> str:
    """Of the runs where it came, if it came in at least half of them."""
    middle = np.median(np.where(np.isnan(steps), np.inf, steps))
    return number(middle) if np.isfinite(middle) else "never"


def understood_in_time(record: xr.DataTree) -> int:
    """Which of ANSWERS came true: test accuracy after LATER steps, mean over seeds; a diverged run has none."""
    found = record.wb["validation_accuracy"].sel(step=LATER, method="nearest").fillna(0.0).mean().item()
    return int(np.searchsorted(CUTS, found))


LATER, CUTS = 300, (0.5, UNDERSTOOD)
ANSWERS = ("less than half of them", "half to nine tenths", "more than nine tenths")
PREDICTIONS = (Prediction(f"How many of the test pairs will be predicted right after {LATER} steps?", ANSWERS, understood_in_time, LATER),)


def chance(row: Mapping[str, Any]) -> Sequence[Level]:
    """What guessing gives."""
    return (Level("guessing", 1 / row["modulus"] if row["data"] == "modular" else 0.5),)


GAUGES = (
    Gauge("train_loss", title="training loss", logarithmic=True),
    Gauge("validation_accuracy", title="test accuracy", levels=chance),
    Gauge("saturated_share", title="share of saturated softmax rows"),
    Gauge("gradient_weight_cosine", title="cosine of -gradient and weights"),
    Gauge("train_accuracy", title="training accuracy", shown=False),
    Gauge("zero_loss_share", title="share of losses of exactly 0", shown=False),
    Gauge("readout_rms", title="RMS of the output logits", logarithmic=True, shown=False),
    Gauge("weight_norm_total", title="norm of all weights", shown=False),
)
PRIETO = "arXiv:2501.04697"
FIGURE_2 = PUBLISHED_SIZE | {"train_share": 0.7, "lr": 5e-4, "beta2": 0.99, "epsilon": 1e-25}
PUBLISHED = (
    Published("validation_accuracy", 0.97, "figure 1", PRIETO, PUBLISHED_STEP, PUBLISHED_RUN),
    Published("train_accuracy", 1.0, "figure 1", PRIETO, PUBLISHED_STEP, PUBLISHED_RUN),
    Published("validation_accuracy", 0.48, "float16 ends here, figure 2", PRIETO, knobs=FIGURE_2 | {"softmax_precision": "fp16"}),
    Published("validation_accuracy", 0.68, "float32 ends here, figure 2", PRIETO, knobs=FIGURE_2 | {"softmax_precision": "fp32"}),
    Published("validation_accuracy", 0.93, "float64 peaks, figure 2", PRIETO, 7000, FIGURE_2 | {"softmax_precision": "fp64"}),
)
PAIRED = "pairs of the table, their split and first weights"
CLAIMS = (
    Claim(
        "edge-of-numerical-stability",
        "Without regularization the float32 softmax collapses: largest share of exactly saturated rows",
        partial(most_saturated, name="softmax in float32"),
        threshold=HALF,
        threshold_source="our choice; in the paper the share goes to 1",
        paired="nothing is compared",
    ),
    Claim(
        "edge-of-numerical-stability",
        "Float32 collapses later than float16 (steps to half of the rows saturated)",
        partial(later, event="collapse_step", name="softmax in float32", than="softmax in float16"),
        threshold=0.0,
        threshold_source="any delay",
        paired=PAIRED,
        units="step",
    ),
    Claim(
        "edge-of-numerical-stability",
        "Float64 collapses later than float32 (steps to half of the rows saturated, or to the end)",
        partial(later, event="collapse_step", name="softmax in float64", than="softmax in float32"),
        threshold=0.0,
        threshold_source="any delay",
        paired=PAIRED,
        units="step",
    ),
    Claim(
        "edge-of-numerical-stability",
        "Float64 ends with a higher test accuracy than float32",
        partial(better, name="softmax in float64", than="softmax in float32"),
        threshold=0.0,
        threshold_source="any gain",
        paired=PAIRED,
    ),
    Claim(
        "edge-of-numerical-stability",
        "The float32 softmax does not grok: its test accuracy ends lower than StableMax's",
        partial(better, name="StableMax", than="softmax in float32"),
        threshold=0.0,
        threshold_source="any gain",
        paired=PAIRED,
    ),
    Claim(
        "edge-of-numerical-stability",
        "StableMax groks without weight decay: test accuracy at the end",
        partial(final, variable="validation_accuracy", name="StableMax"),
        threshold=UNDERSTOOD,
        threshold_source="our definition of having understood; the paper's curve goes to 1",
        paired="nothing is compared",
    ),
    Claim(
        "edge-of-numerical-stability",
        "perpGrad groks without weight decay: test accuracy at the end",
        partial(final, variable="validation_accuracy", name="perpGrad"),
        threshold=UNDERSTOOD,
        threshold_source="our definition of having understood; the paper's curve goes to 1",
        paired="nothing is compared",
    ),
    Claim(
        "edge-of-numerical-stability",
        "perpGrad understands before StableMax does (steps to 90 % of the test pairs)",
        partial(later, event="understood_step", name="StableMax", than="perpGrad"),
        threshold=0.0,
        threshold_source="any lead",
        paired=PAIRED,
        units="step",
    ),
    Claim(
        "edge-of-numerical-stability",
        "perpGrad understands before weight decay does (steps to 90 % of the test pairs)",
        partial(later, event="understood_step", name="weight decay", than="perpGrad"),
        threshold=0.0,
        threshold_source="any lead",
        paired=f"{PAIRED}; AdamW's decay {VARIANTS['weight decay']['weight_decay']:g}",
        units="step",
    ),
    Claim(
        "edge-of-numerical-stability",
        "The published perpGrad run meets its curve: test accuracy at step 110",
        partial(at_published_step, variable="validation_accuracy"),
        threshold=0.97 - READING_ERROR,
        threshold_source="arXiv:2501.04697, figure 1, at least .97, read off to 2 %",
        paired="nothing is compared; the published setting, another split",
    ),
    Claim(
        "edge-of-numerical-stability",
        "The published perpGrad run meets its curve: training accuracy at step 110",
        partial(at_published_step, variable="train_accuracy"),
        threshold=1.0 - READING_ERROR,
        threshold_source="arXiv:2501.04697, figure 1, 1.00, read off to 2 %",
        paired="nothing is compared; the published setting, another split",
    ),
    Claim(
        "edge-of-numerical-stability",
        "After memorization descent goes along the weights: mean cosine of -gradient and weights, float64, before rows saturate",
        partial(alignment, name="softmax in float64"),
        threshold=HALF,
        threshold_source="our choice; two random directions have about .005 here, and the paper names no number",
        paired="nothing is compared",
    ),
)


def _design(variants: Sequence[str], **axes: Any) -> Design:
    return Design(tuple(each for name in variants for each in grid(**axes | VARIANTS[name]).grids))


def _others() -> Design:
    """Other operations, data and nets, without and with what the paper proposes."""
    variants = ("softmax in float32", "StableMax", "perpGrad")
    return Design(tuple(each for knobs in OTHERS for each in _design(variants, seed=SEEDS, **knobs).grids))


study = Study(
    __name__,
    title="Grokking at the edge of numerical stability",
    knobs=Settings,
    task=TASK,
    learner=Supervised(model, loss=softmax_loss, evaluation=TASK.evaluation),
    probes=(
        train_loss,
        train_accuracy,
        validation_accuracy.on_clock(10),
        saturated_share,
        zero_loss_share,
        gradient_weight_cosine,
        readout_rms,
    ),
    optional_probes=(
        learning_rate,
        validation_loss,
        weight_norm_total,
        gradient_norm_total,
        gradient_rms,
        update_norm_total,
        effective_step,
        log_z,
        readout_logit_max,
        spectral_norm,
    ),
    coords=lambda knobs: dict(layer=range(knobs.depth)),
    budgets={
        "smoke": Budget(_design(("softmax in float32", "StableMax", "perpGrad"), modulus=23, width=32), 40),
        "demo": Budget(_design(tuple(VARIANTS), modulus=47, seed=range(2)), 600),
        "full": Budget(
            _design(tuple(VARIANTS), seed=SEEDS) + grid(**PUBLISHED_RUN, seed=SEEDS),
            STEPS,
            clocks={"train_loss": 10},
        ),
        "others": Budget(_others(), 600, clocks={"train_loss": 10}),
    },
    presets=(
        Preset(
            "published perpGrad", PUBLISHED_RUN, "All sums modulo 113, 40 % of them to train on: the rest is understood around step 110."
        ),
        Preset(
            "float32 collapses", {}, "Memorized by step 50; by step 500 half of the softmax rows are saturated and little is understood."
        ),
        Preset("float16 collapses sooner", {"softmax_precision": "fp16"}, "The same net, half of its rows saturated by step 110."),
        Preset("StableMax groks", {"output_softmax": "stablemax"}, "The same net with StableMax: the test accuracy passes .9 by step 400."),
        Preset("perpGrad groks at once", {"perp_grad": True}, "The same net without the part of its gradients along the weights."),
        Preset(
            "weight decay groks",
            {"weight_decay": 2.0},
            "The classical remedy: weights cannot grow, and the rest is understood by step 120.",
        ),
        Preset("sparse parity", PARITY | {"perp_grad": True}, "Three bits of 43 decide; with perpGrad they are found within 300 steps."),
        Preset(
            "transformer", TRANSFORMER | {"perp_grad": True}, "Sums modulo 31 in one block: with perpGrad most are understood by step 200."
        ),
    ),
    events=(
        Event("memorized_step", memorized_step, "step", "first step with 99 % of the training pairs right (NaN: none)"),
        Event("collapse_step", collapse_step, "step", "first step with half of the softmax rows exactly saturated (NaN: none)"),
        Event("understood_step", understood_step, "step", "first step with 90 % of the test pairs right (NaN: none)"),
        Event("final_test_accuracy", final_test_accuracy, "1", "share of the test pairs predicted right after the last update"),
    ),
    views=(memorized_and_understood, collapse_of_the_gradient, beside_the_published_curve, logit_scale),
    gauges=GAUGES,
    predictions=PREDICTIONS,
    published=PUBLISHED,
    claims=CLAIMS,
    summary=summary,
)
