"""Mode collapse.

Question.   Which modes of a mixture does a generator find, does it keep them, and what helps?
Phenomenon. A generator learns only where the critic scores highest. It runs there with nearly all that it makes, the critic follows, and
            modes come and go. A critic that is flat at the data, that sees noise or that is faster than the generator holds them.
Try.        Watch the picture of the samples at *plain*, and switch `penalty` to r1 when modes are lost. Then set `adversarial_loss` to
            least_squares, or `generator_lr` to a quarter.
Cites.      Goodfellow et al. 2014, arXiv:1406.2661; Metz et al. 2016, arXiv:1611.02163 (the ring of 8 modes); Mescheder et al. 2018,
            arXiv:1801.04406 (R1); Gulrajani et al. 2017, arXiv:1704.00028 (gradient penalty); Heusel et al. 2017, arXiv:1706.08500 (two
            time scales); Sonderby et al. 2016, arXiv:1610.04490 (instance noise); Yazici et al. 2018, arXiv:1806.04498 (running average);
            Karras et al. 2020, arXiv:2006.06676 (critics of few examples); Zhuang et al. 2020, arXiv:2010.07468 (AdaBelief).
Differs.    Points of the plane and perceptrons stand for pictures and convolutions, a sliced Wasserstein distance for FID, so that each
            number has cases with known answers. A mode counts as covered from a fifth of its share, within three deviations; others count
            any sample. Precision and recall (arXiv:1904.06991) are of 500 points and not of features. AdaBelief's authors use Wasserstein
            losses, with clipped weights or the gradient penalty; here it is least squares, which needs neither, and Adam with the same
            epsilon as AdaBelief.
"""

from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from .. import noise
from .. import sample_distance as distances
from ..claim import Claim
from ..design import Design, grid
from ..gauge import Gauge, Level
from ..knobs import at_least, knob, prefixed
from ..learners import Adversarial, Game
from ..learners.adversarial import PLAYERS, generate, of_players, score
from ..models import MLP, Initialization, Perceptron
from ..optimizers import AdaBelief, Optimizers
from ..probe import probe
from ..probes.game import player_gradient_norm, player_loss, score_gap
from ..progress import counted
from ..schedules import Schedule
from ..study import Budget, Prediction, Preset, Study
from ..tasks import MixtureKnobs, Mixtures
from ..tasks.mixtures import centres, points
from ..tasks.mixtures import examples as known
from ..view import view
from ..views.cells import group_intervals
from ..views.extras import alt
from ..views.layout import VARIANT, Factor
from ..views.medians import medians
from ..views.panels import LONG_HEAD, categories, inline
from ..views.theme import CATEGORIES, number, rounded, word

STEPS = 1000
SEEDS = range(4, 12)  # 0 to 3 were used to choose settings, rates and thresholds
FEW_SEEDS = range(4, 8)  # of rates that are not the best
SAMPLES, NEAREST = 2000, 500
LATENTS, HELD_OUT = 2, 3  # seeds of the points that every moment is measured on
FEW = 48
HALF, CELLS = 3.0, 32  # of the picture
LATE, EVERY = 0.75, 100
WIDTH, PIXELS, MOST_PICTURES = 420, 128, 10
APART = 1.15  # factor between the places of two optimizers
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "least squares": {"adversarial_loss": "least_squares"},
    "hinge": {"adversarial_loss": "hinge"},
    "Wasserstein": {"adversarial_loss": "wasserstein", "critic_steps": 5},
    "gradient penalty": {"adversarial_loss": "wasserstein", "critic_steps": 5, "penalty": "gradient"},
    "R1": {"penalty": "r1"},
    "instance noise": {"instance_noise": 0.5},
    "two time scales": {"generator_lr": 2.5e-4},
    "few examples": {"adversarial_loss": "least_squares", "examples": FEW},
}
PLAIN: Mapping[str, Any] = {
    "adversarial_loss": "non_saturating",
    "penalty": "none",
    "critic_steps": 1,
    "instance_noise": 0.0,
    "examples": 0,
    **{f"{player}_{name}": value for player in PLAYERS for name, value in {"optimizer": "adamw", "epsilon": 1e-8, "lr": 1e-3}.items()},
}
# Adam and AdaBelief, of both players, with the epsilon that AdaBelief's authors recommend for small GANs.
GAME = {"adversarial_loss": "least_squares"}
OPTIMIZERS = {"Adam": "adamw", "AdaBelief": "adabelief"}
EPSILON = 1e-12
RATES = (2e-4, 1e-3, 5e-3, 2.5e-2)
BEST = {"Adam": 1e-3, "AdaBelief": 5e-3}  # least distance, mean over seeds 0 to 3


