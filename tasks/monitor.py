"""Compare what servers saw since the last check with what their models were made with.

No stage of dvc.yaml: it works on what comes from outside, and runs by a clock. Writes artifacts/monitor/monitor.json
and monitor.md; which sketches were counted is kept in .kinglet/monitor.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import reduce
from typing import Any

from kinglet.atomic import read_json, write_json, write_text
from kinglet.evidence.drift_test import FEWEST, MOVED, MOVED_LITTLE, TOO_FEW, Finding, Limits, drift_findings
from kinglet.runtime.sketches import Sketch, merged
from tasks.artifacts import MONITOR, WORKSPACE
from tasks.evidence_settings import Monitor
from tasks.monitor_page import monitor_page
from tasks.parameters import Parameters
from tasks.sketch_files import SKETCH, Files, SketchFile, files_in, read_reference_file, read_sketch_file, sketch_in

RESULT = MONITOR / "monitor.json"
PAGE = MONITOR / "monitor.md"
STATE = WORKSPACE / "monitor.json"

# Of answers that may have moved without any image having done so.
SATURATES = (
    "They were answered on a processor whose 8-bit sums saturate, and those of the reference do not: what the model "
    "answers may have moved by that alone, the images have not."
)
DRIFT, NO_DRIFT = "drift", "no drift"


@dataclass(frozen=True)
class Checked:
    """The check of one model.

    verdict: DRIFT, NO_DRIFT or TOO_FEW. saturates: whether the answers of a server came from 8-bit sums that saturate.
    counted: what `images` counts, "images" or "videos". names: of the sketches
    that it counts.
    """

    model: str
    version: str
    verdict: str
    sentence: str
    images: int
    counted: str
    saturates: bool
    lost: int
    started: str
    ended: str
    findings: list[Finding]
    names: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the check as JSON-ready values."""
        return {**asdict(self), "findings": [finding.to_dict() for finding in self.findings]}


def check(parameters: Parameters) -> dict[str, Any]:
    """Return and write what became of every model that servers answered with since the last check.

    The sketches count as checked only once `remember` is called: whoever acts on the result does so first.
    Raises KingletError if the sketches cannot be read.
    """
    settings = parameters.monitor
    files = files_in(settings.sketches)
    names = [name for name in files.names() if name.startswith(SKETCH)]
    taken = names if settings.window_hours is not None else sorted(set(names) - checked_before(settings.sketches))
    by_model: dict[tuple[str, str], list[SketchFile]] = {}
    for name in taken:
        file = read_sketch_file(files, name)
        by_model.setdefault((file.reference, file.version), []).append(file)
    checks = [check_model(files, group, settings, parameters.seed) for group in by_model.values()]
    checks.sort(key=lambda item: (item.ended, item.model, item.version))
    result = {
        "drift": any(item.verdict == DRIFT for item in checks),
        "sketches": settings.sketches,
        "false_alarm_rate": settings.false_alarm_rate,
        "models": [item.to_dict() for item in checks],
    }
    write_json(RESULT, result)
    write_text(PAGE, monitor_page(result))
    return result


def check_model(files: Files, group: Sequence[SketchFile], settings: Monitor, seed: int) -> Checked:
    """Return the check of one model on the sketches of it."""
    if settings.window_hours is not None:
        begin = max(file.ended for file in group) - timedelta(hours=settings.window_hours)
        group = [file for file in group if file.ended > begin]
    reference = read_reference_file(files, group[0].reference)
    sketch: Sketch = reduce(merged, (sketch_in(file, reference) for file in group))
    limits = Limits(
        settings.false_alarm_rate, settings.min_images, settings.min_stability_index, settings.images_per_scene
    )
    findings = drift_findings(reference, sketch, limits, seed)
    verdict, sentence = judge(findings, sketch.n_images, reference.watched.images, settings)
    saturates = any(file.saturates for file in group)
    return Checked(
        group[-1].model,
        group[-1].version,
        verdict,
        f"{sentence} {SATURATES}" if saturates and verdict == DRIFT else sentence,
        sketch.n_images,
        reference.watched.images,
        saturates,
        sum(file.lost for file in group),
        min(file.started for file in group).isoformat(),
        max(file.ended for file in group).isoformat(),
        findings,
        [file.name for file in group],
    )


def judge(findings: Sequence[Finding], n_images: int, counted: str, settings: Monitor) -> tuple[str, str]:
    """Return the verdict over all findings, and a sentence. counted: what the images are called."""
    moved = [finding for finding in findings if finding.verdict == MOVED]
    little = [finding.name for finding in findings if finding.verdict == MOVED_LITTLE]
    needed = settings.min_images * settings.images_per_scene
    if n_images < needed:
        return TOO_FEW, f"Not enough {counted}: {n_images:,} of {needed:,}."
    untested = [finding.name for finding in findings if finding.verdict == TOO_FEW]
    if len(untested) == len(findings):
        return TOO_FEW, f"The reference rests on fewer than {FEWEST} {counted}: there is nothing to compare with."
    aside = f" Moved, but by too little to matter: {', '.join(little)}." if little else ""
    aside += f" Not compared, for too few {counted} on a side: {', '.join(untested)}." if untested else ""
    if not moved:
        return NO_DRIFT, f"No drift in {n_images:,} {counted}.{aside}"
    by_size = sorted(moved, key=lambda finding: -(finding.stability_index or 0))
    said = ", ".join(
        finding.name + ("" if finding.stability_index is None else f" ({finding.stability_index:.2f})")
        for finding in by_size
    )
    return DRIFT, f"Drift in {n_images:,} {counted}: {said} moved (stability index in brackets).{aside}"


def checked_before(sketches: str) -> set[str]:
    """Return the names of the sketches in this place that a check has counted."""
    try:
        state = read_json(STATE)
        return set(state["checked"]) if state["sketches"] == sketches else set()
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        # Counting a sketch a second time is the lesser harm.
        return set()


def remember(result: dict[str, Any]) -> None:
    """Count the sketches of a result as checked; those of models with too few images wait for more."""
    done = {name for item in result["models"] if item["verdict"] != TOO_FEW for name in item["names"]}
    there = {name for name in files_in(result["sketches"]).names() if name.startswith(SKETCH)}
    checked = sorted((checked_before(result["sketches"]) | done) & there)
    write_json(STATE, {"sketches": result["sketches"], "checked": checked})
