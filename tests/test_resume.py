"""Going on after a kill: the record ends with the same bits as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import xarray as xr
from conftest import ROOT
from learners_for_tests import parabola, perceptron, server

import workbench as wb
from workbench import places
from workbench.engine import Kept, stream
from workbench.engine.run import run as run_
from workbench.errors import InputError
from workbench.schema import Progress, Slab

AXES = dict(lr=[0.01, 0.3], width=[4, 8], seed=range(3))


def assert_same(a, b):
    """All that was measured, bit for bit."""
    for name, node in a.children.items():
        xr.testing.assert_identical(node.to_dataset(inherit=False), b[name].to_dataset(inherit=False))


def stopped(monkeypatch, out, run, done, study=perceptron, latest=0.0, **settings):
    """A run of a design that is interrupted when one run has made so many updates, the latest states kept whenever they can be."""
    seen = []

    def cut(ready, **options):
        for item in stream(ready, **options):
            seen.append(item)
            yield item
            if isinstance(item, Progress) and run in item.runs and item.done >= done:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["workbench.engine.run"], "stream", cut)
        patch.setattr(sys.modules["workbench.engine.run"], "LATEST_SECONDS", latest)
        with pytest.warns(UserWarning, match="Interrupted"):
            run_(study, out=out, **settings)
    return seen


@pytest.mark.parametrize("mode", ["lanes", "loop", "compiled"])
@pytest.mark.parametrize(("run", "done"), [(0, 10), (0, 30), (9, 30)])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(monkeypatch, tmp_path, mode, run, done):
    settings = dict(steps=60, mode=mode, **AXES)
    whole = wb.run(perceptron, out=tmp_path / "whole.nc", **settings)
    items = stopped(monkeypatch, tmp_path / "x.nc", run, done, **settings)
    assert any(isinstance(item, Kept) for item in items) or done == 10
    resumed = wb.run(perceptron, out=tmp_path / "x.nc", resume=True, **settings)
    assert_same(whole, resumed)
    assert_same(whole, wb.open(tmp_path / "x.nc"))
    assert sorted(os.listdir(tmp_path)) == ["whole.nc", "x.nc"]
    assert "interrupted" not in resumed.attrs and json.loads(resumed.attrs["claims"]) == []


def test_only_what_was_not_done_is_done(monkeypatch, tmp_path):
    settings = dict(steps=60, mode="lanes", **AXES)
    stopped(monkeypatch, tmp_path / "x.nc", 9, 30, **settings)
    left = wb.open(tmp_path / "x.nc")["events"]["steps_done"].values
    assert set(left) > {60} and 0 < min(left) < 60
    slabs = []

    def watched(*args, **options):
        for item in stream(*args, **options):
            slabs.extend([item] if isinstance(item, Slab) else [])
            yield item

    monkeypatch.setattr(sys.modules["workbench.engine.run"], "stream", watched)
    wb.run(perceptron, out=tmp_path / "x.nc", resume=True, **settings)
    first = {run: min(item.steps[0] for item in slabs if run in item.runs) for item in slabs for run in item.runs}
    assert first == {run: 10 for run, at in enumerate(left) if at < 60}, "the states before the stretch that was cut"


def test_states_kept_at_chosen_steps_serve_too(monkeypatch, tmp_path):
    settings = dict(steps=60, mode="lanes", keep=20, **AXES)
    whole = wb.run(perceptron, out=tmp_path / "whole.nc", **settings)
    stopped(monkeypatch, tmp_path / "x.nc", 9, 30, latest=1e9, **settings)
    resumed = wb.run(perceptron, out=tmp_path / "x.nc", resume=True, **settings)
    assert_same(whole, resumed)
    names = [sorted(os.listdir(tmp_path / f"{name}.nc.checkpoints")) for name in ("whole", "x")]
    assert names[0] == names[1] and not any("latest" in name for name in names[0])


def test_a_run_that_diverged_before_the_stop_stays_diverged(monkeypatch, tmp_path):
    settings = dict(lr=[0.1, 1e20], steps=400, mode="lanes")
    whole = wb.run(parabola, **settings)
    assert whole["events"]["diverged_step"].values[1] == 1
    stopped(monkeypatch, tmp_path / "x.nc", 0, 30, study=parabola, **settings)
    assert_same(whole, wb.run(parabola, out=tmp_path / "x.nc", resume=True, **settings))


def test_a_run_that_diverged_by_its_last_update_stays_diverged(monkeypatch, tmp_path):
    often = wb.run(perceptron, lr=1e30, steps=20, mode="lanes")
    steps = int(often["events"]["diverged_step"][0])
    settings = dict(lr=1e30, width=[4, 8], steps=steps, mode="lanes")
    whole = wb.run(perceptron, **settings)
    assert whole["events"]["diverged_step"].values[0] == steps
    stopped(monkeypatch, tmp_path / "x.nc", 0, steps, **settings)
    assert_same(whole, wb.run(perceptron, out=tmp_path / "x.nc", resume=True, **settings))


def test_a_learner_whose_states_cannot_be_kept_begins_again(monkeypatch, tmp_path):
    settings = dict(steps=30, seed=[0, 1])
    whole = wb.run(server, **settings)
    items = stopped(monkeypatch, tmp_path / "x.nc", 0, 10, study=server, **settings)
    assert not any(isinstance(item, Kept) for item in items)
    assert_same(whole, wb.run(server, out=tmp_path / "x.nc", resume=True, **settings))


def test_a_record_that_was_measured_but_not_saved_is_saved(monkeypatch, tmp_path):
    def full(*args, **kwargs):
        raise InputError("Output 'x.nc' cannot be written (No space left on device); give another place.")

    settings = dict(steps=20, seed=[0, 1], out=tmp_path / "x.nc")
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["workbench.engine.run"], "save", full)
        with pytest.raises(InputError, match="No space left"):
            wb.run(perceptron, **settings)
    assert_same(wb.run(perceptron, resume=True, **settings), wb.open(tmp_path / "x.nc"))


def test_with_nothing_to_go_on_with_it_begins(tmp_path):
    record = wb.run(perceptron, steps=5, out=tmp_path / "x.nc", resume=True)
    assert_same(record, wb.run(perceptron, steps=5))


def test_what_is_complete_is_not_resumed(tmp_path):
    wb.run(perceptron, steps=5, out=tmp_path / "x.nc")
    with pytest.raises(InputError, match=r"x\.nc' is complete; there is nothing to resume"):
        wb.run(perceptron, steps=5, out=tmp_path / "x.nc", resume=True)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (dict(steps=70), r"was begun with steps 60, not 70; give what it was begun with"),
        (dict(seed=[0, 1]), r"was begun with other values of seed; give"),
        (dict(dtype="float64"), "was begun with dtype float32, not float64"),
        (
            dict(study=replace(perceptron, probes=perceptron.probes[:1])),
            r"was begun with other probes, or on other clocks \(weight_norm_total\)",
        ),
        (dict(study=parabola), "was begun with other values of horizon, lr, seed, width"),
    ],
)
def test_a_record_of_another_plan_is_refused_and_stays(monkeypatch, tmp_path, other, sentence):
    settings = dict(steps=60, mode="lanes", **AXES)
    stopped(monkeypatch, tmp_path / "x.nc", 0, 30, **settings)
    before = wb.open(tmp_path / "x.nc")
    if other.get("study") is parabola:
        settings = dict(steps=60)
    with pytest.raises(InputError, match=sentence):
        wb.run(other.pop("study", perceptron), out=tmp_path / "x.nc", resume=True, **settings | other)
    assert_same(before, wb.open(tmp_path / "x.nc"))


def test_another_version_of_the_study_is_refused(monkeypatch, tmp_path):
    stopped(monkeypatch, tmp_path / "x.nc", 0, 30, steps=60, **AXES)
    before = sys.modules["workbench.engine.provenance"].inspect.getsource
    monkeypatch.setattr(sys.modules["workbench.engine.provenance"].inspect, "getsource", lambda module: before(module) + "\n")
    with pytest.raises(InputError, match="was begun with another version of the study's source"):
        wb.run(perceptron, out=tmp_path / "x.nc", resume=True, steps=60, **AXES)


def test_a_damaged_state_is_passed_over(monkeypatch, tmp_path):
    settings = dict(steps=60, mode="lanes", **AXES)
    whole = wb.run(perceptron, **settings)
    stopped(monkeypatch, tmp_path / "x.nc", 0, 30, **settings)
    for file in (tmp_path / "x.nc.checkpoints").iterdir():
        file.write_bytes(b"no state")
    assert_same(whole, wb.run(perceptron, out=tmp_path / "x.nc", resume=True, **settings))


def test_only_what_goes_to_a_file_can_be_resumed():
    with pytest.raises(InputError, match=r"give out= \(--out\) together with resume="):
        wb.run(perceptron, steps=5, resume=True)


def test_a_complete_record_is_not_replaced_at_the_end_of_a_resumed_run(monkeypatch, tmp_path):
    """A run with overwrite that was stopped; going on with it must say at the start that it would replace what stands there."""
    before = wb.run(perceptron, steps=5, out=tmp_path / "x.nc")
    stopped(monkeypatch, tmp_path / "x.nc", 0, 30, steps=60, mode="lanes", overwrite=True, **AXES)
    with pytest.raises(InputError, match="exists; give another name, or replace it with overwrite=True"):
        wb.run(perceptron, out=tmp_path / "x.nc", resume=True, steps=60, mode="lanes", **AXES)
    assert_same(before, wb.open(tmp_path / "x.nc"))
    settings = dict(steps=60, mode="lanes", **AXES)
    assert_same(wb.run(perceptron, **settings), wb.run(perceptron, out=tmp_path / "x.nc", resume=True, overwrite=True, **settings))


def test_states_alone_are_no_run_to_go_on_with(tmp_path):
    wb.run(perceptron, steps=10, keep=5, out=tmp_path / "x.nc")
    (tmp_path / "x.nc").unlink()
    with pytest.raises(InputError, match=r"left '.*x\.nc\.checkpoints': move it away, give another name"):
        wb.run(perceptron, steps=10, out=tmp_path / "x.nc", resume=True)


def test_compiled_runs_on_two_cores_that_are_killed_end_as_on_one_and_are_forked_from_there(tmp_path):
    """SIGKILL in a process with two threads, going on in another, and the whole in a third with one thread: the same bits."""
    code = f"""
