"""Grokking on corrupted labels.

Question.   Can a net learn wrong labels by heart and yet understand the rule, and what makes it let go of the wrong ones?
Phenomenon. Without regularization it does both: wrong labels are memorized and held-out sums are right. Weight decay and dropout make it
            forget wrong labels, some (partial inversion) or all (full inversion), and answer these pairs right as well. The units that
            memorize can be told from those that understand, by how periodic their weights are, and can be taken out.
Try.        Begin without `weight_decay`, wait until both accuracies are near 1, and raise it to 15. Or raise `corrupted_share` until the
            net understands nothing any more.
Cites.      Doshi et al. 2023, arXiv:2310.13061 (the net, its training, the phases, the inverse participation ratio, pruning).
Differs.    The grid has the modulus 59, the width 256 and 600 steps for the paper's 97, 500 and 2,000; the preset "published" and two
            claims have the published size. The paper describes its phases in words; the cuts at 0.9 and 0.1 are ours. A corrupted pair is
            one whose label is wrong: of the labels drawn anew 1 in 59 is right by chance, and does not count. Batches are drawn afresh at
            every step, the authors' make up epochs. Dropout stands before the square, as in their code. Weight decay leaves gains and
            biases of BatchNorm alone; theirs does not, but is 0 where there is BatchNorm.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from .. import models, noise
from ..claim import Claim
from ..design import grid
from ..events import first_step
from ..gauge import Gauge
from ..knobs import at_least, knob
from ..learners import Supervised, squared_error
from ..models import PairMLP, Perceptron, Regularization
from ..optimizers import Adam
from ..probe import probe
from ..probes import weight_norm_total
from ..probes.fourier import inverse_participation_ratio
from ..progress import counted
from ..schedules import Schedule
from ..study import Budget, Event, Moment, Now, Prediction, Preset, Published, Study
from ..taps import recording
from ..tasks import CorruptedModular, Corruption, Modular, ModularKnobs
from ..view import view
from ..views.layout import Factor
from ..views.medians import Mark, medians
from ..views.settings import lines, outcome_map, settings, spread
from ..views.theme import CATEGORIES, number

PRUNED = tuple(k / 10 for k in range(10))
HIGH, LOW = 0.9, 0.1  # accuracies that count as all and as none
PHASES = {
    "no wrong labels, generalizes": CATEGORIES[2],
    "coexistence": CATEGORIES[0],
    "partial inversion": CATEGORIES[4],
    "full inversion": CATEGORIES[5],
    "memorization": CATEGORIES[1],
    "forgetting": CATEGORIES[3],
    "confusion": CATEGORIES[6],
}
ALWAYS = ("weight_decay",)  # named with every setting
MOST_PANELS = 12
SHOWN = {
    "held out": "held_out_accuracy",
    "corrupted, as given": "given_accuracy",
    "corrupted, right answer": "right_accuracy",
    "clean training pairs": "clean_accuracy",
}
STEPS = 600
SHARES, DECAYS = (0.1, 0.2, 0.3, 0.4, 0.5), (0.0, 5.0, 15.0, 20.0)
PLAIN: Mapping[str, Any] = {
    "modulus": 59,
    "width": 256,
    "corrupted_share": 0.2,
    "weight_decay": 0.0,
    "dropout": 0.0,
    "batch_norm": False,
    "minibatch": 0,
}
CLEAN: Mapping[str, Any] = {"modulus": 97, "width": 500, "corrupted_share": 0.0, "weight_decay": 5.0}
BATCHES: Mapping[str, Any] = {"corrupted_share": 0.1, "minibatch": 256}
SEEDS = range(4, 8)  # 0 to 3 were used to choose sizes and steps


class Settings(
    ModularKnobs,
    Corruption,
    Perceptron,
    Regularization,
    Schedule,
    Adam,
    defaults={
        "modulus": 59,
        "train_share": 0.5,
        "split_seed": 420,
        "corrupted_share": 0.2,
        "depth": 1,
        "width": 256,
        "activation": "square",
        "bias": False,
        "lr": 1e-2,
        "beta2": 0.98,
    },
):
    """A small net, a table of sums with wrong entries, and what keeps the net from learning these by heart."""

    weight_decay: float = knob(5.0, 0.0, 30.0, valid=at_least(0.0), group="regularization", doc="weight decay")
    minibatch: int = knob(
        0, 0, 1024, valid=at_least(0), acts="switch", group="data", doc="training pairs drawn for each step; 0 for all of them"
    )


TASK = CorruptedModular()


def model(knobs: Any) -> PairMLP:
    """The net of the paper: all weights begin normal with standard deviation 0.5 / (2 width)^(1/3), 0.05 at the paper's width 500."""
    return PairMLP(knobs, knobs.modulus, knobs.modulus, std=0.5 / (2 * knobs.width) ** (1 / 3))