def racer(optimizer: str, rate: float) -> dict[str, Any]:
    """The knobs of an optimizer and a rate of both players."""
    both = {"optimizer": OPTIMIZERS[optimizer], "epsilon": EPSILON, "lr": rate}
    return GAME | {f"{player}_{name}": value for player in PLAYERS for name, value in both.items()}


RACERS = {f"{optimizer}, rate {rate:g}": racer(optimizer, rate) for optimizer in OPTIMIZERS for rate in RATES}


class Player(
    Perceptron,
    Schedule,
    Optimizers,
    AdaBelief,
    defaults={"width": 64, "depth": 2, "activation": "relu", "lr": 1e-3, "beta1": 0.5, "beta2": 0.999, "epsilon": 1e-8},
):
    """A perceptron and what it learns with."""

    optimizer: Literal["sgd", "adamw", "adabelief"] = knob("adamw", acts="switch", group="optimizer", doc="optimizer")


class Settings(
    Game,
    MixtureKnobs,
    prefixed("generator", Player),
    prefixed("critic", Player),
    Initialization,
    defaults={"batch": 128, "generator_average": 0.99},
):
    """The mixture, the game and its players."""

    latent: int = knob(8, 1, 64, valid=at_least(1), group="model", doc="numbers that the generator makes a sample of")


class Generator(MLP):
    """An MLP from latents to points of the plane, in the precision of its weights."""

    def __init__(self, knobs: Any) -> None:
        super().__init__(knobs, knobs.latent, 2)

    def forward(self, latent: Tensor) -> Tensor:
        return super().forward(latent.to(self.readout.weight.dtype))


def latents(key: Tensor, knobs: Any, count: int) -> Tensor:
    """What the generator makes samples of: standard normal, (count, latent)."""
    return noise.normal(key, "latent", (count, knobs.latent))


def made(params: Mapping[str, Tensor], knobs: Any, shared: Mapping[str, Any], count: int = SAMPLES) -> Tensor:
    """What a generator makes of always the same latents, (count, 2)."""
    key = noise.key_of(LATENTS, params["readout.weight"].device)
    return generate(params, latents(key, knobs, count), knobs, shared)


def generated(state: Mapping[str, Any], knobs: Any, shared: Mapping[str, Any], count: int = SAMPLES) -> Tensor:
    """What the generator makes now."""
    return made(of_players(state["params"])["generator"], knobs, shared, count)


def held_out(knobs: Any, like: Tensor, count: int = SAMPLES) -> Tensor:
    """Real points that no critic has seen, of the type of `like`, (count, 2)."""
    return points(knobs, noise.key_of(HELD_OUT, like.device), count).to(like)


@probe("y", "x", every=10, on="state", cost="forward", dtype="uint8", vectorised=True)
def sample_density(state, knobs, shared, key):
    """Where 2,000 generated points lie, in 255ths of the fullest cell's root

    A square of side 6 around 0, up is up; points outside are left out.
    """
    found = distances.density(generated(state, knobs, shared).nan_to_num(2 * HALF), HALF, CELLS)
    return (255 * (found / found.amax().clamp(min=1)).sqrt()).round().to(torch.uint8)


