"""Kinglet beside its peers: each makes the same network small and fast, and all are scored and timed alike.

What: Olive, NNCF with OpenVINO, Intel Neural Compressor, ONNX Runtime's own quantizer and Torch-Pruning start
from the fine-tuned network of a finished run, with its calibration images, and the validation images with
which Kinglet, too, decides between variants. Torch-Pruning trains as long as the run's steps search, distill,
prune and quantize took together. Each runs its own documented recipe (`recipes/`) in an environment of its own
with pinned versions (`requirements/`), kept for the next time. A peer that cannot be installed or does not
run gets a row with the reason.

How: all models answer the same test images, which no recipe saw; accuracy and the difference to the teacher
in fp32 have 95 % intervals, the latter over pairs of answers to the same image. ONNX files run in Kinglet's
onnxruntime whoever made them, OpenVINO's in OpenVINO, so that a row without quantization shows what the
runtime alone brings. They are timed in turns (`turns.py`): batch 1 on one thread, batch 32 on two. Ratios
are of medians, to the teacher in fp32 in onnxruntime.

    .venv/bin/python -m benchmarks.peers --run CHECKOUT

CHECKOUT holds a finished run; this one unless named. Expected time on 2 cores, after the default run: half
an hour, and 10 minutes for the environments the first time. With --made, models that an earlier call left in
--work for the same task are scored and timed again, without their recipes: the quiet part takes minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.environments import environment, model_in, run_recipe
from benchmarks.peers.reasons import PeerError, each_or_reason
from benchmarks.peers.roster import PEERS, Peer
from benchmarks.peers.scoring import LOADS, Entrant, print_progress, score_and_time
from benchmarks.peers.task_folder import (
    FinishedRun,
    digest_of,
    read_run,
    training_seconds,
    write_task,
    write_test_images,
)
from benchmarks.results import RESULTS, ROOT, shown_command, write_result
from kinglet.atomic import read_json, write_json
from kinglet.errors import KingletError
from tasks.artifacts import TEACHER
from tasks.stage import exit_code_of

# What a recipe may take beyond the time that it trains.
RECIPE_SECONDS = 3600
# Says for which task, and in which environment, the model beside it was made.
MADE = "made.json"


@dataclass(frozen=True)
class Tests:
    """The test images as every model of the run takes them, {model: file}, and their labels."""

    images: dict[str, Path]
    labels: NDArray[np.int64]


def kinglet_entrants(run: FinishedRun, images: Mapping[str, Path]) -> dict[str, Entrant]:
    """Return the models of the run, the teacher first. images: the test images of every model."""
    entrants = {}
    for name in sorted(run.models, key=lambda name: name != TEACHER):
        card, model = run.models[name]
        row = {"tool": "Kinglet", "name": name, "settings": card.precision, "chosen": name == run.chosen}
        entrants[name] = Entrant(model, Path(sys.executable), images[name], {**row, "input_size": card.input_size})
    return entrants


def peer_entrant(
    peer: Peer, environments: Path, work: Path, images: Path, limit_seconds: float, *, take_made: bool = False
) -> Entrant:
    """Return a peer's model, made in its environment; raises PeerError if there is none.

    take_made: one that an earlier call made in the same environment for the same task is good enough.
    """
    python = environment(environments, peer.environment)
    task = {"task": digest_of(work / "task"), "environment": python.parent.parent.name}
    if not (take_made and (work / peer.name / MADE).is_file() and read_json(work / peer.name / MADE) == task):
        make_model(peer, python, work, limit_seconds)
        write_json(work / peer.name / MADE, task)
    model = model_in(work / peer.name)
    row = {**row_of(peer), **read_json(model.parent / "settings.json")}
    return Entrant(model, Path(sys.executable) if model.suffix == ".onnx" else python, images, row)


def make_model(peer: Peer, python: Path, work: Path, limit_seconds: float) -> None:
    """Run a peer's recipe and note in its settings how long it took; raises PeerError if it leaves no model."""
    shutil.rmtree(work / peer.name, ignore_errors=True)  # whoever follows must not find an earlier run's
    start = work / peer.follows / "model.onnx" if peer.follows else None
    if start and not start.is_file():
        raise PeerError(f"it starts from the model of {peer.follows}, which is not there.")
    started = time.perf_counter()
    model = run_recipe(python, peer.recipe or peer.name, work / "task", work / peer.name, limit_seconds, start)
    settings = read_json(model.parent / "settings.json")
    write_json(model.parent / "settings.json", {**settings, "recipe_seconds": round(time.perf_counter() - started, 1)})


