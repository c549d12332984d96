"""The edge of stability.

Question.   How sharp a minimum can gradient descent end in, and how much flatter must it be for small batches?
Phenomenon. Full-batch descent moves to ever sharper places until the Hessian's largest eigenvalue is 2 / lr, and stays there; with one
            sample an update the whole trace stays below 2 / lr. Begun above 2 / lr it is thrown out and lands where it is flatter.
Try.        After 300 steps double `lr` to 0.2: fifty steps later the sharpness is at the new edge, half as high. Or set `batch` to 1
            there: the run is thrown out of its minimum, and within some thirty steps the trace is below 2 / lr.
Cites.      Cohen et al. 2021, arXiv:2103.00065 (progressive sharpening, 2 / lr, (2 + 2 momentum) / lr); Wu and Su 2023,
            arXiv:2305.17490 (2 / lr bounds the trace for SGD and only the largest eigenvalue for gradient descent); Wu et al. 2022,
            arXiv:2207.02628 (the Frobenius norm under batches of B, of the order of sqrt(B) / lr); Lewkowycz et al. 2020,
            arXiv:2003.02218 (catapult); Mulayoff and Michaeli 2024, arXiv:2306.07850 (mean-square stability with batches).
Differs.    The net of Cohen et al., fully connected with tanh, half the squared error and PyTorch's first weights, is narrower (32 units,
            not 200), learns 100 images of 14 x 14 pixels, not 5,000 of CIFAR-10, and has one output, 1 for the first half of the classes
            and -1 for the rest, not one for each class: with one output the bound on the trace is as the abstract of Wu and Su has it.
            Batches are drawn without replacement, anew at each update. Trace and Frobenius norm are those of the Gauss-Newton matrix,
            exactly; the Hessian has the same at a minimum that fits every sample, of which the bounds speak (`hessian_trace` estimates its
            own). Of Wu and Su only the abstract was at hand, and no code was found: sizes and rates of the diagonal net are ours.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from torch import Tensor, nn

from .. import models
from ..claim import Claim
from ..design import Design, grid
from ..events import first_step, loss_exceeded_step
from ..gauge import Gauge, Level
from ..knobs import at_least, knob
from ..learners import OwnSamples
from ..models import MLP, DiagonalLinear, LinearModel, Perceptron
from ..optimizers import Momentum
from ..probe import probe
from ..probes import (
    critical_sharpness,
    gauss_newton,
    gradient_norm_total,
    hutchinson_trace,
    learning_rate,
    per_sample_gradients,
    top_eigenvalue,
    update_norm_total,
    weight_norm_total,
)
from ..progress import counted
from ..record import with_nodes
from ..schedules import Schedule
from ..sensitivity import exponent
from ..study import Budget, Event, Moment, Prediction, Preset, Study
from ..tasks import ImageSamples, OrthogonalSamples, SampleKnobs, SparseKnobs, SparseSamples, choose
from ..view import view
from ..views import curves, intervals
from ..views.layout import Factor
from ..views.theme import number

STEPS = 4000
SEEDS = range(4, 8)  # 0 to 3 were used to choose sizes, rates and steps
ALL = 100
RATES = (0.05, 0.1, 0.2)
SINGLE_RATES = (0.025, 0.05, 0.1)
RELU_RATES = (0.025, 0.05)
SPARSE_RATES = (0.01, 0.02, 0.04)
SPARSE_SAMPLES, AXES = 40, 20
BATCHES = (1, 4, 16)
MOMENTUM = 0.5
CATAPULT_RATE = 0.05
LAST_SHARE = 0.2

IMAGES = {"data": "images", "model": "mlp", "activation": "tanh", "init_scale": 1.0}
RELU = {"data": "images", "model": "mlp", "activation": "relu", "depth": 1}
SPARSE = {"data": "sparse", "model": "diagonal", "samples": SPARSE_SAMPLES, "init_scale": 0.1}
CATAPULT = {"data": "sparse", "model": "diagonal", "samples": SPARSE_SAMPLES, "init_scale": 1.0, "batch": SPARSE_SAMPLES}
QUADRATIC = {"data": "orthogonal", "model": "linear", "samples": AXES}


class Settings(
    SampleKnobs,
    SparseKnobs,
    Perceptron,
    Schedule,
    Momentum,
    defaults={"samples": ALL, "width": 32, "activation": "tanh", "lr": RATES[1], "momentum": 0.0},
):
    """A small training set, a model with one output, and its descent."""

    data: Literal["images", "sparse", "orthogonal"] = knob(
        "images", group="data", doc="what is learned: halves of the classes of images, or a sparse target at normal or orthogonal inputs"
    )
    images: str = knob("fashion-mnist", doc="A shipped image set, or the path of your own folder with one subfolder a class", group="data")
    batch: int = knob(
        ALL,
        1,
        500,
        valid=at_least(1),
        acts="live",
        log=True,
        units="example",
        group="data",
        doc="examples in one update, drawn without replacement; all of them where the training set has no more",
    )
    model: Literal["mlp", "diagonal", "linear"] = knob(
        "mlp", group="model", doc="multilayer perceptron, diagonal linear net, or a linear map, whose loss is a quadratic"
    )


TASK = choose("data", images=ImageSamples(), sparse=SparseSamples(), orthogonal=OrthogonalSamples())


def model(knobs: Any) -> nn.Module:
    """The net that the knobs choose; depth, width, activation and bias are those of the perceptron."""
    size = TASK.of(knobs).size(knobs)
    if knobs.model == "mlp":
        return MLP(knobs, size, 1)
    return DiagonalLinear(size) if knobs.model == "diagonal" else LinearModel(size)


def half_square(readout: Tensor, batch: Any, knobs: Any) -> Tensor:
    """Half the mean squared error of outputs (B, 1); of a batch with an order only over the samples whose place is below `knobs.batch`."""
    errors = (readout[:, 0] - batch["y"]).square() / 2
    if "order" not in batch:
        return errors.mean()
    seen = (batch["order"] < knobs.batch).to(errors.dtype)
    return (errors * seen).sum() / seen.sum()


def training_set(knobs: Any, key: Tensor) -> dict[str, Tensor]:
    """The samples of a run."""
    return TASK.of(knobs).training(knobs, key)


def in_order(samples: Any, batch: Any, knobs: Any) -> dict[str, Tensor]:
    """What an update sees: all samples of a run, and the order that the batch puts them in."""
    return {**samples, **batch}


def all_samples(m: Moment) -> dict[str, Tensor]:
    """The whole training set, whatever the batch."""
    return {"x": m.batch["x"], "y": m.batch["y"]}


def output_at(m: Moment) -> Callable[[Any, Tensor], Tensor]:
    """The readout as a function of parameters and inputs."""
    return lambda params, x: models.apply(m.shared["model"], params, m.buffers, x, knobs=m.knobs)


def loss_at(m: Moment) -> Callable[[Any], Tensor]:
    """The loss over all samples as a function of the parameters."""
    samples, readout = all_samples(m), output_at(m)
    return lambda params: half_square(readout(params, samples["x"]), samples, m.knobs)


@probe()
def train_loss(m):
    """Training loss, half the mean squared error of all samples"""
    return half_square(m.taps["readout"], all_samples(m), m.knobs)


@probe(every=10, cost="curvature")
def sharpness(m):
    """Sharpness: largest eigenvalue of the Hessian of the training loss

    See `probes.top_eigenvalue`. Gradient descent on a quadratic diverges where it exceeds (2 + 2 momentum) / lr.
    """
    return top_eigenvalue(loss_at(m), m.params)


@probe(every=10, cost="backward")
def gauss_newton_trace(m):
    """Trace of the Gauss-Newton matrix, which at a minimum is the Hessian"""
    return gauss_newton.trace(per_sample_gradients(output_at(m), m.params, m.batch["x"]))


@probe(every=100, cost="backward")
def gauss_newton_norm(m):
    """Frobenius norm of the Gauss-Newton matrix, which at a minimum is the Hessian"""
    return gauss_newton.frobenius_norm(per_sample_gradients(output_at(m), m.params, m.batch["x"]))


@probe(every=100, cost="curvature")
def hessian_trace(m):
    """Trace of the Hessian of the training loss, by Hutchinson's estimator"""
    return hutchinson_trace(loss_at(m), m.params)


