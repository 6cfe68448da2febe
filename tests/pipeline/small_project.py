"""A small DVC project of its own, with steps that write down when they worked."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[2]
# Set for all that a test starts, so that it can find what is left of it.
MARK = "KINGLET_TEST_MARK"

STEP = '''
"""work NAME SECONDS INPUT...: write the inputs' words and the own one, after SECONDS."""
import sys, time
from pathlib import Path
from kinglet.atomic import write_text
from kinglet.errors import KingletError
from tasks.stage import end_with_parent, exit_code_of, timed

name, seconds, *inputs = sys.argv[1:]

def work():
    with open("journal.txt", "a") as journal:
        journal.write(f"begin {name} {time.time()}\\n")
    fault = Path(f"fault-{name}")
    time.sleep(float(seconds))
    if Path("broken.txt").exists() and Path("broken.txt").read_text().strip() == name:
        raise KingletError(f"Step {name} found nothing to work on.", "Remove broken.txt.")
    words = [Path(i, "out.txt").read_text() if Path(i).is_dir() else Path(i).read_text() for i in inputs]
    write_text(Path("artifacts", name, "out.txt"), "".join(words) + name + "\\n")
    with open("journal.txt", "a") as journal:
        journal.write(f"end {name} {time.time()}\\n")

end_with_parent()
sys.exit(timed(name, lambda: exit_code_of(work)))
'''


def stage(name: str, seconds: float, *inputs: str, exclusive: bool = False, shell: str = "") -> dict[str, Any]:
    command = f"python work.py {name} {seconds} {' '.join(inputs)}".strip()
    described: dict[str, Any] = {
        "cmd": shell.format(command=command) if shell else command,
        "deps": ["work.py", *inputs],
        "outs": [f"artifacts/{name}"],
    }
    if exclusive:
        described["meta"] = {"exclusive": True}
    return described


@dataclass(frozen=True)
class Project:
    """A checkout with the stages first -> (left, right) -> alone -> last."""

    root: Path
    environment: dict[str, str]

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command with its output in run.log."""
        with (self.root / "run.log").open("a") as log:
            return subprocess.Popen(
                command,
                cwd=self.root,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def run(self, *command: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.root, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    def flow(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.run(*self.flow_command, *options)

    def dvc(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(*self.dvc_command, *arguments)

    @property
    def flow_command(self) -> tuple[str, ...]:
        return (sys.executable, "-m", "flows.cli", "run")

    @property
    def dvc_command(self) -> tuple[str, ...]:
        return (sys.executable, "-m", "dvc")

    def lock(self) -> Any:
        return yaml.safe_load((self.root / "dvc.lock").read_text())

    def outcomes(self) -> dict[str, str]:
        return json.loads((self.root / ".kinglet" / "outcomes.json").read_text())

    def journal(self) -> list[tuple[str, str, float]]:
        """Return (begin or end, step, seconds since the epoch) in the order in which they were written."""
        path = self.root / "journal.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(kind, name, float(when)) for kind, name, when in (line.split() for line in lines)]

    def wait_for_step(self, name: str, seconds: float = 60) -> None:
        wait_until(lambda: any(kind == "begin" and step == name for kind, step, _ in self.journal()), seconds)

    def clear_journal(self) -> None:
        (self.root / "journal.txt").unlink(missing_ok=True)

    def left_behind(self) -> list[psutil.Process]:
        """Return the living processes that this project's commands started."""
        found = []
        for process in psutil.process_iter():
            try:
                alive = process.status() != psutil.STATUS_ZOMBIE
                if alive and process.environ().get(MARK) == self.environment[MARK]:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def kill_all(self) -> None:
        for process in self.left_behind():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def make_project(root: Path, stages: dict[str, dict[str, Any]], prefect_home: Path) -> Project:
    root.mkdir(parents=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PREFECT_HOME": str(prefect_home),
        "GIT_AUTHOR_NAME": "Test",
        "GIT_AUTHOR_EMAIL": "test@example.org",
        "GIT_COMMITTER_NAME": "Test",
        "GIT_COMMITTER_EMAIL": "test@example.org",
        MARK: str(root),
    }
    environment.pop("PREFECT_API_URL", None)
    project = Project(root, environment)
    (root / "work.py").write_text(STEP)
    (root / "source.txt").write_text("source\n")
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    shutil.copy(ROOT / "params.yaml", root)
    shutil.copy(ROOT / ".dvcignore", root)
    for command in (("git", "init", "-q"), (*project.dvc_command, "init", "-q"), ("git", "add", "-A")):
        done = project.run(*command)
        assert done.returncode == 0, done.stderr
    shutil.copy(ROOT / ".dvc" / "config", root / ".dvc" / "config")
    assert project.run("git", "commit", "-qm", "Start").returncode == 0
    return project


def five_stages(seconds: float) -> dict[str, dict[str, Any]]:
    """first -> (left, right) -> alone -> last; left and right take `seconds`, alone must be alone."""
    return {
        "first": stage("first", 0.2, "source.txt"),
        "left": stage("left", seconds, "artifacts/first"),
        "right": stage("right", seconds, "artifacts/first"),
        "alone": stage("alone", 0.2, "artifacts/left", exclusive=True),
        "last": stage("last", 0.2, "artifacts/right", "artifacts/alone"),
    }
