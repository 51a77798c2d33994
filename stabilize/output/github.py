"""Findings as annotations of a pull request: workflow commands that GitHub Actions reads from the output of a job.

Source: docs.github.com, "Workflow commands for GitHub Actions".
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from stabilize.output.places import model_file, seen_from
from stabilize.records import Finding

_COMMANDS = {"error": "error", "warning": "warning", "info": "notice"}


def text(model: str, findings: Sequence[Finding]) -> str:
    """One line a finding."""
    return "".join(f"{_annotation(model, finding)}\n" for finding in findings)


def _annotation(model: str, finding: Finding) -> str:
    file = finding.file or model_file(model)
    properties = {
        "file": None if file is None else seen_from(_workspace(), file),
        "line": None if finding.file is None or finding.line is None else str(finding.line),
        "title": f"{finding.code} {finding.name}",
    }
    shown = ",".join(f"{key}={_property(value)}" for key, value in properties.items() if value is not None)
    message = [finding.message, finding.naive and f"- {finding.naive}", finding.stable and f"+ {finding.stable}"]
    message += [finding.condition and f"breaks: {finding.condition}", f"node: {finding.node}"]
    return f"::{_COMMANDS[finding.severity]} {shown}::{_data(chr(10).join(part for part in message if part))}"


def _workspace() -> Path:
    """Files are named from the top of the checkout."""
    return Path(os.path.abspath(os.environ.get("GITHUB_WORKSPACE") or Path.cwd()))


def _data(value: str) -> str:
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")