@dataclass(frozen=True)
class OnPairs(Supervised):
    """`Supervised` on `minibatch` of the pairs at each step. The moment also holds `pairs`, all of them."""

    def prepare(self, knobs: Any, key: Tensor) -> dict[str, Any]:
        """As of `Supervised`, and the right label of every training pair."""
        return super().prepare(knobs, key) | {"right": Modular()(knobs, key)["y"]}

    def step(self, state: Mapping[str, Any], batch: Any, knobs: Any, shared: Mapping[str, Any], now: Now) -> tuple[dict[str, Any], Moment]:
        """One update on the pairs drawn for this step."""
        new, moment = super().step(state, drawn(batch, knobs.minibatch, now.key), knobs, shared, now)
        moment.pairs = batch
        return new, moment


def drawn(pairs: Mapping[str, Tensor], count: int, key: Tensor) -> Mapping[str, Tensor]:
    """`count` of the pairs, without repetition; all of them for 0."""
    if not count:
        return pairs
    chosen = noise.permutation(key, "minibatch", len(pairs["y"]))[:count]
    return {name: x[chosen] for name, x in pairs.items()}


class Evaluated(NamedTuple):
    """What the net does with all pairs, those of training first: hidden units (pair, unit) and outputs (pair, class)."""

    hidden: Tensor
    outputs: Tensor


def evaluated(m: Any) -> Evaluated:
    """The net without dropout and with running statistics; computed once a moment, as many probes ask."""
    if "evaluated" not in vars(m):
        x = torch.cat([m.pairs["x"], m.shared["evaluation"]["x"]])
        with recording() as frame:
            outputs = models.apply(m.shared["evaluator"], m.params, m.buffers, x, knobs=m.knobs)
        m.evaluated = Evaluated(frame.seen["0.hidden"], outputs)
    return m.evaluated


class Accuracies(NamedTuple):
    """Shares of pairs answered so. A training pair is corrupted if its label is wrong; NaN where no pair is."""

    training: Tensor
    clean: Tensor
    given: Tensor
    right: Tensor
    held_out: Tensor


def accuracies(m: Any, outputs: Tensor) -> Accuracies:
    """Of outputs (pair, class) for all pairs, those of training first."""
    given, right, held_out = m.pairs["y"], m.shared["right"], m.shared["evaluation"]["y"]
    answers, unseen = outputs.argmax(-1).split([len(given), len(held_out)])
    corrupted = given != right
    return Accuracies(
        training=_share(answers == given),
        clean=_share(answers == right, ~corrupted),
        given=_share(answers == given, corrupted),
        right=_share(answers == right, corrupted),
        held_out=_share(unseen == held_out),
    )


def _share(hit: Tensor, among: Tensor | None = None) -> Tensor:
    among = torch.ones_like(hit) if among is None else among
    return (hit & among).sum().float() / among.sum()


@probe()
def train_loss(m):
    """Training loss, the mean squared error"""
    return m.loss


@probe(cost="forward")
def training_accuracy(m):
    """Accuracy on the training pairs, labels as given"""
    return accuracies(m, evaluated(m).outputs).training


@probe(cost="forward")
def clean_accuracy(m):
    """Accuracy on the training pairs whose label is right"""
    return accuracies(m, evaluated(m).outputs).clean


@probe(cost="forward")
def given_accuracy(m):
    """Accuracy on the corrupted pairs, labels as given"""
    return accuracies(m, evaluated(m).outputs).given


