"""`stabilize optimize`: write a stable version of a model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

import click

from stabilize.cli.common import FOUND, codes, session

if TYPE_CHECKING:
    from stabilize.records import Finding
    from stabilize.report import Report


@click.command("optimize")
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
@click.option("--select", multiple=True, callback=codes, metavar="CODES", help="Only these rules, e.g. STB101,STB3.")
@click.option("--ignore", multiple=True, callback=codes, metavar="CODES", help="All but these rules.")
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
    from stabilize.cli.arguments import check_output, read_model, suffix_of, write_model
    from stabilize.files import write_file
    from stabilize.output.text import counted

    target = check_output(output, suffix_of(model) or ".pt2")
    report_path = check_output(report_file, ".json") if report_file else None
    with session(f"reading {model}") as show:
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


def _print_report(report: Report, output: str) -> None:
    from stabilize.output.places import place
    from stabilize.report import summary

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
