"""What the effects of `edge_of_numerical_stability` measure, on records whose answer is known by hand; its settings and its nets."""

import numpy as np
import pytest
import torch

from workbench import noise
from workbench.design import axes
from workbench.errors import InputError
from workbench.models import initialize
from workbench.record import blank, fill, with_events, with_nodes
from workbench.schema import Progress, Schema, Slab, Variable
from workbench.studies import edge_of_numerical_stability as edge

STEPS = 200
CURVES = ("train_accuracy", "validation_accuracy", "saturated_share", "zero_loss_share", "gradient_weight_cosine", "readout_rms")


def made(curves, names=tuple(edge.VARIANTS), seeds=(4, 5)):
    """A record of these variants; `curves(variant, variable)` maps steps to values, and the second seed is 10 steps later."""
    settings = {name: edge.SMALL | knobs for name, knobs in edge.VARIANTS.items()} | {edge.PUBLISHED_NAME: edge.PUBLISHED_RUN}
    rows = [vars(edge.Settings()) | settings[name] | {"seed": seed} for name in names for seed in seeds]
    variables = [Variable(name, 10, (), "float64", {}) for name in CURVES]
    columns = {name: dict(units=spec.units, long_name=spec.doc) for name, spec in axes(edge.Settings).items()}
    attributes = {"start": 0, "study": "edge_of_numerical_stability"}
    record = blank(Schema(rows, columns, variables, {}, [("train", 0)], 0, STEPS, attributes))
    steps = np.arange(0, STEPS + 1, 10)
    values = {
        variable: np.stack([curves(name, variable)(steps - 10 * (seed - seeds[0])) for name in names for seed in seeds])
        for variable in CURVES
    }
    fill(record, Slab(range(len(rows)), 10, steps.tolist(), values, {}))
    fill(record, Progress(range(len(rows)), STEPS, [-1] * len(rows)))
    return with_events(record, edge.study.events)


def from_step(start, low=0.0, high=1.0):
    return lambda steps: np.where(steps >= start, high, low)


def story(variant, variable):
    """Float16, float32 and float64 collapse at 50, 100 and never; perpGrad, decay and StableMax understand at 60, 80 and 120."""
    if variable == "saturated_share":
        return from_step({"softmax in float16": 50, "softmax in float32": 100}.get(variant, 10**6), high=0.75)
    if variable == "validation_accuracy":
        start = {"perpGrad": 60, "weight decay": 80, "StableMax": 120, edge.PUBLISHED_NAME: 100}.get(variant, 10**6)
        return from_step(start, low={"softmax in float64": 0.2}.get(variant, 0.125), high=0.97)
    if variable == "gradient_weight_cosine":
        return lambda steps: np.where(steps >= 30, 0.75, 0.0)
    return from_step(30)


def test_events_are_the_first_steps():
    record = made(story)
    runs = record.wb.where(softmax_precision="fp32", output_softmax="softmax", perp_grad=False, weight_decay=0.0)
    assert runs["events"]["memorized_step"].values.tolist() == [30, 40] and runs["events"]["collapse_step"].values.tolist() == [100, 110]
    assert np.isnan(runs["events"]["understood_step"]).all() and runs["events"]["final_test_accuracy"].values.tolist() == [0.125] * 2


def test_what_never_comes_counts_as_the_end():
    record = made(story)
    assert edge.later(record, "collapse_step", "softmax in float32", "softmax in float16").values.tolist() == [50, 50]
    assert edge.later(record, "collapse_step", "softmax in float64", "softmax in float32").values.tolist() == [100, 90]
    assert edge.later(record, "understood_step", "StableMax", "perpGrad").values.tolist() == [60, 60]


def test_accuracies_are_compared_at_the_end():
    record = made(story)
    np.testing.assert_allclose(edge.better(record, "softmax in float64", "softmax in float32"), 0.075)
    np.testing.assert_allclose(edge.better(record, "StableMax", "softmax in float32"), 0.845)
    assert edge.final(record, "validation_accuracy", "perpGrad").values.tolist() == [0.97] * 2
    assert edge.most_saturated(record, "softmax in float32").values.tolist() == [0.75] * 2


def test_alignment_is_that_between_memorization_and_saturation():
    def curves(variant, variable):
        if variable == "gradient_weight_cosine":
            return lambda steps: np.where(steps < 30, -1.0, np.where(steps < 100, 0.5 + (steps >= 70) * 0.25, 0.0))
        return story(variant, variable)

    found = edge.alignment(made(curves), "softmax in float32")  # 30 to 90: four moments of .5, three of .75
    np.testing.assert_allclose(found, (4 * 0.5 + 3 * 0.75) / 7)


