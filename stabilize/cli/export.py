"""`stabilize export`: write a PyTorch model as ONNX, with what is stable in it stable in the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click

from stabilize.cli.common import FOUND, codes, session

if TYPE_CHECKING:
    from torch.export import ExportedProgram


@click.command("export")
@click.argument("model")
@click.option("-o", "--output", required=True, metavar="OUT.onnx", help="Where to write; weights go to OUT.onnx.data.")
@click.option("--opset", type=int, metavar="N", help="From 18 on; by default what torch.onnx.export takes.")
@click.option("--one-file", is_flag=True, help="Weights inside the file: up to 2 GB.")
@click.option("--runtime", default="onnxruntime", show_default=True, metavar="NAME", help="What will run it.")
@click.option("--allow-fast", multiple=True, metavar="OP", help="An operator to use however the runtime computes it.")
@click.option("--select", multiple=True, callback=codes, metavar="CODES", help="Only these rules, e.g. STB101,STB3.")
@click.option("--ignore", multiple=True, callback=codes, metavar="CODES", help="All but these rules.")
@click.option("--no-certify", is_flag=True, help="Neither check rewrites nor run the file beside the model.")
@click.option("--report", "report_file", metavar="FILE.json", help="Write the full report there.")
@click.pass_context
def export_command(
    context: click.Context,
    model: str,
    output: str,
    opset: int | None,
    one_file: bool,
    runtime: str,
    allow_fast: tuple[str, ...],
    select: list[str] | None,
    ignore: list[str] | None,
    no_certify: bool,
    report_file: str | None,
) -> None:
    """Write MODEL, a .pt2 file or package.module:factory, to OUT.onnx.

    Prints the report. Exits with 1 when the file is less accurate than the model.
    """
    from stabilize.cli.arguments import check_output, read_model, suffix_of
    from stabilize.errors import UsageError
    from stabilize.files import write_file
    from stabilize.frontends.onnx_run import silence_runtime

    if suffix_of(model) == ".onnx":
        raise UsageError(f"{model} is ONNX already: stabilize optimize repairs it")
    target = check_output(output, ".onnx")
    report_path = check_output(report_file, ".json") if report_file else None
    with session(f"reading {model}") as show:
        subject = read_model(model)
        silence_runtime()
        from stabilize import export_onnx

        show(f"exporting {model}")
        opsets: dict[str, Any] = {} if opset is None else {"opset_version": opset}
        _, report = export_onnx(
            cast("ExportedProgram", subject.model),
            f=target,
            select=select,
            ignore=ignore,
            certify=not no_certify,
            runtime=runtime,
            allow_fast=allow_fast,
            return_report=True,
            external_data=not one_file,
            **opsets,
        )
        if report_path is not None:
            text = report.to_json() + "\n"
            write_file(report_path, lambda file: file.write(text.encode()))
    click.echo(str(report))
    if report.certificate is not None and not report.certificate.accepted:
        context.exit(FOUND)
