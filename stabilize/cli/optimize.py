"""`stabilize optimize`: write a stable version of a model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Unpack

import click

from stabilize.cli.common import FOUND, codes, operators, session

if TYPE_CHECKING:
    from stabilize.cli.jobs import Plan
    from stabilize.files import Staged
    from stabilize.onnx.keywords import Keywords
    from stabilize.records import Finding
    from stabilize.report import Report


@click.command("optimize")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    help="Where to write: .onnx for ONNX, .pt2 for PyTorch; a folder for a folder or several models.",
)
@click.option("--in-place", is_flag=True, help="Write each model over itself; one that needs nothing stays as it is.")
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
@click.option(
    "--runtime",
    default="portable",
    show_default=True,
    help="What will run an ONNX model: portable, onnxruntime, openvino, tensorrt or tvm.",
)
@click.option(
    "--allow-fast",
    multiple=True,
    callback=operators,
    metavar="OPERATORS",
    help="Operators to keep, however the runtime computes them, e.g. Sigmoid,Softplus.",
)
@click.option("--no-certify", is_flag=True, help="Apply rewrites without checking each against the oracle.")
@click.option("--report", "report_file", metavar="FILE.json", help="Write the full report there.")
@click.pass_context
def optimize_command(
    context: click.Context,
    models: tuple[str, ...],
    output: str | None,
    in_place: bool,
    report_file: str | None,
    no_certify: bool,
    **keywords: Unpack[Keywords],
) -> None:
    """Write a stable version of MODEL to OUT, or over MODEL.

    A MODEL that is a folder stands for every .onnx file in it and below: what else is in it (external data,
    configurations) is copied to OUT. Of several models all are written, or none is. A model that needs nothing is
    written byte for byte as it was.

    Prints one line per rewrite. Exits with 1 when something was found and left as it was.
    """
    from stabilize.cli.arguments import check_output
    from stabilize.cli.jobs import plan
    from stabilize.files import Staged

    todo = plan(models, output, in_place)
    report_path = check_output(report_file, ".json") if report_file else None
    keywords["certify"] = not no_certify
    with session(f"reading {todo.jobs[0].model}") as show, Staged() as staged:
        reports = _rewritten(todo, keywords, staged, show)
        if report_path is not None:
            text = _as_json(reports) + "\n"
            staged.add(report_path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        staged.commit()
    for job, report in zip(todo.jobs, reports, strict=True):
        _print_report(report, job.output)
    if any(report.declined or _without_a_fix(report) for report in reports):
        context.exit(FOUND)


def _rewritten(todo: Plan, keywords: Keywords, staged: Staged, show: Callable[[str], None]) -> list[Report]:
    """What was found in each model; what became of it, and what stands beside it, is staged."""
    from stabilize.api import optimize
    from stabilize.cli.arguments import read_model
    from stabilize.cli.jobs import stage
    from stabilize.onnx.folder import stage_others
    from stabilize.output.text import counted

    for source, target in todo.folders:
        stage_others(source, target, staged)
    reports: list[Report] = []
    for job in todo.jobs:
        show(f"reading {job.model}")
        subject = read_model(job.model)

        def tell(done: int, rule: str, name: str = job.model) -> None:
            show(f"{name}: certifying {rule}, {counted(done, 'rewrite')} so far")

        optimized, report = optimize(subject.model, **keywords, return_report=True, progress=tell)
        show(f"writing {job.output}")
        stage(job, subject, optimized if report.rewrites else None, staged)
        reports.append(dataclasses.replace(report, model=subject.name))
    return reports


def _as_json(reports: list[Report]) -> str:
    """The report of one model, or those of several under "reports"."""
    from stabilize.records import SCHEMA_VERSION

    if len(reports) == 1:
        return reports[0].to_json()
    whole = {"schema_version": SCHEMA_VERSION, "reports": [report.to_dict() for report in reports]}
    return json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False)


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