@probe(cost="forward")
def right_accuracy(m):
    """Accuracy on the corrupted pairs, right labels"""
    return accuracies(m, evaluated(m).outputs).right


@probe(cost="forward")
def held_out_accuracy(m):
    """Accuracy on the held-out pairs"""
    return accuracies(m, evaluated(m).outputs).held_out


def ratios(m: Any) -> Tensor:
    """IPR of each unit, (unit,): mean over its weights from the first and the second number and to the outputs; NaN for a dead unit."""
    first, second = m.params["layers.0.weight"].unflatten(-1, (2, -1)).unbind(-2)
    rows = torch.stack([first, second, m.params["readout.weight"].T])
    return inverse_participation_ratio(rows).mean(0)


@probe("unit", every=10)
def unit_ipr(m):
    """Inverse participation ratio of a unit's weights; NaN where all of one kind are 0"""
    return ratios(m)


@probe(every=10)
def ipr(m):
    """Inverse participation ratio, mean over the units that have one"""
    return ratios(m).nanmean()


@probe(every=10)
def gain_follows_ipr(m):
    """Rank correlation over units of the gain's size in BatchNorm with the IPR; NaN without BatchNorm"""
    if not m.knobs.batch_norm:
        return torch.nan
    return rank_correlation(m.params["norms.0.weight"].abs(), by_ipr(m))


def by_ipr(m: Any) -> Tensor:
    """The IPR of each unit, (unit,), a dead one's below all others."""
    return torch.nan_to_num(ratios(m), nan=-1.0)


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of two vectors without ties; 0-dim."""
    ranks = torch.stack([x.argsort().argsort() for x in (a, b)]).to(a.dtype)
    centred = ranks - (len(a) - 1) / 2
    return centred.prod(0).sum() / centred[0].square().sum()


def pruned(m: Any, lowest: bool) -> list[Accuracies]:
    """Accuracies with the shares PRUNED of the units taken out, those of lowest IPR first, or of highest."""
    hidden, _ = evaluated(m)
    order = by_ipr(m).argsort(descending=not lowest)
    hidden, weight = hidden[:, order], m.params["readout.weight"][:, order]
    edges = [round(share * len(order)) for share in (*PRUNED, 1.0)]
    outputs, found = 0.0, []
    for start, stop in reversed(list(itertools.pairwise(edges))):
        outputs = outputs + hidden[:, start:stop] @ weight[:, start:stop].T
        found.append(accuracies(m, outputs))
    return found[::-1]


@probe("pruned", every=100, cost="forward")
def held_out_without_low(m):
    """Held-out accuracy without the units of lowest IPR"""
    return torch.stack([each.held_out for each in pruned(m, lowest=True)])


@probe("pruned", every=100, cost="forward")
def given_without_low(m):
    """Accuracy on the corrupted pairs, labels as given, without the units of lowest IPR"""
    return torch.stack([each.given for each in pruned(m, lowest=True)])


@probe("pruned", every=100, cost="forward")
def held_out_without_high(m):
    """Held-out accuracy without the units of highest IPR"""
    return torch.stack([each.held_out for each in pruned(m, lowest=False)])


@probe("pruned", every=100, cost="forward")
def given_without_high(m):
    """Accuracy on the corrupted pairs, labels as given, without the units of highest IPR"""
    return torch.stack([each.given for each in pruned(m, lowest=False)])


def phases(record: xr.DataTree) -> np.ndarray:
    """The phase of each run at its last step, by its name in PHASES; (run,).

    Where held-out accuracy is at least HIGH the wrong labels decide: all memorized (at least HIGH: coexistence), none (at most LOW: full
    inversion), some. Where it is not, training accuracy does: memorization at HIGH; below it forgetting, if it has been that high
    before, or confusion.
    """
    held_out, given, fits = (at_end(record, name).values for name in ("held_out_accuracy", "given_accuracy", "training_accuracy"))
    has_fit = (record.wb["training_accuracy"] >= HIGH).any("step").values
    generalizes = held_out >= HIGH
    found = [
        (generalizes & np.isnan(given), "no wrong labels, generalizes"),
        (generalizes & (given >= HIGH), "coexistence"),
        (generalizes & (given <= LOW), "full inversion"),
        (generalizes, "partial inversion"),
        (fits >= HIGH, "memorization"),
        (has_fit, "forgetting"),
    ]
    return np.select([condition for condition, _ in found], [name for _, name in found], "confusion")


def at_end(record: xr.DataTree, variable: str) -> xr.DataArray:
    """A variable at the last step, without the dimension `step`."""
    return record.wb[variable].isel(step=-1, drop=True)


def ended(record: xr.DataTree, variable: str, **knobs: Any) -> xr.DataArray:
    """A variable at the last step of the runs that differ from PLAIN in these knobs, over `seed` and its own dimensions."""
    return record.wb.where(**{**PLAIN, **knobs}).wb.cube(variable, "seed").isel(step=-1, drop=True)


def of_clean_labels(record: xr.DataTree, variable: str, step: int) -> xr.DataArray:
    """A variable at a step, of the runs of published size on clean labels, over `seed`."""
    return record.wb.where(**{**PLAIN, **CLEAN}).wb.cube(variable, "seed").sel(step=step, drop=True)


def delay(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed: training minus held-out accuracy at step 20 of the published run."""
    return of_clean_labels(record, "training_accuracy", 20) - of_clean_labels(record, "held_out_accuracy", 20)


