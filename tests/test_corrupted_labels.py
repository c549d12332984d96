"""What `corrupted_labels` measures: exact cases, and effects on records whose answer is known by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import workbench as wb
from workbench import models, noise
from workbench.design import axes
from workbench.models.parts import Dropout
from workbench.probes.fourier import inverse_participation_ratio
from workbench.record import blank, fill
from workbench.schema import Progress, Schema, Slab, Variable
from workbench.studies import corrupted_labels as cl
from workbench.study import Moment, Now
from workbench.taps import recording
from workbench.views.settings import settings

PAIR_VARIABLES = ("training_accuracy", "clean_accuracy", "given_accuracy", "right_accuracy", "held_out_accuracy")
PRUNED_VARIABLES = ("held_out_without_low", "given_without_low", "held_out_without_high", "given_without_high")
KEY = noise.key_of(0)


def moment(knobs, weights):
    """What the learner leaves before an update, of a net with these weights."""
    shared = cl.study.learner.prepare(knobs, KEY)
    params = dict(zip(("layers.0.weight", "readout.weight"), weights, strict=True))
    return Moment(params=params, buffers={}, pairs=cl.TASK(knobs, KEY), shared=shared, knobs=knobs)


def periodic(modulus, width, seed=0):
    """The weights of the analytic solution: every unit has one frequency, and its third phase is the sum of the other two."""
    draw = np.random.default_rng(seed)
    frequency = draw.integers(1, (modulus + 1) // 2, width)[:, None] * 2 * np.pi / modulus * np.arange(modulus)
    first, second = draw.uniform(0, 2 * np.pi, (2, width, 1))
    inner = np.concatenate([np.cos(frequency + first), np.cos(frequency + second)], 1)
    return torch.tensor(inner, dtype=torch.float32), torch.tensor(np.cos(frequency + first + second).T, dtype=torch.float32)


def white(modulus, width):
    inner = noise.normal(KEY, "inner", (width, 2 * modulus))
    return inner, noise.normal(KEY, "readout", (modulus, width))


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e10])
def test_a_single_frequency_has_ipr_one(size):
    x = torch.arange(59) * 2 * math.pi / 59
    rows = size * torch.stack([torch.cos(3 * x + 1), torch.sin(29 * x), torch.ones(59)])
    torch.testing.assert_close(inverse_participation_ratio(rows), torch.ones(3))


def test_a_flat_spectrum_has_the_lowest_ipr():
    pulse = F.one_hot(torch.tensor([7]), 59).float()
    torch.testing.assert_close(inverse_participation_ratio(pulse), torch.tensor([1 / 30]))


def test_white_rows_have_about_twice_the_lowest_ipr():
    """Powers of white noise are exponential, whose mean square is twice the square of the mean."""
    rows = noise.normal(KEY, "rows", (4000, 59))
    assert inverse_participation_ratio(rows).mean().item() == pytest.approx(2 / 31, rel=0.05)


def test_a_dead_unit_has_no_ipr_and_is_pruned_first():
    knobs = cl.Settings(modulus=11, width=16)
    inner, readout = periodic(11, 16)
    inner[5] = 0.0
    m = moment(knobs, (inner, readout))
    assert torch.isnan(cl.unit_ipr(m)).nonzero().flatten().tolist() == [5]
    assert cl.by_ipr(m).argmin() == 5 and cl.ipr(m).item() == pytest.approx(1.0)


def test_the_analytic_solution_is_right_everywhere():
    knobs = cl.Settings(modulus=23, width=500, corrupted_share=0.3)
    m = moment(knobs, periodic(23, 500))
    found = {p.name: p(m).item() for p in (cl.held_out_accuracy, cl.clean_accuracy, cl.right_accuracy, cl.given_accuracy, cl.ipr)}
    assert found == pytest.approx(
        {"held_out_accuracy": 1.0, "clean_accuracy": 1.0, "right_accuracy": 1.0, "given_accuracy": 0.0, "ipr": 1.0}, abs=1e-4
    )
    wrong = (m.pairs["y"] != m.shared["right"]).float().mean().item()
    assert cl.training_accuracy(m).item() == pytest.approx(1 - wrong) and 0.2 < wrong < 0.3


def test_pruning_takes_units_by_their_ipr():
    """Half of the units are periodic, half are white and small: without the white ones nothing changes, without the others all is lost."""
    knobs = cl.Settings(modulus=23, width=800, corrupted_share=0.3)
    (inner, readout), (white_inner, white_readout) = periodic(23, 400), white(23, 400)
    m = moment(knobs, (torch.cat([white_inner, inner]), torch.cat([0.1 * white_readout, readout], 1)))
    low, high = cl.held_out_without_low(m), cl.held_out_without_high(m)
    assert low.shape == high.shape == (10,) and low[0] == high[0] == cl.held_out_accuracy(m)
    assert (low[:6] > 0.99).all() and (high[5:] < 0.2).all()
    order = cl.by_ipr(m).argsort()
    keep = torch.zeros(800).index_fill(0, order[240:], 1.0)
    direct = cl.accuracies(m, (cl.evaluated(m).hidden * keep) @ m.params["readout.weight"].T)
    assert direct.held_out == low[3] and direct.given == cl.given_without_low(m)[3]


def test_accuracies_are_shares_of_the_pairs_they_name():
    knobs = cl.Settings(modulus=7, corrupted_share=0.5, train_share=0.5)
    pairs, shared = cl.TASK(knobs, KEY), cl.study.learner.prepare(knobs, KEY)
    m = Moment(pairs=pairs, shared=shared)
    given, right, held_out = pairs["y"], shared["right"], shared["evaluation"]["y"]
    corrupted = given != right
    assert len(given) == 24 and 6 <= corrupted.sum() <= 12 and not corrupted[12:].any()

    def found(training, unseen):
        return [round(x.item(), 6) for x in cl.accuracies(m, F.one_hot(torch.cat([training, unseen]), 7).float())]

    share = round(corrupted.float().mean().item(), 6)
    assert found(given, held_out) == [1, 1, 1, 0, 1]
    assert found(right, (held_out + 1) % 7) == [pytest.approx(1 - share), 1, 0, 1, 0]
    clean = cl.Settings(modulus=7, corrupted_share=0.0)
    m = Moment(pairs=cl.TASK(clean, KEY), shared=shared)
    assert np.isnan(cl.accuracies(m, torch.eye(7)[torch.cat([right, held_out])]).given.item())


def test_ranks_are_compared_not_sizes():
    a = torch.tensor([0.1, 5.0, 2.0, 3.0])
    assert cl.rank_correlation(a, a**3).item() == pytest.approx(1)
    assert cl.rank_correlation(a, -a).item() == pytest.approx(-1)
    assert cl.rank_correlation(a, torch.tensor([1.0, 4.0, 3.0, 2.0])).item() == pytest.approx(0.8)


def test_batches_have_no_pair_twice():
    pairs = cl.TASK(cl.Settings(modulus=11), KEY)
    assert cl.drawn(pairs, 0, KEY) is pairs
    place = lambda x: (11 * x["x"][:, 0] + x["x"][:, 1]).tolist()  # noqa: E731
    some, again, other = (place(cl.drawn(pairs, 20, key)) for key in (KEY, KEY, noise.key_of(1)))
    assert len(set(some)) == 20 and some == again != other and set(some) <= set(place(pairs))
    assert sorted(place(cl.drawn(pairs, 1000, KEY))) == sorted(place(pairs))


def test_first_weights_are_those_of_the_paper():
    knobs = cl.Settings(**cl.CLEAN)
    shared = cl.study.learner.prepare(knobs, KEY)
    params = cl.study.learner.init(KEY, knobs, shared)["params"]
    assert {name: tuple(p.shape) for name, p in params.items()} == {"layers.0.weight": (500, 194), "readout.weight": (97, 500)}
    for p in params.values():
        assert p.std().item() == pytest.approx(0.05, rel=0.02) and p.abs().max() > 0.2  # not cut at two standard deviations


def test_training_is_that_of_the_paper():
    """Three updates are those of torch: one-hot inputs, x^2, torch.nn.MSELoss, torch.optim.AdamW."""
    knobs = cl.Settings(modulus=11, width=16)
    learner, shared = cl.study.learner, cl.study.learner.prepare(knobs, KEY)
    state, pairs = learner.init(KEY, knobs, shared), cl.TASK(knobs, KEY)
    inner, readout = (p.clone().requires_grad_() for p in state["params"].values())
    optimizer = torch.optim.AdamW([inner, readout], lr=1e-2, betas=(0.9, 0.98), eps=1e-8, weight_decay=5.0)
    x, target = F.one_hot(pairs["x"], 11).float().flatten(1), F.one_hot(pairs["y"], 11).float()
    for step in range(3):
        optimizer.zero_grad()
        loss = torch.nn.MSELoss()((x @ inner.T).square() @ readout.T, target)
        loss.backward()
        optimizer.step()
        state, seen = learner.step(state, pairs, knobs, shared, Now(torch.tensor(float(step)), KEY, "train"))
        torch.testing.assert_close(seen.loss, loss)
    torch.testing.assert_close(list(state["params"].values()), [inner, readout])


def test_dropout_draws_only_where_it_has_a_key():
    part = Dropout(0.25)
    part.path, x = "dropouts.0", torch.ones(100, 200)
    assert part(x) is x
    with recording(key=KEY):
        first = part(x)
    with recording(key=KEY):
        again = part(x)
    assert torch.equal(first, again) and first.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (first == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)


def test_dropout_stands_before_the_square_and_batch_norm_after_it():
    knobs = cl.Settings(modulus=11, width=16, dropout=0.5, batch_norm=True)
    shared = cl.study.learner.prepare(knobs, KEY)
    state, x = cl.study.learner.init(KEY, knobs, shared), cl.TASK(knobs, KEY)["x"]
    with recording(knobs=knobs, key=KEY) as frame:
        models.apply(shared["model"], state["params"], state["buffers"], x)
    hidden = frame.seen["0.hidden"]
    torch.testing.assert_close(hidden.mean(0), torch.zeros(16), atol=1e-5, rtol=0)
    inner = F.one_hot(x, 11).float().flatten(1) @ state["params"]["layers.0.weight"].T
    kept = noise.uniform(noise.fold(KEY, "dropouts.0"), "dropout", inner.shape) >= 0.5
    squares = torch.where(kept, inner / 0.5, 0.0).square()
    expected = F.batch_norm(squares, None, None, training=True)
    torch.testing.assert_close(hidden, expected, atol=1e-4, rtol=1e-4)


def made(values=lambda variable, row: 0.5, design=None, steps=60):
    """A record of the full design, or of another; `values(variable, row)` is the variable of a run at all steps, or over (step,)."""
    rows = (design or cl.study.budget("full").design).rows(cl.Settings)
    clocks = dict.fromkeys(PAIR_VARIABLES, (10, ())) | {"ipr": (100, ()), "gain_follows_ipr": (100, ())}
    clocks |= dict.fromkeys(PRUNED_VARIABLES, (1000, ("pruned",))) | {"unit_ipr": (1000, ("unit",))}
    labels = {"pruned": list(cl.PRUNED), "unit": list(range(8))}
    variables = [Variable(name, clock, dims, "float64", {}) for name, (clock, dims) in clocks.items()]
    columns = {name: dict(units=spec.units, long_name=spec.doc) for name, spec in axes(cl.Settings).items()}
    record = blank(Schema(rows, columns, variables, labels, [("train", 0)], 0, steps, {"start": 0, "study": "corrupted_labels"}))
    runs = range(len(rows))
    for v in variables:
        at = [*range(0, steps, v.clock), steps]
        shape = (len(at), *(len(labels[dim]) for dim in v.dims))
        fill(record, Slab(runs, v.clock, at, {v.name: np.stack([np.broadcast_to(values(v.name, row), shape) for row in rows])}, labels))
    fill(record, Progress(runs, steps, [-1] * len(rows)))
    return record


def of_phase(held_out, given, training):
    """What `phases` says of a single run with these accuracies, each a number or one a step."""
    table = {"held_out_accuracy": held_out, "given_accuracy": given, "training_accuracy": training}
    return cl.phases(made(lambda name, row: table.get(name, 0.5), cl.grid(modulus=11), 20)).tolist()


@pytest.mark.parametrize(
    ("held_out", "given", "training", "phase"),
    [
        (0.95, 0.95, 0.99, "coexistence"),
        (0.9, 0.89, 0.9, "partial inversion"),
        (0.9, 0.11, 0.8, "partial inversion"),
        (0.9, 0.1, 0.8, "full inversion"),
        (0.89, 0.9, 0.9, "memorization"),
        (0.5, 0.9, [0.1, 0.9, 0.89], "forgetting"),
        (0.5, 0.2, 0.89, "confusion"),
        (1.0, np.nan, 1.0, "no wrong labels, generalizes"),
        (0.0, np.nan, 1.0, "memorization"),
    ],
)
def test_phases_are_cut_at_nine_tenths_and_one_tenth(held_out, given, training, phase):
    assert of_phase(held_out, given, training) == [phase]


def test_effects_read_the_runs_they_name():
    """Each run's variable is a number made of its knobs, so that a wrong choice of runs shows."""

    def mark(row):
        return row["weight_decay"] + 100 * row["dropout"] + 1000 * row["batch_norm"] + 1e4 * (row["minibatch"] > 0) + row["corrupted_share"]

    def values(name, row):
        if name == "gain_follows_ipr":
            return mark(row) if row["batch_norm"] else np.nan
        return mark(row) + row["seed"] * 1e-3

    record = made(values)
    seeds = 1e-3 * np.arange(4, 8)
    np.testing.assert_allclose(cl.coexistence(record), 0.2 + seeds)
    np.testing.assert_allclose(cl.forgotten(record, {}, {"weight_decay": 5.0}), -5)
    np.testing.assert_allclose(cl.forgotten(record, {}, {"dropout": 0.5}), -50)
    np.testing.assert_allclose(cl.forgotten(record, cl.BATCHES, {**cl.BATCHES, "batch_norm": True}), -1000)
    np.testing.assert_allclose(cl.ipr_gained(record, weight_decay=15.0), 15)
    np.testing.assert_allclose(cl.ended(record, "right_accuracy", weight_decay=15.0), 15.2 + seeds)
    np.testing.assert_allclose(cl.ended(record, "gain_follows_ipr", **cl.BATCHES, batch_norm=True), 11000.1)
    np.testing.assert_allclose(cl.of_clean_labels(record, "held_out_accuracy", 50), 5 + seeds)


