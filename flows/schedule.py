"""What `kinglet schedule apply` brings to a Prefect server: pools, limits, deployments, notifications."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import yaml
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.events.actions import CallWebhook
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture, ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type

from flows.announcements import GATE_REFUSED, model_resource
from kinglet.errors import KingletError

PREFECT_FILE = Path("prefect.yaml")
# A queue without a limit of its own, in every pool.
DEFAULT_QUEUE = "default"
RUN_FAILED = ("prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut")
# `text` is what Slack, Mattermost and Teams show; the rest is for programs.
FAILED_PAYLOAD = """{"event": {{ event.event | tojson }},
 "flow": {{ flow.name | tojson }}, "deployment": {{ deployment.name | tojson }},
 "run": {{ flow_run.name | tojson }}, "run_id": {{ flow_run.id | string | tojson }},
 "reason": {{ (flow_run.state.message or "") | tojson }},
 "text": {{ (flow.name ~ "/" ~ deployment.name ~ ": " ~ (flow_run.state.message or "failed")) | tojson }}}"""
REFUSED_PAYLOAD = """{"event": {{ event.event | tojson }},
 "model": {{ event.resource.name | tojson }}, "verdict": {{ event.payload.verdict | tojson }},
 "text": {{ (event.resource.name ~ ": the gate refused the new model. " ~ event.payload.paragraph) | tojson }}}"""


@dataclass(frozen=True)
class Pool:
    """A work pool of prefect.yaml.

    kind: process, docker or kubernetes. queues: of which each that is not the default one lets one run at a time go on.
    """

    name: str
    kind: str
    queues: tuple[str, ...]


@dataclass(frozen=True)
class Applied:
    """What a server has now. notified: whether failures and refusals are sent to a webhook."""

    server: str
    pools: tuple[Pool, ...]
    deployments: tuple[str, ...]
    notified: bool


def read_schedule(path: Path = PREFECT_FILE) -> dict[str, Any]:
    """Return the content of prefect.yaml.

    Raises KingletError if it is missing, no YAML, or a deployment lacks its name, entrypoint or pool.
    """
    if not path.is_file():
        raise KingletError(f"{path} does not exist.", "Run the command in the checkout's folder.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise KingletError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    deployments = content.get("deployments") if isinstance(content, dict) else None
    if not deployments:
        raise KingletError(f"{path} names no deployments.")
    for number, each in enumerate(deployments, start=1):
        missing = [key for key in ("name", "entrypoint") if not each.get(key)]
        missing += [f"work_pool.{key}" for key in ("name", "type") if not (each.get("work_pool") or {}).get(key)]
        if missing:
            raise KingletError(f"{path}: deployment {number} has no {' and no '.join(missing)}.")
    return dict(content)


def pools_of(schedule: dict[str, Any]) -> tuple[Pool, ...]:
    """Return the pools that the deployments name, by name.

    Raises KingletError if one pool is given two kinds.
    """
    kinds: dict[str, str] = {}
    queues: dict[str, set[str]] = {}
    for each in schedule["deployments"]:
        pool = each["work_pool"]
        name, kind = pool["name"], pool["type"]
        if kinds.setdefault(name, kind) != kind:
            raise KingletError(f"{PREFECT_FILE}: the pool {name} is of type {kinds[name]} and of type {kind}.")
        queues.setdefault(name, set()).add(pool.get("work_queue_name") or DEFAULT_QUEUE)
    return tuple(Pool(name, kinds[name], tuple(sorted(queues[name]))) for name in sorted(kinds))


def apply(webhook: str | None, path: Path = PREFECT_FILE) -> Applied:
    """Bring prefect.yaml to the server that PREFECT_API_URL names; what is there already is brought up to date.

    webhook: address that gets a POST when a run fails or the gate refuses a model; None leaves notifications as
    they are.
    Raises KingletError if no server is named or it does not answer, or prefect.yaml is not valid.
    """
    schedule = read_schedule(path)
    server = os.environ.get("PREFECT_API_URL", "")
    if not server:
        raise KingletError(
            "PREFECT_API_URL names no Prefect server that stays when this command has ended.",
            "Start one with `prefect server start`, then: export PREFECT_API_URL=http://127.0.0.1:4200/api",
        )
    pools = pools_of(schedule)
    models = sorted({str(each["name"]) for each in schedule["deployments"]})
    try:
        asyncio.run(make_pools(pools))
        deploy_all(path)
        notified = asyncio.run(make_notifications(models, webhook))
    except httpx.HTTPError as error:
        raise KingletError(
            f"The Prefect server at {server} does not answer as it should: {error or type(error).__name__}.",
            "Is it running? `prefect server start`; its log says what it refused.",
        ) from None
    deployments = tuple(f"{each['entrypoint'].split(':')[-1]}/{each['name']}" for each in schedule["deployments"])
    return Applied(server, pools, deployments, notified)


async def make_pools(pools: tuple[Pool, ...]) -> None:
    """Make the pools that the server lacks, and their queues; a queue of a model lets one run at a time go on.

    Raises KingletError if a pool is there with another kind.
    """
    async with get_client() as client:
        for pool in pools:
            try:
                present = await client.read_work_pool(pool.name)
            except ObjectNotFound:
                template = await get_default_base_job_template_for_infrastructure_type(pool.kind)
                if template is None:
                    raise KingletError(
                        f"{PREFECT_FILE}: {pool.name} is of type {pool.kind}, which Prefect does not know.",
                        "Known are process, docker and kubernetes.",
                    ) from None
                present = await client.create_work_pool(
                    WorkPoolCreate(name=pool.name, type=pool.kind, base_job_template=template)
                )
            if present.type != pool.kind:
                raise KingletError(
                    f"The server's pool {pool.name} is of type {present.type}, {PREFECT_FILE} wants {pool.kind}.",
                    f"Rename it in {PREFECT_FILE}, or remove it: prefect work-pool delete {pool.name}",
                )
            for queue in pool.queues:
                await limit_queue(client, pool.name, queue)


async def limit_queue(client: PrefectClient, pool: str, queue: str) -> None:
    """Make a pool's queue that lets one run at a time go on; the pool's default queue stays as it is."""
    if queue == DEFAULT_QUEUE:
        return
    try:
        present = await client.read_work_queue_by_name(queue, work_pool_name=pool)
    except ObjectNotFound:
        await client.create_work_queue(queue, concurrency_limit=1, work_pool_name=pool)
    else:
        await client.update_work_queue(present.id, concurrency_limit=1)


def deploy_all(path: Path) -> None:
    """Run `prefect deploy --all`, which makes or renews every deployment of a prefect.yaml.

    Raises KingletError with Prefect's words if it fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(path)],
        # prefect.yaml takes this folder from there.
        env={**os.environ, "PWD": str(Path.cwd())},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise KingletError(f"`prefect deploy --all` failed: {' '.join(done.stdout.split()[-60:])}")


