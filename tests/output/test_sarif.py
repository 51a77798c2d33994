"""SARIF against its published schema, and what code scanning makes of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import stabilize
from stabilize.output import sarif
from stabilize.passes.rules import ALL
from stabilize.records import Finding
from stabilize.report import Report
from tests.output.findings import RATIO, ROUNDS, SOFTMAX, with_witness

SCHEMA = json.loads((Path(__file__).resolve().parents[1] / "data/sarif/sarif-schema-2.1.0.json").read_text())


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run_of(*findings: Finding, model: str = "models/m.onnx") -> Any:
    """The only run of a log that the schema accepts."""
    log = json.loads(Report(model, list(findings)).to_sarif())
    validator = jsonschema.validators.validator_for(SCHEMA)
    validator.check_schema(SCHEMA)
    validator(SCHEMA, format_checker=validator.FORMAT_CHECKER).validate(log)
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    return run


def test_the_schema_refuses_what_is_wrong() -> None:
    log = json.loads(sarif.text("m.onnx", [SOFTMAX]))
    log["runs"][0]["results"][0]["level"] = "grave"
    with pytest.raises(jsonschema.ValidationError, match="grave"):
        jsonschema.validate(log, SCHEMA)


def test_a_clean_model_gives_a_run_without_results() -> None:
    run = run_of()
    assert run["results"] == []
    assert run["tool"]["driver"]["name"] == "stabilize"
    assert run["tool"]["driver"]["semanticVersion"] == stabilize.__version__


def test_every_rule_has_its_page_as_help() -> None:
    findings = [dataclasses.replace(SOFTMAX, code=rule.code, name=rule.name) for rule in ALL]
    rules = run_of(*findings)["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == [rule.code for rule in ALL]
    for told, rule in zip(rules, ALL, strict=True):
        assert told["name"] == rule.name
        assert rule.section("Error").splitlines()[0] in told["help"]["text"]
        assert "## Example\n\n    " in told["help"]["markdown"]
        assert told["defaultConfiguration"]["level"] in ("error", "warning", "note")


def test_results_point_at_rules_levels_and_places(tmp_path: Path) -> None:
    run = run_of(ROUNDS, with_witness(), RATIO)
    results = run["results"]
    assert [result["level"] for result in results] == ["note", "error", "warning"]
    for result in results:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    (place,) = results[1]["locations"]
    assert place["physicalLocation"] == {
        "artifactLocation": {"uri": "head.py", "uriBaseId": "%SRCROOT%"},
        "region": {"startLine": 4},
    }
    assert [name["fullyQualifiedName"] for name in place["logicalLocations"]] == ["div_1", "blocks.0.attention"]
    assert run["originalUriBaseIds"]["%SRCROOT%"]["uri"] == tmp_path.as_uri() + "/"
    (place,) = results[0]["locations"]
    assert place["physicalLocation"] == {"artifactLocation": {"uri": "models/m.onnx", "uriBaseId": "%SRCROOT%"}}
    assert {"location": {"uri": "models/m.onnx", "uriBaseId": "%SRCROOT%"}, "roles": ["analysisTarget"]} in run[
        "artifacts"
    ]


def test_messages_say_what_to_write() -> None:
    message = run_of(with_witness())["results"][0]["message"]
    assert message["text"] == SOFTMAX.message
    assert "```diff\n- exp(x) / sum(exp(x), 1)\n+ softmax(x, 1)\n```" in message["markdown"]
    assert "div_1 gives nan where 0.5 is right" in message["markdown"]


def test_places_outside_are_absolute_and_names_are_escaped(tmp_path: Path) -> None:
    outside = dataclasses.replace(SOFTMAX, file="/elsewhere/a b#c.py")
    inside = dataclasses.replace(SOFTMAX, file=str(tmp_path / "sub" / "ä b.py"), line=None)
    first, second = (r["locations"][0]["physicalLocation"] for r in run_of(outside, inside)["results"])
    assert first["artifactLocation"] == {"uri": "file:///elsewhere/a%20b%23c.py"}
    assert second == {"artifactLocation": {"uri": "sub/%C3%A4%20b.py", "uriBaseId": "%SRCROOT%"}}


def test_a_model_of_no_file_has_logical_places_alone() -> None:
    (place,) = run_of(ROUNDS, model="package.module:factory")["results"][0]["locations"]
    assert "physicalLocation" not in place


def test_unknown_rules_are_results_without_an_index() -> None:
    assert "ruleIndex" not in run_of(dataclasses.replace(SOFTMAX, code="STB899"))["results"][0]


def prints(*findings: Finding) -> list[str]:
    return [result["partialFingerprints"]["structure/v1"] for result in run_of(*findings)["results"]]


def test_fingerprints_survive_edits_elsewhere() -> None:
    moved = dataclasses.replace(SOFTMAX, line=40, node="div_7", file="other.py", message="else")
    assert prints(moved) == prints(SOFTMAX)
    numbered = dataclasses.replace(SOFTMAX, naive="exp(linear_2) / sum(exp(linear_2), 1)")
    again = dataclasses.replace(numbered, naive="exp(linear_14) / sum(exp(linear_14), 1)")
    assert prints(numbered) == prints(again)
    others = [
        dataclasses.replace(SOFTMAX, module="blocks.1.attention"),
        dataclasses.replace(SOFTMAX, code="STB104"),
        dataclasses.replace(SOFTMAX, naive="exp(x) / sum(exp(x), 2)"),
    ]
    assert len({*prints(SOFTMAX), *(p for other in others for p in prints(other))}) == 4


def test_equal_defects_are_counted() -> None:
    first, second = prints(SOFTMAX, dataclasses.replace(SOFTMAX, node="div_9"))
    assert (first.partition(":")[0], first[-2:], second[-2:]) == (second.partition(":")[0], ":1", ":2")
