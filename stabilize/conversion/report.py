"""What a conversion has to say."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, final

from stabilize.records import SCHEMA_VERSION, Certificate, Json, json_clean
from stabilize.report import Report

#: Reasons that are written out one by one in the text form.
_MOST_TOLD: Final = 20


@final
@dataclass(frozen=True, slots=True)
class Kept:
    """A node that stays float32. by: "operator", "constants", "values", "cost" (it is between such nodes, and
    casts would cost more), "certificate" (the model was not accurate enough with it narrowed) or "request"."""

    node: str
    op_type: str
    reason: str
    by: str

    def to_dict(self) -> dict[str, Json]:
        return {"node": self.node, "op_type": self.op_type, "reason": self.reason, "by": self.by}


@final
@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What was narrowed, what was not and why.

    model: what was read. to: the format. narrowed: nodes that compute in it now. kept: those that stay float32.
    casts: Cast nodes added. weights, weights_kept: float32 weights that are stored in the format now, and that are not.
    inputs: where the inputs came from that the numbers were seen on. certificate: the evidence, None when that was
    switched off. notes: what else there is to know. repaired: what the engine rewrote before.
    """

    model: str
    to: str
    narrowed: int
    kept: list[Kept]
    casts: int
    weights: int
    weights_kept: int
    inputs: str
    certificate: Certificate | None
    repaired: Report
    notes: list[str] = field(default_factory=list[str])

    def to_dict(self) -> dict[str, Json]:
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "to": self.to,
            "narrowed": self.narrowed,
            "casts": self.casts,
            "weights": self.weights,
            "weights_kept": self.weights_kept,
            "inputs": self.inputs,
            "kept": [k.to_dict() for k in self.kept],
            "certificate": json_clean(self.certificate),
            "notes": list[Json](self.notes),
            "repaired": self.repaired.to_dict(),
        }

    def to_json(self, *, indent: int | None = 2) -> str:
        """`to_dict` as strict JSON: infinities and NaN are the strings `"inf"`, `"-inf"`, `"nan"`."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    def summary(self) -> str:
        """One line of totals."""
        return (
            f"{self.narrowed} nodes in {self.to}, {len(self.kept)} in float32, {self.casts} casts, "
            f"{self.weights} of {self.weights + self.weights_kept} weights narrowed"
        )

    def __str__(self) -> str:
        lines = [f"{r.node}: {r.code} {r.name}: {r.naive} → {r.stable}" for r in self.repaired.rewrites]
        told = [k for k in self.kept if k.by != "cost"]
        lines += [f"{k.node}: {k.op_type} stays float32: {k.reason}" for k in told[:_MOST_TOLD]]
        rest = Counter(k.op_type for k in told[_MOST_TOLD:])
        if rest:
            lines.append("and " + ", ".join(f"{n} {op}" for op, n in rest.most_common()))
        between = Counter(k.op_type for k in self.kept if k.by == "cost")
        if between:
            counts = ", ".join(f"{n} {op}" for op, n in between.most_common())
            lines.append(f"between nodes that stay float32, where casts would cost more: {counts}")
        lines += self.notes
        lines.append(f"decided on {self.inputs}")
        if self.certificate is not None:
            lines.append(self.certificate.text())
        return "\n".join([*lines, f"{self.model}: {self.summary()}"])
