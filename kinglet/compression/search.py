"""Search for small networks under a budget: latency is measured before anything is trained, then the worse half goes.

Optuna proposes the candidates (tree-structured Parzen estimator) and drops them (successive halving) while
their trainings grow. Its journal on disk is the search's state: a search that was killed goes on where it was,
and proposes what it would have proposed.
Source: Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization" (TPE); Li et al. 2020, "A System
for Massively Parallel Hyperparameter Tuning" (asynchronous successive halving).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from kinglet.compression.candidates import Candidate
from kinglet.compression.latency import Latency
from kinglet.errors import KingletError
from kinglet.reporting import Report, silent

# Proposals that are drawn at random before the estimator has something to go by.
RANDOM_TRIALS = 4
# What is over the budget takes seconds, not minutes, and is no trial; so many proposals for each one are the most.
PROPOSALS_PER_TRIAL = 5


@dataclass(frozen=True)
class Goal:
    """What the search is after.

    budget_ms, budget_mb: candidates that may take longer, or whose file is larger, are not trained; None for no
    limit. points_per_halving: what a halving of the latency is worth, in accuracy [0, 1].
    """

    budget_ms: float | None
    points_per_halving: float
    budget_mb: float | None = None

    def misses(self, latency: Latency) -> str:
        """Return in words what of the budget a candidate misses, "" for nothing."""
        missed = []
        # In doubt the wider bound counts.
        if self.budget_ms is not None and latency.high > self.budget_ms:
            missed.append(f"up to {latency.high:.3g} ms, over the budget of {self.budget_ms:g} ms")
        if not self.fits(latency):
            missed.append(f"{latency.size_bytes / 1e6:.3g} MB, over the budget of {self.budget_mb:g} MB")
        return " and ".join(missed)

    def fits(self, latency: Latency) -> bool:
        """Return whether a candidate's file is small enough."""
        return self.budget_mb is None or latency.size_bytes <= 1e6 * self.budget_mb

    def excess(self, latency: Latency) -> float:
        """Return how many times as slow or large as allowed a candidate is, whichever is worse."""
        return max(
            latency.high / self.budget_ms if self.budget_ms is not None else 0.0,
            latency.size_bytes / (1e6 * self.budget_mb) if self.budget_mb is not None else 0.0,
        )

    def utility(self, accuracy: float, latency_ms: float) -> float:
        """Return what a candidate is worth: within a budget its accuracy, else also how fast it is.

        On the front of accuracy and latency the best one is where another halving of the latency would
        cost more than `points_per_halving`: a knee in the user's own units.
        """
        if self.budget_ms is not None:
            return accuracy
        return accuracy - self.points_per_halving * math.log2(latency_ms)


@dataclass(frozen=True)
class Tried:
    """One candidate after the search.

    accuracies: validation accuracy [0, 1] after each rung that it reached. utility: None if it did not reach
    the end. outcome: what became of it, in words.
    """

    number: int
    candidate: Candidate
    latency: Latency | None
    accuracies: tuple[float, ...]
    utility: float | None
    outcome: str

    @property
    def is_finalist(self) -> bool:
        """Whether it reached the end of the last rung."""
        return self.utility is not None


