"""Search for small networks under the budget: latency first, then short trainings of ever fewer candidates."""

from __future__ import annotations

import copy
import csv
import io
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from torch import nn

from kinglet.atomic import write_text
from kinglet.compression.candidates import FAMILIES, Candidate, Task
from kinglet.compression.latency import Latency
from kinglet.compression.search import Goal, Tried, search
from kinglet.errors import KingletError
from kinglet.evidence.bootstrap import accuracy_interval
from kinglet.runtime.device import this_device
from kinglet.training.checkpoints import Checkpoint
from kinglet.training.devices import pick_device
from kinglet.training.loop import fit
from tasks.artifacts import (
    ANSWERS,
    FINETUNE,
    SEARCH,
    TEACHER,
    UNLABELLED,
    packed_images,
    read_input_sizes,
    searched_students,
)
from tasks.distillation import save_like, teacher_loss
from tasks.models import (
    image_set,
    load_model,
    open_checkpoint,
    prepare_training,
    read_manifest,
    sample_batches,
    taught_images,
)
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.recipes import student_recipe
from tasks.settings_section import AUTO
from tasks.stage import run_stage
from tasks.untrained_latency import fastest, untrained_latencies

# From so many training images on a network learns from them alone what a pretrained one brings along.
IMAGES_FOR_RANDOM_WEIGHTS = 20_000
IMPORTANCE_BATCHES, IMPORTANCE_BATCH = 8, 64
COLUMNS = (
    "family",
    "trial",
    "candidate",
    "input_size",
    "precision",
    "latency_ms",
    "latency_low_ms",
    "latency_high_ms",
    "size_mb",
    "rungs",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "utility",
    "outcome",
    "survivor",
)


class OverBudgetError(KingletError):
    """No candidate is as fast and as small as the settings ask for."""


