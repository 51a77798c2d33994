"""The page of a rule as markdown, for a terminal and for programs that show help."""

from __future__ import annotations

from stabilize.passes.rule import Rule


def markdown(rule: Rule) -> str:
    """Its documentation, with the examples as blocks of their own and what a linter says of it below the title."""
    fix = rule.safety or "none"
    lines = (rule.documentation or "").strip().splitlines()
    body = "\n".join("\n→\n" if line == "→" else line for line in lines[1:])
    body = body.replace("\n## Example\n", "\n## Example\n\n")
    return f"{lines[0]}\n\nSeverity: {rule.severity}. Fix: {fix}.\n{body}\n"


def plain(rule: Rule) -> str:
    """Its documentation as it was written."""
    lines = (rule.documentation or "").strip().splitlines()
    return "\n".join([lines[0], "", f"Severity: {rule.severity}. Fix: {rule.safety or 'none'}.", *lines[1:]]) + "\n"
