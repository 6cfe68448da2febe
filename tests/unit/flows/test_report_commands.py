"""`kinglet report --comment` in a real DVC repository: a first run, one that changes nothing, one that changes much."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from flows.report_commands import comment_against, report
from kinglet.atomic import read_json, write_json, write_text
from kinglet.errors import KingletError
from tasks.artifacts import BUNDLE, VERDICT
from tasks.pull_request_comment import SOURCES
from tests.unit.tasks.small_runs import write_run

ROOT = Path(__file__).resolve().parents[3]
SCORES, LATENCY = SOURCES["scores"], SOURCES["latency"]
IDENTITY = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def do(folder: Path, *command: str) -> str:
    environment = {**os.environ, **IDENTITY}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def comment(folder: Path, against: str = "main") -> str:
    """Return the comment; raises what the command raises."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return comment_against(against)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose main holds no run yet, and in which one has just ended."""
    root = tmp_path_factory.mktemp("first")
    shutil.copy(ROOT / "params.yaml", root)
    (root / "champion").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_text(BUNDLE / "SHA256SUMS", f"{'0' * 64}  model.onnx\n")
        write_run("accepted")
    stages = {path.parent.name: {"cmd": "false", "metrics": [str(path)]} for path in (*SOURCES.values(), VERDICT)}
    stages["select"]["params"] = ["select", "report"]
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (root / ".gitignore").write_text("artifacts\n")
    do(root, "git", "init", "--quiet", "--initial-branch", "main")
    do(root, sys.executable, "-m", "dvc", "init", "--quiet")
    do(root, "git", "add", "params.yaml", "dvc.yaml", ".gitignore", ".dvc")
    do(root, "git", "commit", "--quiet", "--message", "Start")
    do(root, sys.executable, "-m", "dvc", "commit", "--force", "--quiet")
    return root


@pytest.fixture(scope="module")
def second(first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after the run was committed."""
    root = tmp_path_factory.mktemp("second") / "checkout"
    shutil.copytree(first, root, symlinks=True)
    do(root, "git", "add", "dvc.lock")
    do(root, "git", "commit", "--quiet", "--message", "Train")
    return root


@pytest.fixture
def changed(second: Path, tmp_path: Path) -> Path:
    """A run after it, with another setting, other scores, on another machine."""
    root = tmp_path / "checkout"
    shutil.copytree(second, root, symlinks=True)
    settings = yaml.safe_load((root / "params.yaml").read_text())
    settings["report"]["sample_errors"] = 5
    (root / "params.yaml").write_text(yaml.safe_dump(settings))
    edit(root / SCORES, lambda scores: scores["models"]["teacher"]["test"]["accuracy"].update(value=0.9612))
    edit(root / LATENCY, lambda latency: latency["device"].update(cpu="Another CPU"))
    return root


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = read_json(path)
    change(content)
    write_json(path, content)


def test_first_run_has_nothing_to_be_compared_with(first: Path) -> None:
    text = comment(first)
    assert "main holds no run yet" in text
    assert "| teacher | fine-tuned, 24 px, fp32 | 95.00 (" in text


def test_a_run_that_changed_nothing_says_so(second: Path) -> None:
    text = comment(second)
    assert "Settings changed since main: none." in text
    assert "Metrics changed since main: none." in text
    assert "main chose student-int8." in text
    assert text.splitlines()[2] == "## Accepted: student-int8"


def test_what_changed_stands_beside_what_was(changed: Path) -> None:
    text = comment(changed)
    assert "| params.yaml report.sample\\_errors | 24 | 5 | -19 |" in text
    assert "| evaluate/scores.json models.teacher.test.accuracy.value | 0.95 | 0.9612 | +0.0112 |" in text
    teacher = next(line for line in text.splitlines() if line.startswith("| teacher |"))
    assert "| 96.12 (" in teacher
    assert "| 95.00 (" in teacher
    assert "were measured on another machine" in text


@pytest.mark.parametrize("name", ["no-such-branch", "--all", "main:params.yaml"])
def test_a_revision_that_is_none_is_named(second: Path, name: str) -> None:
    with pytest.raises(KingletError, match=f"There is no revision '{name}'"):
        comment(second, name)


def test_what_neither_cache_nor_remote_has_is_named(changed: Path) -> None:
    shutil.rmtree(changed / ".dvc" / "cache")
    with pytest.raises(KingletError, match=f"What main found cannot be read: .*{SCORES}"):
        comment(changed)


def test_a_verdict_on_another_bundle_is_no_verdict(changed: Path) -> None:
    (changed / BUNDLE / "SHA256SUMS").write_text(f"{'1' * 64}  model.onnx\n")
    with pytest.raises(KingletError, match="out of date: the bundle"):
        comment(changed)


def test_what_dvc_refuses_is_said_in_its_words(changed: Path) -> None:
    (changed / "dvc.yaml").write_text("stages: [")
    with pytest.raises(KingletError, match=r"DVC cannot .*dvc\.yaml"):
        comment(changed)


def test_without_a_run_there_is_neither_report_nor_comment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KingletError, match=r"report\.html does not exist"):
        report()
    with pytest.raises(KingletError, match="the gate has not judged"):
        comment(tmp_path)
