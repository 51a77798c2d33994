"""The command line: one file a command.

Exit status: 0 done, nothing unsafe left; 1 something was found (lint), or found and not fixed, or a certificate was
declined; 2 bad usage or unreadable input, told in one line on stderr; 3 a defect of this program, with its traceback.
Results go to stdout, progress to stderr and only to a terminal.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence

import click

import stabilize
from stabilize.cli.certify import certify_command
from stabilize.cli.common import BAD_INPUT, DEFECT
from stabilize.cli.convert import convert_command
from stabilize.cli.export import export_command
from stabilize.cli.lint import lint_command
from stabilize.cli.optimize import optimize_command
from stabilize.cli.rules import explain_command, rules_command
from stabilize.errors import StabilizeError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # formulas have letters that not every terminal has
    try:
        # A command that ends normally returns None; ctx.exit(n) makes click return n.
        status: object = commands.main(
            args=None if argv is None else list(argv), prog_name="stabilize", standalone_mode=False
        )
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # click makes the first into the second: nobody reads on, which is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        return BAD_INPUT
    except (click.ClickException, StabilizeError, OSError) as error:
        click.echo(f"stabilize: {one_line(error)}", err=True)
        return BAD_INPUT
    except (click.Abort, KeyboardInterrupt):
        click.echo("stabilize: interrupted", err=True)
        return 130
    except Exception:
        traceback.print_exc()
        click.echo("stabilize: this is a defect of stabilize itself, please report it", err=True)
        return DEFECT
    return status if isinstance(status, int) else 0


def _nowhere() -> io.TextIOWrapper:
    """In the place of a stream that was closed before the start."""
    return open(os.devnull, "w")


def one_line(error: BaseException) -> str:
    """What went wrong, in one line."""
    match error:
        case click.ClickException():
            text = error.format_message()
        case OSError(filename=str(name), strerror=str(reason)):
            text = f"{name}: {reason}"
        case _:
            text = str(error) or type(error).__name__
    return " ".join(text.split())


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(stabilize.__version__, prog_name="stabilize")
def commands() -> None:
    """Rewrite a model for numerical stability, with proof.

    MODEL is a .onnx file, a .pt2 file (torch.export.save), or package.module:factory, a callable that returns
    (module, example_inputs). A factory is your own code and is run; a .pt2 file that holds anything beyond tensors
    and operator calls is refused, since torch would run it.
    """


for command in (
    lint_command,
    optimize_command,
    certify_command,
    convert_command,
    export_command,
    rules_command,
    explain_command,
):
    commands.add_command(command)