@probe(every=100, on="state", cost="forward", vectorised=True)
def test_loss(state, knobs, shared, key):
    """Test loss, half the mean squared error of held-out samples"""
    samples = shared["evaluation"]
    readout = models.apply(shared["evaluator"], state["params"], state["buffers"], samples["x"], knobs=knobs)
    return half_square(readout, samples, knobs)


# What the record says.


def edge(record: xr.DataTree) -> xr.DataArray:
    """(2 + 2 momentum) / lr over `run`."""
    return 2 * (1 + record["momentum"]) / record["lr"]


def over_edge(record: xr.DataTree) -> xr.DataArray:
    """Sharpness in units of its edge, over (run, step)."""
    return record.wb["sharpness"] / edge(record)


def over_bound(record: xr.DataTree) -> xr.DataArray:
    """Trace in units of 2 / lr, over (run, step)."""
    return record.wb["gauss_newton_trace"] * record["lr"] / 2


def norm_over_bound(record: xr.DataTree) -> xr.DataArray:
    """Frobenius norm in units of sqrt(B) / lr, over (run, step)."""
    return record.wb["gauss_newton_norm"] * record["lr"] / np.sqrt(effective_batch(record))


def effective_batch(record: xr.DataTree) -> xr.DataArray:
    """How many samples an update sees, over `run`."""
    return np.minimum(record["batch"], record["samples"])


