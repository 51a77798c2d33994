"""Records of a run: fields, strict JSON, and the text a person reads."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from stabilize.output.places import place
from stabilize.records import Certificate, Declined, Finding, Rewrite, json_clean
from stabilize.report import Report, summary


@dataclass(frozen=True)
class Evidence:
    accepted: bool = True
    reason: str | None = None

    def text(self) -> str:
        return "values  inf → 0.9 ulp\ngradients  nan → 1.2 ulp"

    def to_dict(self) -> dict[str, object]:
        return {"accepted": self.accepted, "before": math.inf, "after": 0.9}


FINDING = Finding(
    code="STB101",
    name="naive-softmax",
    severity="error",
    message="exp(x) overflows",
    node="div_1",
    module="model.head",
    file="head.py",
    line=12,
    naive="exp(x) / sum(exp(x))",
    stable="softmax(x)",
    condition="x > 88.72 in float32",
    witness={"x": torch.tensor([89.0, math.inf])},
    safety="exact",
    fixable=True,
)
REWRITE = Rewrite(
    "STB101", "naive-softmax", "div_1", "model.head", "head.py", 12, "e / Σe", "softmax(x)", "exact", Evidence()
)
DECLINED = Declined("STB201", "naive-softplus", "log", None, None, None, "worse on subnormal rows")


def report() -> Report:
    return Report("Head", [FINDING], [REWRITE], [DECLINED])


def test_contract_of_a_finding() -> None:
    assert [f.name for f in dataclasses.fields(Finding)] == [
        "code", "name", "severity", "message", "node", "module", "file", "line",
        "naive", "stable", "condition", "witness", "safety", "fixable",
    ]  # fmt: skip


def test_contract_of_rewrites_and_declined() -> None:
    common = ["code", "name", "node", "module", "file", "line"]
    assert [f.name for f in dataclasses.fields(Rewrite)] == [*common, "naive", "stable", "safety", "certificate"]
    assert [f.name for f in dataclasses.fields(Declined)] == [*common, "reason"]


def test_records_do_not_change() -> None:
    for record in (FINDING, REWRITE, DECLINED, report()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, dataclasses.fields(record)[0].name, "other")


def test_an_evidence_object_is_a_certificate() -> None:
    certificate: Certificate = Evidence()
    assert certificate.accepted


def test_json_is_strict_and_round_trips() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    loaded = json.loads(report().to_json(), parse_constant=refuse)
    assert loaded == report().to_dict()
    assert list(loaded) == ["schema_version", "model", "findings", "rewrites", "declined"]
    assert loaded["schema_version"] == 1
    assert loaded["findings"][0]["witness"] == {"x": [89.0, "inf"]}
    assert loaded["rewrites"][0]["certificate"] == {"accepted": True, "before": "inf", "after": 0.9}
    assert loaded["declined"][0]["file"] is None


class Witness(dict[str, torch.Tensor]):
    file = "witnesses/STB101.npz"


def witnessed(**tensors: torch.Tensor) -> object:
    return dataclasses.replace(FINDING, witness=Witness(tensors)).to_dict()["witness"]


def test_a_short_witness_is_written_out_and_a_long_one_described() -> None:
    assert witnessed(x=torch.tensor([[89.0, math.inf]])) == {"x": [[89.0, "inf"]]}
    assert witnessed(x=torch.zeros(1000), y=torch.zeros(24))["y"] == [0.0] * 24
    long = torch.full((5, 300), 2.5, dtype=torch.bfloat16)
    long[1, 1] = -math.inf
    file = "witnesses/STB101.npz"
    assert witnessed(x=long, k=torch.arange(4)) == {
        "x": {"shape": [5, 300], "dtype": "bfloat16", "min": "-inf", "max": 2.5, "file": file},
        "k": {"shape": [4], "dtype": "int64", "min": 0, "max": 3, "file": file},
    }
    parts = witnessed(x=torch.full((2000,), math.nan), e=torch.zeros(0, 3), c=torch.zeros(2, dtype=torch.complex64))
    assert [part["min"] for part in parts.values()] == ["nan", None, None]
    eighth = witnessed(x=torch.ones(2000).to(torch.float8_e4m3fn))["x"]
    assert eighth == {"shape": [2000], "dtype": "float8_e4m3fn", "min": 1.0, "max": 1.0, "file": file}
    assert dataclasses.replace(FINDING, witness={"x": np.ones(1025)}).to_dict()["witness"]["x"]["file"] is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (0.5, 0.5),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (torch.tensor(2.0), 2.0),
        (torch.tensor([[1, 2]]), [[1, 2]]),
        (torch.tensor([1.5], dtype=torch.bfloat16), [1.5]),
        (np.float32(0.25), 0.25),
        (np.array([math.inf, 1.0]), ["inf", 1.0]),
        ((1, {"a": np.int64(2)}), [1, {"a": 2}]),
        ({1: {2}}, {"1": "{2}"}),
    ],
)
def test_json_clean(value: object, expected: object) -> None:
    assert json_clean(value) == expected


def test_text_names_place_formulas_and_evidence() -> None:
    assert str(report()).splitlines() == [
        "head.py:12: error[STB101] naive-softmax: exp(x) overflows",
        "  - exp(x) / sum(exp(x))",
        "  + softmax(x)",
        "  = breaks: x > 88.72 in float32",
        "  = witness: x = [89, inf] (float32[2])",
        "  = at: node div_1, in model.head",
        "  = fix: stabilize optimize (exact: equal over the reals)",
        "  = help: stabilize explain STB101",
        "",
        "head.py:12: rewrote[STB101] naive-softmax: exact",
        "  - e / Σe",
        "  + softmax(x)",
        "  = proof: values  inf → 0.9 ulp",
        "           gradients  nan → 1.2 ulp",
        "  = at: node div_1, in model.head",
        "",
        "log: declined[STB201] naive-softplus",
        "  = reason: worse on subnormal rows",
        "",
        "Head: 1 finding (1 error), 1 rewrite, 1 declined",
    ]


def test_a_report_of_findings_alone_says_nothing_of_rewrites() -> None:
    assert str(Report("Head", [FINDING])).splitlines()[-1] == "Head: 1 finding (1 error), 1 fixable"


def test_paths_are_shown_as_seen_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inside = dataclasses.replace(FINDING, file=str(tmp_path / "sub" / "head.py"))
    outside = dataclasses.replace(FINDING, file=str(tmp_path.parent / "head.py"))
    assert place(inside) == "sub/head.py:12"
    assert place(outside) == f"{tmp_path.parent}/head.py:12"
    assert place(dataclasses.replace(FINDING, line=None)) == "head.py"
    assert inside.to_dict()["file"] == str(tmp_path / "sub" / "head.py")


def test_empty_report_is_one_line() -> None:
    assert str(Report("Net")) == "Net: 0 findings"


def test_totals_count_each_severity() -> None:
    findings = [dataclasses.replace(FINDING, severity=s) for s in ("error", "error", "warning", "info")]
    assert summary(Report("m", findings)) == "4 findings (2 errors, 1 warning, 1 info), 0 rewrites, 0 declined"


def test_a_rewrite_without_certificate_says_so() -> None:
    text = str(Report("m", rewrites=[dataclasses.replace(REWRITE, certificate=None)]))
    assert "not certified" in text


def test_reports_do_not_share_lists() -> None:
    first, second = Report("a"), Report("b")
    first.findings.append(FINDING)
    assert second.findings == []
