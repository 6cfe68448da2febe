"""int8 of the pretrained backbones: what Kinglet's guard loses beside NNCF, and on processors without VNNI.

What: for each backbone, fine-tuned on the data set of params.yaml, the accuracy of its fp32 file, of Kinglet's int8
file, and of the int8 model that NNCF makes of the same file from the same calibration images; the paired differences
between them; and Kinglet's file where pairwise sums saturate (emulated), with the variant that it writes for those
processors. Kinglet's and NNCF's models answer as this processor computes: without VNNI, Kinglet's is that variant.
No search and no student: the network stays as it is.
How: a clone per backbone runs the steps up to `select`, without folds and students. All models answer the same test
images.

    .venv/bin/python -m benchmarks.int8_of_backbones --epochs 1

Expected time on 2 cores: 5 minutes a backbone, and some for NNCF's environment the first time.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks.default_run import clone, environment, fetch_data, must, work_folder
from benchmarks.peers.__main__ import make_model
from benchmarks.peers.environments import environment as peer_environment
from benchmarks.peers.environments import model_in
from benchmarks.peers.roster import PEERS
from benchmarks.peers.scoring import answers_of
from benchmarks.peers.task_folder import read_run, write_task, write_test_images
from benchmarks.peers.turns import Worker
from benchmarks.results import RESULTS, shown_command, write_result
from kinglet.atomic import write_text
from kinglet.evidence.bootstrap import accuracy_interval, paired_interval
from kinglet.runtime.bundles import MODEL, WITHOUT_VNNI
from kinglet.runtime.vnni import products_saturate
from tasks.artifacts import QUANTIZE, TEACHER, packed_images
from tasks.held_out import read_held_out
from tasks.stage import exit_code_of
from tasks.without_vnni import EMULATED_IMAGES, answers_without_vnni

BACKBONES = ("efficientnet-lite0", "efficientnet-lite1", "mobilenet-v2")
INT8 = f"{TEACHER}-int8"
NNCF = next(peer for peer in PEERS if peer.name == "nncf")
# A peer's recipe takes a minute or two; on a busy machine more.
RECIPE_SECONDS = 3600.0


def settings_for(content: dict[str, Any], backbone: str, epochs: float | None) -> dict[str, Any]:
    """Return the content of params.yaml for one backbone and nothing beside it; epochs as they are for None."""
    changes: dict[str, dict[str, Any]] = {
        "finetune": {"backbone": backbone, **({"epochs": epochs} if epochs else {})},
        "crossvalidate": {"folds": []},
        "search": {"survivors": 0},
        "distill": {"students": {}, "controls": []},
        "prune": {"models": []},
        "adapt": {"models": []},
        "robustness": {"models": [TEACHER], "images": 100},
    }
    return {
        section: {**values, **changes.get(section, {})} if isinstance(values, dict) else values
        for section, values in content.items()
    }


def measure_backbone(backbone: str, work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one backbone, trained in a clone of its own below `work`."""
    variables = environment(work)
    checkout = open_clone(backbone, work, options.epochs)
    must([".venv/bin/dvc", "repro", "select"], checkout, variables)
    peer = work / "peers"
    with contextlib.chdir(checkout):
        run = read_run()
        write_task(peer / "task", 0.0)
        cards = {name: card for name, (card, _) in run.models.items()}
        written = {name: write_test_images(work / "scoring", cards[name]) for name in (TEACHER, INT8)}
    python = peer_environment(options.environments.resolve(), NNCF.environment)
    make_model(NNCF, python, peer, RECIPE_SECONDS)
    entrants = {name: (Path(sys.executable), run.models[name][1]) for name in (TEACHER, INT8)}
    entrants["nncf"] = (python, model_in(peer / NNCF.name))
    predicted = {}
    for name, (runner, model) in entrants.items():
        images, labels = written[INT8 if name == INT8 else TEACHER]
        worker = Worker(runner, model, work / f"{name}.log")
        with contextlib.closing(worker):
            predicted[name] = answers_of(worker, images, name, work)[0].argmax(axis=1)
    input_size = cards[TEACHER].input_size
    with contextlib.chdir(checkout):
        without = saturated(predicted[TEACHER], input_size)
    return {"backbone": backbone, "input_size": input_size, **compared(predicted, labels), **without}


