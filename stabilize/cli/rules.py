"""`stabilize rules` and `stabilize explain`: what the rules say of themselves."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from typing import TYPE_CHECKING

import click

from stabilize.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from stabilize.passes.rule import Rule
    from stabilize.records import Json


@click.command("rules")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def rules_command(form: str) -> None:
    """List the rules: code, name, severity, what a fix may change, what is found.

    A rule without a fix only reports. Its default severity is shown: an error is one that an input was seen to cause.
    """
    from stabilize.output import json
    from stabilize.output.text import aligned
    from stabilize.passes.rules import ALL
    from stabilize.records import SCHEMA_VERSION

    if form == "json":
        rules: list[Json] = [
            {
                "code": rule.code,
                "name": rule.name,
                "severity": rule.severity,
                "safety": rule.safety,
                "fixable": rule.fixable,
                "summary": rule.summary,
            }
            for rule in ALL
        ]
        click.echo(json.written({"schema_version": SCHEMA_VERSION, "rules": rules}), nl=False)
        return
    rows = [_row(rule) for rule in ALL]
    if sys.stdout.isatty():
        from rich.table import Table

        table = Table(*_COLUMNS, box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(*row)
        _show(table)
    else:
        click.echo(aligned([_COLUMNS, *rows]), nl=False)


_COLUMNS = ("code", "name", "severity", "safety", "fixable", "what it finds")


def _row(rule: Rule) -> tuple[str, ...]:
    return (
        rule.code,
        rule.name,
        rule.severity,
        rule.safety or "no fix",
        "yes" if rule.fixable else "no",
        rule.summary,
    )


@click.command("explain")
@click.argument("rule", metavar="CODE|NAME")
def explain_command(rule: str) -> None:
    """Show the page of a rule: what it finds, why that is unstable, an example, errors, safety, source."""
    from stabilize.output import page

    found = _named(rule)
    if sys.stdout.isatty():
        from rich.markdown import Markdown

        _show(Markdown(page.markdown(found)))
    else:
        click.echo(page.plain(found), nl=False)


def _named(text: str) -> Rule:
    """The rule of this code or name, in any case; UsageError with those that are near when there is none."""
    from stabilize.passes.rules import ALL

    by_name = {name.lower(): rule for rule in ALL for name in (rule.code, rule.name)}
    wanted = text.strip().lower()
    if wanted in by_name:
        return by_name[wanted]
    beginnings = [name for name in by_name if wanted and name.startswith(wanted)]
    near = beginnings or get_close_matches(wanted, by_name, n=4)
    names = [name.upper() if name == by_name[name].code.lower() else name for name in near[:4]]
    hint = f"did you mean {', '.join(names)}?" if names else "'stabilize rules' lists them"
    raise UsageError(f"no rule {text!r}: {hint}")


def _show(what: RenderableType) -> None:
    from rich.console import Console

    Console().print(what)