def test_effects_over_steps_and_over_pruning():
    def values(name, row):
        if name == "given_accuracy":
            return np.r_[0.1, 0.8, np.full(4, 0.9), 0.25]
        if name == "training_accuracy":
            return np.r_[0, 0, 0.97, np.full(4, 0.7)]
        if name == "held_out_without_low":
            return np.linspace(0.9, 0.0, 10)
        return 0.75

    record = made(values)
    np.testing.assert_allclose(cl.unlearned(record, weight_decay=15.0), 0.65)
    np.testing.assert_allclose(cl.delay(record), 0.97 - 0.75)
    np.testing.assert_allclose(cl.inversion(record, weight_decay=5.0), 0.05)
    np.testing.assert_allclose(cl.changed_by_pruning(record, "held_out_without_low", 0.5), -0.5)
    np.testing.assert_allclose(cl.after_pruning(record, "held_out_without_low", 0.5), 0.4)
    np.testing.assert_allclose(cl.changed_by_pruning(record, "held_out_without_high", 0.5), 0)


def test_events_are_first_steps():
    table = {"held_out_accuracy": np.r_[0.0, 0.5, 0.9, 0.2], "right_accuracy": np.r_[0.0, 0.0, 0.0, 0.49]}
    record = made(lambda name, row: table.get(name, 0.0), cl.grid(modulus=11), steps=30)
    assert cl.grokked_step(record).item() == 20 and np.isnan(cl.corrected_step(record).item())