import os, signal, sys
sys.path.append({str(ROOT / "tests")!r})
from learners_for_tests import perceptron
import workbench as wb
from workbench.engine import growing
from workbench.schema import Progress
out, kill = sys.argv[1], len(sys.argv) > 2
wb.run
growing.FLUSH_SECONDS, growing.FLUSH_SHARE, sys.modules["workbench.engine.run"].LATEST_SECONDS = 0, float("inf"), 0
take = growing.Growing.take
def killed(self, item):
    take(self, item)
    if kill and isinstance(item, Progress) and item.done >= 40 and 5 in item.runs:
        os.kill(os.getpid(), signal.SIGKILL)
growing.Growing.take = killed
wb.run(perceptron, lr=[0.01, 0.3], seed=range(16), steps=100, mode="compiled", out=out, resume=True)
"""

    def process(cores, *words):
        environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
        environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(cores), "MKL_NUM_THREADS": str(cores)}
        return subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, env=environment, capture_output=True).returncode

    assert process(2, "x.nc", "kill") == -signal.SIGKILL
    assert process(2, "x.nc") == process(1, "whole.nc") == 0
    assert (places.cache() / "inductor").exists(), "compiled steps lie where the workbench is told to keep them"
    record, whole = wb.open(tmp_path / "x.nc"), wb.open(tmp_path / "whole.nc")
    assert (record.attrs["threads"], whole.attrs["threads"]) == (min(2, len(os.sched_getaffinity(0))), 1)
    assert all(entry["compiled"] for entry in json.loads(record.attrs["layouts"]))
    assert_same(whole, record)
    parent, _ = wb.fork(whole, run=20, step=50, study=perceptron, lr=0.1, progress=False)
    assert json.loads(parent.attrs["layouts"])[0]["compiled"]
    assert set(json.loads(parent.attrs["deviation"]).values()) == {0.0}


@pytest.mark.extras
def test_a_killed_command_is_resumed_by_typing_it_again(tmp_path):
    """SIGKILL at some moment in a real process, then `--resume` in another."""
    command = ["run", "entropy_collapse", "--set", "lr=0.003,0.1", "--set", "qk_norm=false,true", "--set", "depth=1", "--set", "batch=4"]
    command += ["--seeds", "2", "--steps", "150", "--mode", "lanes"]
    code = textwrap.dedent(
        """
        import os, signal, sys
        import workbench.engine.run
        from workbench.__main__ import main
        from workbench.engine import growing
        from workbench.schema import Progress
        sys.modules["workbench.engine.run"].LATEST_SECONDS = growing.FLUSH_SECONDS = 0
        take = growing.Growing.take
        def killed(self, item):
            take(self, item)
            if isinstance(item, Progress) and item.done >= 20 and 4 in item.runs:
                os.kill(os.getpid(), signal.SIGKILL)
        growing.Growing.take = killed
        main()
        """
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    once = subprocess.run([sys.executable, "-c", code, *command, "--out", "x.nc"], cwd=tmp_path, env=environment, capture_output=True)
    assert once.returncode == -signal.SIGKILL
    assert Path(tmp_path / "x.nc.partial.zarr").exists() and list((tmp_path / "x.nc.checkpoints").iterdir())
    for out, more in (("x.nc", ["--resume"]), ("whole.nc", [])):
        done = [sys.executable, "-m", "workbench", *command, "--out", out, *more]
        subprocess.run(done, cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert_same(wb.open(tmp_path / "whole.nc"), wb.open(tmp_path / "x.nc"))
    assert not (tmp_path / "x.nc.partial.zarr").exists() and not (tmp_path / "x.nc.checkpoints").exists()
