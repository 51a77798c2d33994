"""`stabilize lint`: what in a model floating point breaks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, cast

import click

from stabilize.cli.arguments import bind_names, check_output, read_arrays, read_model, silence_runtimes
from stabilize.cli.common import FOUND, codes, operators_given, progress_bar, ranges_given
from stabilize.cli.settings import FORMATS, LEVELS, Options, as_budget, configured
from stabilize.errors import UsageError
from stabilize.files import write_file

if TYPE_CHECKING:
    from stabilize.records import Finding
    from stabilize.report import Report


def _budget(_context: click.Context, _option: click.Parameter, value: float | None) -> float | None:
    try:
        return None if value is None else as_budget(value)
    except ValueError:
        raise click.BadParameter(f"{value}: give a number of seconds, 0 or more") from None


@click.command("lint")
@click.argument("model")
@click.option("--format", "form", type=click.Choice(FORMATS), help="How findings are written.  [default: text]")
@click.option("-o", "--output", metavar="FILE", help="Write there instead of to stdout.")
@click.option("--select", multiple=True, callback=codes, metavar="CODES", help="Only these rules, e.g. STB101,STB3.")
@click.option("--ignore", multiple=True, callback=codes, metavar="CODES", help="All but these rules.")
@click.option(
    "--range",
    "ranges",
    multiple=True,
    callback=ranges_given,
    metavar="NAME=LO:HI",
    help="What an input may be: x=-50:50.",
)
@click.option("--runtime", help="What will run an ONNX model: onnxruntime, openvino, …  [default: portable]")
@click.option(
    "--allow-fast",
    multiple=True,
    callback=operators_given,
    metavar="OPERATORS",
    help="Operators to keep, however the runtime computes them.",
)
@click.option("--input-data", metavar="FILE.npz", help="Inputs as they occur: arrays by input name, or by position.")
@click.option(
    "--fail-on", type=click.Choice(LEVELS), help="The severity from which the status is 1.  [default: warning]"
)
@click.option("--statistics/--no-statistics", default=None, help="Count the findings by rule instead of listing them.")
@click.option(
    "--budget",
    type=float,
    callback=_budget,
    metavar="SECONDS",
    help="Time for inputs that prove findings; 0 looks for none.  [default: 60]",
)
@click.option("--witness-dir", metavar="DIR", help="Save those inputs there, as .npz files.")
@click.option("--seed", type=click.IntRange(min=0), help="Of that search.  [default: 0]")
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="A pyproject.toml to read options from."
)
@click.option("--no-config", is_flag=True, help="Read no pyproject.toml.")
@click.pass_context
def lint_command(
    context: click.Context,
    model: str,
    output: str | None,
    config: Path | None,
    no_config: bool,
    **given: Unpack[Options],
) -> None:
    """Find what in MODEL floating point breaks, where, and what to write instead.

    An error was seen to happen on an input. Options may stand in [tool.stabilize] of the nearest pyproject.toml, by
    their names (--range as ranges = {x = [-50, 50]}); the command line wins. Exits with 1 when there is a finding of
    the severity --fail-on.
    """
    if config is not None and no_config:
        raise UsageError("--config and --no-config exclude each other")
    options = _merged(Options() if no_config else configured(config), given)
    form, counts = options.get("form", "text"), options.get("statistics", False)
    if counts and form not in ("text", "json"):
        raise UsageError(f"--statistics is written as text or json, not as {form}")
    target = check_output(output) if output is not None else None
    if target is not None and target == Path(model).resolve():
        raise UsageError(f"{output}: is the model itself")
    report = _linted(model, options)
    if target is not None:
        written = _text(form, report, counts).encode()
        write_file(target, lambda file: file.write(written))
    elif form == "text" and not counts and sys.stdout.isatty():
        _show(report)
    else:
        click.echo(_text(form, report, counts), nl=False)
    if _fails(report.findings, options.get("fail_on", "warning")):
        context.exit(FOUND)


def _merged(configuration: Options, given: Options) -> Options:
    """What the command line says, else what the configuration does; of ranges, one by one."""
    options = {**configuration, **{key: value for key, value in given.items() if value is not None}}
    options["ranges"] = configuration.get("ranges", {}) | (given.get("ranges") or {})
    return cast("Options", options)


def _linted(model: str, options: Options) -> Report:
    file = options.get("input_data")
    arrays = read_arrays(file) if file is not None else None
    with progress_bar(f"reading {model}") as show:
        subject = read_model(model)
        silence_runtimes(subject)
        from stabilize.api import lint

        report = lint(
            subject.model,
            ranges=options.get("ranges"),
            input_data=None if arrays is None else bind_names(subject, arrays, str(file)),
            select=options.get("select"),
            ignore=options.get("ignore"),
            runtime=options.get("runtime", "portable"),
            allow_fast=options.get("allow_fast", ()),
            budget=options.get("budget", 60.0),
            witness_dir=options.get("witness_dir"),
            seed=options.get("seed", 0),
            progress=show,
        )
    return replace(report, model=subject.name)


def _text(form: str, report: Report, counts: bool) -> str:
    from stabilize.output import github, json, sarif, statistics, text

    if counts:
        return (statistics.json_text if form == "json" else statistics.text)(report.model, report.findings)
    writers = {"text": text.text, "json": json.text, "sarif": sarif.text, "github": github.text}
    return writers[form](report.model, report.findings)


def _show(report: Report) -> None:
    from rich.console import Console

    from stabilize.output.text import coloured

    Console(highlight=False, soft_wrap=True).print(coloured(report.model, report.findings), end="")


def _fails(findings: Sequence[Finding], level: str) -> bool:
    from stabilize.records import SEVERITIES

    return level != "never" and any(f.severity in SEVERITIES[: SEVERITIES.index(level) + 1] for f in findings)
