"""What compression costs on a small data set, judged by all of its images: the whole recipe once per fold.

What: the accuracy of the fine-tuned network and of the chosen model on images that neither has seen, over the whole
data set, with the paired difference; in every fold their latencies, sizes and the time of search and trainings. A test
part of a few hundred images leaves such a difference open by several points.
How: the images that the checks leave are put into folds by class, near-duplicates together. For each fold the committed
state is cloned and everything up to `select` runs there, with the fold as the test part: fine-tuning, search, training
and quantization see nothing of it, and a fold's own search finds its own network. Answers are pooled; the interval
resamples images within fold and class.

    .venv/bin/python -m benchmarks.out_of_fold --params params/photographs.yaml --source PHOTOS --work FOLDER

--set changes a setting, as in `--set select.latency_ms=2`. --work FOLDER keeps the clones, FOLDER/fold-1 and so on; a
second call goes on where the first one was stopped. Expected time on 2 cores: that of a run, once per fold.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from benchmarks.default_run import clone, environment, fetch_data, must, set_parameters
from benchmarks.peers.task_folder import COMPRESSION_STEPS, seconds_of
from benchmarks.problem_run import HEADLINE, model_of
from benchmarks.results import RESULTS, shown_command, spread, write_result
from kinglet.atomic import atomic_path, read_json
from kinglet.errors import KingletError
from kinglet.evidence.bootstrap import Strata, accuracy_interval, paired_interval
from tasks.artifacts import BENCHMARK, EVALUATE, PROFILE, SELECT, SPLIT, TEACHER
from tasks.assign_folds import folds_of
from tasks.parameters import PARAMS_FILE
from tasks.stage import exit_code_of

DVC = ".venv/bin/dvc"
TRAINING_STEPS = ("finetune", "answer", *COMPRESSION_STEPS)


def prepared(folder: Path, options: argparse.Namespace) -> tuple[Path, dict[str, str]]:
    """Return a clone in `folder` with the settings asked for, made if it is not there, and its environment."""
    settings, checkout = environment(folder), folder / "kinglet"
    if not checkout.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        checkout = clone(folder, install=False)
        data = set_parameters(checkout, options.params, options.source)
        change_settings(checkout / PARAMS_FILE, options.set)
        fetch_data(checkout, data, settings)
    return checkout, settings


def change_settings(path: Path, changes: list[str]) -> None:
    """Write `section.name=value` into a parameter file; raises KingletError for another form."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for change in changes:
        name, found, value = change.partition("=")
        section, _, key = name.partition(".")
        if not found or section not in content or not key:
            raise KingletError(f"--set {change}: there is no such setting.", "Write it as select.latency_ms=2.")
        content[section][key] = yaml.safe_load(value)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def images_in_folds(checkout: Path, settings: dict[str, str], n_folds: int) -> pd.DataFrame:
    """Return path, label and fold of all images that the data checks of a clone leave, sorted by path."""
    must([DVC, "repro", "split"], checkout, settings)
    images = pd.read_parquet(checkout / SPLIT / "manifest.parquet")
    facts = pd.read_parquet(checkout / PROFILE / "images.parquet", columns=["index", "pixels_sha256", "near_group"])
    images = images.merge(facts, on="index").sort_values("path", ignore_index=True)
    return images.assign(fold=folds_of(images, n_folds, repeat=1, seed=0)["fold"])[["path", "label", "fold"]]


def write_table(path: Path, images: pd.DataFrame, fold: int) -> None:
    """Write the table of a fold's run: its images are the test part."""
    table = images[["path", "label"]].assign(split=np.where(images["fold"] == fold, "test", "train"))
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def run_fold(folder: Path, images: pd.DataFrame, fold: int, options: argparse.Namespace) -> Path:
    """Run everything up to `select` with a fold as the test part; return the clone."""
    table = folder / "images.csv"
    checkout, settings = prepared(folder, options)
    write_table(table, images, fold)
    change_settings(
        checkout / PARAMS_FILE,
        [
            f"data.source={json.dumps(str(table.resolve()))}",
            f"data.images={json.dumps(str(options.source.resolve()))}",
            "split.use_given=true",
        ],
    )
    must([DVC, "repro", "select"], checkout, settings)
    return checkout