async def make_notifications(models: list[str], webhook: str | None) -> bool:
    """Have failures and refusals of these models sent to a webhook; return whether they are.

    With None for the address what is there stays as it is.
    """
    async with get_client() as client:
        if webhook is None:
            named = [await client.read_automations_by_name(name) for model in models for name in names_of(model)]
            return bool(named) and all(named)
        block = Webhook(url=webhook, headers={"Content-Type": "application/json"})  # type: ignore[arg-type]
        block_id = await block.save(f"kinglet-{models[0]}", overwrite=True)
        for model in models:
            for automation in automations_of(model, block_id):
                for old in await client.read_automations_by_name(automation.name):
                    await client.delete_automation(old.id)
                await client.create_automation(automation)
    return True


def names_of(model: str) -> tuple[str, str]:
    """Return the names of a model's automations: that of failures, that of refusals."""
    return f"kinglet: {model}: a run failed", f"kinglet: {model}: the gate refused"


def automations_of(model: str, webhook_block: UUID) -> tuple[AutomationCore, AutomationCore]:
    """Return the automations that send failures and refusals to the webhook of a block."""
    failed, refused = names_of(model)
    return (
        AutomationCore(
            name=failed,
            description="A run of a deployment ended without success.",
            trigger=EventTrigger(
                expect=set(RUN_FAILED),
                match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
                match_related=ResourceSpecification(
                    {"prefect.resource.role": "deployment", "prefect.resource.name": model}
                ),
                for_each={"prefect.resource.id"},
                posture=Posture.Reactive,
                threshold=1,
                within=timedelta(0),
            ),
            actions=[CallWebhook(block_document_id=webhook_block, payload=FAILED_PAYLOAD)],
        ),
        AutomationCore(
            name=refused,
            description="A new model may not replace the one in production.",
            trigger=EventTrigger(
                expect={GATE_REFUSED},
                match=ResourceSpecification({"prefect.resource.id": model_resource(model)}),
                posture=Posture.Reactive,
                threshold=1,
                within=timedelta(0),
            ),
            actions=[CallWebhook(block_document_id=webhook_block, payload=REFUSED_PAYLOAD)],
        ),
    )
