"""Judge the measured facts with Great Expectations, and quarantine what cannot be trained on.

A critical finding stops the run. Its evidence is then also kept in .kinglet/check_data, because DVC
removes the outputs of a stage before it runs it again.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pandas as pd

from kinglet.atomic import atomic_path, read_json, write_json
from kinglet.data.expectations import CLASSES, DATA_SET, IMAGES, Finding, validate
from kinglet.errors import KingletError
from tasks.artifacts import CHECK_DATA, PROFILE, WORKSPACE
from tasks.clip_checks import judge_clips
from tasks.data_settings import Check as Limits
from tasks.detection_checks import judge_annotated
from tasks.judged_images import Judged, judge_classes
from tasks.parameters import Parameters
from tasks.segmentation_checks import judge_masked
from tasks.stage import run_stage

QUARANTINE = CHECK_DATA / "quarantine.csv"
# No boxes or masks, no row.
ODD_ANNOTATIONS = CHECK_DATA / "annotations.csv"
CHECKS = CHECK_DATA / "checks.json"
DOCS = CHECK_DATA / "docs"
KEPT_AFTER_FAILURE = WORKSPACE / "check_data"

NAMES_IN_ERROR = 5


def run(parameters: Parameters) -> None:
    """Write `artifacts/check_data`: quarantine.csv, annotations.csv, checks.json, docs/.

    Raises KingletError that names the images or classes if a check of severity "critical" fails.
    """
    judged = JUDGES[parameters.network](parameters.check)
    data_set = read_json(PROFILE / "dataset.json")
    usable = judged.usable
    findings = validate(
        {
            IMAGES: judged.images,
            CLASSES: pd.DataFrame({"label": list(usable), "n_usable": list(usable.values())}),
            DATA_SET: data_set_table(judged, data_set["drift"]["stability_index"]),
            **judged.tables,
        },
        judged.checks,
        DOCS,
    )
    for table, file in ((judged.quarantined, QUARANTINE), (judged.listed, ODD_ANNOTATIONS)):
        with atomic_path(file) as path:
            table.to_csv(path, index=False, lineterminator="\n")
    write_json(CHECKS, summary(judged, findings, data_set))
    tell(findings, judged, data_set["drift"]["reference"])
    refuse_critical(findings, judged.images)


def data_set_table(judged: Judged, drift: dict[str, float]) -> pd.DataFrame:
    """Return the table of one row that the checks of the data set as a whole read."""
    counts = [count for count in judged.occurrences.values() if count]
    row: dict[str, Any] = {
        "name": "data set",
        "n_usable": judged.n_usable,
        "n_classes": len(counts),
        "class_imbalance": max(counts) / min(counts) if counts else 0.0,
    }
    return pd.DataFrame([row | {f"drift_{name}": value for name, value in drift.items()}])


def summary(judged: Judged, findings: list[Finding], data_set: dict[str, Any]) -> dict[str, Any]:
    """Return the content of checks.json: numbers for `dvc metrics`, and all findings."""
    failed = [finding for finding in findings if not finding.passed]
    return {
        "n_files": len(judged.images),
        "n_usable": judged.n_usable,
        "n_quarantined": len(judged.quarantined),
        "n_classes": sum(count > 0 for count in judged.usable.values()),
        "n_critical": sum(finding.severity == "critical" for finding in failed),
        "n_warnings": sum(finding.severity == "warning" for finding in failed),
        "class_imbalance": data_set["class_imbalance"],
        "drift_reference": "data/reference_profile.json" if data_set["drift"]["reference"] else "no reference yet",
        "drift": data_set["drift"]["stability_index"],
        "usable_by_class": judged.usable,
        **judged.counts,
        "findings": [asdict(finding) for finding in findings],
    }


def tell(findings: list[Finding], judged: Judged, has_reference: bool) -> None:
    """Print the warnings to stderr."""
    for finding in findings:
        if not finding.passed and finding.severity != "critical":
            print(f"warning: {finding.message}{named(finding)}.", file=sys.stderr)
    if len(judged.quarantined):
        count = len(judged.quarantined)
        print(f"note: {count} files are left out, listed with reasons in {QUARANTINE}", file=sys.stderr)
    if len(judged.listed):
        count = len(judged.listed)
        print(f"note: {count} annotations to look at are listed with reasons in {ODD_ANNOTATIONS}", file=sys.stderr)
    if not has_reference:
        print("note: drift: no reference yet; accept this version: python -m tasks.profile --accept", file=sys.stderr)


def named(finding: Finding) -> str:
    """Return the first paths of a finding in brackets, or nothing."""
    if not finding.paths:
        return ""
    more = f", and {finding.count - NAMES_IN_ERROR} more" if finding.count > NAMES_IN_ERROR else ""
    return f" ({', '.join(finding.paths[:NAMES_IN_ERROR])}{more})"


def refuse_critical(findings: list[Finding], judged: pd.DataFrame) -> None:
    """Raise KingletError if a critical check failed, with the evidence kept where the next run leaves it alone."""
    shutil.rmtree(KEPT_AFTER_FAILURE, ignore_errors=True)
    critical = [finding for finding in findings if finding.severity == "critical" and not finding.passed]
    if not critical:
        return
    shutil.copytree(CHECK_DATA, KEPT_AFTER_FAILURE)
    problems = dict(zip(judged["path"], judged["problem"], strict=True))
    clauses = []
    for finding in critical:
        reasons = sorted({problems[path] for path in finding.paths if problems.get(path)})[:2]
        clauses.append(finding.message + named(finding) + (f": {'; '.join(reasons)}" if reasons else ""))
    raise KingletError(
        f"The data set cannot be trained on: {'; '.join(clauses)}.",
        f"Mend the data or the limits under `check` in params.yaml, or name classes in data.ignore_classes; "
        f"details: {KEPT_AFTER_FAILURE / 'docs' / 'index.html'} and {KEPT_AFTER_FAILURE / 'quarantine.csv'}.",
    )


JUDGES: dict[str, Callable[[Limits], Judged]] = {
    "classification": judge_classes,
    "detection": judge_annotated,
    "segmentation": judge_masked,
    "video": judge_clips,
}

if __name__ == "__main__":
    run_stage(run)