def open_clone(backbone: str, work: Path, epochs: float | None) -> Path:
    """Return a clone below `work` with the settings for a backbone; what an interrupted call made there stays."""
    checkout = work / "kinglet"
    if checkout.exists():
        must(["git", "pull", "--quiet", "--ff-only"], checkout, environment(work))
        return checkout
    clone(work, install=False)
    content = yaml.safe_load((checkout / "params.yaml").read_text(encoding="utf-8"))
    fetch_data(checkout, content["data"], environment(work))
    write_text(checkout / "params.yaml", yaml.safe_dump(settings_for(content, backbone, epochs), sort_keys=False))
    return checkout


def compared(predicted: Mapping[str, NDArray[np.int64]], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Return accuracies and paired differences, with intervals. predicted: classes by teacher, its int8, and nncf."""
    right = {name: answers == labels for name, answers in predicted.items()}
    pairs = {"kinglet_to_fp32": (INT8, TEACHER), "nncf_to_fp32": ("nncf", TEACHER), "kinglet_to_nncf": (INT8, "nncf")}
    return {
        "test_images": len(labels),
        "accuracy": accuracy_interval(right[TEACHER]).to_dict(),
        **{name: paired_interval(right[ours], right[theirs]).to_dict() for name, (ours, theirs) in pairs.items()},
    }


def saturated(predicted: NDArray[np.int64], input_size: int) -> dict[str, Any]:
    """Return how far Kinglet's files are from fp32 where sums saturate, in the working folder.

    predicted: the classes that the fp32 file gives, of all test images. A processor without VNNI answers all of them;
    elsewhere the first are emulated.
    """
    held_out = read_held_out("test")
    count = len(held_out.labels) if products_saturate() else min(EMULATED_IMAGES, len(held_out.labels))
    labels, rows = held_out.labels[:count], held_out.rows[:count]
    packed = np.load(packed_images(input_size), mmap_mode="r")
    files = {"same_file": QUANTIZE / INT8 / MODEL, "variant": QUANTIZE / INT8 / WITHOUT_VNNI}
    return {
        "images_without_vnni": count,
        **{
            f"without_vnni_{name}_to_fp32": paired_interval(
                answers_without_vnni(file, packed, rows) == labels, predicted[:count] == labels
            ).to_dict()
            for name, file in files.items()
            if file.is_file()
        },
    }


def measure(options: argparse.Namespace) -> None:
    """Measure all backbones and write the result."""
    with contextlib.nullcontext(options.into.resolve()) if options.into else work_folder(None) as work:
        found = []
        for backbone in options.backbones:
            print(f"{backbone}: training, quantizing, NNCF", file=sys.stderr)
            (work / backbone).mkdir(parents=True, exist_ok=True)
            found.append(measure_backbone(backbone, work / backbone, options))
    command = shown_command("int8_of_backbones", sys.argv[1:])
    figures = {"versions_of_nncf": NNCF.versions, "backbones": found}
    print(write_result(options.results, "int8_of_backbones", command=command, repetitions=1, figures=figures))


def main() -> int:
    """Read the options, measure; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES))
    parser.add_argument("--epochs", type=float, help="of fine-tuning; those of params.yaml if left out")
    parser.add_argument("--environments", type=Path, default=Path(".kinglet/peers/environments"), help="NNCF's is here")
    parser.add_argument("--into", type=Path, help="a folder that keeps the clones; one of an interrupted call goes on")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return exit_code_of(lambda: measure(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