def outcome(checkout: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return answers of teacher and chosen model to every test image of a run, and what both models are."""
    chosen = read_json(checkout / SELECT / "choice.json")["chosen"]
    scores = read_json(checkout / EVALUATE / "scores.json")["models"]
    latency = read_json(checkout / BENCHMARK / "latency.json")["models"]
    answers = pd.read_parquet(
        checkout / EVALUATE / "predictions.parquet", columns=["model", "split", "path", "label", "predicted"]
    )
    answers = answers[answers["split"] == "test"]
    of_model = {name: of.set_index("path").sort_index() for name, of in answers.groupby("model")}
    pairs = of_model[TEACHER][["label", "predicted"]].rename(columns={"predicted": TEACHER})
    pairs["chosen"] = of_model[chosen]["predicted"]
    models = {
        part: model_of(name, scores[name], latency[name], HEADLINE)
        for part, name in (("teacher", TEACHER), ("chosen", chosen))
    }
    return pairs.reset_index(), {**models, "training_seconds": round(seconds_of(TRAINING_STEPS, checkout), 1)}


def pooled(answers: pd.DataFrame) -> dict[str, Any]:
    """Return accuracies and their difference over the answers of all folds."""
    labels = answers["label"].to_numpy(np.int64)
    right: dict[str, NDArray[np.bool_]] = {
        part: answers[part].to_numpy(np.int64) == labels for part in (TEACHER, "chosen")
    }
    strata: Strata = answers["fold"].to_numpy(np.int64) * (labels.max() + 1) + labels
    return {
        "images": len(answers),
        **{part: accuracy_interval(of, strata=strata).to_dict() for part, of in right.items()},
        "difference": paired_interval(right["chosen"], right[TEACHER], strata=strata).to_dict(),
    }


def measure(options: argparse.Namespace) -> None:
    """Run every fold, pool the answers, write the result."""
    work = options.work.resolve()
    images = images_in_folds(*prepared(work / "all", options), options.folds)
    answers, folds = [], []
    for fold in range(1, options.folds + 1):
        print(f"fold {fold} of {options.folds}", file=sys.stderr)
        folder = work / f"fold-{fold}"
        of_fold, facts = outcome(run_fold(folder, images, fold, options))
        answers.append(of_fold.assign(fold=fold))
        folds.append(facts)
    ratios = {
        name: spread([fold["teacher"][key] / fold["chosen"][key] for fold in folds], 2)
        for name, key in (("times_faster", "p50_ms"), ("times_smaller", "size_bytes"))
    }
    figures = {
        "source": options.source.resolve().name,
        "params": options.params.name if options.params else PARAMS_FILE.name,
        "set": options.set,
        **pooled(pd.concat(answers, ignore_index=True)),
        **ratios,
        "folds": folds,
    }
    command = shown_command("out_of_fold", sys.argv[1:])
    print(write_result(options.results, options.name, command=command, repetitions=1, figures=figures))


def main() -> int:
    """Read the options, measure; return the exit code."""
    parser = argparse.ArgumentParser(description="Teacher and chosen model on every image of a data set, out of fold.")
    parser.add_argument("--source", type=Path, required=True, help="a folder with one sub-folder of images per class")
    parser.add_argument("--params", type=Path, help="take these settings (default: params.yaml)")
    parser.add_argument("--set", action="append", default=[], help="change a setting: select.latency_ms=2")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--work", type=Path, required=True, help="folder for the clones, kept")
    parser.add_argument("--name", default="out_of_fold", help="of the result")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    return exit_code_of(lambda: measure(options))


if __name__ == "__main__":
    sys.exit(main())
