"""The command line: `stabilize optimize` and `stabilize certify`.

Exit status: 0 done, nothing unsafe left; 1 something found was not fixed, or a certificate was declined; 2 bad usage
or unreadable input, told in one line on stderr; 3 a defect of this program, with its traceback. Results go to stdout,
progress to stderr and only to a terminal.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import click

import stabilize
from stabilize.errors import StabilizeError

if TYPE_CHECKING:
    from stabilize.report import Certificate, Finding, Report

FOUND, BAD_INPUT, DEFECT = 1, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
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


def _codes(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> list[str] | None:
    """`--select STB101,STB2 --select STB3` as one list; None when the option is absent."""
    codes = [code.strip() for value in values for code in value.split(",")]
    if not all(codes):
        raise click.BadParameter("an empty code")
    return codes or None


@commands.command("optimize")
@click.argument("model")
@click.option("-o", "--output", required=True, metavar="OUT", help="Where to write: .onnx for ONNX, .pt2 for PyTorch.")
@click.option("--form", default="softmax", show_default=True, help="softmax, or collapse-free (also exact).")
@click.option(
    "--allow",
    type=click.Choice(["exact", "approximate"]),
    default="exact",
    show_default=True,
    help="Whether a rewrite may drop an epsilon or a clamp.",
)
@click.option("--select", multiple=True, callback=_codes, metavar="CODES", help="Only these rules, e.g. STB101,STB3.")
@click.option("--ignore", multiple=True, callback=_codes, metavar="CODES", help="All but these rules.")
@click.option("--no-certify", is_flag=True, help="Apply rewrites without checking each against the oracle.")
@click.option("--report", "report_file", metavar="FILE.json", help="Write the full report there.")
@click.pass_context
def optimize_command(
    context: click.Context,
    model: str,
    output: str,
    form: str,
    allow: Literal["exact", "approximate"],
    select: list[str] | None,
    ignore: list[str] | None,
    no_certify: bool,
    report_file: str | None,
) -> None:
    """Write a stable version of MODEL to OUT.

    Prints one line per rewrite. Exits with 1 when something was found and left as it was.
    """
    from stabilize.arguments import check_output, read_model, suffix_of, write_model
    from stabilize.files import write_file
    from stabilize.report import counted

    target = check_output(output, suffix_of(model) or ".pt2")
    report_path = check_output(report_file, ".json") if report_file else None
    with _session(f"reading {model}") as show:
        subject = read_model(model)
        from stabilize.api import optimize

        optimized, report = optimize(
            subject.model,
            form=form,
            allow=allow,
            select=select,
            ignore=ignore,
            certify=not no_certify,
            return_report=True,
            progress=lambda done, rule: show(f"certifying {rule}, {counted(done, 'rewrite')} so far"),
        )
        report = dataclasses.replace(report, model=subject.name)
        show(f"writing {output}")
        write_model(optimized, target, subject)
        if report_path is not None:
            text = report.to_json() + "\n"
            write_file(report_path, lambda file: file.write(text.encode()))
    _print_report(report, output)
    if report.declined or _without_a_fix(report):
        context.exit(FOUND)


@commands.command("certify")
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option("--input-data", metavar="FILE.npz", help="Inputs to compare on: arrays by input name, or by position.")
@click.pass_context
def certify_command(context: click.Context, before: str, after: str, input_data: str | None) -> None:
    """Compare model B with model A: error of both against a high-precision oracle.

    Without --input-data, the inputs a PyTorch model was exported with are used, or random ones for ONNX. One may be a
    PyTorch model and the other its ONNX export. Exits with 1 when B is worse than A somewhere.
    """
    from stabilize.arguments import bind_inputs, read_arrays, read_model, silence_runtimes, suffix_of

    for model in (before, after):
        suffix_of(model)
    arrays = read_arrays(input_data) if input_data else None
    with _session(f"reading {before} and {after}") as show:
        first, second = read_model(before), read_model(after)
        silence_runtimes(first, second)
        show("certifying")
        from stabilize.api import certify

        inputs = None if arrays is None else bind_inputs(first, arrays, str(input_data))
        certificate: Certificate = certify(first.model, second.model, inputs)
    click.echo(certificate.text())
    if not certificate.accepted:
        context.exit(FOUND)


# -- what the user sees ----------------------------------------------------------------------------------------------


def _print_report(report: Report, output: str) -> None:
    from stabilize.report import place, summary

    for rewrite in report.rewrites:
        click.echo(f"{place(rewrite)}: {rewrite.code} {rewrite.name}: {rewrite.naive} → {rewrite.stable}")
    for declined in report.declined:
        click.echo(f"{place(declined)}: {declined.code} {declined.name}: declined: {declined.reason}")
    for finding in _without_a_fix(report):
        click.echo(f"{place(finding)}: {finding.code} {finding.name}: not fixed: {finding.message}")
    click.echo(f"{output}: {summary(report)}")


def _without_a_fix(report: Report) -> list[Finding]:
    """Findings that nothing was proposed for: they tell of a bug that no rewrite may touch."""
    told = {(declined.code, declined.node) for declined in report.declined}
    return [f for f in report.findings if not f.fixable and f.severity != "info" and (f.code, f.node) not in told]


@contextmanager
def _session(first_stage: str) -> Generator[Callable[[str], None]]:
    """Keep torch's warnings and logs to itself: what matters of them is in errors.

    The value shows what is going on, on stderr if that is a terminal.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(torch|onnx|onnxscript)\b.*")
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, raised in the name of whoever copies a program
        before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield from _progress(first_stage)
        finally:
            logging.disable(before)


def _progress(first_stage: str) -> Generator[Callable[[str], None]]:
    if not sys.stderr.isatty():
        yield lambda stage: None
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(file=sys.stderr).status(escape(first_stage)) as status:
        yield lambda stage: status.update(escape(stage))


if __name__ == "__main__":
    sys.exit(main())
