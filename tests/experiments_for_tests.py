"""What tests of experiments have in common: making one, advancing it, comparing what it measured."""

from dataclasses import replace

import numpy as np
import torch
from learners_for_tests import parabola
from learners_for_tests import transformer as decoder
from torch.utils._pytree import tree_leaves

from workbench.design import grid
from workbench.engine.experiment import Experiment
from workbench.engine.measured import Measured
from workbench.probe import probe


def row(study, **knobs):
    return grid(seed=0, **knobs).rows(study.knobs)[0]


def begun(study, updates=0, seeds=(0,), knobs=None, **settings):
    return advanced(Experiment(study, row(study, **(knobs or {})), seeds, **settings), updates)


def advanced(experiment, updates):
    for _ in range(updates):
        experiment.advance()
    return experiment


def travelled(experiment, step):
    """The steps that had to be trained again."""
    return list(experiment.travel(step))


def curve(track, name="loss"):
    return track.series(name)[1]


def assert_same_curves(a, b):
    for name in a.variables:
        for ours, theirs in zip(a.series(name), b.series(name), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def assert_same_states(a, b):
    leaves = tree_leaves(a), tree_leaves(b)
    assert len(leaves[0]) == len(leaves[1])
    for ours, theirs in zip(*leaves, strict=True):
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs


def assert_same_runs(a, b, run_of_a=0, run_of_b=0):
    """All that both records measured of a run, to the last bit."""
    names = set(a.wb.variables) & set(b.wb.variables)
    assert names >= {"steps_done", "diverged_step"} and len(names) > 2
    for name in names:
        np.testing.assert_array_equal(a.wb[name].sel(run=run_of_a), b.wb[name].sel(run=run_of_b), err_msg=name)


def all_of(experiment):
    """What a refusal must not change."""
    tracks = {n: (t.name, t.kind, t.row, t.labels, t.start, t.step, tuple(t.changes)) for n, t in experiment.tracks.items()}
    here = experiment.selected, experiment.cursor, experiment.step, dict(experiment.row), set(experiment.resting), experiment.carried
    return tracks, here, {place: id(state) for place, state in experiment.shelf.states.items()}, experiment.training


def in_layout(monkeypatch, name):
    """Several seeds train in this layout, whatever is faster here."""
    monkeypatch.setattr("workbench.engine.experiment.known", lambda *_: Measured(eager={name: 0.0}))


@probe("tensor")
def tensor_norm(m):
    """Norm of each parameter"""
    return torch.stack([p.norm() for p in m.params.values()])


@probe("sample", "y", "x", dtype="uint8", every=10)
def spot(m):
    """Two pictures that fade"""
    return (m.params["w"] * 255 * torch.tensor([1.0, 0.5])).to(torch.uint8)[:, None, None].expand(2, 2, 3)


@probe(every=10)
def slow_weight(m):
    """Weight"""
    return m.params["w"]


watched = replace(decoder, probes=(*decoder.probes, tensor_norm))
pictured = replace(
    parabola, probes=(*parabola.probes, spot, slow_weight), coords=lambda knobs: dict(sample=["a", "b"], y=range(2), x=range(3))
)