def test_the_published_run_is_read_at_the_published_step():
    names = (*edge.VARIANTS, edge.PUBLISHED_NAME)
    assert edge.at_published_step(made(story, names), "validation_accuracy").values.tolist() == [0.97, 0.97]
    later = made(lambda variant, variable: from_step(105), names)
    assert edge.at_published_step(later, "validation_accuracy").values.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(("accuracy", "answer"), [(0.02, 0), (0.6, 1), (0.95, 2), (np.nan, 0)])
def test_the_prediction_is_settled_by_the_mean_test_accuracy(accuracy, answer):
    record = made(lambda variant, variable: lambda steps: np.full(len(steps), accuracy), names=("StableMax",))
    assert edge.understood_in_time(record) == answer


def test_runs_are_named_by_variant_or_by_what_varies():
    names = (*edge.VARIANTS, edge.PUBLISHED_NAME)
    found = edge.groups(made(story, names))
    assert found.names == names and found.codes.tolist() == [i for i in range(7) for _ in range(2)]
    other = made(story, ("StableMax", "perpGrad"))
    other = with_nodes(other, **{"/": other.to_dataset().assign_coords(width=("run", [128, 128, 64, 64]))})
    assert edge.groups(other).names == (
        "output_softmax softmax, perp_grad true, width 64",
        "output_softmax stablemax, perp_grad false, width 128",
    )


def test_the_published_numbers_are_marked_beside_the_published_run():
    record = made(story, (*edge.VARIANTS, edge.PUBLISHED_NAME))
    rows = edge.beside_the_published_curve(record).to_dict()["data"]["values"]
    assert {row["panel_0"] for row in rows} == {edge.PUBLISHED_NAME}
    marked = {(row["name"], row["step"], row["mark"]) for row in rows if row["mark"] is not None}
    assert marked == {("test", 110, 0.97), ("training", 110, 1.0)}
    rows = edge.memorized_and_understood(record).to_dict()["data"]["values"]
    assert {row["panel_0"] for row in rows} == set(edge.VARIANTS) and "mark" not in rows[0]
    assert "mark" not in edge.beside_the_published_curve(made(story)).to_dict()["data"]["values"][0]


def test_the_summary_says_when_and_how_many():
    lines = edge.summary(made(story, ("softmax in float32", "StableMax")))
    assert lines[0] == "4 runs of 200 steps; medians over seeds:"
    assert lines[2] == "50% of softmax rows saturated at step: softmax in float32 105; StableMax never."
    assert lines[3] == "90% of test pairs right at step: softmax in float32 never; StableMax 125."


def test_a_net_for_every_task():
    for knobs, inputs, weights in (
        (dict(), torch.zeros(3, 2, dtype=torch.int64), 2 * 67 * 128 + 128**2 + 67 * 128),
        (edge.PUBLISHED_RUN, torch.zeros(3, 2, dtype=torch.int64), 107_800),
        (dict(data="parity", bias=True), torch.zeros(3, 43), 43 * 128 + 128**2 + 2 * 128 + 2 * 128 + 2),
    ):
        settings = edge.Settings(**knobs)
        shared = edge.study.learner.prepare(settings, noise.key_of(0))
        params, _ = initialize(shared["model"], noise.key_of(0), settings)
        assert sum(p.numel() for p in params.values()) == weights
        assert torch.func.functional_call(shared["model"], params, inputs).shape == (3, 2 if "data" in knobs else settings.modulus)
    with pytest.raises(InputError, match="model' is 'transformer', which reads tokens"):
        edge.Settings(data="parity", model="transformer")


def test_the_transformer_reads_the_last_position_and_has_no_others():
    settings = edge.Settings(model="transformer", modulus=11, width=16, heads=2, depth=1, bias=True)
    shared = edge.study.learner.prepare(settings, noise.key_of(0))
    params, _ = initialize(shared["model"], noise.key_of(0), settings)
    assert not [name for name in params if "positions" in name]
    readout = torch.func.functional_call(shared["model"], params, torch.tensor([[1, 2], [2, 1], [1, 1]]))
    assert readout.shape == (3, 11) and not torch.allclose(readout[0], readout[1])