def noise_share(record: xr.DataTree) -> xr.DataArray:
    """p = (n - B) / (B (n - 1)) over `run`: 1 for single samples, 0 for all of them."""
    n, batch = record["samples"], effective_batch(record)
    return (n - batch) / (batch * (n - 1))


def batch_condition(record: xr.DataTree) -> xr.DataArray:
    """p trace + (1 - p) norm^2 / trace in units of 2 / lr, over (run, step): a minimum where it is above 1 is not stable in mean square.

    Near a minimum deviations d go to (1 - lr H_B) d, where a batch's Hessian H_B has the mean H. The map of second moments is symmetric, so
    it lets some d grow if it lets the isotropic one grow: if lr E|H_B|_F^2 > 2 tr H. E|H_B|_F^2 is p times the mean of |g|^4 over the
    gradients g of samples, which is at least (tr H)^2, plus 1 - p times |H|_F^2. For B = 1 this says trace <= 2 / lr.
    """
    share, trace = noise_share(record), record.wb["gauss_newton_trace"]
    return (share * trace + (1 - share) * record.wb["gauss_newton_norm"] ** 2 / trace) * record["lr"] / 2


def at_end(values: xr.DataArray) -> xr.DataArray:
    """Mean over the last fifth of what was measured; NaN if some of it is not finite."""
    return values.isel(step=slice(-max(1, round(LAST_SHARE * values.sizes["step"])), None)).mean("step", skipna=False)


def cells(record: xr.DataTree, quantity: Callable[[xr.DataTree], xr.DataArray], **knobs: Any) -> xr.DataArray:
    """A number per run as (lr, seed), of the runs with these knobs, those without momentum unless said; one over steps at the end."""
    return of_runs(record.wb.where(**{"momentum": 0.0} | knobs), quantity)


def of_runs(record: xr.DataTree, quantity: Callable[[xr.DataTree], xr.DataArray]) -> xr.DataArray:
    """A number per run as (lr, seed), over steps at the end; the mean of runs that these do not tell apart."""
    found = quantity(record)
    found = at_end(found) if "step" in found.dims else found
    axes = pd.MultiIndex.from_arrays([record["lr"].values, record["seed"].values], names=["lr", "seed"])
    return pd.Series(found.values, axes).groupby(level=["lr", "seed"]).agg(lambda each: each.mean(skipna=False)).to_xarray()


def final(name: str) -> Callable[[xr.DataTree], xr.DataArray]:
    """The variable of that name, for `cells`."""
    return lambda record: record.wb[name]


def extreme(
    record: xr.DataTree, quantity: Callable[[xr.DataTree], xr.DataArray], which: str, settings: Sequence[Mapping[str, Any]]
) -> xr.DataArray:
    """Effect per seed: the "max" or "min" of a quantity at the end, over all rates of these settings; NaN if a run has none."""
    each = [getattr(cells(record, quantity, **knobs), which)("lr", skipna=False) for knobs in settings]
    return getattr(xr.concat(each, "setting"), which)("setting", skipna=False)


def slope_over_rate(record: xr.DataTree, name: str, **knobs: Any) -> xr.DataArray:
    """Effect per seed: exponent of a variable at the end as a power of the learning rate."""
    return exponent(cells(record, final(name), **knobs), "lr")


def gained(record: xr.DataTree, name: str, **knobs: Any) -> xr.DataArray:
    """Effect per seed: log10 of a variable at the end at the largest rate over that at the smallest."""
    found = np.log10(cells(record, final(name), **knobs))
    return (found.isel(lr=-1) - found.isel(lr=0)).drop_vars("lr", errors="ignore")


def against_all(record: xr.DataTree, name: str, batch: int, everything: int, **knobs: Any) -> xr.DataArray:
    """Effect per seed: log10 of a variable at the end with small batches over that with all samples, mean over the rates that both have."""
    small, full = (np.log10(cells(record, final(name), batch=size, **knobs)) for size in (batch, everything))
    return (small - full).mean("lr", skipna=False)


