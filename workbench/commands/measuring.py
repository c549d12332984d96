"""The command that measures: bench."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from ..bench import PARTS, Asked
from ..bench.tables import Table
from ..errors import InputError, unknown
from .looking import WIDTH


@click.command()
@click.argument("what", nargs=-1, metavar=f"[{'|'.join(PARTS)}]...")
@click.option("--case", "cases", multiple=True, metavar="NAME", help="A model to measure; by default all that a part has.")
@click.option("--pairs", type=click.IntRange(min=1), default=9, show_default=True, help="Rounds in which the contenders take turns.")
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True, help="How long one of them takes in a round."
)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda; on a GPU speed alone is measured.")
@click.option("--out", type=Path, metavar="FILE.nc", help="File for all that was measured.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def bench(what: Sequence[str], out: Path | None, force: bool, **options: Any) -> None:
    """Measure speed beside a plain loop and JAX, memory, and what probes, drawing and storing take.

    \b
    workbench bench                                  # all of it, some twenty-five minutes on two cores
    workbench bench speed --case d32 --pairs 3
    workbench bench --out mine.nc
    """
    parts = _parts(what, options["device"])
    asked = Asked(**options)
    _check(what, parts, asked)
    if out:
        from ..record import writable

        writable(out, overwrite=force)
    from ..bench import machine

    attrs = machine.described()
    click.echo(machine.line(attrs))
    found = {}
    for part in parts:
        found[part] = _measured(part, asked)
        if out:
            _save(found, attrs, out)
    if out:
        click.echo(f"\nMeasured  {out}")


def _parts(what: Sequence[str], device: str) -> Sequence[str]:
    for name in what:
        if name not in PARTS:
            raise unknown("part", name, PARTS)
    if device == "cpu":
        return list(dict.fromkeys(what)) or PARTS
    if other := [name for name in what if name != "speed"]:
        raise InputError(f"Part {other[0]!r} is measured on the CPU alone; leave --device out, or ask for speed.")
    return ["speed"]


def _check(what: Sequence[str], parts: Sequence[str], asked: Asked) -> None:
    """InputError now, before minutes of measuring, for what cannot be measured."""
    from ..bench import cases, probes
    from ..engine import devices

    cases.named(asked.cases)
    devices.usable(asked.device, "cpu")
    if asked.cases and (without := [part for part in what if part in ("store", "imports")]):
        raise InputError(f"Part {without[0]!r} has no cases; leave --case out, or name the parts to measure, such as speed.")
    if "probes" in parts:
        probes.transformers(asked.cases)


def _measured(part: str, asked: Asked) -> Any:
    module = import_module(f"..bench.{part}", __package__)
    with Console(stderr=True).status("") as status:
        found = module.measure(replace(asked, say=status.update))
    for table in module.tables(found):
        _print(table)
    return found


def _print(table: Table) -> None:
    grid = Grid(box=None, pad_edge=False, header_style="bold")
    for name in table.columns:
        grid.add_column(name, justify="left" if name in table.words else "right")
    for row in table.rows:
        grid.add_row(*map(Text, row))  # Text, because a plain string would be read as markup
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    console.print(f"\n{table.title}\n", grid, *(Text(note, "dim") for note in table.notes))


def _save(found: Mapping[str, Any], attrs: Mapping[str, Any], path: Path) -> None:
    import xarray as xr

    from ..record import unwritable

    tree = xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), **found})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tree.to_netcdf(path, engine="netcdf4")
    except (OSError, RuntimeError) as error:
        raise unwritable(path, error) from error
