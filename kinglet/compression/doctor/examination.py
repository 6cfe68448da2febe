"""An int8 file examined from one end to the other: all checks, the price of every repair, a repaired file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.compression.doctor.bisection import Bisection, bisect, damages
from kinglet.compression.doctor.checks.activations import check_activations
from kinglet.compression.doctor.checks.biases import check_bias_overflow, check_bias_scales
from kinglet.compression.doctor.checks.operators import check_dynamic, check_operators
from kinglet.compression.doctor.checks.placement import check_conversions, check_float_layers, check_fusion
from kinglet.compression.doctor.checks.ranges import check_input_range, check_ranges
from kinglet.compression.doctor.checks.sensitivity import check_sensitive_places
from kinglet.compression.doctor.checks.weights import check_weights
from kinglet.compression.doctor.checks.without_vnni import check_without_vnni
from kinglet.compression.doctor.effects import Effect, Trials, difference, latency_changes, logits_of
from kinglet.compression.doctor.findings import Finding, ranked
from kinglet.compression.doctor.layer_errors import LayerError, layer_errors
from kinglet.compression.doctor.qdq_form import is_quantized
from kinglet.compression.doctor.runtime_graph import runtime_graph
from kinglet.compression.doctor.subject import Subject, open_subject
from kinglet.compression.doctor.treatment import Price, Repaired, check_layers, priced, repair
from kinglet.compression.guard import Verdict, judge
from kinglet.compression.quantization import compare
from kinglet.reporting import Report, silent

# Images on which errors of layers and ranges are measured.
STATISTICS_IMAGES = 64
# The twin answers as the float file if it agrees with it on this share of the images.
SAME_FUNCTION = 0.99


@dataclass(frozen=True)
class Examination:
    """What an examination brought to light.

    n_images: how many it was judged on. accuracy, reference_accuracy: of the file and of the float file or its
    stand-in, [0, 1]. verdict: the file against the float file. latency_us: the file's median at batch 1. findings:
    the most important first. errors: signal to quantization noise of every layer. damage: what every layer alone
    does to the answers, nats. prices: of single layers in float. left_out: checks that could not be made, with the
    reason. repaired: the file with the repairs that help, None if none does; repaired_effect: what they are worth
    together.
    """

    n_images: int
    accuracy: float
    reference_accuracy: float
    verdict: Verdict
    latency_us: float
    findings: list[Finding]
    errors: list[LayerError]
    damage: dict[str, float]
    bisection: Bisection | None
    prices: list[Price]
    left_out: list[str]
    repaired: Repaired | None
    repaired_effect: Effect | None

    def to_dict(self) -> dict[str, Any]:
        """Return all but the repaired file as JSON-ready values."""
        return {
            "images": self.n_images,
            "accuracy": round(self.accuracy, 6),
            "reference_accuracy": round(self.reference_accuracy, 6),
            "guard": self.verdict.to_dict(),
            "latency_us": round(self.latency_us, 2),
            "findings": [finding.to_dict() for finding in self.findings],
            "layers": [self._layer_to_dict(error) for error in self.errors],
            "bisection": None if self.bisection is None else asdict(self.bisection),
            "layers_in_float": [price.to_dict() for price in self.prices],
            "left_out": self.left_out,
            "repaired": None if self.repaired is None else self._repaired_to_dict(self.repaired),
        }

    def _layer_to_dict(self, error: LayerError) -> dict[str, Any]:
        decibels = {
            f"{kind}_db": round(getattr(error, kind), 2) for kind in ("own", "weights", "output", "accumulated")
        }
        return {"layer": error.name, **decibels, "damage": round(self.damage.get(error.name, 0.0), 6)}

    def _repaired_to_dict(self, repaired: Repaired) -> dict[str, Any]:
        return {
            "repairs": list(repaired.codes),
            "float_layers": list(repaired.float_layers),
            "effect": None if self.repaired_effect is None else self.repaired_effect.to_dict(),
        }


def examine(
    model: onnx.ModelProto,
    float_model: onnx.ModelProto | None,
    inputs: NDArray[np.float32],
    labels: NDArray[np.int64],
    tolerance: float,
    seconds: float = 0.5,
    threads: int = 1,
    report: Report = silent,
) -> Examination:
    """Return what is wrong with an int8 classifier, and what each repair is worth.

    model: input `images` float32 (n, channels, height, width) with a free batch axis, output `logits`. float_model:
    the file that it was made from, in the same form; None: a stand-in is made from the file. inputs: prepared
    images. labels: int64 (n,). tolerance: accuracy that may be lost, [0, 1). seconds: of timing for every file.
    Raises KingletError if the float file is of another network, or if the file answers NaN. Raises ValueError if the
    file is not quantized.
    """
    if not is_quantized(model):
        raise ValueError("the file is not quantized")
    subject = open_subject(model, float_model, inputs[:STATISTICS_IMAGES])
    trials = Trials(inputs, labels, subject.twin if float_model is None else float_model, tolerance)
    answers = logits_of(model, inputs)
    verdict = judge(answers, trials.reference, labels, tolerance)
    errors = layer_errors(subject)
    damage = damages(subject, trials, subject.graph.model, report)
    bisection = None if verdict.is_enough else bisect(subject.graph.model, subject, trials, damage, report)
    found = [*all_checks(subject, trials, errors, damage), *check_layers(subject, bisection)]
    latency, findings, prices = priced(subject, found, damage, trials, seconds, threads, report)
    repaired = repair(subject, findings, trials, report)
    effect = None
    if repaired is not None:
        before, changes = latency_changes(model, {"repaired": repaired.model}, seconds, threads)
        gain = difference(logits_of(repaired.model, inputs), answers, labels)
        effect = Effect(gain, changes["repaired"], changes["repaired"].value / before)
    return Examination(
        n_images=len(labels),
        accuracy=float((answers.argmax(1) == labels).mean()),
        reference_accuracy=float((trials.reference.argmax(1) == labels).mean()),
        verdict=verdict,
        latency_us=latency,
        findings=ranked(findings),
        errors=errors,
        damage=damage,
        bisection=bisection,
        prices=prices,
        left_out=what_was_left_out(subject, trials),
        repaired=repaired,
        repaired_effect=effect,
    )


def all_checks(subject: Subject, trials: Trials, errors: list[LayerError], damage: dict[str, float]) -> list[Finding]:
    """Return what every check finds, before any repair was tried."""
    runs = runtime_graph(subject.original)
    return [
        *check_activations(subject),
        *check_weights(subject),
        *check_input_range(subject),
        *check_ranges(subject),
        *check_bias_overflow(subject),
        *check_bias_scales(subject),
        *check_operators(subject),
        *check_dynamic(subject.original),
        *check_float_layers(subject, runs),
        *check_fusion(subject, runs),
        *check_conversions(runs),
        *check_sensitive_places(subject, errors, damage),
        *check_without_vnni(subject, trials),
    ]


def what_was_left_out(subject: Subject, trials: Trials) -> list[str]:
    """Return sentences on the checks that could not be made, each with its reason."""
    found = subject.found
    if found is None:
        return [
            "Without the float file: rounding of weights, dropped activations and overflowing biases cannot be blamed; "
            "the stand-in has the file's own weights, and its activations are read off the ranges."
        ]
    said = []
    if found.unmatched:
        names = ", ".join(found.unmatched)
        said.append(f"No layer of the float file is the counterpart of {names}: their own weights stand in.")
    if found.altered:
        said.append(
            f"The weights of {len(found.altered)} layers are no rounding of the float file's (trained or equalized "
            f"afterwards, or another file): their own stand in: {', '.join(found.altered)}."
        )
    agreement = compare(trials.reference, logits_of(subject.twin, trials.inputs))[0]
    if agreement < SAME_FUNCTION:
        said.append(
            f"With all rounding taken out the file agrees with the float file on {agreement:.1%} of the images: they "
            "differ in more than rounding, which the errors of single layers do not show."
        )
    return said