@pytest.mark.parametrize(("given", "answer"), [(np.nan, 0), (0.1, 0), (0.11, 1), (0.89, 1), (0.9, 2)])
def test_the_prediction_is_settled_by_the_wrong_labels_known(given, answer):
    record = made(lambda name, row: given, cl.grid(seed=(0, 1)), steps=200)
    assert cl.memorized(record) == answer


def test_settings_are_named_by_what_sets_them_apart():
    record = made()
    factor = settings(record, besides=("corrupted_share",), always=cl.ALWAYS)
    assert factor.names == (
        *(f"weight decay {decay}" for decay in (0, 5, 15, 20)),
        "weight decay 0, minibatch 256",
        "weight decay 0, dropout 0.5",
        "weight decay 0, batch norm, minibatch 256",
        "weight decay 5, modulus 97, width 500",
    )
    runs = factor.of_runs(factor.names)
    assert (runs == "weight decay 15").sum() == 20 and (runs == "weight decay 0, dropout 0.5").sum() == 4
    assert settings(made(design=cl.grid(seed=(0, 1)))).names == ("all runs",)


def test_charts_show_one_share_of_each_setting():
    some, panel, title = cl.in_panels(made())
    assert len(panel.names) == 8 and title == {} and some.sizes["run"] == 32
    assert "weight decay 0, batch norm, minibatch 256, corrupted share 0.1" in panel.names
    assert panel.names[0] == "weight decay 0, corrupted share 0.2"
    many, panel, title = cl.in_panels(made(design=cl.grid(lr=np.linspace(0.01, 0.05, 20), corrupted_share=(0.1, 0.4))))
    assert many.sizes["run"] == 12 and title == {"title": "the first 12 of 20 settings"} and set(many["corrupted_share"].values) == {0.1}


