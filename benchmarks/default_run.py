"""A whole run of the pipeline in a fresh clone: time, memory, share of orchestration, and what came out.

What: the wall time of `kinglet run`, without installation and without fetching the data set; the
largest memory of all its processes together (PSS, shared pages counted once, sampled every 0.5 s; RSS
where the system has no PSS); the models with accuracy, latency and size as its steps measured them.

How: the committed state of this checkout is cloned into an empty folder, with a DVC cache, a cache
of latencies and a Prefect of its own, so that nothing is remembered from earlier runs. The clone uses
this checkout's environment, or, with --install, makes its own by `make install`.

    .venv/bin/python -m benchmarks.default_run
    .venv/bin/python -m benchmarks.default_run --params params/full.yaml --name full_run
    .venv/bin/python -m benchmarks.default_run --source PHOTOS --name folder_run

--into FOLDER keeps the clone, as FOLDER/kinglet, for `benchmarks.nothing_to_do --checkout FOLDER/kinglet`.
Expected time on 2 cores: 10 to 15 minutes with the default settings.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from benchmarks.process_memory import INTERVAL_SECONDS, PeakMemory
from benchmarks.results import RESULTS, ROOT, shown_command, write_result
from kinglet.atomic import read_json
from kinglet.errors import KingletError
from tasks.stage import exit_code_of

FETCH = "import sys; from kinglet.data.sources import open_source; open_source(sys.argv[1], sys.argv[2])"
# What an earlier run, or the user, may have set and a fresh clone must not see.
FOREIGN = ("PREFECT_API_URL", "PREFECT_HOME", "PYTHONPATH", "VIRTUAL_ENV")


def environment(work: Path) -> dict[str, str]:
    """Return an environment in which DVC and Kinglet know nothing but what lies in `work`."""
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    return {
        **kept,
        "KINGLET_CACHE": str(work / "cache"),
        "DVC_GLOBAL_CONFIG_DIR": str(work / "dvc-global"),
        "DVC_SYSTEM_CONFIG_DIR": str(work / "dvc-system"),
        "DVC_SITE_CACHE_DIR": str(work / "dvc-site"),
    }


def clone(work: Path, *, install: bool) -> Path:
    """Clone this checkout's committed state into `work`/kinglet, with an environment; return the clone."""
    checkout = work / "kinglet"
    must(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(checkout)], ROOT, dict(os.environ))
    if install:
        must(["make", "install"], checkout, environment(work))
    else:
        (checkout / ".venv").symlink_to(ROOT / ".venv")
    return checkout


def set_parameters(checkout: Path, params: Path | None, source: Path | None) -> dict[str, Any]:
    """Bring `params` and the folder `source` into the clone's params.yaml; return its section `data`."""
    path = checkout / "params.yaml"
    if params:
        path.write_bytes(params.read_bytes())
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if source:
        content["data"]["source"] = str(source.resolve())
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return dict(content["data"])


def fetch_data(checkout: Path, data: dict[str, Any], settings: dict[str, str]) -> None:
    """Have the data set in the clone's cache before the clock starts: taken from the user's cache, or fetched."""
    known = Path(os.environ.get("KINGLET_CACHE") or Path.home() / ".cache" / "kinglet") / "datasets"
    if known.is_dir():
        shutil.copytree(known, Path(settings["KINGLET_CACHE"]) / "datasets")
    must([".venv/bin/python", "-c", FETCH, data["source"], data["images"]], checkout, settings)


def timed_run(checkout: Path, settings: dict[str, str]) -> dict[str, Any]:
    """Run the pipeline in the clone and return wall time, memory and the run's own summary."""
    started = time.perf_counter()
    run = subprocess.Popen(
        [".venv/bin/kinglet", "run", "--json"], cwd=checkout, env=settings, stdout=subprocess.PIPE, text=True
    )
    with PeakMemory(run.pid) as memory:
        printed, _ = run.communicate()
    seconds = time.perf_counter() - started
    if run.returncode:
        raise KingletError(f"`kinglet run` ended with exit code {run.returncode}.", "Its words are above.")
    return {
        "wall_seconds": round(seconds, 1),
        "peak_memory_mb": round(memory.peak_bytes / 1e6),
        "memory_measure": memory.measure,
        "memory_interval_seconds": INTERVAL_SECONDS,
        "summary": json.loads(printed),
    }


