"""The command line, a module for each kind of command. Each function imports what it needs, so that looking never waits for torch."""

import click

from ..errors import InputError

INTERRUPTED = 130


class Sentence(click.ClickException):
    """Bad input on the command line: its sentence on standard error, exit code 2."""

    exit_code = 2


class Commands(click.Group):
    """The group of all commands; bad input and Ctrl-C end in one sentence."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except InputError as error:
            raise Sentence(str(error)) from error
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            raise SystemExit(INTERRUPTED) from None