def test_the_published_points_stand_beside_the_published_run():
    spec = cl.accuracies_of_settings(made()).to_dict()
    (rows,) = spec["datasets"].values() if "datasets" in spec else [spec["data"]["values"]]
    marked = [(row["name"], row["step"], row["mark"]) for row in rows if row.get("mark") is not None]
    assert marked == [("held out", 20, 0.003), ("held out", 30, 0.23), ("held out", 36, 0.823), ("held out", 42, 0.999)]


def test_the_phase_map_has_a_cell_for_each_setting_and_share():
    table = {"held_out_accuracy": 0.97, "given_accuracy": 0.5, "training_accuracy": 0.9}
    spec = cl.phase_map(made(lambda name, row: table.get(name, 0.5))).to_dict()
    (cells,) = spec["datasets"].values() if "datasets" in spec else [spec["data"]["values"]]
    assert len(cells) == 4 * 5 + 4 and {cell["outcome"] for cell in cells} == {"partial inversion"}
    assert {cell["words"] for cell in cells} == {"97 / 50"} and {cell["agree"] for cell in cells} == {"4 of 4 runs"}


def test_the_commonest_phase_colours_a_cell():
    table = {"training_accuracy": 1.0, "given_accuracy": 1.0}
    record = made(lambda name, row: table.get(name, 0.0 if row["seed"] == 0 else 0.96), cl.grid(seed=range(4)))
    (cell,) = cl.phase_map(record).to_dict()["data"]["values"]
    assert (cell["outcome"], cell["agree"], cell["words"]) == ("coexistence", "3 of 4 runs", "72 / 100")