def run_figures(run: dict[str, Any], scores: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a run from what `timed_run` returned and the content of scores.json."""
    summary = run["summary"]
    ran = [name for name, outcome in summary["stages"].items() if outcome == "ran"]
    if len(ran) != len(summary["stages"]):
        raise KingletError(f"Only {len(ran)} of {len(summary['stages'])} stages ran: the clone was not fresh.")
    return {
        **{key: value for key, value in run.items() if key != "summary"},
        "orchestration_seconds": summary["orchestration_seconds"],
        "orchestration_share": summary["orchestration_share"],
        "stages": len(summary["stages"]),
        "teacher": scores["teacher"],
        "chosen": summary["chosen"],
        "test_images": scores["models"][scores["teacher"]]["test"]["n"],
        "models": [model_figures(model, scores["models"][model["name"]]) for model in summary["models"]],
    }


def model_figures(model: dict[str, Any], scores: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of one model from its row in the run's summary and its entry in scores.json."""
    return {
        "name": model["name"],
        **{key: scores[key] for key in ("step", "parent", "control_for", "precision", "input_size", "parameters")},
        "test_accuracy": scores["test"]["accuracy"],
        **{key: model[key] for key in ("p50_ms", "p99_ms", "size_bytes", "times_faster")},
    }


def must(command: list[str], folder: Path, settings: dict[str, str]) -> None:
    """Run a command, its output on stderr; raises KingletError if it fails."""
    done = subprocess.run(command, cwd=folder, env=settings, stdout=sys.stderr, check=False)
    if done.returncode:
        raise KingletError(f"`{' '.join(command[:3])}` ended with exit code {done.returncode}.")


@contextmanager
def work_folder(into: Path | None) -> Iterator[Path]:
    """Yield an empty folder: `into`, kept, or a temporary one that is removed."""
    if into is None:
        with tempfile.TemporaryDirectory() as made:
            yield Path(made)
        return
    if into.exists() and any(into.iterdir()):
        raise KingletError(f"{into} is not empty.", "Name a folder that does not exist yet.")
    into.mkdir(parents=True, exist_ok=True)
    yield into.resolve()


def measure(options: argparse.Namespace) -> None:
    """Clone, run, and write the result."""
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")[:-1]
    if changed:
        print(f"warning: {len(changed)} changed files are not committed, so not measured.", file=sys.stderr)
    with work_folder(options.into) as work:
        settings = environment(work)
        checkout = clone(work, install=options.install)
        data = set_parameters(checkout, options.params, options.source)
        fetch_data(checkout, data, settings)
        run = timed_run(checkout, settings)
        figures = run_figures(run, read_json(checkout / "artifacts" / "evaluate" / "scores.json"))
    figures["params"] = options.params.name if options.params else "params.yaml"
    figures["source"] = options.source.resolve().name if options.source else data["source"]
    command = shown_command("default_run", sys.argv[1:])
    path = write_result(options.results, options.name, command=command, repetitions=1, figures=figures)
    print(f"written: {path}", file=sys.stderr)


def main() -> int:
    """Read the options, measure; return the exit code."""
    parser = argparse.ArgumentParser(description="A whole run in a fresh clone: time, memory, models.")
    parser.add_argument("--params", type=Path, help="take these settings, e.g. params/full.yaml")
    parser.add_argument("--source", type=Path, help="train on the images of this folder")
    parser.add_argument("--name", default="default_run", help="name of the result file (default: default_run)")
    parser.add_argument("--into", type=Path, help="an empty or new folder that keeps the clone")
    parser.add_argument("--install", action="store_true", help="install into the clone instead of sharing .venv")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the result is written")
    options = parser.parse_args()
    return exit_code_of(lambda: measure(options))


if __name__ == "__main__":
    sys.exit(main())
