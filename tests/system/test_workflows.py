"""The workflows: pinned, careful, and made of nothing but scripts and make targets that a test runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".github" / "workflows"
SCRIPTS = ROOT / ".github" / "scripts"
# YAML reads `on` as true.
WORKFLOWS: dict[str, dict[Any, Any]] = {path.stem: yaml.safe_load(path.read_text()) for path in FOLDER.glob("*.yml")}
STEPS = [
    pytest.param(step, id=f"{name}-{job}-{number}")
    for name, workflow in sorted(WORKFLOWS.items())
    for job, described in workflow["jobs"].items()
    for number, step in enumerate(described["steps"])
]
# Every command of a step, and the test that runs it. `make` targets are what `.ci/run` and the README type.
TESTED = {
    "make install": "the environment that runs this test",
    "make lint": "`.ci/run`",
    "make test": "`.ci/run`",
    "make run": "tests/pipeline: `kinglet run`, which is all that it does",
    "install-system-packages.sh": "test_workflow_scripts.py",
    "pull.sh": "test_workflow_scripts.py",
    "judge.sh": "test_workflow_scripts.py",
    "push.sh": "test_workflow_scripts.py",
    "propose.sh": "test_workflow_scripts.py",
    "build-image.sh": "test_workflow_scripts.py",
    "scan-image.sh": "test_workflow_scripts.py",
    "release.sh": "test_workflow_scripts.py",
}


def test_there_are_the_three_workflows() -> None:
    assert set(WORKFLOWS) == {"ci", "retrain", "release"}


@pytest.mark.parametrize("step", STEPS)
def test_every_step_is_a_pinned_action_or_one_tested_command(step: dict[str, Any]) -> None:
    assert ("uses" in step) != ("run" in step)
    if "uses" in step:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"])
        return
    command = step["run"].strip()
    assert "\n" not in command
    # Of anything that GitHub would paste into the command, only names of variables.
    assert "${{" not in command
    program = command.split()[0]
    name = Path(program).name if program.startswith(".github/scripts/") else command
    assert name in TESTED
    if name.endswith(".sh"):
        assert os.access(ROOT / program, os.X_OK)
        described_in = ROOT / "tests" / "system" / TESTED[name]
        assert f'"{name}"' in described_in.read_text()
    else:
        assert re.search(rf"^{name.removeprefix('make ')}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_script_is_used() -> None:
    used = {Path(step.values[0]["run"].split()[0]).name for step in STEPS if "run" in step.values[0]}
    assert {path.name for path in SCRIPTS.iterdir()} == {name for name in used if name.endswith(".sh")}


def test_every_pin_names_its_version_and_one_action_has_one_pin() -> None:
    pins: dict[str, set[str]] = {}
    for path in FOLDER.glob("*.yml"):
        for line in path.read_text().splitlines():
            if "uses:" in line:
                found = re.search(r"uses: (\S+)@([0-9a-f]{40} # v\d+\.\d+\.\d+)$", line)
                assert found, line
                pins.setdefault(found[1], set()).add(found[2])
    assert all(len(versions) == 1 for versions in pins.values())


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflow_is_bounded_and_has_no_more_rights_than_it_needs(name: str) -> None:
    workflow = WORKFLOWS[name]
    assert workflow["permissions"] in ({}, {"contents": "read"})
    assert workflow["concurrency"]["group"]
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 360
        rights = job.get("permissions", {})
        # What may write to the repository asks for no cloud, and the other way round.
        assert not (rights.get("contents") == "write" and "id-token" in rights)
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_no_long_lived_key_is_used() -> None:
    for path in FOLDER.glob("*.yml"):
        text = path.read_text()
        assert "secrets." not in text
        assert "aws-access-key-id" not in text


def test_releases_wait_for_approval_and_install_without_a_cache() -> None:
    jobs = WORKFLOWS["release"]["jobs"]
    assert jobs["promote"]["environment"] == "production"
    assert jobs["promote"]["needs"] == "build"
    assert not [step for job in jobs.values() for step in job["steps"] if "cache" in step.get("with", {})]


def test_both_builds_of_a_release_have_what_the_image_is_made_of() -> None:
    for job in WORKFLOWS["release"]["jobs"].values():
        commands = [step["run"] for step in job["steps"] if "run" in step]
        pulled = next(command for command in commands if "pull.sh" in command).split()[1:]
        # The labels name the data by the split's manifest.
        assert {"bundle", "split"} <= set(pulled)
        assert ".github/scripts/build-image.sh" in commands


def test_triggers_are_those_that_were_meant() -> None:
    assert set(WORKFLOWS["retrain"][True]) == {"schedule", "workflow_dispatch"}
    assert WORKFLOWS["release"][True]["push"] == {"tags": ["v*"]}
    assert "workflow_dispatch" in WORKFLOWS["ci"][True]


def test_actionlint_finds_nothing() -> None:
    if shutil.which("actionlint") is None:
        pytest.skip("no actionlint")
    done = subprocess.run(["actionlint"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.iterdir()))
def test_script_stops_at_the_first_failure_and_is_valid(script: str) -> None:
    text = (SCRIPTS / script).read_text()
    assert text.startswith("#!/bin/bash\n# ")
    assert "\nset -euo pipefail\n" in text
    done = subprocess.run(["bash", "-n", str(SCRIPTS / script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