@probe("mode", every=10, on="state", cost="forward", vectorised=True)
def mode_share(state, knobs, shared, key):
    """Share of 2,000 generated points that each mode is nearest to"""
    x = generated(state, knobs, shared)
    return distances.mode_shares(x, centres(knobs, x.device).to(x))


@probe(every=10, on="state", cost="forward", vectorised=True)
def modes_covered(state, knobs, shared, key):
    """Modes with at least a fifth of their share of 2,000 generated points"""
    x = generated(state, knobs, shared)
    return distances.modes_covered(distances.mode_shares(x, centres(knobs, x.device).to(x), knobs.mode_width)).to(x)


@probe(every=10, on="state", cost="forward", vectorised=True)
def sample_distance(state, knobs, shared, key):
    """Sliced Wasserstein distance of 2,000 generated and held-out points"""
    x = generated(state, knobs, shared)
    return distances.sliced_wasserstein(x, held_out(knobs, x))


@probe(every=10, on="state", cost="forward", vectorised=True)
def average_distance(state, knobs, shared, key):
    """Sliced Wasserstein distance of the averaged generator's points"""
    x = made(state["average"], knobs, shared)
    return distances.sliced_wasserstein(x, held_out(knobs, x))


@probe(every=10, on="state", cost="forward", vectorised=True)
def sample_precision(state, knobs, shared, key):
    """Share of 500 generated points that real ones reach"""
    x = generated(state, knobs, shared, NEAREST)
    return distances.precision(x, held_out(knobs, x, NEAREST))


@probe(every=10, on="state", cost="forward", vectorised=True)
def sample_recall(state, knobs, shared, key):
    """Share of 500 real points that generated ones reach"""
    x = generated(state, knobs, shared, NEAREST)
    return distances.precision(held_out(knobs, x, NEAREST), x)


@probe(every=10, on="state", cost="forward", vectorised=True)
def critic_overfitting(state, knobs, shared, key):
    """Mean score of real points that may be known less that of held-out ones

    The known ones are the `examples`; where every batch is new, the first of such points, which the critic has not seen either.
    """
    critic = of_players(state["params"])["critic"]
    others = held_out(knobs, critic["readout.weight"])
    seen = known(knobs, knobs.examples or FEW, others.device).to(others)
    return score(critic, seen, knobs, shared).mean() - score(critic, others, knobs, shared).mean()


def rows(record: xr.DataTree) -> list[dict[str, Any]]:
    """The knobs of each run."""
    names = [*record.wb.knobs]
    return [dict(zip(names, values, strict=True)) for values in zip(*(record[name].values.tolist() for name in names), strict=True)]


def of_setting(record: xr.DataTree, values: xr.DataArray, name: str = "plain", **knobs: Any) -> xr.DataArray:
    """Those of the runs of a setting, changed by `knobs`, over `seed`."""
    wanted = PLAIN | SETTINGS[name] | knobs
    chosen = np.all([record[knob].values == value for knob, value in wanted.items()], axis=0)
    return xr.DataArray(values.values[chosen], dims="seed", coords={"seed": record["seed"].values[chosen]})


def late(record: xr.DataTree, name: str) -> xr.DataArray:
    """The mean of a variable over the last quarter of the steps, over `run`."""
    found = record.wb[name]
    return found.where(found["step"] >= LATE * found["step"].max(), drop=True).mean("step", skipna=False)


def turnover(record: xr.DataTree) -> xr.DataArray:
    """Share of the points that go over to another mode in 100 steps, mean over the second half of the steps; over `run`.

    Half of the sum of absolute changes of the modes' shares, so of points that change places it sees none.
    """
    shares = record.wb["mode_share"]
    shares = shares.sel(step=[step for step in shares["step"].values if step % EVERY == 0 and 2 * step >= shares["step"].values[-1]])
    moved = abs(shares.diff("step")).sum(["mode", "step"], skipna=False) / 2
    return moved / (shares.sizes["step"] - 1 or np.nan)


