"""Commands around the work: check, lab, course."""

from pathlib import Path

import click

from .. import lab as laboratory
from ..errors import unknown


@click.command()
@click.argument("studies", nargs=-1)
def check(studies: tuple[str, ...]) -> None:
    """Put studies through the conformance battery.

    All of them by default; the exit code is 1 if one has a problem.
    """
    from ..catalogue import entries, find

    names = [entry.name for entry in entries()]
    for name in studies:
        if name not in names:
            raise unknown("study", name, names)
    from ..testing import check_study

    found = {name: check_study(find(name)) for name in studies or names}
    for name, problems in found.items():
        click.echo(f"{name}: {f'{len(problems)} problems' if problems else 'passes'}")
        for problem in problems:
            click.echo(f"  {problem}")
    if any(found.values()):
        raise SystemExit(1)


@click.command(context_settings=dict(ignore_unknown_options=True))
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def lab(options: tuple[str, ...]) -> None:
    """Open the tour in JupyterLab.

    OPTIONS go to JupyterLab, such as --no-browser. Without a clone the notebooks are copied to ./stability-notebooks first.
    """
    laboratory.require("JupyterLab")
    tour = _prepared()
    click.echo(f"Opening {tour} in JupyterLab ...")
    laboratory.launch(tour, options)


@click.command(context_settings=dict(ignore_unknown_options=True))
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def course(options: tuple[str, ...]) -> None:
    """Serve the notebooks as pages without code, with Voila.

    OPTIONS go to Voila, such as --no-browser, or --Voila.ip=0.0.0.0 for other machines. Each open page has a kernel, and of each notebook
    one runs in advance. Without a clone the notebooks are copied to ./stability-notebooks first.
    """
    laboratory.require("Voila")
    folder = _prepared().parent
    click.echo(f"Serving the notebooks in {folder} as pages without code, with Voila; Ctrl-C stops it.")
    click.echo("Each open page has its own kernel, and of each notebook one runs in advance for the next visitor.")
    laboratory.serve(folder, options)


def _prepared() -> Path:
    kept = laboratory.kept()
    tour = laboratory.prepare()
    for path in kept:
        click.echo(f"Kept your {path}, which differs from the one that comes with this version.")
    return tour
