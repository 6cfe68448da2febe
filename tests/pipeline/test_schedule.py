"""Scheduled runs: a real Prefect server, a real worker, `kinglet schedule apply`, and a webhook that is told."""

from __future__ import annotations

import contextlib
import json
import sys
import urllib.error
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipeline.prefect_server import ask, running, running_server, webhook_receiver
from tests.pipeline.small_project import ROOT, Project, make_project, stage, wait_until

pytestmark = pytest.mark.timeout(1800)
SECONDS_FOR_A_RUN = 600
VERDICT = {"verdict": "refused", "paragraph": 'Refused: "shirt" lost 3 points.'}
# The gate's verdict is a file here that the stage takes as it is.
GATE = {
    "cmd": "mkdir -p artifacts/gate && cp verdict.json artifacts/gate/verdict.json",
    "deps": ["verdict.json", "artifacts/first"],
    "outs": ["artifacts/gate"],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("prefect-server")) as address:
        if refuses_nulls(address):
            pytest.skip(
                f"FastAPI {version('fastapi')} refuses the nulls that Prefect's client sends: `prefect deploy` fails;"
                " it needs fastapi<0.151"
            )
        yield address


def refuses_nulls(server: str) -> bool:
    """Return whether the server does not take what `prefect deployment ls` sends."""
    try:
        ask(server, "/deployments/filter", {"limit": None})
    except urllib.error.HTTPError as error:
        return error.code == 422
    return False


@pytest.fixture
def scheduled(tmp_path: Path, server: str) -> Iterator[Project]:
    """A small project with the flows and prefect.yaml of the checkout, whose flow `retrain` is due every 20 seconds."""
    stages = {"first": stage("first", 0.1, "source.txt"), "gate": GATE}
    made = make_project(tmp_path / "project", stages, tmp_path / "home")
    (made.root / "flows").symlink_to(ROOT / "flows")
    (made.root / "verdict.json").write_text(json.dumps(VERDICT))
    plan = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    plan["deployments"] = [each for each in plan["deployments"] if each["entrypoint"].startswith("flows/retrain.py")]
    plan["deployments"][0]["schedules"] = [{"interval": 20}]
    (made.root / "prefect.yaml").write_text(yaml.safe_dump(plan))
    made.environment["PREFECT_API_URL"] = server
    yield made
    made.kill_all()


def runs(server: str, state: str) -> list[dict[str, Any]]:
    """Return the runs in a state (COMPLETED, FAILED) of all deployments; none while the server is too busy."""
    with contextlib.suppress(OSError):
        return ask(server, "/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": [state]}}}})
    return []


def test_schedule_fires_and_the_webhook_is_told_of_a_refusal_and_of_a_failure(
    scheduled: Project, server: str, tmp_path: Path
) -> None:
    with webhook_receiver() as (hook, received):
        applied = scheduled.run(
            *(sys.executable, "-m", "flows.cli", "schedule", "apply", "--webhook", hook, "--json"),
            timeout=SECONDS_FOR_A_RUN,
        )
        assert applied.returncode == 0, applied.stderr
        assert json.loads(applied.stdout)["deployments"] == ["retrain/kinglet"]
        queue = ask(server, "/work_pools/kinglet-process/queues/kinglet")
        assert queue["concurrency_limit"] == 1

        worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "kinglet-process"]
        # What flows/ sets for single runs is not what a worker has.
        kept = {name: value for name, value in scheduled.environment.items() if not name.startswith("PREFECT_LOGGING")}
        environment = {**kept, "PREFECT_WORKER_QUERY_SECONDS": "1"}
        # Somewhere else: the deployment itself says where the checkout lies.
        with running(worker, tmp_path / "worker.log", environment, tmp_path):
            wait_until(lambda: bool(runs(server, "COMPLETED")), SECONDS_FOR_A_RUN)
            assert set(scheduled.lock()["stages"]) == {"first", "gate"}
            wait_until(lambda: bool(received), SECONDS_FOR_A_RUN)
            assert received[0] == {
                "event": "kinglet.gate.refused",
                "model": "kinglet",
                "verdict": "refused",
                "text": f"kinglet: the gate refused the new model. {VERDICT['paragraph']}",
            }

            # No more of them are due: a busy machine could not keep up.
            deployment = ask(server, "/deployments/name/retrain/kinglet")["id"]
            ask(server, f"/deployments/{deployment}/pause_deployment", {})
            (scheduled.root / "source.txt").write_text("another\n")
            (scheduled.root / "broken.txt").write_text("first\n")
            ask(server, f"/deployments/{deployment}/create_flow_run", {})
            wait_until(lambda: bool(runs(server, "FAILED")), SECONDS_FOR_A_RUN)
            # That one, or one that was due just before.
            failed = runs(server, "FAILED")[0]
            wait_until(lambda: any(told.get("run_id") == failed["id"] for told in received), SECONDS_FOR_A_RUN)
            (told,) = [told for told in received if told.get("run_id") == failed["id"]]
            assert (told["flow"], told["deployment"]) == ("retrain", "kinglet")
            assert "Step first found nothing to work on." in told["reason"]
            # A failed step is not tried again.
            task_runs = ask(server, "/task_runs/filter", {"flow_runs": {"id": {"any_": [failed["id"]]}}})
            assert [run["run_count"] for run in task_runs if run["name"] == "first"] == [1]
        wait_until(lambda: not scheduled.left_behind(), 60)
