"""One training of the step `domains`, whatever the problem: what it learns from, and what opens it as it is served."""

from __future__ import annotations

from dataclasses import dataclass

import onnxruntime
import pandas as pd
from torch import nn

from kinglet.models.registry import normalization
from kinglet.reporting import Report
from kinglet.runtime.preprocessing import Preprocessing
from kinglet.runtime.sessions import open_session
from kinglet.training.checkpoints import Checkpoint
from kinglet.training.epochs import Recipe
from tasks.models import OUTPUTS, exported
from tasks.parameters import Parameters


@dataclass(frozen=True)
class DomainRun:
    """The teacher's recipe on the images of all domains, or of all but one.

    images: rows of the manifest, with their splits. checkpoint: where the training goes on if it was interrupted.
    """

    parameters: Parameters
    images: pd.DataFrame
    recipe: Recipe
    checkpoint: Checkpoint
    report: Report

    def served(self, network: nn.Module, size: int, channels: int, classes: list[str]) -> onnxruntime.InferenceSession:
        """Return a session of the network's ONNX file, on one thread, as it would be served."""
        problem, (mean, std) = self.parameters.network, normalization(channels)
        preprocessing = Preprocessing(size, channels, self.parameters.data.fit, tuple(mean), tuple(std))
        facts = {"preprocessing": preprocessing.to_dict(), "classes": classes}
        (model,) = exported(network.cpu().eval(), size, channels, facts, problem).values()
        return open_session(model.SerializeToString(), threads=1, outputs=OUTPUTS[problem])
