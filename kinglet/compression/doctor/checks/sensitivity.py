"""The places that are known to bear int8 badly, and what they do to the answers of this file."""

from __future__ import annotations

from kinglet.compression.doctor.findings import NOTE, Finding
from kinglet.compression.doctor.graph import Graph
from kinglet.compression.doctor.layer_errors import LayerError
from kinglet.compression.doctor.subject import Subject

# A place that brings about at least this share of all damage is worth a line.
LEAST_SHARE = 0.2
# SiLU is x * sigmoid(x); HardSwish is an operator of its own or x * hardsigmoid(x).
SWISHES = ("HardSwish", "HardSigmoid", "Sigmoid", "QuickGelu")


def check_sensitive_places(subject: Subject, errors: list[LayerError], damage: dict[str, float]) -> list[Finding]:
    """Return a finding for every sensitive place that does a large part of the damage.

    errors: from `layer_errors`. damage: {layer: divergence of the answers with this layer alone quantized, nats}.
    """
    total = sum(damage.values())
    if total <= 0:
        return []
    own = {error.name: error.own for error in errors}
    findings = []
    for place, names in sensitive_places(subject).items():
        share = sum(damage.get(name, 0.0) for name in names) / total
        if share < LEAST_SHARE:
            continue
        worst = max(names, key=lambda name: damage.get(name, 0.0))
        findings.append(
            Finding(
                "sensitive-place",
                NOTE,
                tuple(sorted(names, key=lambda name: -damage.get(name, 0.0))),
                f"The {place} does {share:.0%} of the damage to the answers; {own.get(worst, 0.0):.1f} dB in {worst}.",
                {"place": place, "damage_share": round(share, 4)},
                "Leave it in float first if accuracy has to come back.",
            )
        )
    return findings


def sensitive_places(subject: Subject) -> dict[str, list[str]]:
    """Return the names of the quantized layers in every kind of sensitive place that the network has."""
    quantized = subject.quantized
    if not quantized:
        return {}
    depthwise = [layer.name for layer in quantized if layer.is_depthwise]
    places = {
        "first convolution": [subject.graph.layers[0].name] if subject.graph.layers[0].is_quantized else [],
        "first depthwise convolution": depthwise[:1],
        "HardSwish or SiLU": [layer.name for layer in quantized if _leads_to_swish(subject.graph, layer.name)],
        "head": [subject.graph.layers[-1].name] if subject.graph.layers[-1].is_quantized else [],
    }
    return {place: names for place, names in places.items() if names}


def _leads_to_swish(graph: Graph, name: str) -> bool:
    """Whether a HardSwish or the gate of a SiLU reads a layer's output, through a pair or not."""
    tensors = [graph.by_name[name].output[0]]
    for _ in range(3):
        readers = [node for tensor in tensors for node in graph.readers.get(tensor, [])]
        if any(node.op_type in SWISHES for node in readers):
            return True
        tensors = [
            output
            for node in readers
            if node.op_type in ("QuantizeLinear", "DequantizeLinear")
            for output in node.output
        ]
    return False
