"""prefect.yaml as it is read: pools by kind, entrypoints that import, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flows.schedule import Pool, apply, automations_of, pools_of, read_schedule
from kinglet.errors import KingletError

ROOT = Path(__file__).parents[3]
SCHEDULE = read_schedule(ROOT / "prefect.yaml")


def test_every_deployment_runs_once_at_a_time_and_where_prefect_yaml_says() -> None:
    assert {each["entrypoint"] for each in SCHEDULE["deployments"]} >= {"flows/retrain.py:retrain"}
    for each in SCHEDULE["deployments"]:
        assert each["concurrency_limit"]["limit"] == 1
        assert each["pull"]


def test_every_entrypoint_is_a_flow_that_can_be_called_without_arguments() -> None:
    entrypoints = [each["entrypoint"] for each in SCHEDULE["deployments"]]
    # As a worker does: by path, in a process of its own.
    program = (
        "import inspect, sys\n"
        "from prefect.flows import load_flow_from_entrypoint\n"
        "for entrypoint in sys.argv[1:]:\n"
        "    flow = load_flow_from_entrypoint(entrypoint)\n"
        "    inspect.signature(flow.fn).bind()\n"
        "    print(flow.name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *entrypoints], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # `kinglet schedule apply` calls deployments by the names of their functions.
    assert done.stdout.split() == [entrypoint.split(":")[1] for entrypoint in entrypoints]


def test_the_kinds_of_pools_have_a_template_in_prefect() -> None:
    kinds = {pool["type"] for pool in SCHEDULE["definitions"]["work_pools"]}
    assert kinds == {"process", "docker", "kubernetes"}


def test_a_pool_has_the_queues_of_all_its_deployments() -> None:
    pool = {"name": "p", "type": "process"}
    deployments = [{"work_pool": pool | {"work_queue_name": "b"}}, {"work_pool": pool}]
    assert pools_of({"deployments": deployments}) == (Pool("p", "process", ("b", "default")),)
    with pytest.raises(KingletError, match="the pool p is of type process and of type docker"):
        pools_of({"deployments": [{"work_pool": pool}, {"work_pool": pool | {"type": "docker"}}]})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("deployments: [", "is not valid YAML"),
        ("name: kinglet", "names no deployments"),
        ("deployments: [{name: a, work_pool: {name: b}}]", "deployment 1 has no entrypoint and no work_pool.type"),
    ],
)
def test_a_file_that_says_too_little_is_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "prefect.yaml"
    path.write_text(content)
    with pytest.raises(KingletError, match=said):
        read_schedule(path)


def test_without_a_server_that_stays_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(KingletError, match="PREFECT_API_URL names no Prefect server"):
        apply(None, ROOT / "prefect.yaml")
    with pytest.raises(KingletError, match="does not exist"):
        apply(None, ROOT / "none.yaml")


def test_payloads_are_json_whatever_is_in_them() -> None:
    """The templates, filled by the same engine as the server's, with quotes and line ends in every value."""
    from types import SimpleNamespace as Facts

    from prefect.server.utilities.user_templates import render_user_template_sync

    nasty = 'a "quoted"\nline\\'
    event = Facts(event="e", resource=Facts(name=nasty), payload=Facts(verdict="refused", paragraph=nasty))
    known: dict[str, Any] = {
        "event": event,
        "flow": Facts(name=nasty),
        "deployment": Facts(name="kinglet"),
        "flow_run": Facts(name="run", id=uuid4(), state=Facts(message=nasty, name="Failed")),
    }
    for automation in automations_of("kinglet", uuid4()):
        (action,) = automation.actions
        told = json.loads(render_user_template_sync(action.payload, known))
        assert nasty in told["text"]
