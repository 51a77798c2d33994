"""`stabilize convert`: write a model that computes in half precision where that is safe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stabilize.cli.common import FOUND, ranges_given, session

if TYPE_CHECKING:
    from stabilize.cli.settings import Ranges


@click.command("convert")
@click.argument("model")
@click.option("--to", required=True, type=click.Choice(["fp16", "bf16"]), help="float16 or bfloat16.")
@click.option("-o", "--output", required=True, metavar="OUT.onnx", help="Where to write.")
@click.option(
    "--range",
    "ranges",
    multiple=True,
    callback=ranges_given,
    metavar="NAME=LO:HI",
    help="What an input may be: x=-50:50.",
)
@click.option("--input-data", metavar="FILE.npz", help="Inputs as they occur: arrays by input name, or by position.")
@click.option("--narrow-io", is_flag=True, help="Inputs and outputs in the format too, where their values allow it.")
@click.option("--keep", multiple=True, metavar="NAME", help="A node, operator or value to leave in float32.")
@click.option("--tolerance", type=float, metavar="ERROR", help="Of an output, relative to its largest entry.")
@click.option("--no-certify", is_flag=True, help="Neither judge the result nor widen it where it is inaccurate.")
@click.option("--report", "report_file", metavar="FILE.json", help="Write the full report there.")
@click.pass_context
def convert_command(
    context: click.Context,
    model: str,
    to: str,
    output: str,
    ranges: Ranges | None,
    input_data: str | None,
    narrow_io: bool,
    keep: tuple[str, ...],
    tolerance: float | None,
    no_certify: bool,
    report_file: str | None,
) -> None:
    """Write MODEL, a .onnx file, to OUT.onnx with half precision where that is safe.

    Prints what stays float32 and why. Exits with 1 when the result is less accurate than the tolerance.
    """
    from stabilize.cli.arguments import bind_names, check_output, read_arrays, read_model, silence_runtimes, suffix_of
    from stabilize.errors import UsageError
    from stabilize.files import write_file

    if suffix_of(model) != ".onnx":
        raise UsageError(f"{model}: only .onnx files are converted: export it first")
    target = check_output(output, ".onnx")
    report_path = check_output(report_file, ".json") if report_file else None
    arrays = read_arrays(input_data) if input_data else None
    with session(f"reading {model}") as show:
        subject = read_model(model)
        silence_runtimes(subject)
        from stabilize import convert

        _, report = convert(
            subject.model,
            to,
            ranges=ranges,
            input_data=None if arrays is None else bind_names(subject, arrays, str(input_data)),
            keep_io_types=not narrow_io,
            keep=keep,
            tolerance=tolerance,
            certify=not no_certify,
            f=target,
            return_report=True,
            progress=show,
        )
        if report_path is not None:
            text = report.to_json() + "\n"
            write_file(report_path, lambda file: file.write(text.encode()))
    click.echo(str(report))
    if report.certificate is not None and not report.certificate.accepted:
        context.exit(FOUND)