def run(parameters: Parameters) -> None:
    """Write trials.csv with everything tried, and one folder per survivor: its network before the full training."""
    settings = parameters.search
    SEARCH.mkdir(parents=True, exist_ok=True)
    n_training = int((read_manifest()["split"] == "train").sum())
    families = families_of(settings.families, n_training) if settings.survivors else []
    if not families:
        write_text(SEARCH / "trials.csv", trials_csv([], [], 0))
        return
    prepare_training(parameters.seed)
    bench = Bench(parameters)
    states = {family: bench.state(family) for family in families}
    found: list[Tried] = []
    for family, state in states.items():
        found += bench.search(family, state.folder / "journal.log", max(1, settings.trials // len(families)))
    survivors = survivors_beside(parameters, found)
    for name, survivor in zip(searched_students(settings.survivors), survivors, strict=False):
        bench.save(name, survivor)
    write_text(SEARCH / "trials.csv", trials_csv(found, survivors, len(bench.validation.rows)))
    for state in states.values():
        state.clear()


def families_of(families: list[str] | str, n_training: int) -> list[str]:
    """Return the families to search, with "auto" resolved by the number of training images.

    With many of them the students of the settings, whose weights start at random, are hard to beat in minutes.
    """
    if families == AUTO:
        return [] if n_training >= IMAGES_FOR_RANDOM_WEIGHTS else ["backbone"]
    return list(families)


def survivors_beside(parameters: Parameters, found: list[Tried]) -> list[Tried]:
    """Return the finalists; none where the budget left none and the settings have students of their own.

    Raises KingletError as `survivors_of` does.
    """
    try:
        return survivors_of(found, parameters.search.survivors, goal_of(parameters))
    except OverBudgetError as error:
        students = parameters.distill.students
        if not students:
            raise
        # They may be fast and small enough; in the end `select` says so.
        print(f"warning: {error} Without it go on: {', '.join(students)}.", file=sys.stderr)
        return []


def goal_of(parameters: Parameters) -> Goal:
    """Return what the settings ask for: of the step `select`, that candidates be within its budget."""
    return Goal(parameters.select.latency_ms, parameters.search.points_per_halving, parameters.select.size_mb)


def survivors_of(found: list[Tried], n_survivors: int, goal: Goal) -> list[Tried]:
    """Return the finalists of highest utility, best first.

    Raises OverBudgetError, with the three nearest candidates, if none was within the budget, and KingletError if none
    could be trained.
    """
    finalists = [one for one in found if one.is_finalist]
    if not finalists:
        measured = [(one.latency, one.candidate.description) for one in found if one.latency]
        over = [(latency, words) for latency, words in measured if goal.misses(latency)]
        if not over:
            failures = "; ".join(one.outcome for one in found)
            raise KingletError(f"search: no candidate could be trained ({failures}).", "Lower distill.learning_rate.")
        limits = {"latency_ms": goal.budget_ms, "size_mb": goal.budget_mb}
        asked = [f"select.{name} = {limit:g}" for name, limit in limits.items() if limit is not None]
        nearest = sorted(over, key=lambda one: goal.excess(one[0]))[:3]
        raise OverBudgetError(
            f"search: no candidate is within {' and '.join(asked)}. Nearest: "
            + "; ".join(f"{words}, {one.high:.3g} ms, {one.size_bytes / 1e6:.3g} MB" for one, words in nearest)
            + ".",
            f"Raise {' or '.join(one.split()[0] for one in asked)}, or search.trials, in params.yaml.",
        )
    return sorted(finalists, key=lambda one: -(one.utility or 0.0))[:n_survivors]


def trials_csv(found: list[Tried], survivors: list[Tried], n_validation: int) -> str:
    """Return the table of everything tried; intervals of the accuracy are those of `n_validation` images."""
    written = io.StringIO()
    writer = csv.DictWriter(written, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for one in found:
        row: dict[str, Any] = {
            "family": one.candidate.family,
            "trial": one.number,
            "candidate": one.candidate.description,
            "input_size": one.candidate.input_size,
            "rungs": len(one.accuracies),
            "utility": "" if one.utility is None else round(one.utility, 6),
            "outcome": one.outcome,
            "survivor": searched_students(len(survivors))[survivors.index(one)] if one in survivors else "",
        }
        if one.latency:
            latency = one.latency
            row |= {
                "precision": latency.precision,
                "latency_ms": latency.value,
                "latency_low_ms": latency.low,
                "latency_high_ms": latency.high,
                "size_mb": round(latency.size_bytes / 1e6, 3),
            }
        if one.accuracies:
            right = np.arange(n_validation) < round(one.accuracies[-1] * n_validation)
            interval = accuracy_interval(right).to_dict()
            row |= {
                "accuracy": interval["value"],
                "accuracy_low": interval["low"],
                "accuracy_high": interval["high"],
            }
        writer.writerow(row)
    return written.getvalue()


class Bench:
    """What the candidates of one run are made of, measured on and trained with."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.built: dict[str, nn.Module] = {}
        self.device = pick_device()
        self.sizes = read_input_sizes()
        manifest = read_manifest()
        self.training, self.validation = (
            image_set(manifest, split, self.sizes.candidates) for split in ("train", "validation")
        )
        self.taught = taught_images(self.sizes.candidates)
        network, self.teacher = load_model(FINETUNE / TEACHER)
        self.task = Task(
            network,
            self.teacher.channels,
            len(self.teacher.classes),
            self.sizes.teacher,
            self.sizes.student,
            self.batches,
        )
        self.loss = teacher_loss(parameters.distill, self.taught.labels)
        self.goal = goal_of(parameters)

    def batches(self, input_size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return training images that decide which parts of the teacher go."""
        return sample_batches(
            self.training, self.teacher, input_size, IMPORTANCE_BATCHES, IMPORTANCE_BATCH, self.parameters.seed
        )

    def search(self, family: str, journal: Path, n_trials: int) -> list[Tried]:
        """Return everything tried of one family."""
        settings = self.parameters.search
        with progress(f"search {family}") as report:
            return search(
                journal,
                partial(FAMILIES[family].propose, task=self.task),
                self.latency,
                self.train,
                goal=self.goal,
                n_trials=n_trials,
                n_rungs=settings.rungs,
                first=FAMILIES[family].first(self.task),
                seed=self.parameters.seed,
                report=report,
            )

    def state(self, family: str) -> Checkpoint:
        """Return where the state of the search in a family is kept, by everything that decides the search."""
        facts = {
            "search": self.parameters.search.model_dump(exclude={"survivors", "families"}),
            "distill": self.parameters.distill.model_dump(exclude={"students"}),
            "goal": asdict(self.goal),
            "threads": self.parameters.benchmark.threads,
            "device": this_device().fingerprint,
            "optuna": optuna.__version__,
            "seed": self.parameters.seed,
        }
        packed = [packed_images(size) for size in self.sizes.candidates]
        return open_checkpoint(
            f"search-{family}", facts, [*packed, FINETUNE / TEACHER / "model.pt", UNLABELLED, ANSWERS]
        )

    def build(self, candidate: Candidate) -> nn.Module:
        """Return a candidate's network before its training; made once, as finding what to cut takes seconds."""
        key = repr(candidate)
        if key not in self.built:
            self.built[key] = FAMILIES[candidate.family].build(candidate, self.task, self.parameters.seed)
        return copy.deepcopy(self.built[key])

    def latency(self, candidate: Candidate) -> Latency:
        """Return a candidate's latency in the faster precision of those small enough, from the table where known.

        If none is small enough: in the precision of the smallest file.
        """
        images = self.batches(candidate.input_size)[0][0].numpy()
        threads, seed = self.parameters.benchmark.threads, self.parameters.seed
        (found,) = untrained_latencies([(self.build(candidate), images)], threads, seed)
        small = {precision: latency for precision, latency in found.items() if self.goal.fits(latency)}
        return fastest(small) if small else min(found.values(), key=lambda latency: latency.size_bytes)

    def train(self, candidate: Candidate, rung: int) -> float:
        """Return the validation accuracy after a training of this rung.

        Every rung starts anew: a learning rate that had not come down yet would say little about the end.
        """
        settings, size = self.parameters.distill, candidate.input_size
        family, n_training = FAMILIES[candidate.family], len(self.taught.rows)
        n_images = self.parameters.search.effort * family.first_rung(self.task) * 2**rung
        recipe = replace(
            student_recipe(settings, family.from_teacher, size, n_training, self.parameters.seed),
            phases=((n_images / n_training, size),),
        )
        _, history = fit(
            self.build(candidate),
            self.taught,
            self.validation,
            self.loss,
            recipe,
            mean=self.teacher.mean,
            std=self.teacher.std,
            device=self.device,
        )
        return max(epoch["accuracy"] for epoch in history)

    def save(self, name: str, survivor: Tried) -> None:
        """Save a survivor's network before its training."""
        candidate = survivor.candidate
        save_like(
            SEARCH / name,
            self.build(candidate),
            self.teacher,
            parent=TEACHER,
            input_size=candidate.input_size,
            notes={
                "from_teacher": FAMILIES[candidate.family].from_teacher,
                "description": candidate.description,
                "trial": survivor.number,
            },
        )


if __name__ == "__main__":
    run_stage(run)
