"""The choice of a model within a budget, from validation scores and measured latencies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.pareto import pareto_front

# Differences of accuracies are sums of floats; a drop of exactly the limit is within it.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Candidate:
    """A model that may be chosen.

    latency_ms: median of batch 1 with its interval. accuracy: on validation images, in [0, 1]; of a detector, its
    map_50. difference: accuracy minus the reference's on the same validation images, with its paired interval.
    """

    name: str
    latency_ms: Interval
    size_mb: float
    accuracy: float
    difference: Interval


@dataclass(frozen=True)
class Budget:
    """The most that a model may cost; None is no limit. max_accuracy_drop: against the reference, in [0, 1).

    max_doubt: how far the interval of the difference may reach below the difference itself: a few dozen images may show
    a model as good as the reference that is far worse. reference: what sentences call the model that the others are
    compared with. score: what they call `accuracy`.
    """

    latency_ms: float | None
    size_mb: float | None
    max_accuracy_drop: float
    max_doubt: float | None = None
    reference: str = "teacher"
    score: str = "accuracy"


@dataclass(frozen=True)
class Choice:
    """The chosen model and, in one sentence, why; front: names on the Pareto front, fastest first."""

    chosen: Candidate
    reason: str
    front: list[str]


def front_of(candidates: list[Candidate]) -> list[str]:
    """Return the names on the Pareto front of latency, size and validation accuracy, fastest first."""
    costs = np.array([(item.latency_ms.value, item.size_mb, -item.accuracy) for item in candidates])
    front = [item for item, keeps in zip(candidates, pareto_front(costs), strict=True) if keeps]
    return [item.name for item in sorted(front, key=lambda item: (item.latency_ms.value, item.name))]


def choose(candidates: list[Candidate], budget: Budget) -> Choice | None:
    """Return the fastest candidate within the budget, or None if none is.

    Candidates whose latency intervals overlap the fastest one's are as fast: among them the smallest
    file is taken, then the highest accuracy. All are looked at, not the Pareto front alone: a model that beats
    another may be in more doubt.
    """
    fitting = [item for item in candidates if not misses(item, budget)]
    if not fitting:
        return None
    fastest = min(fitting, key=lambda item: (item.latency_ms.value, item.name))
    equal = [item for item in fitting if item.latency_ms.low <= fastest.latency_ms.high]
    chosen = min(equal, key=lambda item: (item.size_mb, -item.accuracy, item.latency_ms.value, item.name))
    others = [item for item in equal if item != chosen]
    reason = explain(chosen, others, len(fitting), len(candidates), budget)
    return Choice(chosen, reason, front_of(candidates))


def misses(candidate: Candidate, budget: Budget) -> dict[str, float]:
    """Return by how much of the limit the candidate misses each limit it misses; empty if it fits.

    The accuracy drop is judged by its point estimate, where its interval is no wider than the doubt that is allowed.
    0.1 means a tenth above the limit; drop and doubt are compared with one point where none at all is allowed.
    """
    drop = -candidate.difference.value
    excess = {"max_accuracy_drop": (drop - budget.max_accuracy_drop) / (budget.max_accuracy_drop or 0.01)}
    if budget.max_doubt is not None:
        excess["max_doubt"] = (doubt(candidate) - budget.max_doubt) / (budget.max_doubt or 0.01)
    if budget.latency_ms is not None:
        excess["latency_ms"] = candidate.latency_ms.value / budget.latency_ms - 1
    if budget.size_mb is not None:
        excess["size_mb"] = candidate.size_mb / budget.size_mb - 1
    return {name: value for name, value in excess.items() if value > ROUNDING}


def doubt(candidate: Candidate) -> float:
    """Return how far the interval of a candidate's difference reaches below it."""
    return candidate.difference.value - candidate.difference.low


def nearest_misses(candidates: list[Candidate], budget: Budget, count: int = 3) -> list[str]:
    """Return a clause for each of the candidates nearest to the budget: its name, and what it misses by how much."""
    ranked = sorted(candidates, key=lambda item: (max(misses(item, budget).values(), default=0), item.name))
    return [f"{item.name} ({', '.join(miss_clauses(item, budget))})" for item in ranked[:count]]


def miss_clauses(candidate: Candidate, budget: Budget) -> list[str]:
    """Return a clause for each limit that the candidate misses."""
    missed = misses(candidate, budget)
    clauses = []
    if "latency_ms" in missed and budget.latency_ms is not None:
        over = candidate.latency_ms.value - budget.latency_ms
        clauses.append(f"{candidate.latency_ms.value:.3g} ms, {over:.2g} ms too slow")
    if "size_mb" in missed and budget.size_mb is not None:
        over = candidate.size_mb - budget.size_mb
        clauses.append(f"{candidate.size_mb:.3g} MB, {over:.2g} MB too big")
    if "max_accuracy_drop" in missed:
        drop = -100 * candidate.difference.value
        over = drop - 100 * budget.max_accuracy_drop
        clauses.append(f"{drop:.2f} points below the {budget.reference}, {over:.2f} points too many")
    elif "max_doubt" in missed:
        of = candidate.difference
        clauses.append(
            f"{100 * of.value:+.2f} points to the {budget.reference}, but perhaps {100 * of.low:+.2f}: too few "
            "validation images to tell"
        )
    return clauses


def explain(chosen: Candidate, equally_fast: list[Candidate], within: int, total: int, budget: Budget) -> str:
    """Return one sentence on why this candidate was chosen."""
    latency, difference = chosen.latency_ms, chosen.difference
    how = "the fastest"
    if equally_fast:
        smaller = all(chosen.size_mb < other.size_mb for other in equally_fast)
        names = " and ".join(other.name for other in equally_fast)
        how = f"as fast as {names} and {'smaller' if smaller else 'no bigger'}"
    return (
        f"{chosen.name} is {how} of the {within} models within the budget (of {total}): "
        f"{latency.value:.3g} ms ({latency.low:.3g} to {latency.high:.3g}), {chosen.size_mb:.3g} MB, "
        f"validation {budget.score} {100 * chosen.accuracy:.2f} %, {100 * difference.value:+.2f} points to the "
        f"{budget.reference} "
        f"({100 * difference.low:+.2f} to {100 * difference.high:+.2f})."
    )
