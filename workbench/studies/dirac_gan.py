"""The Dirac GAN.

Question.   Why do two players that both go downhill circle around their equilibrium, and what makes them arrive?
Phenomenon. One point is to be generated, and the critic is a slope. Each player's gradient is across the other's, so that updates at once
            spiral outward and updates in turns keep their distance; a penalty on the slope at real samples pulls both in.
Try.        Start at *in turns*, let it circle, and switch `penalty` to r1; drag `penalty_weight` to 10 and see it creep. Then make a twin
            with `instance_noise` 1, and one with a critic that is five times as fast.
Cites.      Mescheder, Geiger and Nowozin 2018, arXiv:1801.04406 (the example, its eigenvalues, R1); Goodfellow et al. 2014,
            arXiv:1406.2661; Mao et al. 2017, arXiv:1611.04076; Arjovsky et al. 2017, arXiv:1701.07875; Gulrajani et al. 2017,
            arXiv:1704.00028; Lim and Ye 2017, arXiv:1705.02894 (the losses and the gradient penalty).
Differs.    The paper studies the flow and its updates in the limit of small rates; here rates are finite, and a measured factor per update
            is compared with the eigenvalues of the linearized update itself. Its gradient penalty and noise are expectations; here they
            are means over a batch.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor, nn

from ..claim import Claim
from ..design import Design, grid
from ..gauge import Gauge, Level
from ..knobs import prefixed
from ..learners import Adversarial, Game
from ..models import Initialization, Rule
from ..models.initialize import normal
from ..optimizers import Optimizers
from ..probe import probe
from ..probes.game import field_growth, field_rotation, player_gradient_norm, player_loss, score_gap
from ..progress import counted
from ..schedules import Schedule
from ..study import Budget, Prediction, Preset, Study
from ..tasks import Batch
from ..view import view
from ..views import curves
from ..views.extras import alt
from ..views.layout import VARIANT, Factor
from ..views.panels import MOST_PANELS, inline, panels
from ..views.theme import CATEGORIES, CROSS, INK, number, rounded, word

STEPS = 500
RATE = 0.1
SEEDS = range(4, 8)
WITHIN = RATE / 1000
NEAR, FAR = 0.01, 1.0  # standard deviations of the starts: where the field is all but linear, and far beyond what noise leaves
TURN = 150  # steps that hold a whole turn around the equilibrium
WEIGHTS = (0.1, 0.3, 1.0, 3.0, 10.0)
PLAIN = {"adversarial_loss": "non_saturating", "updates": "alternating", "penalty": "none", "penalty_weight": 1.0, "instance_noise": 0.0}
PLAIN |= {"critic_steps": 1, "critic_lr": RATE, "generator_average": 0.0, "init_scale": NEAR}
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "Wasserstein, at once": {"adversarial_loss": "wasserstein", "updates": "simultaneous"},
    "Wasserstein, in turns": {"adversarial_loss": "wasserstein"},
    "at once": {"updates": "simultaneous"},
    "in turns": {},
    "five critic updates": {"critic_steps": 5},
    "least squares": {"adversarial_loss": "least_squares"},
    "hinge": {"adversarial_loss": "hinge"},
    "R1": {"penalty": "r1"},
    "gradient penalty": {"adversarial_loss": "wasserstein", "penalty": "gradient"},
    "instance noise": {"instance_noise": 1.0, "init_scale": FAR},
    "Wasserstein, instance noise": {"adversarial_loss": "wasserstein", "instance_noise": 1.0, "init_scale": FAR},
    "averaged": {"generator_average": 0.98},
}


class Player(Schedule, Optimizers, defaults={"lr": RATE, "optimizer": "sgd", "momentum": 0.0}):
    """What one player learns with."""


class Settings(
    Batch, Initialization, prefixed("critic", Player), prefixed("generator", Player), Game, defaults={"batch": 256, "init_scale": NEAR}
):
    """The game and its players."""


class Point(nn.Module):
    """A generator of one number, whatever its latents (count, 0): (count, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.empty(1))

    def rules(self) -> dict[str, Rule]:
        """Normal, times `init_scale`."""
        return {"position": normal("matrix", 1.0)}

    def forward(self, latent: Tensor) -> Tensor:
        return self.position.expand(latent.shape[0], 1)


