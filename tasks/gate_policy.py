"""What the gate asks of every model, whatever it answers: the policy with its limits, speed and size, data, looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kinglet.atomic import read_json
from kinglet.errors import KingletError
from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.gate import Check, data_check, golden_check, limit_check, robustness_check, slowdown_check
from kinglet.runtime import bundles
from kinglet.runtime.segmentation_predictor import SegmentationPredictor
from tasks.artifacts import BUNDLE, CHECK_DATA, ROBUSTNESS
from tasks.bundle_answers import SortingPredictor
from tasks.champion import bundle_digest
from tasks.parameters import Parameters
from tasks.sealed_looks import look_for, looks_at, read_looks, sealed_check, sealed_digest


def policy_of(parameters: Parameters) -> dict[str, Any]:
    """Return the policy with the limits that it takes from `select`, JSON-ready."""
    gate, select = parameters.gate, parameters.select
    return {
        **gate.model_dump(mode="json", exclude={"champion"}),
        "max_accuracy_drop": select.max_accuracy_drop if gate.max_accuracy_drop is None else gate.max_accuracy_drop,
        "latency_ms": select.latency_ms if gate.latency_ms is None else gate.latency_ms,
        "size_mb": select.size_mb if gate.size_mb is None else gate.size_mb,
        "confidence": parameters.evaluate.confidence,
    }


def champion_digest(parameters: Parameters) -> str:
    """Return the digest of the champion's bundle; empty if there is none."""
    return bundle_digest(Path(parameters.gate.champion))


def latency_of(numbers: dict[str, Any]) -> Interval:
    """Return the median latency in ms with its interval."""
    return Interval(numbers["p50_ms"], numbers["p50_low_ms"], numbers["p50_high_ms"])


def robustness_of(name: str, parameters: Parameters) -> Check:
    """Return what the corrupted images say; not judged where this model was not scored on them."""
    scores = read_json(ROBUSTNESS / "scores.json")["models"].get(name)
    return robustness_check(
        Interval(**scores["difference_to_teacher"]) if scores else None,
        Interval(**scores["beyond_clean"]) if scores else None,
        parameters.gate.max_robustness_drop,
        accept_unestablished=parameters.gate.not_established == "accept",
    )


def budget_checks(
    latency: dict[str, Any], pair: tuple[Interval, Interval], reference: str, parameters: Parameters
) -> list[Check]:
    """Return what the measurements say: against the limits, and against the reference.

    latency: the challenger's entry in latency.json. pair: latencies of challenger and reference, from one measurement.
    reference: what sentences call it.
    """
    policy = policy_of(parameters)
    return [
        limit_check("latency", latency["p50_ms"], policy["latency_ms"], "ms"),
        slowdown_check(*pair, policy["max_slowdown"], reference),
        limit_check("memory", latency["peak_memory_mb"], policy["memory_mb"], "MB"),
        limit_check("size", latency["size_bytes"] / 1e6, policy["size_mb"], "MB"),
    ]


def golden_check_of(bundle: SortingPredictor | SegmentationPredictor) -> Check:
    """Return whether the bundle, opened, answers its golden images as stored."""
    try:
        bundle.check_golden(BUNDLE / bundles.GOLDEN)
    except KingletError as error:
        return golden_check(error.message)
    return golden_check("")


def data_check_of(parameters: Parameters) -> Check:
    """Return what the checks of the data found."""
    checks = read_json(CHECK_DATA / "checks.json")
    return data_check(checks["n_critical"], checks["n_warnings"], parameters.gate.max_data_warnings)


def sealed_checks(reference: str, parameters: Parameters) -> list[Check]:
    """Return what was seen on the sealed images of this bundle; nothing where no images are sealed.

    reference: the digest of what the bundle was held against.
    """
    if not parameters.split.sealed:
        return []
    digest, n_images = sealed_digest()
    looks = looks_at(parameters.data.source, read_looks())
    return [sealed_check(look_for(bundle_digest(BUNDLE), reference, digest, looks), n_images, len(looks))]
