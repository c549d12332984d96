"""Commands that train: run, rebuild."""

import csv
import json
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ..errors import InputError, unknown
from ..lab import command as lab_command
from .looking import report_writer

UNITS = {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
COUNT = click.IntRange(min=1)


class Memory(click.ParamType):
    """An amount of memory as a person writes it: 4GB, 500 MB, 2GiB."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"([0-9]+\.?[0-9]*) *([a-z]*)", str(value).strip().lower())
        unit = UNITS.get((found[2] or "b").upper()) if found else None
        if not found or unit is None or not float(found[1]):
            self.fail(f"{value!r} is not an amount of memory such as 4GB or 500MB.", param, ctx)
        return float(found[1]) * unit


@click.command()
@click.argument("study")
@click.option(
    "--budget", metavar="NAME", help="A design and steps of the study's own: smoke (3 seconds), demo (2 minutes), full, or another of its."
)
@click.option("--preset", metavar="NAME", help="A named starting point of the study.")
@click.option("--set", "settings", multiple=True, metavar="KNOB=V1,V2", help="Values of a knob; several knobs are crossed.")
@click.option("--seeds", type=COUNT, help="Repeat every run with this many seeds: 0, 1, ...")
@click.option("--steps", type=COUNT, help="Updates of each run.")
@click.option("--probe", "probes", multiple=True, metavar="NAME", help="Measure an optional probe of the study too.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda; auto measures which is faster.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True, help="Floating-point numbers.")
@click.option(
    "--mode",
    type=click.Choice(["auto", "lanes", "loop", "compiled"]),
    default="auto",
    show_default=True,
    help="Runs mapped together, one by one, or compiled; auto measures.",
)
@click.option("--memory", type=Memory(), help="Memory to use, such as 4GB; by default half of what is free.")
@click.option("--keep", type=COUNT, metavar="N", help="Keep all states every N steps, for forks.")
@click.option("--out", type=Path, help="Record to write; by default STUDY.nc in the current folder.")
@click.option("--report", type=Path, help="Write a report too.")
@click.option("--force", is_flag=True, help="Replace the record and the report if they exist.")
@click.option("--resume", is_flag=True, help="Go on where an interrupted or killed run with the same options stopped.")
def run(study: str, settings: Sequence[str], seeds: int | None, out: Path | None, report: Path | None, force: bool, **options: Any) -> None:
    """Train many runs, write their record.

    \b
    workbench run entropy_collapse --budget demo
    workbench run entropy_collapse --set lr=1e-3,1e-2 --set qk_norm=false,true --seeds 4 --steps 500 --out my.nc
    """
    out = out or Path(f"{study}.nc")
    with stoppable(out, "The same command with --resume goes on."):
        from ..catalogue import find

        found = find(study)
        write = report_writer(report, force) if report else None
        chosen = axes(found, settings, seeds)
        from ..rebuild import finished

        record = finished(found, out=out, overwrite=force, progress=True, **options, **chosen)
    click.echo(f"Record  {out}")
    if write:
        click.echo(f"Report  {write(record, study=found)}")
    click.echo("\n".join(told(found, record)))


@click.command()
@click.argument("study")
def rebuild(study: str) -> None:
    """Compute a shipped record anew.

    The full budget of STUDY, its record rounded, its claims judged; record and verdicts go into datasets/.
    """
    from ..places import datasets

    with stoppable(datasets() / f"{study}.rebuilding"):
        from .. import rebuild

        path = rebuild.rebuild(study, progress=True)
    click.echo(f"Record  {path} ({path.stat().st_size / 1e3:.0f} kB)")


@contextmanager
def stoppable(out: Path, hint: str = "") -> Iterator[None]:
    """Ctrl-C and SIGTERM end the command with what stays readable and a `hint`, and 128 + the signal's number as exit code."""
    received = [signal.SIGINT]

    def stop(number: int, frame: Any) -> None:
        received[0] = signal.Signals(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        click.echo(_what_stays(out, hint), err=True)
        raise SystemExit(128 + received[0]) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _what_stays(out: Path, hint: str) -> str:
    from ..store import partial_path

    partial = partial_path(out)
    if not partial.exists():
        return "Interrupted before anything was measured; nothing was written."
    name = str(partial if out.exists() else out)
    return f"Interrupted; what was measured stands in {str(partial)!r} and opens with wb.open({name!r}). {hint}".rstrip()


def axes(study: Any, settings: Sequence[str], seeds: int | None) -> dict[str, list[Any]]:
    """The values of each knob named by KNOB=V1,V2; a value that holds a comma is put in double quotes."""
    from ..design import axes

    known, out = axes(study.knobs), {}
    for setting in settings:
        name, given, text = setting.partition("=")
        if name not in known:
            raise unknown("knob", name, known)
        if not given:
            raise InputError(f"--set {setting!r} gives no value; write --set {name}=VALUE or --set {name}=VALUE,VALUE.")
        texts = next(csv.reader([text], skipinitialspace=True), [""])
        out.setdefault(name, []).extend(known[name].parse(value) for value in texts)
    if seeds is not None and "seed" in out:
        raise InputError("Seeds are given twice; use either --seeds N or --set seed=0,1.")
    return out if seeds is None else out | {"seed": list(range(seeds))}


def told(study: Any, record: Any) -> Iterator[str]:
    """What to tell of a finished run: what happened, verdicts, where to look next."""
    diverged = int(record["events"]["diverged_step"].notnull().sum())
    yield ""
    yield from study.summary(record) if study.summary else [f"{diverged} of {record.sizes['run']} runs diverged."]
    yield from verdict_lines(json.loads(record.attrs.get("claims", "[]")))
    yield ""
    yield f"Open the lab with: {lab_command()}"


def verdict_lines(verdicts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each claim that the runs decide, and one for those they do not."""
    from ..claim import MIN_SEEDS

    decided = [verdict for verdict in verdicts if verdict["status"] != "undecided"]
    for verdict in decided:
        numbers = f"{verdict['mean']:.3g} [{verdict['low']:.3g}, {verdict['high']:.3g}] {verdict['units']}".removesuffix(" 1")
        bound = f"expected {'above' if verdict['above'] else 'below'} {verdict['threshold']:g}"
        yield f"Claim {verdict['status']}: {verdict['statement']} ({numbers}, {bound}, {verdict['n']} seeds)."
    if len(decided) < len(verdicts):
        few = f"; claims are judged over at least {MIN_SEEDS} seeds" if any(0 < v["n"] < MIN_SEEDS for v in verdicts) else ""
        yield f"{len(verdicts) - len(decided)} of {len(verdicts)} claims stay undecided on these runs{few}."
