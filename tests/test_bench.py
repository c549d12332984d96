"""The benchmarks: contenders make the same updates, parts measure what they say, the command keeps it. No time is asserted."""

import re
import shlex
from dataclasses import replace

import click
import command_line
import numpy as np
import pytest
import torch
import xarray as xr
from conftest import ROOT

from workbench.__main__ import main
from workbench.bench import Asked, beginning, cases, contenders, draws, gpu, imports, ours, plain, probes, rounds, speed, store, tables
from workbench.bench.cases import CASES, CONVNET, IMAGES, SUMS, TEXT, Case
from workbench.engine.lanes import Vectorised
from workbench.engine.plans import chunk_of
from workbench.errors import InputError

SHAPE = dict(width=8, depth=2, heads=2, batch=3)
SMALL = {
    "decoder": Case("decoder", TEXT, 2, dict(SHAPE, context=6, weight_decay=0.1)),
    "vision transformer": Case("vision transformer", IMAGES, 2, dict(SHAPE, patch=14)),
    "mlp": Case("mlp", SUMS, 2, dict(width=8, modulus=5)),
    "convnet": Case("convnet", CONVNET, 2, dict(width=2, batch=3)),
}
ASKED = Asked(pairs=2, seconds=1e-3)
UPDATES = 4


@pytest.fixture
def call(capsys):
    return command_line.caller(capsys)


@pytest.fixture
def small(monkeypatch):
    """Parts measure the small decoder, eagerly."""
    monkeypatch.setattr(
        Case, "plan", lambda self, runs=0, planned=Case.plan, **settings: planned(self, runs, **settings | {"mode": "lanes"})
    )
    for module in (speed, draws, cases):
        monkeypatch.setattr(module, "named", lambda names: [SMALL["decoder"]])
    monkeypatch.setattr(probes, "transformers", lambda names: [SMALL["decoder"]])


def trained(case):
    """(run, update) losses of some updates by the engine, and the batches of each run that it drew."""
    ready = case.plan()
    losses, batches = [], []
    with torch.no_grad():
        chunk = chunk_of(ready, ready.cohorts[0], range(case.runs), Vectorised)
        for step in range(UPDATES):
            batch, shared = chunk.draws.at(step)
            batches.append([[leaf if shared else leaf[run] for leaf in (batch["x"], batch["y"])] for run in range(case.runs)])
            chunk.states, values, _ = chunk.step(step)
            losses.append(values["train_loss"])
    return torch.stack(losses, 1).numpy(), batches


# Cases


def test_the_cases_are_those_that_were_promised():
    shapes = {name: (case.runs, *(case.rows()[0].get(knob) for knob in ("width", "context", "batch"))) for name, case in CASES.items()}
    assert shapes["d32"] == (16, 32, 32, 8) and shapes["d64"] == (8, 64, 64, 16)
    assert {name: case.target for name, case in CASES.items() if case.target != 0.95} == {"d32": 5.0, "d64": 1.4}
    for case in CASES.values():
        rows = case.rows()
        assert len({row["lr"] for row in rows}) == len({row["seed"] for row in rows}) == len(rows) == case.runs
        assert [p.name for p in case.study.probes] == ["train_loss"]
        assert len(case.plan().cohorts) == 1
    assert len(CASES["d32"].rows(1024)) == 1024


def test_sums_are_two_fifths_of_all_pairs_modulo_97():
    case = CASES["mlp"]
    (cohort,) = case.plan().cohorts
    assert (cohort.knobs.depth, cohort.knobs.width, cohort.knobs.bias) == (2, 256, False)
    batch = SUMS.task(cohort.knobs, torch.zeros(2, dtype=torch.int64))
    a, b = batch["x"].unflatten(1, (2, 97)).argmax(2).unbind(1)
    assert batch["x"].shape == (3763, 194) and (batch["x"].sum(1) == 2).all()
    assert torch.equal(batch["y"], (a + b) % 97) and len({*zip(a.tolist(), b.tolist(), strict=True)}) == 3763


def test_a_case_that_does_not_exist():
    with pytest.raises(InputError, match=r"There is no case 'd23'; did you mean 'd32'"):
        cases.named(["d23"])


# Contenders


@pytest.mark.parametrize("case", SMALL.values(), ids=SMALL)
def test_the_plain_loop_makes_the_updates_of_the_engine(case):
    losses, batches = trained(case)
    loop = plain.Plain(case)
    found = [[run.update(batches[step][i]).item() for step in range(UPDATES)] for i, run in enumerate(loop.many)]
    np.testing.assert_allclose(found, losses, rtol=1e-4)