class Slope(nn.Module):
    """A critic whose score is a slope times the sample: (count, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.empty(1))

    def rules(self) -> dict[str, Rule]:
        """Normal, times `init_scale`."""
        return {"slope": normal("matrix", 1.0)}

    def forward(self, x: Tensor) -> Tensor:
        return self.slope * x


def zeros(knobs: Any, key: Tensor) -> dict[str, Tensor]:
    """Real samples, all of them 0: x float32 (critic_steps * batch, 1)."""
    return {"x": torch.zeros(knobs.critic_steps * knobs.batch, 1, device=key.device)}


zeros.reads = ("critic_steps", "batch")
zeros.constant = "the data are a single point"


def nothing(key: Tensor, knobs: Any, count: int) -> Tensor:
    """Latents of no dimension, (count, 0)."""
    return torch.zeros(count, 0, device=key.device)


@probe()
def position(m):
    """What the generator makes, which should be 0"""
    return m.params["generator.position"][0]


@probe()
def slope(m):
    """Slope of the critic, 0 at the equilibrium"""
    return m.params["critic.slope"][0]


@probe()
def distance(m):
    """Distance of both players from the equilibrium"""
    return torch.linalg.vector_norm(torch.stack([m.params["generator.position"][0], m.params["critic.slope"][0]]))


@probe(on="state", vectorised=True)
def average_position(state, knobs, shared, key):
    """What the running average of the generator makes"""
    return state["average"]["position"][0]


# Theory: both players' losses to second order around the equilibrium.

PULLS = {"non_saturating": (0.5, 0.5), "minimax": (0.5, 0.5), "least_squares": (1.0, 0.0), "wasserstein": (1.0, 1.0), "hinge": (1.0, 1.0)}


def expected_factor(row: Any) -> float:
    """What an update by plain descent multiplies a small distance by, in the long run: the spectral radius of its linearization.

    With p and s position and slope, the generator moves by rate * a s and the critic by -rate * (b p + d s): a and b are the losses' slopes
    at score 0, d is R1's weight. NaN for the gradient penalty, which has no slope at s = 0, and under noise, which leaves a distance.
    """
    if row["penalty"] == "gradient" or row["instance_noise"]:
        return float("nan")
    a, b = PULLS[row["adversarial_loss"]]
    damping = row["penalty_weight"] if row["penalty"] == "r1" else 0.0
    generator = np.array([[1.0, row["generator_lr"] * a], [0.0, 1.0]])
    critic = np.array([[1.0, 0.0], [-row["critic_lr"] * b, 1 - row["critic_lr"] * damping]])
    if row["updates"] == "simultaneous":
        update = generator + np.linalg.matrix_power(critic, row["critic_steps"]) - np.eye(2)
    else:
        update = generator @ np.linalg.matrix_power(critic, row["critic_steps"])
    return float(np.abs(np.linalg.eigvals(update)).max())


def rows(record: xr.DataTree) -> list[dict[str, Any]]:
    """The knobs of each run."""
    names = [*record.wb.knobs]
    return [dict(zip(names, values, strict=True)) for values in zip(*(record[name].values.tolist() for name in names), strict=True)]


def expected(record: xr.DataTree) -> xr.DataArray:
    """The log of `expected_factor` of each run, per update."""
    return xr.DataArray(np.log([expected_factor(row) for row in rows(record)]), dims="run")


def measured(record: xr.DataTree) -> xr.DataArray:
    """Growth of the log of the distance per update, over `run`: least squares over the second half of the steps, to the smallest number."""
    late = record.wb["distance"].isel(step=slice(record.wb["distance"].sizes["step"] // 2, None))
    logs = np.log(late.where(late > SMALLEST))
    return logs.polyfit("step", 1)["polyfit_coefficients"].sel(degree=1, drop=True)


SMALLEST = 1e-30


def of_setting(record: xr.DataTree, values: xr.DataArray, name: str, **knobs: Any) -> xr.DataArray:
    """Those of the runs of a setting, over `seed`."""
    wanted = PLAIN | SETTINGS[name] | knobs
    chosen = np.all([record[knob].values == value for knob, value in wanted.items()], axis=0)
    return xr.DataArray(values.values[chosen], dims="seed", coords={"seed": record["seed"].values[chosen]})


def departure(record: xr.DataTree, name: str) -> xr.DataArray:
    """Effect per seed: how far the measured growth per update lies from the expected one."""
    return abs(of_setting(record, measured(record) - expected(record), name))


def kept_distance(record: xr.DataTree, name: str) -> xr.DataArray:
    """Effect per seed: the largest distance of the last 150 steps over that of the first 150."""
    found = record.wb["distance"]
    first, last = (found.isel(step=steps).max("step", skipna=False) for steps in (slice(0, TURN), slice(-TURN, None)))
    return of_setting(record, last / first, name)


def slower(record: xr.DataTree, weight: float) -> xr.DataArray:
    """Effect per seed: growth per update under R1 of a weight, less that under the weight 1."""
    growth = measured(record)
    return of_setting(record, growth, "R1", penalty_weight=weight) - of_setting(record, growth, "R1")


def averaged(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed: RMS of what the averaged generator makes over the second half, over that of the generator itself."""
    own, average = (record.wb[name].isel(step=slice(record.wb[name].sizes["step"] // 2, None)) for name in ("position", "average_position"))
    return of_setting(record, np.sqrt((average**2).mean("step") / (own**2).mean("step")), "averaged")


def settings(record: xr.DataTree) -> Factor:
    """The runs by setting, then R1's other weights; what is neither, by the knobs that differ from the plainest game."""
    names = [_named(row) for row in rows(record)]
    known = [*SETTINGS, *map(_of_weight, WEIGHTS)]
    found = [name for name in known if name in names] + sorted(set(names) - set(known))
    return Factor(VARIANT, tuple(found), np.array([found.index(name) for name in names]))


def _named(row: Mapping[str, Any]) -> str:
    changed = {name: row[name] for name, value in PLAIN.items() if row[name] != value}
    for name, knobs in SETTINGS.items():
        if changed == {knob: value for knob, value in knobs.items() if knob in PLAIN and value != PLAIN[knob]}:
            return name
    if changed.keys() == {"penalty", "penalty_weight"} and row["penalty"] == "r1":
        return _of_weight(row["penalty_weight"])
    return ", ".join(f"{name} {word(value)}" for name, value in changed.items())


def _of_weight(weight: float) -> str:
    return f"R1, weight {weight:g}"


def _shown(record: xr.DataTree) -> xr.DataTree:
    """All runs; of more settings than there is room for in panels those with a name."""
    factor = settings(record)
    if len(factor.names) <= MOST_PANELS:
        return record
    return record.isel(run=np.flatnonzero(np.isin(factor.of_runs(factor.names), list(SETTINGS))))


@view("position", "slope")
def orbits(record: xr.DataTree) -> Any:
    """Slope of the critic against position of the generator, a line a run; a dot where it begins, a cross at the equilibrium."""
    record = _shown(record)
    factor = settings(record)
    pair = [record.wb[name].transpose("run", "step").values.astype(float) for name in ("position", "slope")]
    kept = np.unique(np.linspace(0, pair[0].shape[1] - 1, POINTS).astype(int))
    steps = record.wb["position"]["step"].values[kept]
    tables = [
        pd.DataFrame(
            {"run": run, "panel_0": head, "step": steps, "position": rounded(pair[0][run, kept]), "slope": rounded(pair[1][run, kept])}
        )
        for run, head in enumerate(factor.of_runs(factor.heads))
    ]
    base = alt.Chart().encode(
        x=alt.X("position:Q", title="position of the generator", axis=alt.Axis(tickCount=5)),
        y=alt.Y("slope:Q", title="slope of the critic", axis=alt.Axis(tickCount=5)),
    )
    line = base.mark_line(strokeWidth=1.2, color=CATEGORIES[0]).encode(detail="run:N", order="step:Q", tooltip=["run:O", "step:Q"])
    start = base.transform_filter("datum.step == 0").mark_point(filled=True, size=30, opacity=1, color=CATEGORIES[1])
    centre = alt.Chart().mark_point(shape=CROSS, size=60, color=INK, filled=True).encode(x=alt.datum(0.0), y=alt.datum(0.0))
    chart = panels([line, start, centre], pd.concat(tables), [factor], description="Orbits of both players")
    return chart.resolve_scale(x="independent", y="independent") if len(factor.names) > 1 else chart


@view("distance")
def distances(record: xr.DataTree) -> Any:
    """Distance from the equilibrium against step, a panel a setting."""
    shown = _shown(record)
    return curves(shown, "distance", title="distance from the equilibrium", factors=[settings(shown)], logarithmic=True)


@view("distance")
def growth_and_theory(record: xr.DataTree) -> Any:
    """Growth of the distance per update: circles measured, a dash what the linearized update says; below 0 it shrinks."""
    factor = settings(record)
    table = pd.DataFrame(
        {"setting": factor.of_runs(factor.names), "measured": measured(record).values, "expected": expected(record).values}
    )
    table["said"] = [f"{number(m)} (expected {number(e)})" for m, e in zip(table["measured"], table["expected"], strict=True)]
    y = alt.Y("setting:N", title=None, sort=list(factor.names))
    base = alt.Chart(inline(table)).encode(y=y, tooltip=[alt.Tooltip("setting:N"), alt.Tooltip("said:N", title="per update")])
    title = "growth of log distance per update (dash: expected)"
    dash = base.mark_tick(thickness=3, size=18, color=INK).encode(x=alt.X("expected:Q", title=title))
    points = base.mark_point(size=45, opacity=0.9, color=CATEGORIES[1], strokeWidth=1.5).encode(x=alt.X("measured:Q", title=title))
    return alt.layer(dash, points).properties(width=480, height=22 * len(factor.names), description=title)


POINTS = 250


def summary(record: xr.DataTree) -> list[str]:
    """Six lines at most: distance at the end over that at the start, median over seeds, by setting."""
    factor, found = settings(record), record.wb["distance"]
    ratio = (found.isel(step=-1) / found.isel(step=0)).values
    lines = [f"{counted(record.sizes['run'], 'run')} of {counted(record.attrs['steps'], 'step')}; distance at the end over the start:"]
    return lines + [f"{name}: {number(np.median(ratio[factor.codes == code]))}." for code, name in enumerate(factor.names)][:5]


def ended(record: xr.DataTree) -> int:
    """Which of ENDS came true: distance after LATER steps over that at the start."""
    found = record.wb["distance"].astype(float)
    ratio = (found.sel(step=LATER, method="nearest") / found.isel(step=0, drop=True)).fillna(np.inf).mean().item()
    return 0 if ratio < NEARER else 1 if ratio < FARTHER else 2


LATER, NEARER, FARTHER = 200, 0.5, 1.5
ENDS = ("nearer than half of its start", "about as far as at its start", "farther than one and a half times its start")
PREDICTIONS = (Prediction(f"How far from the equilibrium will the players be after {LATER} steps?", ENDS, ended, LATER),)


def goal(row: Mapping[str, Any]) -> tuple[Level, ...]:
    """Where the real sample is."""
    return (Level("real", 0.0),)


GAUGES = (
    Gauge("position", title="what the generator makes", levels=goal),
    Gauge("slope", title="slope of the critic"),
    Gauge("distance", title="distance from the equilibrium", logarithmic=True),
    Gauge("average_position", title="what its running average makes", levels=goal, shown=False),
    Gauge("player_loss", title="loss of each player", shown=False),
    Gauge("player_gradient_norm", title="gradient norm of each player", logarithmic=True, shown=False),
    Gauge("score_gap", title="score of real less generated", shown=False),
    Gauge("field_growth", title="largest real part of the field's eigenvalues", shown=False),
    Gauge("field_rotation", title="largest imaginary part of the field's eigenvalues", shown=False),
)
EXACT = ("Wasserstein, at once", "Wasserstein, in turns", "at once", "in turns", "R1")
STAYING = ("in turns", "five critic updates", "hinge", "gradient penalty", "Wasserstein, instance noise")
ARRIVING = ("R1", "instance noise")
PAIRED = "start"
CLAIMS = (
    *(
        Claim(
            "",
            f"{name}: the distance grows by what the eigenvalues of the update say (departure of its log per update)",
            partial(departure, name=name),
            threshold=WITHIN,
            threshold_source="a thousandth of the rate",
            above=False,
            paired="the same run",
        )
        for name in EXACT
    ),
    *(
        Claim(
            "",
            f"{name}: the players do not arrive (largest distance, last 150 steps over first 150)",
            partial(kept_distance, name=name),
            threshold=0.5,
            threshold_source="our choice; arXiv:1801.04406 shows it without a number",
            paired="the same run",
        )
        for name in STAYING
    ),
    *(
        Claim(
            "",
            f"{name}: the players arrive (largest distance, last 150 steps over first 150)",
            partial(kept_distance, name=name),
            threshold=0.05,
            threshold_source="our choice; arXiv:1801.04406 shows it without a number",
            above=False,
            paired="the same run",
        )
        for name in ARRIVING
    ),
    *(
        Claim(
            "",
            f"R1 of the weight {weight:g} arrives slower than of the weight 1, twice the losses' slope (growth of log distance per update)",
            partial(slower, weight=weight),
            threshold=0.0,
            threshold_source="any difference; the real part of the eigenvalues is least at that weight",
            paired=PAIRED,
        )
        for weight in (WEIGHTS[0], WEIGHTS[-1])
    ),
    Claim(
        "",
        "The running average of a generator that circles is nearer to the data than the generator (ratio of RMS)",
        averaged,
        threshold=0.5,
        threshold_source="our choice",
        above=False,
        paired="the same run",
    ),
)


def _design(names: Any, seeds: Any) -> Design:
    parts = [grid(**(PLAIN | SETTINGS[name]), seed=seeds) for name in names]
    return Design(tuple(each for part in parts for each in part.grids))


study = Study(
    __name__,
    title="The Dirac GAN",
    knobs=Settings,
    task=zeros,
    learner=Adversarial(lambda knobs: Point(), lambda knobs: Slope(), nothing),
    probes=(position, slope, distance, average_position, player_loss),
    optional_probes=(player_gradient_norm, score_gap, field_growth, field_rotation),
    budgets={
        "smoke": Budget(_design(("in turns", "R1"), range(2)), 30),
        "demo": Budget(_design(("at once", "in turns", "R1", "instance noise"), range(4)), STEPS),
        "full": Budget(
            _design(SETTINGS, SEEDS) + grid(**(PLAIN | {"penalty": "r1", "penalty_weight": [w for w in WEIGHTS if w != 1.0]}), seed=SEEDS),
            STEPS,
        ),
    },
    presets=(
        Preset("in turns", {}, "Each player runs after the other, at a distance that hardly changes."),
        Preset("in turns, from afar", {"init_scale": FAR}, "Where the losses are curved the circle slowly shrinks."),
        Preset("at once", {"updates": "simultaneous"}, "Both see where the other was: they spiral outward."),
        Preset("R1", {"penalty": "r1"}, "A critic that is flat at the data: both arrive."),
        Preset("R1, too strong", {"penalty": "r1", "penalty_weight": 10.0}, "The critic can hardly move, and the generator creeps."),
        Preset("gradient penalty", SETTINGS["gradient penalty"], "The slope is pulled to 1, where the generator cannot rest."),
        Preset("instance noise", SETTINGS["instance noise"], "On average the noise is a penalty."),
    ),
    views=(orbits, distances, growth_and_theory),
    gauges=GAUGES,
    predictions=PREDICTIONS,
    claims=CLAIMS,
    summary=summary,
)