def rise(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed: log10 of the highest training loss of the catapult over its first."""
    highest = cells(record, lambda runs: np.log10(runs.wb["train_loss"].max("step") / runs.wb["train_loss"].isel(step=0)), **CATAPULT)
    return highest.isel(lr=0, drop=True)


def flattening(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed: log10 of the catapult's sharpness at the end over its first."""
    last = cells(record, lambda runs: np.log10(at_end(runs.wb["sharpness"]) / runs.wb["sharpness"].isel(step=0)), **CATAPULT)
    return last.isel(lr=0, drop=True)


def growth(record: xr.DataTree) -> xr.DataArray:
    """log10 of the last finite training loss over the first, over `run`."""
    loss = record.wb["train_loss"]
    last = loss.isel(step=(loss.notnull().sum("step") - 1).clip(0))
    return np.log10(last / loss.isel(step=0, drop=True))


def bracketed(record: xr.DataTree, batch: int) -> xr.DataArray:
    """Effect per seed: on the quadratic, the smaller of the growth one percent above the edge and the decay one percent below it."""
    found = cells(record, growth, batch=batch, **QUADRATIC)
    return np.minimum(found.isel(lr=-1, drop=True), -found.isel(lr=0, drop=True))


def edge_step(record: xr.DataTree) -> xr.DataArray:
    """First step at which the sharpness is at its edge or above; NaN also where it was not measured."""
    return first_step(over_edge(record) >= 1) if "sharpness" in record.wb else xr.full_like(record["lr"], np.nan)


# What is drawn.


ORDER = ("data", "model", "depth", "momentum", "init_scale", "batch")


def setting(record: xr.DataTree) -> Factor:
    """What a run is, in words, but for its rate and seed; small batches last."""
    names = (*ORDER, "activation", "samples")
    rows = [{name: record[name].values[run] for name in names} for run in range(record.sizes["run"])]
    words = {_words(row): [-row[name] if name == "batch" else row[name] for name in ORDER] for row in rows}
    found = tuple(sorted(words, key=words.__getitem__))
    return Factor("setting", found, np.array([found.index(_words(row)) for row in rows]), heads=found)


def _words(row: Mapping[str, Any]) -> str:
    net = {"mlp": f"{row['activation']} net", "diagonal": "diagonal net", "linear": "linear map"}[row["model"]]
    batch = "all samples" if row["batch"] >= row["samples"] else f"batch {row['batch']}"
    momentum = [f"momentum {number(row['momentum'])}"] if row["momentum"] else []
    weights = [f"first weights x {number(row['init_scale'])}"] if row["init_scale"] != 1 else []
    return ", ".join([net, batch, *momentum, *weights])


def part(record: xr.DataTree, keep: xr.DataArray) -> xr.DataTree:
    """The runs that are to be kept, or all where none is."""
    return record.isel(run=np.flatnonzero(keep.values)) if keep.any() else record


def with_all_samples(record: xr.DataTree) -> xr.DataArray:
    """Which runs are full-batch descent, over `run`."""
    return effective_batch(record) == record["samples"]


def on_images(record: xr.DataTree) -> xr.DataArray:
    """Which runs are plain descent on images from the usual first weights, over `run`."""
    return (record["data"] == "images") & (record["momentum"] == 0) & (record["init_scale"] == 1)


def over_rates(record: xr.DataTree, name: str, title: str, bounded: str = "") -> Any:
    """A variable at the end against the rate, a colour a setting; dashed 2 / lr over the rates of settings whose name ends so."""
    factor, rates = setting(record), np.unique(record["lr"].values)
    groups = {each: of_runs(record.isel(run=np.flatnonzero(factor.codes == i)), final(name)) for i, each in enumerate(factor.names)}
    bounds = {each: 2 / found["lr"] for each, found in groups.items() if bounded and each.endswith(bounded)}
    groups = {each: found.reindex(lr=rates) for each, found in groups.items()}
    for found in groups.values():
        found["lr"].attrs = record["lr"].attrs
    return intervals(groups, title=title, colour=factor.title, fits=bounds, logarithmic=True if bounded else None)


def over_steps(record: xr.DataTree, name: str, unit: xr.DataArray, title: str) -> Any:
    """A variable in units of its own for each run against step, a panel a setting, with a rule at 1."""
    factor = setting(record)
    factors = [factor] if len(factor.names) > 1 else []
    return curves(record, name, reduce=lambda x: x / unit.values[:, None], title=title, factors=factors, references={"": 1.0})


@view("sharpness")
def sharpness_over_edge(record: xr.DataTree) -> Any:
    """Sharpness in units of its edge, (2 + 2 momentum) / lr, against step, of nets that see all samples in every update."""
    shown = part(record, with_all_samples(record) & (record["model"] == "mlp"))
    return over_steps(shown, "sharpness", edge(shown), "sharpness / edge")


@view("gauss_newton_trace")
def trace_over_bound(record: xr.DataTree) -> Any:
    """Trace in units of 2 / lr, which bounds it at a minimum where an update sees one sample, against step on images."""
    shown = part(record, on_images(record))
    return over_steps(shown, "gauss_newton_trace", 2 / shown["lr"], "trace / (2 / lr)")


@view("sharpness", "gauss_newton_trace")
def curvature_against_lr(record: xr.DataTree) -> Any:
    """Sharpness and trace at the end against the learning rate on images, mean and 95 % interval over seeds; dashed 2 / lr."""
    shown = part(record, on_images(record))
    left = over_rates(shown, "sharpness", "sharpness", "all samples")
    return (left | over_rates(shown, "gauss_newton_trace", "trace", "batch 1")).resolve_scale(color="independent")


@view("test_loss")
def test_loss_against_lr(record: xr.DataTree) -> Any:
    """Test loss at the end against the learning rate, mean and 95 % interval over seeds: on images, and of a sparse target."""
    shown = on_images(record), (record["data"] == "sparse") & (record["init_scale"] < 1)
    left, right = (over_rates(part(record, runs), "test_loss", "test loss") for runs in shown)
    return (left | right).resolve_scale(color="independent")


@view("train_loss", "sharpness")
def catapult(record: xr.DataTree) -> Any:
    """Training loss in units of the first, and sharpness in units of its edge, over the first steps of diagonal nets begun above it."""
    above = over_edge(record).isel(step=0, drop=True) > 1
    shown = part(record, above & (record["model"] == "diagonal"))
    loss, sharp = (until(shown, name, FIRST_STEPS) for name in ("train_loss", "sharpness"))
    left = over_steps(loss, "train_loss", loss.wb["train_loss"].isel(step=0), "training loss / its first value")
    return left | over_steps(sharp, "sharpness", edge(sharp), "sharpness / edge")


def until(record: xr.DataTree, name: str, step: int) -> xr.DataTree:
    """The record with the variable's clock cut off after a step."""
    (place,) = [key for key, node in record.children.items() if name in node.data_vars]
    node = record[place].to_dataset(inherit=False)
    return with_nodes(record, **{place: node.sel(step=slice(0, step))})


FIRST_STEPS, LINES = 150, 5


def summary(record: xr.DataTree) -> list[str]:
    """A line on all runs, and one for each of the first five settings: sharpness and trace at the end, in units of edge and bound."""
    lost = int(record["events"]["diverged_step"].count())
    lines = [
        f"{counted(record.sizes['run'], 'run')} of {counted(int(record.attrs['steps']), 'step')}: {lost} diverged. At the end, medians:"
    ]
    factor, ends = setting(record), [at_end(over_edge(record)).values, at_end(over_bound(record)).values]
    for i, name in enumerate(factor.names[:LINES]):
        sharp, trace = (number(np.median(found[factor.codes == i])) for found in ends)
        lines.append(f"{name}: sharpness {sharp} of its edge, trace {trace} of 2 / lr.")
    return lines


# The study.


def edge_of(row: Mapping[str, Any]) -> tuple[Level, ...]:
    """The largest eigenvalue of a quadratic on which descent with this rate and momentum does not diverge."""
    words = "(2 + 2 momentum) / lr" if row["momentum"] else "2 / lr"
    return (Level(words, 2 * (1 + row["momentum"]) / row["lr"], "over"),)


def bound_of(row: Mapping[str, Any]) -> tuple[Level, ...]:
    """2 / lr, which bounds the trace at a minimum where an update sees one sample."""
    return (Level("2 / lr, bound for batch 1", 2 / row["lr"], "over" if row["batch"] == 1 else ""),)


def norm_bound_of(row: Mapping[str, Any]) -> tuple[Level, ...]:
    """sqrt(B) / lr, the order of the largest Frobenius norm at a minimum under batches of B."""
    return (Level("sqrt(B) / lr", min(row["batch"], row["samples"]) ** 0.5 / row["lr"]),)


def sharpness_reached(record: xr.DataTree) -> int:
    """Which of PLACES came true: the mean sharpness from LATER / 2 to LATER steps in units of its edge; a diverged run is above."""
    found = over_edge(record).sel(step=slice(LATER // 2, LATER)).mean().fillna(np.inf).item()
    return int(np.searchsorted(CUTS, found))


LATER, CUTS = 400, (0.8, 1.2)
PLACES = ("below 0.8 of its edge", "within 20 % of it", "above 1.2 of it")
PREDICTIONS = (
    Prediction(f"Where will the sharpness be from step {LATER // 2} to {LATER}? Its edge is 2 / lr.", PLACES, sharpness_reached, LATER),
)
GAUGES = (
    Gauge("train_loss", title="training loss", logarithmic=True),
    Gauge("sharpness", title="sharpness", levels=edge_of),
    Gauge("gauss_newton_trace", title="trace", levels=bound_of),
    Gauge("test_loss", title="test loss"),
    Gauge("gauss_newton_norm", title="Frobenius norm", levels=norm_bound_of, shown=False),
    Gauge("hessian_trace", title="trace of the Hessian, estimated", levels=bound_of, shown=False),
    Gauge("learning_rate", title="learning rate", shown=False),
)


PAIRED = "first weights, training set, order of samples"
HOVERS = 0.1
CLAIMS = (
    Claim(
        "dynamical-stability",
        "At convergence gradient descent keeps the Hessian's largest eigenvalue at 2 / lr or below (largest of the rates, in units of it)",
        partial(extreme, quantity=over_edge, which="max", settings=(IMAGES | {"batch": ALL},)),
        threshold=1 + HOVERS,
        threshold_source="1, and a tenth for hovering just above it (Cohen et al.); the tenth is ours",
        above=False,
        paired="three rates; " + PAIRED,
    ),
    Claim(
        "dynamical-stability",
        "The largest eigenvalue, which begins below, rises to 2 / lr (progressive sharpening; smallest of three rates, in units of it)",
        partial(extreme, quantity=over_edge, which="min", settings=(IMAGES | {"batch": ALL},)),
        threshold=1 - HOVERS,
        threshold_source="1 less a tenth, ours",
        paired="three rates; " + PAIRED,
    ),
    Claim(
        "dynamical-stability",
        "At convergence SGD of single samples keeps the Hessian's trace at 2 / lr or below (largest of all rates and nets, in units of it)",
        partial(extreme, quantity=over_bound, which="max", settings=(IMAGES | {"batch": 1}, RELU | {"batch": 1}, SPARSE | {"batch": 1})),
        threshold=1.0,
        threshold_source="abstract of Wu and Su",
        above=False,
        paired="rates; tanh net, two-layer ReLU net and diagonal linear net; " + PAIRED,
    ),
    Claim(
        "dynamical-stability",
        "Gradient descent does not keep the trace below 2 / lr (smallest of all rates on images, in units of it)",
        partial(extreme, quantity=over_bound, which="min", settings=(IMAGES | {"batch": ALL}, RELU | {"batch": ALL})),
        threshold=1.0,
        threshold_source="abstract of Wu and Su",
        paired="rates; tanh net and two-layer ReLU net; " + PAIRED,
    ),
    Claim(
        "dynamical-stability",
        "With batches of B, p trace + (1 - p) norm^2 / trace, with p = (n - B) / (B (n - 1)), is at most 2 / lr (largest, in units of it)",
        partial(
            extreme, quantity=batch_condition, which="max", settings=(*(IMAGES | {"batch": b} for b in BATCHES), SPARSE | {"batch": 4})
        ),
        threshold=1.0,
        threshold_source="necessary for stability in mean square, see batch_condition; arXiv:2306.07850 has the exact condition",
        above=False,
        paired="rates and batches; tanh net and diagonal linear net; " + PAIRED,
    ),
    Claim(
        "dynamical-stability",
        "With batches of B the Frobenius norm of the Hessian is at most sqrt(B) / lr (largest for B of 1, 4 and 16, in units of it)",
        partial(
            extreme, quantity=norm_over_bound, which="max", settings=(*(IMAGES | {"batch": b} for b in BATCHES), SPARSE | {"batch": 4})
        ),
        threshold=1.0,
        threshold_source="the order is that of arXiv:2207.02628, the factor 1 is ours",
        above=False,
        paired="rates and batches; tanh net and diagonal linear net; " + PAIRED,
    ),
    Claim(
        "dynamical-stability",
        "A larger rate gives a flatter minimum under gradient descent (exponent of the largest eigenvalue over the rate)",
        partial(slope_over_rate, name="sharpness", **IMAGES, batch=ALL),
        threshold=0.0,
        threshold_source="any fall; -1 at the edge",
        above=False,
        paired=PAIRED,
    ),
    Claim(
        "dynamical-stability",
        "A larger rate gives a flatter minimum under SGD of single samples (exponent of the trace over the rate)",
        partial(slope_over_rate, name="gauss_newton_trace", **IMAGES, batch=1),
        threshold=0.0,
        threshold_source="any fall; -1 at the bound",
        above=False,
        paired=PAIRED,
    ),
    Claim(
        "dynamical-stability",
        "At the same rate SGD of single samples ends in a flatter minimum than gradient descent (log10 of the traces' ratio)",
        partial(against_all, name="gauss_newton_trace", batch=1, everything=ALL, **IMAGES),
        threshold=0.0,
        threshold_source="any difference",
        above=False,
        paired="rates; " + PAIRED,
    ),
    Claim(
        "dynamical-stability",
        "A larger rate gives a better test loss under gradient descent, on images (log10 of the ratio, 0.2 to 0.05)",
        partial(gained, name="test_loss", **IMAGES, batch=ALL),
        threshold=0.0,
        threshold_source="any gain",
        above=False,
        paired=PAIRED,
    ),
    Claim(
        "dynamical-stability",
        "A larger rate gives a better test loss under SGD of single samples, on images (log10 of the ratio, 0.1 to 0.025)",
        partial(gained, name="test_loss", **IMAGES, batch=1),
        threshold=0.0,
        threshold_source="any gain",
        above=False,
        paired=PAIRED,
    ),
    Claim(
        "dynamical-stability",
        "A larger rate gives a better test loss under SGD of single samples, in a diagonal linear net (log10 of the ratio, 0.04 to 0.01)",
        partial(gained, name="test_loss", **SPARSE, batch=1),
        threshold=0.0,
        threshold_source="any gain",
        above=False,
        paired=PAIRED,
    ),
    Claim(
        "dynamical-stability",
        "At the same rate SGD of single samples has a better test loss than gradient descent, in a diagonal linear net (log10 of ratio)",
        partial(against_all, name="test_loss", batch=1, everything=SPARSE_SAMPLES, **SPARSE),
        threshold=0.0,
        threshold_source="any gain",
        above=False,
        paired="rates; " + PAIRED,
    ),
    Claim(
        "dynamical-stability",
        f"With momentum {MOMENTUM:g} the largest eigenvalue ends at (2 + 2 momentum) / lr or below (in units of it)",
        partial(extreme, quantity=over_edge, which="max", settings=(IMAGES | {"batch": ALL, "momentum": MOMENTUM},)),
        threshold=1 + HOVERS,
        threshold_source="1, and a tenth for hovering just above it (Cohen et al.); the tenth is ours",
        above=False,
        paired=PAIRED,
    ),
    Claim(
        "dynamical-stability",
        f"With momentum {MOMENTUM:g} the largest eigenvalue rises to (2 + 2 momentum) / lr (in units of it)",
        partial(extreme, quantity=over_edge, which="min", settings=(IMAGES | {"batch": ALL, "momentum": MOMENTUM},)),
        threshold=1 - HOVERS,
        threshold_source="1 less a tenth, ours",
        paired=PAIRED,
    ),
    Claim(
        "dynamical-stability",
        "Catapult: begun above 2 / lr the training loss of a diagonal linear net first rises (log10 of the highest over the first)",
        rise,
        threshold=0.0,
        threshold_source="any rise",
        paired="each run with its own first loss",
    ),
    Claim(
        "dynamical-stability",
        "Catapult: then it ends at a lower largest eigenvalue than it began with (log10 of the ratio)",
        flattening,
        threshold=0.0,
        threshold_source="any fall",
        above=False,
        paired="each run with its own first eigenvalue",
    ),
    Claim(
        "dynamical-stability",
        "Catapult: and that is 2 / lr or below (in units of it)",
        partial(extreme, quantity=over_edge, which="max", settings=(CATAPULT,)),
        threshold=1.0,
        threshold_source="the edge of the linear theory",
        above=False,
        paired="each run with its own edge",
    ),
    Claim(
        "dynamical-stability",
        "On a quadratic of curvature h gradient descent leaves the minimum 1 % above 2 / h and nears it 1 % below (least decades of loss)",
        partial(bracketed, batch=AXES),
        threshold=0.0,
        threshold_source="exact",
        paired="first weights",
    ),
    Claim(
        "dynamical-stability",
        "On that quadratic SGD of single samples leaves it 1 % above 2 / trace and nears it 1 % below (least decades of loss)",
        partial(bracketed, batch=1),
        threshold=0.0,
        threshold_source="exact for orthogonal inputs of one length",
        paired="first weights, order of samples",
    ),
)
PRESETS = (
    Preset(
        "edge of stability", {"lr": 0.1}, "Within some 200 steps the sharpness rises to 2 / lr and stays; half the rate has twice the edge."
    ),
    Preset(
        "small batches",
        {"batch": 1, "lr": 0.05},
        "One sample an update: the trace stays below 2 / lr, which full batches exceed three times.",
    ),
    Preset(
        "momentum moves the edge", {"momentum": MOMENTUM, "lr": 0.1}, "The sharpness rises to (2 + 2 momentum) / lr, half as high again."
    ),
    Preset(
        "catapult",
        CATAPULT | {"lr": CATAPULT_RATE},
        "A diagonal linear net begun above 2 / lr: in some ten steps the loss rises tenfold, then falls to a flatter minimum.",
    ),
    Preset(
        "catapult of a net",
        {"init_scale": 2.0, "lr": 0.09},
        "Large first weights, begun above 2 / lr: the sharpness is halved within ten steps, then rises to the edge again.",
    ),
    Preset(
        "flat is sparse",
        SPARSE | {"batch": 1, "lr": 0.04},
        "A diagonal linear net: the larger the rate of SGD, the nearer to the sparse target.",
    ),
    Preset("two layers of ReLU", RELU | {"batch": 1, "lr": 0.025}, "The net of Wu and Su's theorems, one sample an update."),
    Preset("quadratic", QUADRATIC | {"batch": AXES, "lr": 2.02}, "Curvature 1: at 2.02 it diverges, below 2 it converges."),
    Preset(
        "the published width and rate",
        {"width": 200, "samples": 500, "batch": 500, "lr": 0.01},
        "The net of Cohen et al. but for its inputs and outputs, and their rate: slow, the edge is at 200.",
    ),
)


CURVATURE = ("sharpness", "gauss_newton_trace")


def full_design() -> Design:
    """Rates, batches, momentum and first weights on images, on a sparse target and on a quadratic."""
    of = partial(grid, seed=SEEDS)
    images = of(lr=RATES, batch=(ALL, *BATCHES[1:])) + of(lr=SINGLE_RATES, batch=1) + of(lr=0.1, momentum=MOMENTUM)
    images += of(lr=RELU_RATES, batch=(1, ALL), **RELU)
    sparse = of(lr=SPARSE_RATES, batch=(1, 4, SPARSE_SAMPLES), **SPARSE) + of(lr=CATAPULT_RATE, **CATAPULT)
    return images + sparse + of(lr=(1.98, 2.02), batch=AXES, **QUADRATIC) + of(lr=(0.099, 0.101), batch=1, **QUADRATIC)


study = Study(
    __name__,
    title="The edge of stability",
    knobs=Settings,
    task=TASK,
    learner=OwnSamples(model, half_square, TASK.evaluation, training=training_set, seen=in_order),
    probes=(train_loss, test_loss),
    optional_probes=(
        sharpness,
        gauss_newton_trace,
        gauss_newton_norm,
        hessian_trace,
        learning_rate,
        critical_sharpness,
        gradient_norm_total,
        update_norm_total,
        weight_norm_total,
    ),
    budgets={
        "smoke": Budget(grid(lr=RATES[:2], batch=(1, 32), samples=32, width=16), 30, probes=CURVATURE),
        "demo": Budget(grid(lr=RATES, batch=(1, ALL), seed=range(4)), 400, probes=CURVATURE),
        "full": Budget(
            full_design(),
            STEPS,
            probes=(*CURVATURE, "gauss_newton_norm"),
            clocks={"train_loss": 10, "gauss_newton_trace": 100},
        ),
    },
    presets=PRESETS,
    events=(
        Event("edge_step", edge_step, "step", "first step at which the sharpness is (2 + 2 momentum) / lr or more (NaN: none)"),
        Event(
            "loss_exceeded_step", loss_exceeded_step, "step", "first step with a training loss above 1.5 times the initial one (NaN: none)"
        ),
    ),
    views=(sharpness_over_edge, trace_over_bound, curvature_against_lr, test_loss_against_lr, catapult),
    gauges=GAUGES,
    predictions=PREDICTIONS,
    claims=CLAIMS,
    summary=summary,
)
