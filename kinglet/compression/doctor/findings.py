"""What the doctor says: findings, how much they matter, and what their repair is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import onnx

from kinglet.compression.doctor.effects import Effect

CRITICAL, WARNING, NOTE = "critical", "warning", "note"
ORDER = (CRITICAL, WARNING, NOTE)
# A repair that takes off at least this share of the latency matters.
FASTER = 0.05
TO_FLOAT = "layers-to-float"

Mend = Callable[[onnx.ModelProto], onnx.ModelProto]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a file, or that is worth knowing.

    code: its name, stable between versions. where: names of nodes of the file, those hit most first; empty where
    it is the whole file. what: a sentence. evidence: numbers, by name. repair: what to do, a sentence.
    mend: makes the repair on the file in QDQ form, None where it cannot be made on the file alone.
    effect: what the repair is worth, measured; None where it was not.
    """

    code: str
    severity: str
    where: tuple[str, ...]
    what: str
    evidence: dict[str, Any]
    repair: str
    mend: Mend | None = field(default=None, compare=False)
    effect: Effect | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as JSON-ready values."""
        return {
            "code": self.code,
            "severity": self.severity,
            "where": list(self.where),
            "what": self.what,
            "evidence": self.evidence,
            "repair": self.repair,
            "effect": None if self.effect is None else self.effect.to_dict(),
        }


def counted(number: int, noun: str) -> str:
    """Return a number of things in words: 1 layer, 2 layers."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def judged(finding: Finding, effect: Effect, tolerance: float) -> Finding:
    """Return the finding with the measured effect of its repair, and the severity that follows from it.

    critical: the repair brings back more accuracy than the tolerance, and the whole interval of what it brings
    lies above 0. A warning whose repair brings nothing that can be measured becomes a note.
    """
    gain = effect.accuracy
    if gain.low > 0 and gain.value > tolerance:
        return replace(finding, severity=CRITICAL, effect=effect)
    helps = gain.low > 0 or (gain.high >= 0 and effect.is_faster(FASTER))
    if finding.severity == CRITICAL:
        return replace(finding, severity=WARNING, effect=effect)
    return replace(finding, severity=WARNING if helps else NOTE, effect=effect)


def ranked(findings: list[Finding]) -> list[Finding]:
    """Return the findings, the most important first: by severity, then by accuracy gained, then by time gained.

    Layers to leave in float come behind all that says why they lose so much.
    """

    def key(finding: Finding) -> tuple[int, bool, float, float, str]:
        effect = finding.effect
        gain = effect.accuracy.value if effect else 0.0
        saved = -effect.latency.value if effect and effect.latency else 0.0
        return ORDER.index(finding.severity), finding.code == TO_FLOAT, -gain, -saved, finding.code

    return sorted(findings, key=key)
