"""Findings as SARIF 2.1.0, for code scanning (OASIS Standard, https://docs.oasis-open.org/sarif/sarif/v2.1.0/)."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

import stabilize
from stabilize.output import json, page
from stabilize.output.places import model_file, seen_from
from stabilize.output.witness import described
from stabilize.passes.rule import Rule
from stabilize.passes.rules import BY_CODE
from stabilize.records import Finding, Json

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {"error": "error", "warning": "warning", "info": "note"}

#: What relative addresses are relative to.
_ROOT = "%SRCROOT%"


def text(model: str, findings: Sequence[Finding]) -> str:
    """One run with its rules, the findings as its results."""
    rules = [BY_CODE[code] for code in sorted({f.code for f in findings} & BY_CODE.keys())]
    index = {rule.code: i for i, rule in enumerate(rules)}
    prints = _fingerprints(findings)
    results = [_result(model, f, index.get(f.code), p) for f, p in zip(findings, prints, strict=True)]
    files = {f.file for f in findings if f.file} | {file for file in [model_file(model)] if file}
    run: dict[str, Json] = {
        "tool": {
            "driver": {
                "name": "stabilize",
                "semanticVersion": stabilize.__version__,
                "rules": [_rule(rule) for rule in rules],
            }
        },
        "originalUriBaseIds": {_ROOT: {"uri": Path.cwd().as_uri().rstrip("/") + "/"}},
        "artifacts": [_artifact(file, model) for file in sorted(files)],
        "columnKind": "unicodeCodePoints",
        "results": list(results),
    }
    return json.written({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]})


def _rule(rule: Rule) -> Json:
    return {
        "id": rule.code,
        "name": rule.name,
        "shortDescription": {"text": f"{rule.summary}."},
        "fullDescription": {"text": f"{rule.reason}."},
        "help": {"text": page.plain(rule), "markdown": page.markdown(rule)},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
        "properties": {"tags": ["numerical-stability"], "fixable": rule.fixable, "safety": rule.safety},
    }


def _artifact(file: str, model: str) -> Json:
    artifact: dict[str, Json] = {"location": _address(file)}
    if file == model_file(model):
        artifact["roles"] = ["analysisTarget"]
    return artifact


def _result(model: str, finding: Finding, rule: int | None, fingerprint: str) -> Json:
    result: dict[str, Json] = {
        "ruleId": finding.code,
        "level": _LEVELS[finding.severity],
        "message": {"text": finding.message, "markdown": _message(finding)},
        "locations": [_location(model, finding)],
        "partialFingerprints": {"structure/v1": fingerprint},
        "properties": {"fixable": finding.fixable, "safety": finding.safety, "naive": finding.naive},
    }
    if rule is not None:
        result["ruleIndex"] = rule
    return result


def _message(finding: Finding) -> str:
    """What the text form says, as markdown."""
    parts = [finding.message]
    change = [f"{sign} {text}" for sign, text in (("-", finding.naive), ("+", finding.stable)) if text]
    if change:
        parts.append("\n".join(["```diff", *change, "```"]))
    if finding.condition:
        parts.append(f"Breaks: {finding.condition}.")
    if finding.witness:
        parts.append("\n".join(["Witness:", "```text", *described(finding.witness), "```"]))
    if finding.fixable and finding.stable:
        parts.append(f"Fix ({finding.safety}): `stabilize optimize`, or write the line marked `+`.")
    return "\n\n".join(parts)


def _location(model: str, finding: Finding) -> Json:
    names = [("node", finding.node), ("module", finding.module)]
    location: dict[str, Json] = {
        "logicalLocations": [
            {"name": name.rpartition(".")[2], "fullyQualifiedName": name, "kind": kind} for kind, name in names if name
        ]
    }
    file = finding.file or model_file(model)
    if file is not None:
        physical: dict[str, Json] = {"artifactLocation": _address(file)}
        if finding.file is not None and finding.line is not None:
            physical["region"] = {"startLine": finding.line}
        location["physicalLocation"] = physical
    return location


def _address(file: str) -> dict[str, Json]:
    """Files below the working directory by a relative address, others by an absolute one."""
    inside = seen_from(Path.cwd(), file)
    if Path(inside).is_absolute():
        return {"uri": Path(inside).as_uri()}
    return {"uri": quote(Path(inside).as_posix()), "uriBaseId": _ROOT}


def _fingerprints(findings: Iterable[Finding]) -> list[str]:
    """What stays the same as a model is edited elsewhere: rule, expression and module, without the numbers of nodes.

    Equal ones are counted in the order of the graph.
    """
    seen: Counter[str] = Counter()
    prints: list[str] = []
    for finding in findings:
        expression = re.sub(r"(?<=[^\W\d])_\d+\b", "", finding.naive or "")
        structure = "\0".join((finding.code, expression, finding.module or ""))
        digest = hashlib.sha256(structure.encode()).hexdigest()[:16]
        seen[digest] += 1
        prints.append(f"{digest}:{seen[digest]}")
    return prints