@pytest.mark.extras
@pytest.mark.parametrize("case", SMALL.values(), ids=SMALL)
def test_jax_makes_the_updates_of_the_engine(case):
    """The first loss is that of equal weights on one batch, the later ones tell whether gradients, AdamW and statistics agree."""
    pytest.importorskip("jax")
    from workbench.bench.jax_loop import Jax

    losses, batches = trained(case)
    loop, found = Jax(case), []
    for runs in batches:
        x, y = ([run[part].numpy() for run in runs] for part in (0, 1))
        batch = (x[0], y[0]) if case.study is SUMS else (np.stack(x), np.stack(y))
        loop.state, loss = loop.update(loop.state, batch)
        found.append(loss)
    found = np.stack(found, 1)
    np.testing.assert_allclose(found[:, 0], losses[:, 0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    loop.train(2)
    assert loop.losses[0].shape == (2, 2) and np.isfinite(loop.losses[0]).all()


def test_a_convnet_in_the_plain_loop_has_the_batch_norm_of_torch():
    norms = plain.Plain(SMALL["convnet"]).many[0].model.norms
    assert [type(norm) for norm in norms] == [torch.nn.BatchNorm2d] * 2


def test_the_plain_loop_draws_what_the_task_draws():
    for name, case in SMALL.items():
        (cohort,) = case.plan().cohorts
        x, y = plain.drawing(case, cohort.knobs, torch.device("cpu"))()
        like = case.study.task(cohort.knobs, torch.zeros(2, dtype=torch.int64))
        assert (x.shape, x.dtype, y.shape, y.dtype) == (like["x"].shape, like["x"].dtype, like["y"].shape, like["y"].dtype), name
        if name == "decoder":
            assert torch.equal(x[:, 1:], y[:, :-1])


def test_operations_are_those_of_the_matrix_products():
    """An MLP of widths 10, 8, 8, 5 on all 10 pairs: each matrix in one product forward, in two backward, the first in one."""
    products = 3 * (10 * 8 + 8 * 8 + 8 * 5) - 10 * 8
    assert plain.Plain(SMALL["mlp"]).operations == 2 * 10 * products


def test_the_engine_goes_on_where_it_stopped(small, monkeypatch):
    case = SMALL["decoder"]
    losses, _ = trained(case)
    engine = ours.Engine(case)
    for steps in (1, UPDATES - 2):
        assert engine.train(steps) > 0
    with torch.no_grad():
        _, values, _ = chunk_of(engine.ready, engine.ready.cohorts[0], range(2), Vectorised).step(UPDATES - 1)
    np.testing.assert_array_equal(values["train_loss"], losses[:, -1])
    monkeypatch.setattr(ours, "LONG", UPDATES)
    engine.train(2)
    assert engine.ready.start == 2, "where the plan would end it counts anew"


# Rounds


class Counting:
    """A contender whose updates take a millisecond each, as it says."""

    def __init__(self, name, order, runs=2):
        self.name, self.order, self.runs = name, order, runs

    def train(self, steps):
        self.order.append((self.name, steps))
        return steps * 1e-3


def test_contenders_take_turns_forwards_and_backwards(monkeypatch):
    order = []
    made = {name: Counting(name, order) for name in "ab"}
    monkeypatch.setattr(rounds, "matrix_product_rate", lambda: 5.0)
    seconds, rates = rounds.rounds(made, Asked(pairs=3, seconds=0.5), "x")
    assert [name for name, _ in order[-6:]] == ["a", "b", "b", "a", "a", "b"]
    assert {steps for _, steps in order[-6:]} == {500}
    assert rates.tolist() == [5.0] * 3
    np.testing.assert_allclose(seconds["a"], 1e-3 / 2)


@pytest.mark.parametrize(("seconds", "multiple", "steps"), [(1e-6, 10, 10), (0.25, 100, 200), (0.123, 10, 120), (1e9, 10, 5000)])
def test_rounds_have_whole_tens_of_updates(seconds, multiple, steps):
    assert rounds.steps_for(Counting("a", []), seconds, multiple) == steps


def test_the_rate_of_a_matrix_product_leaves_the_threads_as_they_were():
    before = torch.get_num_threads()
    assert rounds.matrix_product_rate(1, 16) > 0 and torch.get_num_threads() == before


# Parts


def test_numbers_have_three_digits_and_no_exponent():
    values = (1234.5, 99.96, 5, 0.95, 0.00012345, 0, -2.345, np.nan)
    assert [*map(tables.number, values)] == ["1,230", "100.0", "5.00", "0.950", "0.000123", "0.00", "-2.35", "-"]
    assert tables.spread([3, 1, 2.0]) == "2.00 [1.00, 3.00]" and tables.spread([1, np.nan]) == "-"


def shown(part, found):
    """The rows of a part's tables by column, checked to be whole."""
    made = list(part.tables(found))
    for table in made:
        assert table.rows and {len(row) for row in table.rows} == {len(table.columns)} and set(table.words) <= set(table.columns)
        assert all(isinstance(cell, str) for row in table.rows for cell in row)
    return [[dict(zip(table.columns, row, strict=True)) for row in table.rows] for table in made]


def test_speed(small, monkeypatch):
    monkeypatch.setattr(contenders, "find_spec", lambda name: None)
    found = speed.measure(ASKED)
    assert found.sizes == {"case": 1, "contender": 3, "pair": 2, "threads": 2}
    assert (found["seconds"].sel(contender=["plain", "engine"]) > 0).all() and found["seconds"].sel(contender="jax").isnull().all()
    (fast,), (how,) = shown(speed, found)
    assert fast["jax ms"] == fast["engine/jax"] == "-" and fast["to reach"] == "0.950"
    assert how["engine"] == "lanes, 2 together, eager, threads 1, workers 1"
    assert contenders.WITHOUT_JAX in next(iter(speed.tables(found))).notes


def test_ratios_are_those_of_each_round():
    numbers = dict(operations=10**9, runs=2, target=5.0, plain_threads=1, way="eager")
    seconds = np.array([[4.0, 6.0, 8.0], [2.0, 2.0, 2.0], [1.0, 2.0, 3.0]])
    arrays = {"seconds": (("contender", "pair"), seconds), "matrix_product_rate": ("pair", [1e9, 1e9, 1e9])}
    found = xr.Dataset({**numbers, **arrays, "plain_seconds": ("threads", [1.0, 2.0])}, {"contender": list(contenders.NAMES)})
    (fast,), _ = shown(speed, found.expand_dims(case=["x"]))
    assert (fast["engine/plain"], fast["engine/jax"]) == ("3.00 [2.00, 4.00]", "1.00 [0.500, 1.50]")
    assert (fast["plain ms"], fast["% of peak"]) == ("6,000", "50.0 [50.0, 50.0]")


def test_draws(small, monkeypatch):
    monkeypatch.setattr(draws, "RUNS", 4)
    found = draws.measure(ASKED)
    assert (found["draw"] > 0).all() and (found["step"] > 0).all()
    (row,) = shown(draws, found)[0]
    assert row["runs"] == "4"


def test_probes(small, monkeypatch):
    study = probes.find(probes.STUDY)
    some = tuple(p for p in study.optional_probes if p.name in ("gradient_norm_total", "weight_norm", "critical_sharpness"))
    defaults = tuple(p.on_clock(1) for p in study.probes)
    monkeypatch.setattr(probes, "find", lambda name: replace(study, probes=defaults, optional_probes=some))
    found = probes.measure(ASKED)
    assert found["seconds"].sizes == {"case": 1, "probes": 2, "pair": 2} and found["updates"].notnull().all()
    _, singles = shown(probes, found)
    assert {row["probe"]: (row["cost class"], row["clock"]) for row in singles} == {p.name: (p.cost, str(p.every)) for p in some}


def test_probes_are_measured_where_there_is_attention():
    assert [case.name for case in probes.transformers(())] == ["d32"]
    with pytest.raises(InputError, match=r"^Case 'mlp' has no attention for probes to read; choose d32, d64, vit, d32x1, or name"):
        probes.transformers(["vit", "mlp"])


def test_a_beginning_is_that_of_a_process_of_its_own(monkeypatch, tmp_path):
    weights = 2**26  # bytes that this process has, and the other has not
    here = torch.ones(weights // 4)
    assert beginning.peak() > here.nbytes
    size, seconds = beginning._of_process("plain", "d32x1", str(tmp_path))
    assert 10**6 < size < 10**9 and seconds > 0
    asked_for = []

    def of_process(contender, case, cache):
        asked_for.append(cache)
        return {"plain": 3_000_000, "engine": 9_000_000 // len(asked_for), "jax": 2_000_000}[contender], 1.5 * len(asked_for)

    monkeypatch.setattr(beginning, "_of_process", of_process)
    (row,) = shown(beginning, beginning.measure(Asked(cases=("mlp",))))[0]
    assert (row["plain MB"], row["engine MB"], row["engine, first MB"]) == ("3.00", "3.00", "4.50")
    assert (row["plain s"], row["engine s"], row["engine, first s"]) == ("1.50", "4.50", "3.00")
    assert len(set(asked_for)) == 1, "the second process of the engine finds what the first compiled"


@pytest.mark.extras
def test_storing(monkeypatch):
    pytest.importorskip("altair")
    record = store.large_record(20, 5)
    assert record.sizes["run"] == 20 and set(record.wb.varied) == {"lr", "seed"}
    assert {name: record.wb[name].shape for name in store.VARIABLES} == dict.fromkeys(store.VARIABLES, (20, 5))
    monkeypatch.setattr(store, "large_record", lambda: record)
    monkeypatch.setattr(store, "AXES", dict(width=8, depth=1, heads=1, context=4, batch=2, seed=[0, 1]))
    found = store.measure(ASKED)
    assert all((found[name] > 0).all() for name in ("without", "writing", "opening", "drawing", "size"))
    assert len(shown(store, found)[0]) == 5


def test_imports(monkeypatch):
    monkeypatch.setattr(imports, "TIMES", 1)
    found = imports.measure(ASKED)
    assert found["torch"].values.tolist() == [0, 0]
    assert [row["command"] for row in shown(imports, found)[0]] == ["import workbench", "workbench list"]


def test_what_a_gpu_is_measured_by_runs_on_a_cpu_too(monkeypatch):
    monkeypatch.setattr(gpu, "named", lambda names: [SMALL["decoder"]])
    monkeypatch.setattr(gpu, "RUNS", (1, 2))
    monkeypatch.setattr(gpu, "TARGETS", {2: 50.0})
    monkeypatch.setattr(gpu, "MODES", {"engine": "loop", "compiled": "lanes"})
    found = gpu.measure(ASKED)
    assert found["seconds"].dims == ("precision", "runs", "contender", "pair") and (found["seconds"] > 0).all()
    (rows,) = shown(speed, found)
    assert [(row["precision"], row["runs"], row["to reach"]) for row in rows] == [
        (precision, runs, reach) for precision in ("float32", "bfloat16") for runs, reach in (("1", ""), ("2", "50.0"))
    ]
    assert all(row["engine trained"].startswith("loop") for row in rows)


# The command


def test_all_that_was_measured_is_kept_with_where_and_when(call, monkeypatch):
    monkeypatch.setattr(imports, "TIMES", 1)
    answer = call("bench", "imports", "--out", "new/found.nc")
    assert answer.code == 0 and "workbench list" in answer.out and answer.out.rstrip().endswith("new/found.nc")
    with xr.open_datatree("new/found.nc") as tree:
        assert {"processor", "cores", "torch", "command", "created", "python", "workbench"} <= set(tree.attrs)
        assert tree["imports"]["seconds"].dims == ("command", "time")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["fast"], "There is no part 'fast'; "),
        (["speed", "--case", "d31"], "There is no case 'd31'; did you mean 'd32"),
        (["--case", "mlp"], "Case 'mlp' has no attention"),
        (["draws", "--device", "cuda"], "Part 'draws' is measured on the CPU alone; leave --device out, or ask for speed."),
        (["imports", "--case", "d32"], "Part 'imports' has no cases; "),
        (["--device", "tpu"], "Device 'tpu' cannot be used here ("),
        (["imports", "--out", "there.nc"], "Output 'there.nc' exists; "),
    ],
)
def test_bad_input_ends_in_one_sentence(call, words, sentence, tmp_path):
    (tmp_path / "there.nc").write_text("")
    answer = call("bench", *words)
    assert answer.code == 2 and not answer.out
    (line,) = answer.err.splitlines()
    assert line.startswith(f"Error: {sentence}")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(call):
    assert call("bench", "--device", "cuda").err.startswith("Error: Device 'cuda' cannot be used here (")


@pytest.mark.parametrize(("words", "value"), [(["--pairs", "0"], "0"), (["--seconds", "0"], "0"), (["--seconds", "long"], "long")])
def test_numbers_have_bounds(call, words, value):
    answer = call("bench", *words)
    assert answer.code == 2 and value in answer.err


def test_an_interrupt_ends_in_one_sentence(call, monkeypatch):
    def stop(asked):
        raise KeyboardInterrupt

    monkeypatch.setattr(imports, "measure", stop)
    answer = call("bench", "imports")
    assert (answer.code, answer.err) == (130, "Interrupted.\n")


def test_the_commands_of_the_readme_parse():
    lines = re.findall(r"^    workbench (bench.*)$", (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) > 3
    for line in lines:
        name, *words = shlex.split(line, comments=True)
        main.get_command(click.Context(main), name).make_context(name, words)
