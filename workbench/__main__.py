"""The command line: python -m workbench, also installed as `workbench`."""

import click

from . import __version__
from .commands import Commands, looking, making, measuring, tending


@click.group(cls=Commands, context_settings=dict(help_option_names=["-h", "--help"], max_content_width=110))
@click.version_option(__version__, prog_name="workbench")
def main() -> None:
    """A workbench for training stability: perturb small models while they train, and analyse the labelled record."""


for command in (
    looking.studies,
    making.run,
    tending.check,
    looking.atlas,
    looking.report,
    making.rebuild,
    measuring.bench,
    tending.lab,
    tending.course,
):
    main.add_command(command)

if __name__ == "__main__":
    main()
