"""`stabilize certify`: compare two models against a high-precision oracle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stabilize.cli.common import FOUND, session

if TYPE_CHECKING:
    from stabilize.records import Certificate


@click.command("certify")
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option("--input-data", metavar="FILE.npz", help="Inputs to compare on: arrays by input name, or by position.")
@click.pass_context
def certify_command(context: click.Context, before: str, after: str, input_data: str | None) -> None:
    """Compare model B with model A: error of both against a high-precision oracle.

    Without --input-data, the inputs a PyTorch model was exported with are used, or random ones for ONNX. One may be a
    PyTorch model and the other its ONNX export. Exits with 1 when B is worse than A somewhere.
    """
    from stabilize.cli.arguments import bind_inputs, read_arrays, read_model, silence_runtimes, suffix_of

    for model in (before, after):
        suffix_of(model)
    arrays = read_arrays(input_data) if input_data else None
    with session(f"reading {before} and {after}") as show:
        first, second = read_model(before), read_model(after)
        silence_runtimes(first, second)
        show("certifying")
        from stabilize.api import certify

        inputs = None if arrays is None else bind_inputs(first, arrays, str(input_data))
        certificate: Certificate = certify(first.model, second.model, inputs)
    click.echo(certificate.text())
    if not certificate.accepted:
        context.exit(FOUND)