def row_of(peer: Peer) -> dict[str, Any]:
    """Return what a peer's row says whether it runs or not."""
    return {"tool": peer.title, "name": peer.name, "versions": peer.versions}


def prepare(options: argparse.Namespace, task: Path, scoring: Path) -> tuple[FinishedRun, Tests, dict[str, Any]]:
    """Write the peers' task and the test images; return the run, the test images, and what the result says of both.

    Raises KingletError if the checkout holds no finished run.
    """
    if not options.run.is_dir():
        raise KingletError(f"{options.run} is no folder.", "Name the checkout of a finished run with --run.")
    with contextlib.chdir(options.run):
        run = read_run()
        seconds = 60 * options.training_minutes if options.training_minutes else training_seconds()
        facts = write_task(task, seconds, options.data)
        written = {name: write_test_images(scoring, card) for name, (card, _) in run.models.items()}
    labels = written[TEACHER][1]
    return (
        run,
        Tests({name: path for name, (path, _) in written.items()}, labels),
        {**facts, "test_images": len(labels)},
    )


def measure(options: argparse.Namespace) -> None:
    """Give the peers their task, run them, score and time all models, write the result."""
    work = (options.work or ROOT / ".kinglet" / "peers").resolve()
    environments = (options.environments or work / "environments").resolve()
    peers = {peer.name: peer for peer in PEERS if not options.only or peer.name in options.only}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as made:
        scoring = Path(made)
        run, tests, facts = prepare(options, work / "task", scoring)

        def made_by(name: str) -> Entrant:
            print_progress(f"{peers[name].title}: environment and recipe")
            limit = RECIPE_SECONDS + facts["training_seconds"] * peers[name].trains
            images = tests.images[TEACHER]
            return peer_entrant(peers[name], environments, work, images, limit, take_made=options.made)

        own = kinglet_entrants(run, tests.images)
        entrants = {**own, **each_or_reason(list(peers), made_by, failed)}
        measured = score_and_time(entrants, tests.labels, scoring / "answers", options.seconds_per_model, failed)
    rows = {
        **{name: entrant.row for name, entrant in own.items()},
        **{name: row_of(peer) for name, peer in peers.items()},
    }
    figures = {
        **facts,
        "loads": {load: {"batch_size": size, "threads": threads} for load, (size, threads) in LOADS.items()},
        "seconds_per_model": options.seconds_per_model,
        "models": [measured.get(name) or {**row, "failed": failed[name]} for name, row in rows.items()],
    }
    command = shown_command("peers", sys.argv[1:])
    path = write_result(options.results, options.name, command=command, repetitions=1, figures=figures)
    print_progress(f"written: {path}")


def main() -> int:
    """Read the options, measure; return the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description="Kinglet beside its peers.")
    parser.add_argument("--run", type=Path, default=ROOT, help="checkout of a finished run (default: this one)")
    parser.add_argument("--data", help="what the data set is called in the table (default: as its folder)")
    parser.add_argument("--only", nargs="+", choices=[peer.name for peer in PEERS], help="run these peers only")
    parser.add_argument("--training-minutes", type=float, help="for peers that train (default: as long as the run)")
    parser.add_argument("--seconds-per-model", type=float, default=5, help="timing of each load (default: 5)")
    parser.add_argument("--work", type=Path, help="keeps task and outputs (default: .kinglet/peers)")
    parser.add_argument("--environments", type=Path, help="keeps the peers' environments (default: in --work)")
    parser.add_argument("--made", action="store_true", help="take the models that lie in --work for this task")
    parser.add_argument("--name", default="peers", help="of the result, peers_DATA for a second table")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the result is written")
    options = parser.parse_args()
    return exit_code_of(lambda: measure(options))


if __name__ == "__main__":
    sys.exit(main())
