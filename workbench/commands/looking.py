"""Commands that look: list, atlas, report. None of them imports torch or a study."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

STYLES = {"holds": "green", "fails": "bold red", "planned": "dim"}
WIDTH = 140
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


@click.command("list")
@AS_JSON
def studies(as_json: bool) -> None:
    """List the studies."""
    from ..catalogue import listed

    rows = listed()
    if as_json:
        _echo_json({"studies": rows})
        return
    _print(("name", "title", "question"), [[row["name"], row["title"], row["question"]] for row in rows])
    click.echo("\nRun one with: workbench run NAME --budget demo")


@click.command()
@AS_JSON
def atlas(as_json: bool) -> None:
    """List the published systems with their verdicts.

    A system holds or fails as its study's shipped record says, and is planned until there is one.
    """
    from .. import atlas

    rows = atlas.table()
    if as_json:
        _echo_json({"systems": rows})
        return
    cells = [[str(row["n"]), row["slug"], row["title"], row["study"] or "", Text(_standing(row), STYLES[row["status"]])] for row in rows]
    _print(("n", "slug", "system", "study", "status"), cells)
    counts = {status: sum(row["status"] == status for row in rows) for status in STYLES}
    click.echo(f"\n{len(rows)} systems: {counts['holds']} hold, {counts['fails']} fail, {counts['planned']} are planned.")


@click.command()
@click.argument("record")
@click.option("--out", type=Path, help="File to write; by default the record's name with .html, in the current folder.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def report(record: str, out: Path | None, force: bool) -> None:
    """Write the report of a record.

    RECORD is a file, or the name of a study that ships one.
    """
    from ..opening import open_record

    path = out or Path(f"{Path(record).stem}.html")
    opened = open_record(record)
    click.echo(f"Report  {report_writer(path, force)(opened)}")


def report_writer(path: Path, force: bool) -> Any:
    """`report` with its path bound; InputError now, before hours of training, if it cannot work."""
    from ..record import writable

    writable(path, overwrite=force)
    from ..report import report

    return partial(report, path=path, overwrite=force)


def _standing(row: dict[str, Any]) -> str:
    held = sum(claim["status"] == "holds" for claim in row["claims"])
    return f"{row['status']} ({held} of {len(row['claims'])})" if row["claims"] else row["status"]


def _print(columns: tuple[str, ...], rows: list[list[str | Text]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, no_wrap=name in ("n", "name", "slug"), justify="right" if name == "n" else "left")
    for row in rows:
        # Text, because a plain string would be read as markup.
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)


def _echo_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))
