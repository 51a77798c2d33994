"""What the commands share: statuses, rule codes, what is shown while they work."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager

import click

from stabilize.cli.settings import Ranges, as_range
from stabilize.quiet import unlogged

FOUND, BAD_INPUT, DEFECT = 1, 2, 3


def codes(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> list[str] | None:
    """`--select STB101,STB2 --select STB3` as one list; None when the option is absent."""
    given = [code.strip() for value in values for code in value.split(",")]
    if not all(given):
        raise click.BadParameter("an empty code")
    return given or None


def operators(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> list[str]:
    """`--allow-fast Sigmoid,Softplus --allow-fast Mish` as one list."""
    return [name.strip() for value in values for name in value.split(",")]


def operators_given(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> list[str] | None:
    """The same; None when the option is absent, for what may stand in a file."""
    return operators(context, option, values) or None


def ranges_given(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> Ranges | None:
    """`--range x=-50:50 --range y=0:inf` by name; None when the option is absent."""
    ranges: Ranges = {}
    for value in values:
        name, equals, bounds = value.rpartition("=")
        low, colon, high = bounds.partition(":")
        if not (name and equals and colon):
            raise click.BadParameter(f"{value!r}: give NAME=LO:HI, like x=-50:50 or x=0:inf")
        try:
            pair = float(low), float(high)
        except ValueError:
            raise click.BadParameter(f"{value!r}: {bounds!r} is not two numbers, like -50:50 or 0:inf") from None
        if name in ranges:
            raise click.BadParameter(f"{value!r}: {name} was given a range before")
        try:
            ranges[name] = as_range(*pair)
        except ValueError as error:
            raise click.BadParameter(f"{value!r}: {error}") from None
    return ranges or None


@contextmanager
def session(first_stage: str) -> Generator[Callable[[str], None]]:
    """Work in quiet. The value shows what is going on, on stderr if that is a terminal."""
    with quiet():
        if not sys.stderr.isatty():
            yield lambda stage: None
            return
        from rich.console import Console
        from rich.markup import escape

        with Console(file=sys.stderr).status(escape(first_stage)) as status:
            yield lambda stage: status.update(escape(stage))


@contextmanager
def progress_bar(first_stage: str) -> Generator[Callable[[float, str], None]]:
    """The same with how much of the work is done, from 0 to 1."""
    with quiet():
        if not sys.stderr.isatty():
            yield lambda done, stage: None
            return
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(file=sys.stderr), transient=True, redirect_stdout=False) as bar:
            task = bar.add_task(escape(first_stage), total=None)
            yield lambda done, stage: bar.update(task, description=escape(stage), completed=done, total=1.0)


@contextmanager
def quiet() -> Generator[None]:
    """Keep torch's warnings and logs to itself: what matters of them is in errors."""
    with unlogged(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(torch|onnx|onnxscript)\b.*")
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, raised in the name of whoever copies a program
        yield