def coexistence(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed: the lower of held-out accuracy and accuracy on the corrupted pairs as given, without regularization."""
    return np.minimum(ended(record, "held_out_accuracy"), ended(record, "given_accuracy"))


def forgotten(record: xr.DataTree, before: Mapping[str, Any], after: Mapping[str, Any]) -> xr.DataArray:
    """Effect per seed: by how much accuracy on the corrupted pairs as given is lower with the knobs `after` than `before`."""
    return ended(record, "given_accuracy", **before) - ended(record, "given_accuracy", **after)


def inversion(record: xr.DataTree, **knobs: Any) -> xr.DataArray:
    """Effect per seed: held-out accuracy minus that on the training pairs as given."""
    return ended(record, "held_out_accuracy", **knobs) - ended(record, "training_accuracy", **knobs)


def unlearned(record: xr.DataTree, **knobs: Any) -> xr.DataArray:
    """Effect per seed: the highest accuracy on the corrupted pairs as given at any step, minus that at the last."""
    given = record.wb.where(**{**PLAIN, **knobs}).wb.cube("given_accuracy", "seed")
    return given.max("step") - given.isel(step=-1, drop=True)


def ipr_gained(record: xr.DataTree, **knobs: Any) -> xr.DataArray:
    """Effect per seed: mean IPR with these knobs minus that without regularization."""
    return ended(record, "ipr", **knobs) - ended(record, "ipr")


def changed_by_pruning(record: xr.DataTree, variable: str, share: float, **knobs: Any) -> xr.DataArray:
    """Effect per seed: a variable with this share of the units pruned minus with none."""
    found = ended(record, variable, **knobs)
    return found.sel(pruned=share, drop=True) - found.sel(pruned=0.0, drop=True)


def after_pruning(record: xr.DataTree, variable: str, share: float, **knobs: Any) -> xr.DataArray:
    """Effect per seed: a variable with this share of the units pruned."""
    return ended(record, variable, **knobs).sel(pruned=share, drop=True)


def grokked_step(record: xr.DataTree) -> xr.DataArray:
    """First step with a held-out accuracy of HIGH."""
    return first_step(record.wb["held_out_accuracy"] >= HIGH)


def corrected_step(record: xr.DataTree) -> xr.DataArray:
    """First step at which half of the corrupted pairs are answered right."""
    return first_step(record.wb["right_accuracy"] >= 0.5)


def in_panels(record: xr.DataTree) -> tuple[xr.DataTree, Factor, dict[str, str]]:
    """What charts with a panel for each setting show: some of the runs, their settings, and a title that says what is left out.

    Of every setting one share of corrupted labels, that nearest to PLAIN's; of the settings the first MOST_PANELS.
    """
    every = settings(record, besides=("corrupted_share",), always=ALWAYS)
    shares = record["corrupted_share"].values
    chosen = [min(np.unique(shares[every.codes == code]), key=_away) for code in range(min(len(every.names), MOST_PANELS))]
    kept = np.flatnonzero([code < len(chosen) and share == chosen[code] for code, share in zip(every.codes, shares, strict=True)])
    heads = tuple(f"{name}, corrupted share {number(share)}" for name, share in zip(every.names, chosen, strict=False))
    title = {"title": f"the first {MOST_PANELS} of {len(every.names)} settings"} if len(every.names) > MOST_PANELS else {}
    return record.isel(run=kept), Factor("setting", heads, every.codes[kept], heads=heads), title


def _away(share: float) -> float:
    return abs(share - PLAIN["corrupted_share"])


def over_seeds(values: xr.DataArray, panel: Factor, name: str, style: str) -> pd.DataFrame:
    """Mean, lowest and highest over the runs of each setting, of values (run, pruned), as `views.settings.lines` wants them."""
    table = values.transpose("run", "pruned").to_pandas()
    table.index = panel.of_runs(panel.heads)
    groups = table.melt(ignore_index=False, var_name="x").rename_axis("panel_0").groupby(["panel_0", "x"], sort=False)["value"]
    found = groups.agg(value="mean", low="min", high="max").reset_index()
    return found.dropna().assign(name=name, style=style)


@view("held_out_accuracy", "given_accuracy", "training_accuracy")
def phase_map(record: xr.DataTree) -> Any:
    """Phase at the last step over share of corrupted labels and setting, with the accuracies on held-out and on corrupted pairs."""
    down = settings(record, besides=("corrupted_share",), always=ALWAYS)
    both = [percent(mean_of_cell(at_end(record, name), record, down)) for name in ("held_out_accuracy", "given_accuracy")]
    words = np.array([f"{held_out} / {given}" for held_out, given in zip(*both, strict=True)], object)
    subtitle = f"in each cell: accuracy in % on held-out pairs / on corrupted pairs as given, mean over seeds, step {record.attrs['steps']}"
    x = "share of corrupted labels"
    return outcome_map(record["corrupted_share"], down, phases(record), words, PHASES, x=x, title="phases", subtitle=subtitle)


def mean_of_cell(values: xr.DataArray, record: xr.DataTree, down: Factor) -> np.ndarray:
    """For each run the mean over the runs of its setting and share, (run,)."""
    return pd.Series(values.values).groupby([down.codes, record["corrupted_share"].values]).transform("mean").values


def percent(shares: np.ndarray) -> list[str]:
    """Whole percents; a dash for NaN."""
    return [number(float(np.round(100 * share))) for share in shares]


@view(*SHOWN.values())
def accuracies_of_settings(record: xr.DataTree) -> Any:
    """Accuracy on held-out, corrupted and clean pairs against step, a panel for each setting: median and range of the seeds."""
    some, panel, title = in_panels(record)
    of_clean = [head for code, head in enumerate(panel.heads) if _is_published(some, panel, code)]
    names = {variable: name for name, variable in SHOWN.items()}
    marks = [Mark(head, names[p.variable], p.step, p.value, "published") for head in of_clean for p in PUBLISHED if p.variable in names]
    return medians(some, SHOWN, panel, title="accuracy", domain=(0.0, 1.02), marks=marks).properties(**title)


def _is_published(record: xr.DataTree, panel: Factor, code: int) -> bool:
    runs = panel.codes == code
    return all((record[name].values[runs] == value).all() for name, value in {**PLAIN, **CLEAN}.items())


@view("held_out_without_low", "given_without_low", "held_out_without_high", "given_without_high")
def accuracies_after_pruning(record: xr.DataTree) -> Any:
    """Accuracy against the share of units pruned at the last step, by their IPR, a panel for each setting: mean and range of the seeds."""
    some, panel, title = in_panels(record)
    styles = {"lowest IPR first": "low", "highest IPR first": "high"}
    table = pd.concat(
        [
            over_seeds(at_end(some, f"{variable}_without_{end}"), panel, name, style)
            for name, variable in (("held out", "held_out"), ("corrupted, as given", "given"))
            for style, end in styles.items()
        ]
    )
    names = ["held out", "corrupted, as given"]
    return lines(table, panel, x="share of units pruned", y="accuracy", names=names, styles=list(styles)).properties(**title)


@view("unit_ipr")
def ipr_of_units(record: xr.DataTree) -> Any:
    """How the IPR of the units is spread at the last step, a panel for each setting, units of all seeds together."""
    some, panel, title = in_panels(record)
    values = at_end(some, "unit_ipr")
    table = pd.DataFrame({"panel_0": np.repeat(panel.of_runs(panel.heads), values.sizes["unit"]), "value": values.values.ravel()})
    x = "inverse participation ratio of a unit"
    return spread(table.dropna(), panel, x=x, y="share of units", domain=(0.0, 1.0)).properties(**title)


def summary(record: xr.DataTree) -> list[str]:
    """How many runs are in which phase, the five most frequent ones, and their mean accuracies."""
    lost = int(record["events"]["diverged_step"].count())
    said = [f"{counted(record.sizes['run'], 'run')} of {counted(int(record.attrs['steps']), 'step')}: {lost} diverged."]
    columns = {"phase": phases(record), "held_out": at_end(record, "held_out_accuracy"), "given": at_end(record, "given_accuracy")}
    table = pd.DataFrame({name: np.asarray(values) for name, values in columns.items()})
    for phase in table["phase"].value_counts().index[:5]:
        runs = table[table["phase"] == phase]
        held_out, given = percent(runs[["held_out", "given"]].mean().to_numpy())
        said.append(f"{phase}: {counted(len(runs), 'run')}, held-out accuracy {held_out} %, corrupted pairs as given {given} %.")
    return said


def memorized(record: xr.DataTree) -> int:
    """Which of ANSWERS came true: accuracy on the corrupted pairs as given after LATER steps, mean over seeds."""
    found = record.wb["given_accuracy"].sel(step=LATER, method="nearest").mean().fillna(0.0).item()
    return 2 - int(found <= LOW) - int(found < HIGH)


LATER = 150
ANSWERS = ("at most a tenth", "some of them", "nine tenths or more")
PREDICTIONS = (Prediction(f"How many of the wrong labels will it know by heart after {LATER} steps?", ANSWERS, memorized, LATER),)
GAUGES = (
    Gauge("held_out_accuracy", title="accuracy, held-out pairs"),
    Gauge("given_accuracy", title="accuracy, corrupted pairs as given"),
    Gauge("right_accuracy", title="accuracy, corrupted pairs, right answer"),
    Gauge("unit_ipr", "histogram", "inverse participation ratio of the units"),
    Gauge("train_loss", title="training loss", logarithmic=True, shown=False),
    Gauge("training_accuracy", title="accuracy, training pairs as given", shown=False),
    Gauge("clean_accuracy", title="accuracy, clean training pairs", shown=False),
    Gauge("ipr", title="inverse participation ratio, mean over units", shown=False),
    Gauge("gain_follows_ipr", title="rank correlation of BatchNorm's gain with the IPR", shown=False),
    Gauge("held_out_without_low", "map", "held-out accuracy, units of lowest IPR pruned", shown=False),
    Gauge("given_without_low", "map", "corrupted pairs as given, units of lowest IPR pruned", shown=False),
    Gauge("weight_norm_total", title="norm of all parameters", shown=False),
)
DOSHI = "arXiv:2310.13061, released notebook"
OF_NOTEBOOK = {"training_accuracy": {10: 0.816, 20: 0.991}, "held_out_accuracy": {20: 0.003, 30: 0.230, 36: 0.823, 42: 0.999}}
PUBLISHED = tuple(
    Published(variable, value, f"{value:.3f} at step {step}", DOSHI, step, CLEAN)
    for variable, points in OF_NOTEBOOK.items()
    for step, value in points.items()
)
EVERY_TENTH = dict.fromkeys(
    ("train_loss", "training_accuracy", "clean_accuracy", "given_accuracy", "right_accuracy", "held_out_accuracy"), 10
)
SLOW = {**EVERY_TENTH, "ipr": 100, "gain_follows_ipr": 100, "weight_norm_total": 100, "unit_ipr": 1000}
SLOW |= dict.fromkeys(("held_out_without_low", "given_without_low", "held_out_without_high", "given_without_high"), 1000)
PAIRED = "pairs, wrong labels and first weights"


def claim(statement: str, effect: Any, threshold: float, source: str, *, above: bool = True, paired: str = PAIRED) -> Claim:
    """A claim on the one system that the study stands for."""
    return Claim("corrupted-grokking", statement, effect, threshold, source, paired, above)


CLAIMS = (
    claim(
        "At the published size, clean labels and a decay of 5, training pairs are known first: training minus held-out accuracy at step 20",
        delay,
        HIGH,
        "our choice; published: 0.991 - 0.003",
        paired="one run",
    ),
    claim(
        "At the published size, clean labels and a decay of 5, held-out accuracy has passed 0.99 by step 50",
        partial(of_clean_labels, variable="held_out_accuracy", step=50),
        0.99,
        "the released notebook: 0.999 at step 42",
        paired="one run",
    ),
    claim(
        "Without regularization the net is right on held-out pairs and knows the wrong labels by heart: the lower of the two accuracies",
        coexistence,
        HIGH,
        "our choice; the paper writes of 100 % for both",
        paired="one run",
    ),
    claim(
        "Weight decay of 5 makes it forget wrong labels: accuracy on corrupted pairs as given, without decay minus with it",
        partial(forgotten, before={}, after={"weight_decay": 5.0}),
        0.0,
        "any loss",
    ),
    claim(
        "Weight decay of 15 makes it forget more of them than 5: accuracy on corrupted pairs as given, with 5 minus with 15",
        partial(forgotten, before={"weight_decay": 5.0}, after={"weight_decay": 15.0}),
        0.0,
        "any loss",
    ),
    claim(
        "With a decay of 5 held-out accuracy is above training accuracy (partial inversion): held-out minus training accuracy",
        partial(inversion, weight_decay=5.0),
        0.0,
        "any inversion",
        paired="one run",
    ),
    claim(
        "With a decay of 15 corrupted pairs are answered right (full inversion): accuracy on them, right labels",
        partial(ended, variable="right_accuracy", weight_decay=15.0),
        HIGH,
        "our choice; the paper writes of 100 % on uncorrupted data",
        paired="one run",
    ),
    claim(
        "With a decay of 15 wrong labels are known by heart, then forgotten: highest accuracy on corrupted pairs as given, minus the last",
        partial(unlearned, weight_decay=15.0),
        0.5,
        "our choice: half of them; the paper has training accuracy fall from 100 % to 100 (1 - share) %",
        paired="one run",
    ),
    claim(
        "Dropout of 0.5 makes it forget wrong labels: accuracy on corrupted pairs as given, without dropout minus with it",
        partial(forgotten, before={}, after={"dropout": 0.5}),
        0.0,
        "any loss",
    ),
    claim(
        "With dropout of 0.5 corrupted pairs are answered right: accuracy on them, right labels",
        partial(ended, variable="right_accuracy", dropout=0.5),
        HIGH,
        "our choice; the paper writes of 100 % on uncorrupted data",
        paired="one run",
    ),
    claim(
        "BatchNorm makes it forget wrong labels, in batches of 256, share 0.1: accuracy on corrupted pairs as given, without minus with it",
        partial(forgotten, before=BATCHES, after={**BATCHES, "batch_norm": True}),
        0.0,
        "any loss",
        paired=f"{PAIRED}, batches",
    ),
    claim(
        "With BatchNorm corrupted pairs are answered right, in batches of 256, share 0.1: accuracy on them, right labels",
        partial(ended, variable="right_accuracy", **BATCHES, batch_norm=True),
        HIGH,
        "our choice; the paper writes of 100 % on uncorrupted data",
        paired="one run",
    ),
    claim(
        "BatchNorm gives units of low IPR low gains, in batches of 256, share 0.1: rank correlation of gain and IPR over units",
        partial(ended, variable="gain_follows_ipr", **BATCHES, batch_norm=True),
        0.0,
        "any correlation",
        paired="one run",
    ),
    claim(
        "Weight decay of 15 makes the units periodic: mean IPR with it minus without decay",
        partial(ipr_gained, weight_decay=15.0),
        0.0,
        "any gain",
    ),
    claim(
        "Without the half of the units of lowest IPR wrong labels are lost: accuracy on corrupted pairs as given, with half minus with all",
        partial(changed_by_pruning, variable="given_without_low", share=0.5),
        0.0,
        "any loss",
        above=False,
        paired="one net, unregularized",
    ),
    claim(
        "Without that half held-out accuracy stays: with half of the units minus with all",
        partial(changed_by_pruning, variable="held_out_without_low", share=0.5),
        -0.02,
        "our choice: stays within 0.02",
        paired="one net, unregularized",
    ),
    claim(
        "Where held-out accuracy is not 1 it rises without that half, share 0.4, decay 5: with half of the units minus with all",
        partial(changed_by_pruning, variable="held_out_without_low", share=0.5, corrupted_share=0.4, weight_decay=5.0),
        0.0,
        "any gain",
        paired="one net",
    ),
    claim(
        "Without the half of the units of highest IPR generalization is gone: held-out accuracy",
        partial(after_pruning, variable="held_out_without_high", share=0.5),
        LOW,
        "our choice; a guess is right in 0.017 of cases",
        above=False,
        paired="one net, unregularized",
    ),
)


study = Study(
    __name__,
    title="Grokking on corrupted labels",
    knobs=Settings,
    task=TASK,
    learner=OnPairs(model, squared_error, TASK.evaluation),
    probes=(
        train_loss,
        training_accuracy,
        clean_accuracy,
        given_accuracy,
        right_accuracy,
        held_out_accuracy,
        ipr,
        unit_ipr,
        gain_follows_ipr,
        held_out_without_low,
        given_without_low,
        held_out_without_high,
        given_without_high,
        weight_norm_total,
    ),
    coords=lambda knobs: dict(unit=range(knobs.width), pruned=PRUNED),
    views=(phase_map, accuracies_of_settings, accuracies_after_pruning, ipr_of_units),
    gauges=GAUGES,
    predictions=PREDICTIONS,
    published=PUBLISHED,
    events=(
        Event("grokked_step", grokked_step, "step", "first step with a held-out accuracy of 0.9 (NaN: none)"),
        Event("corrected_step", corrected_step, "step", "first step at which half of the corrupted pairs are answered right (NaN: none)"),
    ),
    summary=summary,
    presets=(
        Preset(
            "coexistence", {"weight_decay": 0.0}, "All wrong labels are known by heart by step 50, and by step 300 held-out sums are right."
        ),
        Preset("partial inversion", {"weight_decay": 5.0}, "About a third of the corrupted pairs are answered right by step 150."),
        Preset("full inversion", {"weight_decay": 15.0}, "The net knows nearly all wrong labels by step 50 and hardly any by step 200."),
        Preset("published: clean labels", CLEAN, "The published size: training accuracy is 0.99 at step 20, held-out accuracy at step 42."),
        Preset("dropout instead of decay", {"weight_decay": 0.0, "dropout": 0.5}, "It does what decay does."),
        Preset(
            "BatchNorm and batches",
            {**BATCHES, "weight_decay": 0.0, "batch_norm": True},
            "The gains of BatchNorm come to follow the inverse participation ratio of their units.",
        ),
    ),
    budgets={
        "smoke": Budget(grid(modulus=11, width=16, weight_decay=(0.0, 5.0)) + grid(modulus=11, width=16, batch_norm=True), 30),
        "demo": Budget(grid(corrupted_share=(0.1, 0.2, 0.4), weight_decay=(0.0, 5.0, 15.0)), 300, clocks=EVERY_TENTH),
        "full": Budget(
            grid(corrupted_share=SHARES, weight_decay=DECAYS, seed=SEEDS)
            + grid(weight_decay=0.0, dropout=0.5, seed=SEEDS)
            + grid(**BATCHES, weight_decay=0.0, batch_norm=(False, True), seed=SEEDS)
            + grid(**CLEAN, seed=SEEDS),
            STEPS,
            clocks=SLOW,
        ),
    },
    claims=CLAIMS,
)