def test_the_summary_names_the_commonest_phases():
    said = cl.summary(made(lambda name, row: 0.95))
    assert said == [
        "96 runs of 60 steps: 0 diverged.",
        "coexistence: 96 runs, held-out accuracy 95 %, corrupted pairs as given 95 %.",
    ]


def test_every_view_draws_every_design():
    for record in (made(), made(design=cl.grid(modulus=11)), made(lambda name, row: np.nan)):
        for view in cl.study.views:
            view(record).to_dict()


def test_the_full_design_is_the_grid_of_the_paper_and_what_it_is_compared_with():
    rows = cl.study.budget("full").design.rows(cl.Settings)
    grid = [row for row in rows if row["modulus"] == 59 and not (row["dropout"] or row["minibatch"])]
    assert len(rows) == 96 and len(grid) == 5 * 4 * 4 and {row["seed"] for row in rows} == {4, 5, 6, 7}
    assert {row["weight_decay"] for row in grid} == {0, 5, 15, 20}
    (clean,) = {(row["modulus"], row["width"], row["train_share"], row["lr"]) for row in rows if not row["corrupted_share"]}
    assert clean == (97, 500, 0.5, 1e-2)


def test_the_published_curve_is_met():
    """Accuracies that the released notebook prints, of one seed of theirs; ours are means of four."""
    clean = wb.open("corrupted_labels").wb.where(**cl.CLEAN)
    steps = [10, 20, 30, 40, 50]
    held_out, training = (clean.wb[name].sel(step=steps).mean("run").values for name in ("held_out_accuracy", "training_accuracy"))
    np.testing.assert_allclose(held_out, [0.0, 0.003, 0.230, 0.987, 1.0], atol=0.1)
    np.testing.assert_allclose(training, [0.816, 0.991, 1.0, 1.0, 1.0], atol=0.05)