def search(
    journal: Path,
    propose: Callable[[Trial], Candidate],
    measure: Callable[[Candidate], Latency],
    train: Callable[[Candidate, int], float],
    *,
    goal: Goal,
    n_trials: int,
    n_rungs: int,
    first: list[dict[str, Any]],
    seed: int,
    report: Report = silent,
) -> list[Tried]:
    """Train `n_trials` candidates and return what became of each, and of those over the budget, in their order.

    Where hardly any is within the budget or unlike those before, it ends after `PROPOSALS_PER_TRIAL` times as many.

    journal: file with the search's state; the same file goes on with the same search. propose: returns a
    trial's candidate. measure: its latency. train: the validation accuracy after a training of rung
    0, 1, ..., each twice as long as the one before; a KingletError of it drops the candidate. first: choices
    to try before others.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = open_study(journal, first, seed)
    most = PROPOSALS_PER_TRIAL * n_trials
    while n_trained(study) < n_trials and (number := len(study.get_trials(deepcopy=False, states=FINISHED))) < most:
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=seed * 10_007 + number)
        trial = next(iter(interrupted(study)), None) or study.ask()
        run_trial(study, trial, propose, measure, train, goal, n_rungs)
        report(n_trained(study), n_trials, progress_words(study))
    return [tried(trial) for trial in study.get_trials(states=FINISHED)]


FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def n_trained(study: optuna.Study) -> int:
    """Return how many candidates were trained, or failed at it: those within the budget."""
    ended = study.get_trials(deepcopy=False, states=FINISHED)
    return sum("accuracies" in trial.user_attrs or trial.state == TrialState.FAIL for trial in ended)


def open_study(journal: Path, first: list[dict[str, Any]], seed: int) -> optuna.Study:
    """Return the study kept in `journal`; a new one has the choices of `first` in its queue."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(journal))),
        study_name=f"search-{seed}",
        direction="maximize",
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
        load_if_exists=True,
    )
    if not study.trials:
        for choices in first:
            study.enqueue_trial(choices)
    return study


def interrupted(study: optuna.Study) -> list[Trial]:
    """Return the trials that were begun and not ended when the process was killed."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [Trial(study, trial._trial_id) for trial in running]


def run_trial(
    study: optuna.Study,
    trial: Trial,
    propose: Callable[[Trial], Candidate],
    measure: Callable[[Candidate], Latency],
    train: Callable[[Candidate, int], float],
    goal: Goal,
    n_rungs: int,
) -> None:
    """Measure and train one candidate as far as it deserves, and note in the study what became of it."""
    candidate = propose(trial)
    trial.set_user_attr("candidate", vars(candidate))
    if (twin := twin_of(study, trial)) is not None:
        end(study, trial, f"the same as trial {twin}")
        return
    latency = measure(candidate)
    trial.set_user_attr("latency", vars(latency))
    if missed := goal.misses(latency):
        end(study, trial, f"{missed}: not trained")
        return
    accuracies: list[float] = list(trial.user_attrs.get("accuracies", []))
    for rung in range(len(accuracies), n_rungs):
        try:
            accuracies.append(train(candidate, rung))
        except KingletError as error:
            trial.set_user_attr("outcome", f"failed: {error}")
            study.tell(trial, state=TrialState.FAIL)
            return
        trial.set_user_attr("accuracies", accuracies)
        trial.report(goal.utility(accuracies[-1], latency.value), 2**rung)
        if rung + 1 < n_rungs and trial.should_prune():
            end(study, trial, f"dropped after rung {rung + 1} of {n_rungs}")
            return
    trial.set_user_attr("outcome", "finished all rungs")
    study.tell(trial, goal.utility(accuracies[-1], latency.value))


def end(study: optuna.Study, trial: Trial, outcome: str) -> None:
    """End a trial before its last rung."""
    trial.set_user_attr("outcome", outcome)
    study.tell(trial, state=TrialState.PRUNED)


def twin_of(study: optuna.Study, trial: Trial) -> int | None:
    """Return the number of an earlier trial with the same choices, or None."""
    earlier = study.get_trials(deepcopy=False, states=FINISHED)
    return next((other.number for other in earlier if other.params == trial.params), None)


def progress_words(study: optuna.Study) -> str:
    """Return what was tried last and what is best so far."""
    last = tried(study.get_trials(deepcopy=False, states=FINISHED)[-1])
    words = f"{last.candidate.description}: {last.outcome}"
    finalists = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
    if not finalists:
        return words
    best = tried(study.best_trial)
    assert best.latency is not None
    return (
        f"{words}; best so far {best.candidate.description}, {best.accuracies[-1]:.4f} in {best.latency.value:.3g} ms"
    )


def tried(trial: FrozenTrial) -> Tried:
    """Return the candidate of an ended trial and what became of it."""
    facts = trial.user_attrs
    return Tried(
        number=trial.number,
        candidate=Candidate(**facts["candidate"]),
        latency=Latency(**facts["latency"]) if "latency" in facts else None,
        accuracies=tuple(facts.get("accuracies", ())),
        utility=trial.value if trial.state == TrialState.COMPLETE else None,
        outcome=facts["outcome"],
    )
