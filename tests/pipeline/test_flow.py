"""The flow on a small DVC project: order, what runs beside what, and what is left when it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows.graph import Stage, read_graph
from flows.processes import release_stale_path_locks
from kinglet.errors import KingletError
from tests.pipeline.small_project import Project, five_stages, make_project, stage, wait_until

pytestmark = pytest.mark.timeout(240)
STAGES = {"first", "left", "right", "alone", "last"}


def spans(project: Project) -> dict[str, tuple[float, float]]:
    began = {name: when for kind, name, when in project.journal() if kind == "begin"}
    return {name: (began[name], when) for kind, name, when in project.journal() if kind == "end"}


def overlap(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] < b[1] and b[0] < a[1]


@pytest.fixture(scope="module")
def expected_lock(tmp_path_factory: pytest.TempPathFactory, prefect_home: Path) -> object:
    """The dvc.lock that plain `dvc repro` leaves: no duration of a step is in it."""
    stages = five_stages(0.1)
    project = make_project(tmp_path_factory.mktemp("plain") / "project", stages, prefect_home)
    done = project.dvc("repro")
    assert done.returncode == 0, done.stderr
    return outputs_of(project.lock())


def outputs_of(lock: dict) -> dict[str, object]:
    """Return {stage: (inputs, outputs)} of a dvc.lock; commands differ between projects by a duration."""
    return {name: (entry["deps"], entry["outs"]) for name, entry in lock["stages"].items()}


def test_graph_is_read_in_order_with_what_changed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    stages = read_graph()
    assert {s.name for s in stages} == STAGES
    places = {s.name: place for place, s in enumerate(stages)}
    assert all(places[needed] < places[s.name] for s in stages for needed in s.upstream)
    assert next(s for s in stages if s.name == "last") == Stage("last", ("alone", "right"), False, True)
    assert [s.name for s in stages if s.exclusive] == ["alone"]


def test_graph_that_dvc_refuses_is_one_sentence(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    (project.root / "dvc.yaml").write_text("stages:\n  first: {cmd: [}\n")
    with pytest.raises(KingletError, match="DVC cannot read the pipeline"):
        read_graph()


def test_flow_runs_in_order_side_by_side_and_alone_then_says_unchanged(project: Project, expected_lock: object) -> None:
    done = project.flow("--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["stages"] == dict.fromkeys(STAGES, "ran")
    assert 0 < result["orchestration_share"] < 1

    when = spans(project)
    assert overlap(when["left"], when["right"])
    assert not any(overlap(when["alone"], when[other]) for other in STAGES - {"alone"})
    assert when["first"][1] <= min(when["left"][0], when["right"][0])
    assert max(when["right"][1], when["alone"][1]) <= when["last"][0]
    assert outputs_of(project.lock()) == expected_lock
    assert not project.left_behind()

    # An output that went missing comes back from the cache; nothing works, here or for those who read it.
    lock_before = project.lock()
    project.clear_journal()
    (project.root / "artifacts" / "left" / "out.txt").unlink()
    again = project.flow("--json")
    assert json.loads(again.stdout)["stages"] == {**dict.fromkeys(STAGES, "unchanged"), "left": "restored from cache"}
    assert project.journal() == []
    plain = project.dvc("repro")
    assert "Data and pipelines are up to date" in plain.stdout
    assert project.lock() == lock_before


def test_failed_step_is_one_sentence_and_nothing_after_it_runs(project: Project, expected_lock: object) -> None:
    (project.root / "broken.txt").write_text("left\n")
    done = project.flow()
    assert done.returncode == 2
    assert done.stderr.count("Step left found nothing to work on.") == 1
    assert "Traceback" not in done.stderr
    assert "Stage 'left' failed" in done.stderr
    # The independent one ended, and a failed step was not tried again.
    assert {name for kind, name, _ in project.journal() if kind == "end"} == {"first", "right"}
    assert sum(1 for kind, name, _ in project.journal() if (kind, name) == ("begin", "left")) == 1
    assert not project.left_behind()

    (project.root / "broken.txt").unlink()
    project.clear_journal()
    assert project.dvc("repro").returncode == 0
    assert {name for kind, name, _ in project.journal() if kind == "end"} == {"left", "alone", "last"}
    assert outputs_of(project.lock()) == expected_lock


@pytest.mark.parametrize("victim", ["command by SIGKILL", "flow by SIGKILL", "command by SIGTERM"])
def test_killed_flow_leaves_no_process_and_goes_on(project: Project, expected_lock: object, victim: str) -> None:
    run = project.start(*project.flow_command)
    project.wait_for_step("left")
    if victim == "flow by SIGKILL":
        flow = next(p for p in psutil.Process(run.pid).children() if "flows.run" in p.cmdline())
        flow.kill()
    else:
        run.send_signal(signal.SIGKILL if "SIGKILL" in victim else signal.SIGTERM)
    # No wait() yet: a run that nobody waits for is gone all the same.
    wait_until(lambda: not project.left_behind(), 20)
    exit_code = run.wait(10)
    assert exit_code != 0
    said = (project.root / "run.log").read_text()
    assert "Traceback" not in said
    if victim == "command by SIGTERM":
        assert exit_code == 128 + signal.SIGTERM
        assert "Stopped by SIGTERM" in said

    # Either way goes on from there.
    project.clear_journal()
    done = project.flow() if victim == "command by SIGKILL" else project.dvc("repro")
    assert done.returncode == 0, done.stderr
    worked = {name for kind, name, _ in project.journal() if kind == "begin"}
    assert worked == {"left", "right", "alone", "last"}
    assert outputs_of(project.lock()) == expected_lock


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("shell", ["", "{command}; echo done > /dev/null"], ids=["step", "shell in between"])
def test_killed_dvc_leaves_no_process_and_goes_on(
    tmp_path: Path, prefect_home: Path, number: signal.Signals, shell: str
) -> None:
    only = stage("only", 30, "source.txt", shell=shell)
    project = make_project(tmp_path / "project", {"only": only}, prefect_home)
    dvc = project.start(*project.dvc_command, "repro")
    project.wait_for_step("only")
    dvc.send_signal(number)
    wait_until(lambda: not project.left_behind(), 20)
    dvc.wait(10)

    (project.root / "dvc.yaml").write_text((project.root / "dvc.yaml").read_text().replace("only 30", "only 0"))
    done = project.dvc("repro")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def slow_project(tmp_path: Path, prefect_home: Path) -> Iterator[Project]:
    """Its stages work until they are stopped, so that a second run meets the first."""
    made = make_project(tmp_path / "slow", five_stages(100), prefect_home)
    yield made
    made.kill_all()


def test_second_run_at_once_is_refused_in_one_sentence(slow_project: Project) -> None:
    first = slow_project.start(*slow_project.flow_command)
    slow_project.wait_for_step("left")
    second = slow_project.flow()
    assert second.returncode == 2
    assert f"Another run (process {first.pid}) is at work in this checkout." in second.stderr
    beside = slow_project.dvc("repro", "left")
    assert beside.returncode != 0
    assert "is busy, it is being blocked by" in beside.stderr
    assert "Traceback" not in second.stderr + beside.stderr
    assert first.poll() is None


def test_flow_beside_dvc_is_refused_in_one_sentence(slow_project: Project) -> None:
    dvc = slow_project.start(*slow_project.dvc_command, "repro", "left")
    slow_project.wait_for_step("left")
    flow = slow_project.flow()
    assert flow.returncode == 2
    assert f"Another DVC command (process {dvc.pid}" in flow.stderr
    second = slow_project.dvc("repro", "left")
    assert second.returncode != 0
    assert "is busy, it is being blocked by" in second.stderr
    assert "Traceback" not in flow.stderr + second.stderr
    assert dvc.poll() is None


def test_path_locks_of_the_dead_are_released_and_those_of_the_living_kept(tmp_path: Path) -> None:
    table = tmp_path / ".dvc" / "tmp" / "rwlock"
    table.parent.mkdir(parents=True)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    # Ended, and not waited for: its id still exists.
    wait_until(lambda: psutil.Process(dead.pid).status() == psutil.STATUS_ZOMBIE)
    living = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "dvc"])
    time.sleep(0.2)
    entry = {"pid": living.pid, "cmd": "dvc repro"}
    stale = {"pid": dead.pid, "cmd": "dvc repro"}
    reused = {"pid": os.getpid() if "dvc" not in " ".join(psutil.Process().cmdline()) else 1, "cmd": "dvc repro"}
    table.write_text(json.dumps({"write": {"a": stale, "b": entry}, "read": {"c": [stale, entry], "d": [reused]}}))
    release_stale_path_locks(tmp_path)
    assert json.loads(table.read_text()) == {"write": {"b": entry}, "read": {"c": [entry]}}

    table.write_text('{"write": {"a": {"pi')
    release_stale_path_locks(tmp_path)
    assert json.loads(table.read_text()) == {}
    living.kill()
    living.wait()
    dead.wait()
