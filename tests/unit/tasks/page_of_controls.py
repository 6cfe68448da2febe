"""A student of images with boxes or masks beside its control, from the scores to the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tasks.compare
import tasks.evaluate
import tasks.report
import tasks.select
from kinglet.atomic import read_json, write_json
from tasks.artifacts import read_card, write_card
from tasks.parameters import Parameters

REPORT = Path("artifacts/report/report.html")


def assert_a_control_is_on_the_page(
    folder: Path, student: str, latency: dict[str, Any], parameters: Parameters, score: str
) -> None:
    """Assert that a worse student is held against a model that becomes its control, in the working folder's project.

    folder: of that model, whose card says nothing of it yet. latency: of that model. score: by which models are chosen.
    """
    assert 'id="controls"' not in REPORT.read_text()
    control = folder.name
    write_card(folder, replace(read_card(folder), control_for=student))
    file = Path("artifacts/benchmark/latency.json")
    latencies = read_json(file)
    latencies["models"][control] = latency
    write_json(file, latencies)
    for step in (tasks.evaluate, tasks.compare, tasks.select, tasks.report):
        step.run(parameters)
    (row,) = read_json(Path("artifacts/compare/comparisons.json"))["controls"]
    assert (row["name"], row["control"]) == (student, control)
    models = read_json(Path("artifacts/evaluate/scores.json"))["models"]
    taught, alone = (models[name]["test"][score]["value"] for name in (student, control))
    assert taught < alone
    assert row["difference"]["value"] == pytest.approx(taught - alone, abs=2e-6)
    assert row["difference"]["low"] <= row["difference"]["value"] <= row["difference"]["high"]
    page = REPORT.read_text()
    chapter = page[page.index('<section id="controls"') : page.index('<section id="tradeoff"')]
    assert f'<td class="name">{control}</td><td>trained from labels alone</td>' in chapter