def more_modes(record: xr.DataTree, name: str) -> xr.DataArray:
    """Effect per seed: modes covered late in a setting, less those of the plain game."""
    covered = late(record, "modes_covered")
    return of_setting(record, covered, name) - of_setting(record, covered)


def overfitted(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed: late score of known real points over that of held-out ones with few examples, less the same with ever new points."""
    found = late(record, "critic_overfitting")
    return of_setting(record, found, "few examples") - of_setting(record, found, "least squares")


def ratio(record: xr.DataTree, name: str, other: str = "plain") -> xr.DataArray:
    """Effect per seed: the late distance in one setting over that in another."""
    found = late(record, "sample_distance")
    return of_setting(record, found, name) / of_setting(record, found, other)


def averaged(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed: late distance of the running average over that of the generator itself."""
    return of_setting(record, late(record, "average_distance") / late(record, "sample_distance"))


def turned(record: xr.DataTree, name: str) -> xr.DataArray:
    """Effect per seed: the turnover in a setting."""
    return of_setting(record, turnover(record), name)


def raced(record: xr.DataTree, optimizer: str, rate: float) -> xr.DataArray:
    """Late distances with an optimizer and a rate of both players, over `seed`."""
    return of_setting(record, late(record, "sample_distance"), **racer(optimizer, rate))


def nearer(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed: late distance with AdaBelief less that with Adam, each at its best rate."""
    belief, adam = (raced(record, name, BEST[name]) for name in ("AdaBelief", "Adam"))
    return belief - adam


def narrower(record: xr.DataTree) -> xr.DataArray:
    """Effect per seed: how far its late distance lies from the median over seeds with AdaBelief, less that with Adam."""
    belief, adam = (abs(found - found.median()) for found in (raced(record, name, BEST[name]) for name in ("AdaBelief", "Adam")))
    return belief - adam


def settings(record: xr.DataTree) -> Factor:
    """The runs by setting, then Adam and AdaBelief by rate; what is neither, by the knobs that differ from the plainest game."""
    names = [_named(row) for row in rows(record)]
    listed = [*SETTINGS, *RACERS]
    found = [name for name in listed if name in names] + sorted(set(names) - set(listed))
    return Factor(VARIANT, tuple(found), np.array([found.index(name) for name in names]))


def _named(row: Mapping[str, Any]) -> str:
    changed = {name: row[name] for name, value in PLAIN.items() if row[name] != value}
    for name, knobs in [*SETTINGS.items(), *RACERS.items()]:
        if changed == {knob: value for knob, value in knobs.items() if value != PLAIN[knob]}:
            return name
    return ", ".join(f"{name} {word(value)}" for name, value in changed.items())


def _shown(record: xr.DataTree) -> xr.DataTree:
    """The runs of SETTINGS; all, if there are none."""
    factor = settings(record)
    kept = np.flatnonzero(np.isin(factor.of_runs(factor.names), list(SETTINGS)))
    return record.isel(run=kept) if len(kept) else record


@view("modes_covered")
def modes(record: xr.DataTree) -> Any:
    """Modes covered against step, a panel a setting: the median over seeds, and a band from lowest to highest."""
    shown = _shown(record)
    most = float(shown["modes"].max())
    return medians(shown, {"modes": "modes_covered"}, settings(shown), title="modes covered", domain=(0.0, most))


@view("sample_density")
def samples(record: xr.DataTree) -> Any:
    """Where the generator's last samples lie, first seed of each setting; circles are the modes."""
    shown = _shown(record)
    factor, last = settings(shown), shown.wb["sample_density"].isel(step=-1).transpose("run", "y", "x").values
    heads = factor.names[:MOST_PICTURES]
    firsts = {head: int(np.flatnonzero(factor.codes == code)[0]) for code, head in enumerate(heads)}
    tables = [_cells(last[run], head) for head, run in firsts.items()] + [_circles(shown, run, head) for head, run in firsts.items()]
    scale = alt.Scale(domain=[-HALF, HALF], nice=False)
    axis = alt.Axis(values=[-2, 0, 2], grid=False)
    place = {"x": alt.X("x:Q", title=None, scale=scale, axis=axis), "y": alt.Y("y:Q", title=None, scale=scale, axis=axis)}
    base = alt.Chart().encode(**place)
    colour = alt.Color("share:Q", title="root of density, 1: fullest cell", scale=alt.Scale(scheme="viridis", reverse=True, domain=[0, 1]))
    cells = base.transform_filter("isValid(datum.share)").mark_square(size=(PIXELS / CELLS) ** 2, opacity=1).encode(color=colour)
    circles = base.transform_filter("!isValid(datum.share)").mark_point(size=130, color=CATEGORIES[1], strokeWidth=1.2, opacity=0.9)
    chart = alt.layer(cells, circles, data=inline(pd.concat(tables))).properties(width=PIXELS, height=PIXELS)
    header = alt.Header(labelExpr=f"length(datum.label) > {LONG_HEAD} ? split(datum.label, ', ') : datum.label")
    return chart.facet(alt.Facet("setting:N", sort=list(heads), title=None, header=header), columns=5).properties(
        description="Samples of the generator by setting"
    )


def _cells(picture: np.ndarray, head: str) -> pd.DataFrame:
    y, x = np.nonzero(picture)
    middle = (np.arange(CELLS) + 0.5) * 2 * HALF / CELLS - HALF
    return pd.DataFrame({"setting": head, "x": rounded(middle[x]), "y": rounded(-middle[y]), "share": rounded(picture[y, x] / 255)})


def _circles(record: xr.DataTree, run: int, head: str) -> pd.DataFrame:
    at = centres(SimpleNamespace(**rows(record)[run])).numpy()
    return pd.DataFrame({"setting": head, "x": rounded(at[:, 0]), "y": rounded(at[:, 1]), "share": np.nan})


@view("sample_distance", "average_distance")
def distance_by_setting(record: xr.DataTree) -> Any:
    """Sliced Wasserstein distance over the last quarter of the steps, of the generator and of its running average."""
    shown = _shown(record)
    factor = settings(shown)
    variables = {"generator": "sample_distance", "running average": "average_distance"}
    groups = {
        title: {name: late(shown, variable).values[factor.codes == code] for code, name in enumerate(factor.names)}
        for title, variable in variables.items()
    }
    chart = group_intervals(groups, factor.names, title="sliced Wasserstein distance", colour="of")
    return chart.properties(width=WIDTH)


@view("sample_distance")
def distance_by_rate(record: xr.DataTree) -> Any:
    """Late distance of each run against the generator's rate, the median as a dash; the runs of Adam and AdaBelief, if there are any."""
    factor, known_names = settings(record), {value: name for name, value in OPTIMIZERS.items()}
    raced = np.flatnonzero(np.isin(factor.of_runs(factor.names), list(RACERS)))
    shown = record.isel(run=raced) if len(raced) else record
    table = pd.DataFrame({"rate": shown["generator_lr"].values, "distance": rounded(late(shown, "sample_distance").values)})
    table["colour"] = [known_names.get(name, name) for name in shown["generator_optimizer"].values.tolist()]
    table["seed"] = shown["seed"].values
    groups = sorted(set(table["colour"]))
    table["place"] = rounded(table["rate"] * [APART ** (groups.index(name) - (len(groups) - 1) / 2) for name in table["colour"]])
    axis = alt.Axis(values=sorted(set(table["rate"])), format="~g", grid=False)
    x = alt.X("place:Q", title="learning rate of the generator", scale=alt.Scale(type="log", nice=False, padding=20), axis=axis)
    y = {"title": "sliced Wasserstein distance", "scale": alt.Scale(type="log", nice=False, padding=10)}
    colour = categories(Factor("optimizer", tuple(groups), np.zeros(0, int)))
    base = alt.Chart(inline(table)).encode(x=x, color=colour)
    tooltip = [
        alt.Tooltip("colour:N", title="optimizer"),
        alt.Tooltip("rate:Q", format="~g"),
        alt.Tooltip("seed:O"),
        alt.Tooltip("distance:Q", format=".3g"),
    ]
    points = base.mark_point(size=45, opacity=0.8).encode(y=alt.Y("distance:Q", **y), tooltip=tooltip)
    middle = base.mark_tick(thickness=3, size=22, orient="horizontal").encode(y=alt.Y("median(distance):Q", **y))
    return alt.layer(points, middle).properties(width=WIDTH, height=260, description="Distance of each run against the rate")


def summary(record: xr.DataTree) -> list[str]:
    """Six lines at most: modes covered and distance over the last quarter of the steps, medians over seeds, by setting."""
    factor, modes, found = settings(record), late(record, "modes_covered").values, late(record, "sample_distance").values
    lines = [f"{counted(record.sizes['run'], 'run')} of {counted(record.attrs['steps'], 'step')}; modes covered and distance, late:"]
    groups = [(name, factor.codes == code) for code, name in enumerate(factor.names)]
    return lines + [f"{name}: {number(np.median(modes[runs]))}, {number(rounded(np.median(found[runs])))}." for name, runs in groups][:5]


def ended(record: xr.DataTree) -> int:
    """Which of ENDS came true: the share of the modes that is covered after LATER steps."""
    covered = record.wb["modes_covered"].sel(step=LATER, method="nearest").mean().item() / float(record["modes"].values[0])
    return 0 if covered <= 0.25 else 1 if covered < 0.75 else 2


LATER = 500
ENDS = ("a quarter of them or fewer", "more, but not three quarters", "three quarters or more")
PREDICTIONS = (Prediction(f"How many of the modes will the generator cover after {LATER} steps?", ENDS, ended, LATER),)


def all_modes(row: Mapping[str, Any]) -> tuple[Level, ...]:
    """How many there are."""
    return (Level("all", float(row["modes"])),)


GAUGES = (
    Gauge("sample_density", "picture", "samples of the generator"),
    Gauge("modes_covered", title="modes covered", levels=all_modes),
    Gauge("sample_distance", title="sliced Wasserstein distance", logarithmic=True),
    Gauge("mode_share", "map", "share of the samples by nearest mode", shown=False),
    Gauge("average_distance", title="the same of the running average", logarithmic=True, shown=False),
    Gauge("player_loss", title="loss of each player"),
    Gauge("score_gap", title="score of real less generated"),
    Gauge("player_gradient_norm", title="gradient norm of each player", logarithmic=True, shown=False),
    Gauge("critic_overfitting", title="score of known real points less held-out ones", shown=False),
    Gauge("sample_precision", title="precision of the samples", shown=False),
    Gauge("sample_recall", title="recall of the samples", shown=False),
)
PAIRED = "initial weights, latents and real points"
OURS = "our choice, made on seeds 0 to 3"
SAME = "the same run"
CLAIMS = tuple(
    Claim("", statement, effect, threshold=threshold, threshold_source=OURS, above=above, paired=paired)
    for statement, effect, above, threshold, paired in (
        ("R1 covers more of the 8 modes than no penalty (modes)", partial(more_modes, name="R1"), True, 4.0, PAIRED),
        (
            "A generator at a quarter of the critic's rate covers more (modes)",
            partial(more_modes, name="two time scales"),
            True,
            1.0,
            PAIRED,
        ),
        (
            "Instance noise brings samples nearer to the data (ratio of distances)",
            partial(ratio, name="instance noise"),
            False,
            0.5,
            PAIRED,
        ),
        (
            "The gradient penalty brings samples of a Wasserstein GAN nearer to the data (ratio of distances)",
            partial(ratio, name="gradient penalty", other="Wasserstein"),
            False,
            0.5,
            PAIRED,
        ),
        ("Samples of the running average are nearer to the data than the generator's (ratio of distances)", averaged, False, 1.0, SAME),
        ("Without a penalty the generator goes on changing modes (share in 100 steps)", partial(turned, name="plain"), True, 0.2, SAME),
        ("With R1 it keeps its modes (share in 100 steps)", partial(turned, name="R1"), False, 0.1, SAME),
        ("A critic of few real points scores them above others (score over one of new points)", overfitted, True, 0.0, PAIRED),
    )
) + tuple(
    Claim("adabelief", statement, effect, threshold=0.0, threshold_source="any difference", above=False, paired=PAIRED)
    for statement, effect in (
        ("AdaBelief's samples end nearer to the data than Adam's, each at its best rate (difference of distances)", nearer),
        ("AdaBelief's runs spread less over seeds than Adam's (difference of distances from the median over seeds)", narrower),
    )
)


def _design(names: Any, seeds: Any) -> Design:
    parts = [grid(**(PLAIN | SETTINGS[name]), seed=seeds) for name in names]
    return Design(tuple(each for part in parts for each in part.grids))


def _race() -> Design:
    """Adam and AdaBelief at each rate, their best on all seeds."""
    best = [racer(name, rate) for name, rate in BEST.items()]
    parts = [grid(**(PLAIN | knobs), seed=SEEDS if knobs in best else FEW_SEEDS) for knobs in RACERS.values()]
    return Design(tuple(each for part in parts for each in part.grids))


OPTIONAL = (average_distance, mode_share, sample_precision, sample_recall, critic_overfitting, player_gradient_norm)
CLOCKS = {p.name: EVERY for p in (*OPTIONAL, player_loss, score_gap, sample_distance)} | {"sample_density": 1000}

study = Study(
    __name__,
    title="Mode collapse",
    knobs=Settings,
    task=Mixtures(),
    learner=Adversarial(Generator, lambda knobs: MLP(knobs, 2, 1), latents),
    probes=(player_loss, score_gap, sample_density, modes_covered, sample_distance),
    optional_probes=OPTIONAL,
    coords=lambda knobs: {"mode": range(knobs.modes), "y": range(CELLS), "x": range(CELLS)},
    budgets={
        "smoke": Budget(_design(("plain", "R1"), range(2)), 10, ("average_distance",)),
        "demo": Budget(_design(("plain", "R1", "instance noise"), range(4)), STEPS, ("average_distance", "mode_share"), clocks=CLOCKS),
        "full": Budget(_design(SETTINGS, SEEDS) + _race(), STEPS, tuple(p.name for p in OPTIONAL), clocks=CLOCKS),
    },
    presets=(
        Preset("plain", {}, "All samples run to one or two places, and these wander."),
        Preset("R1", {"penalty": "r1"}, "A critic that is flat at the data: all modes, and they stay."),
        Preset("Wasserstein", SETTINGS["Wasserstein"], "Scores without bounds and no penalty: the samples are thrown about."),
        Preset("gradient penalty", SETTINGS["gradient penalty"], "The critic's slope is held near 1, and it gets five updates a step."),
        Preset("instance noise", SETTINGS["instance noise"], "Noise on all that the critic sees: a ring, in which modes show late."),
        Preset("two time scales", SETTINGS["two time scales"], "The generator waits for the critic."),
        Preset("grid", {"mixture": "grid", "modes": 25, "penalty": "r1"}, "25 modes on a square."),
        Preset("few examples", SETTINGS["few examples"], "The critic begins to know 48 real points; watch the gauge of its overfitting."),
    ),
    views=(modes, samples, distance_by_setting, distance_by_rate),
    gauges=GAUGES,
    predictions=PREDICTIONS,
    claims=CLAIMS,
    summary=summary,
)
