"""The forms for programs: JSON, annotations, counts, pages."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from stabilize.output import github, page, statistics
from stabilize.output import json as json_form
from stabilize.passes.rules import ALL, BY_CODE
from tests.output.findings import RATIO, ROUNDS, SOFTMAX, with_witness


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)


def test_json_has_the_fields_of_the_contract() -> None:
    told = json.loads(json_form.text("m.onnx", [with_witness(), RATIO]))
    assert list(told) == ["schema_version", "model", "findings"]
    assert (told["schema_version"], told["model"]) == (1, "m.onnx")
    assert [list(finding) for finding in told["findings"]] == 2 * [
        [
            "code", "name", "severity", "message", "node", "module", "file", "line",
            "naive", "stable", "condition", "witness", "safety", "fixable",
        ]
    ]  # fmt: skip
    assert told["findings"][0]["witness"] == {"x": [[89.0, 89.0]], "n": 3}
    assert told["findings"][1]["witness"] is None


# -- annotations ----------------------------------------------------------------------------------------------------


def read_command(line: str) -> tuple[str, dict[str, str], str]:
    """A workflow command as the runner reads it."""
    match = re.fullmatch(r"::(\w+) (.*?)::(.*)", line)
    assert match is not None
    pairs = (part.partition("=") for part in match[2].split(","))
    properties = {
        key: value.replace("%0D", "\r").replace("%0A", "\n").replace("%3A", ":").replace("%2C", ",").replace("%25", "%")
        for key, _, value in pairs
    }
    return match[1], properties, match[3].replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")


def test_annotations_read_back() -> None:
    odd = dataclasses.replace(SOFTMAX, file="a,b:c%.py", message="50%: a, b\r\nc::d", module=None)
    lines = github.text("m.onnx", [SOFTMAX, RATIO, ROUNDS, odd]).splitlines()
    assert len(lines) == 4
    told = [read_command(line) for line in lines]
    assert [level for level, _, _ in told] == ["error", "warning", "notice", "error"]
    assert told[0][1] == {"file": "head.py", "line": "4", "title": "STB101 naive-softmax"}
    assert told[0][2].startswith("exp(x) overflows: 100% of it, always\n- exp(x) / sum(exp(x), 1)\n+ softmax(x, 1)\n")
    assert told[1][1] == {"file": "m.onnx", "title": "STB431 zero-over-zero"}
    assert told[3][1]["file"] == "a,b:c%.py"
    assert told[3][2].startswith("50%: a, b\r\nc::d\n")
    assert lines[3].startswith(
        "::error file=a%2Cb%3Ac%25.py,line=4,title=STB101 naive-softmax::50%25: a, b%0D%0Ac::d%0A"
    )


def test_annotations_name_files_from_the_top_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    _, properties, _ = read_command(github.text("m.onnx", [SOFTMAX]).strip())
    assert properties["file"] == "sub/head.py"
    _, properties, _ = read_command(github.text("a:b", [ROUNDS]).strip())
    assert properties == {"title": "STB218 complement-of-sigmoid"}


# -- counts ---------------------------------------------------------------------------------------------------------


def test_statistics_count_by_rule_and_severity() -> None:
    findings = [ROUNDS, SOFTMAX, dataclasses.replace(SOFTMAX, severity="warning"), *[RATIO] * 10]
    assert statistics.text("m", findings).splitlines() == [
        "10  STB431  warning  zero-over-zero",
        " 1  STB101  error    naive-softmax",
        " 1  STB101  warning  naive-softmax",
        " 1  STB218  info     complement-of-sigmoid",
    ]
    assert statistics.text("m", []) == ""
    told = json.loads(statistics.json_text("m", findings))
    assert told["statistics"][0] == {"count": 10, "code": "STB431", "severity": "warning", "name": "zero-over-zero"}
    assert len(told["statistics"]) == 4


# -- pages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule.code)
def test_examples_are_blocks_in_markdown(rule: object) -> None:
    from markdown_it import MarkdownIt

    from stabilize.passes.rule import Rule

    assert isinstance(rule, Rule)
    tokens = MarkdownIt().parse(page.markdown(rule))
    code = "".join(token.content for token in tokens if token.type == "code_block")
    assert all(line.strip() in code for line in rule.remedy.splitlines())
    before = rule.section("Example").partition("\n")[0]
    assert before.strip() in code
    assert "→" not in code.splitlines()


def test_a_page_says_what_a_fix_changes() -> None:
    lines = page.plain(BY_CODE["STB431"]).splitlines()
    assert lines[:4] == ["# zero-over-zero (STB431)", "", "Severity: info. Fix: approximate.", ""]
    assert "## Source" in lines
