"""The stage graph as DVC sees it: `dvc.yaml` is the only place where the order of the steps is written."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.stage import PipelineStage

from kinglet.errors import KingletError


@dataclass(frozen=True)
class Stage:
    """One stage of `dvc.yaml`, or one data set under `dvc add` that a stage reads.

    name: how `dvc repro` calls it. upstream: names of the stages whose outputs it reads. exclusive:
    nothing else may run beside it. crowded: one of many that take little of the machine each, and of which not
    all may run at once. changed: its command, parameters, inputs or outputs are not those of its last run.
    """

    name: str
    upstream: tuple[str, ...]
    exclusive: bool
    changed: bool
    crowded: bool = False


def read_graph() -> tuple[Stage, ...]:
    """Return the stages of the DVC project in the current folder, every stage after those it depends on.

    Raises KingletError with DVC's own sentence where dvc.yaml, params.yaml or dvc.lock are not valid.
    """
    try:
        with Repo() as repo:
            changed = set(repo.status())
            graph = repo.index.graph
            wanted = set()
            for stage in graph:
                if isinstance(stage, PipelineStage):
                    wanted |= {stage, *nx.descendants(graph, stage)}
            # DVC's edges point from a stage to what it depends on.
            order = nx.lexicographical_topological_sort(graph.subgraph(wanted).reverse(), key=lambda s: s.addressing)
            return tuple(
                Stage(
                    name=stage.addressing,
                    upstream=tuple(sorted(needed.addressing for needed in graph.successors(stage))),
                    exclusive=bool((stage.meta or {}).get("exclusive", False)),
                    changed=stage.addressing in changed,
                    crowded=bool((stage.meta or {}).get("crowded", False)),
                )
                for stage in order
            )
    except LockError:
        raise KingletError(
            "Another DVC command is at work in this checkout.", "Wait until it has ended, then run again."
        ) from None
    except DvcException as error:
        raise KingletError(f"DVC cannot read the pipeline: {' '.join(str(error).split())}") from None
