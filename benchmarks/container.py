"""The container of a bundle: how large it is, how soon it is ready, and what it answers on half a processor.

What: the size of the image above its base; seconds from start to ready; requests per second and the 99th percentile at
80 % of that load, JPEG in, class out, under quotas of a whole and of half a processor; the memory that counts.
How: the image is built from --bundle, its containers are started as `kinglet deploy` starts them, in turns; what
asks runs beside them on the same machine.

    .venv/bin/python -m benchmarks.container --bundle artifacts/bundle

Needs a container engine. Expected time on 2 cores: 3 minutes, most of them for the image.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.results import RESULTS, ROOT, shown_command, spread, write_result
from benchmarks.serving.__main__ import CONNECTIONS, LOAD_SHARE, images_to_send
from benchmarks.serving.load import http_request, run_load
from tasks.build_image import build_image
from tasks.container_engine import open_engine
from tasks.deploy_settings import ContainerSettings, load_deploy_settings
from tasks.serving_containers import end_container, memory_mb, start_container, wait_until_ready
from tasks.stage import exit_code_of

QUOTAS = (1.0, 0.5)
SERVICE = "kinglet-benchmark"
READY_SECONDS = 60.0
DRAIN_SECONDS = 10
MB = 1e6


def measure(options: argparse.Namespace) -> None:
    """Build, measure and write the result."""
    settings = load_deploy_settings()
    image = build_image(options.bundle, settings.image)
    requests = [http_request(content) for content in images_to_send(options)]
    found: dict[float, list[dict[str, float]]] = {quota: [] for quota in QUOTAS}
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
        for quota, rounds in found.items():
            container = settings.container.model_copy(update={"cpus": quota})
            rounds.append(figures_under(image.id, container, requests, options.seconds))
    figures = {
        "image_mb": round(image.bytes / MB, 1),
        "above_base_mb": round((image.bytes - image.base_bytes) / MB, 1),
        "memory_limit_mb": settings.container.memory_mb,
        "quotas": {
            str(quota): {key: spread([each[key] for each in rounds]) for key in rounds[0]}
            for quota, rounds in found.items()
        },
    }
    command = shown_command("container", sys.argv[1:])
    print(write_result(options.results, "container", command=command, repetitions=options.rounds, figures=figures))


def figures_under(image: str, settings: ContainerSettings, requests: list[bytes], seconds: float) -> dict[str, Any]:
    """Return {ready_seconds, per_second, p50_ms, p99_ms, memory_mb} of a container that is started for it."""
    engine = open_engine()
    started = start_container(engine, image, SERVICE, settings)
    try:
        serving = wait_until_ready(engine, started, READY_SECONDS)
        run_load(serving.port, requests, min(1.0, seconds), CONNECTIONS)  # warm
        fastest = run_load(serving.port, requests, seconds, CONNECTIONS)
        steady = run_load(serving.port, requests, seconds, CONNECTIONS * 4, LOAD_SHARE * fastest.per_second)
        return {
            "ready_seconds": serving.ready_seconds,
            "per_second": fastest.per_second,
            "p50_ms": steady.quantile(0.5),
            "p99_ms": steady.quantile(0.99),
            "memory_mb": memory_mb(engine, serving.name),
        }
    finally:
        end_container(engine, started.name, DRAIN_SECONDS)


def main() -> int:
    """Read the options, measure; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure the container of a bundle.")
    parser.add_argument("--bundle", type=Path, default=ROOT / "artifacts" / "bundle")
    parser.add_argument("--images", type=Path, help="folder of .jpg files to send; the golden images unless given")
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    return exit_code_of(lambda: measure(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
