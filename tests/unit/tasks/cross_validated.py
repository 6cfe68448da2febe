"""The steps of a cross-validation in a project, one after the other."""

from __future__ import annotations

from tasks import assign_folds, crossvalidate, label_errors, pool_folds
from tasks.parameters import Parameters


def cross_validate(parameters: Parameters) -> None:
    """Run them all in this folder; every fold of the first repetition."""
    assign_folds.run(parameters)
    for fold in parameters.crossvalidate.folds:
        crossvalidate.run(parameters, 1, fold)
    pool_folds.run(parameters)
    label_errors.run(parameters)
