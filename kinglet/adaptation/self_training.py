"""Adaptation without labels: a network learns from its own sure answers to images of the target domain."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from kinglet.adaptation.training import AdaptationRecipe, TargetImages, go_on
from kinglet.reporting import Report, silent
from kinglet.training.loop import predict
from kinglet.training.losses import NO_LABEL

# However unsure a network is: its surest answers are learnt from, or it could not begin.
LEAST_SHARE = 0.1


def pseudo_labels(logits: Tensor, confidence: float) -> Tensor:
    """Return the predicted class of the sure answers, int64 (n,), and `NO_LABEL` for the others.

    logits: float32 (n, n_classes). confidence: probability in (0, 1) from which an answer counts as sure. The share of
    sure answers among all, at least `LEAST_SHARE`, is taken from every predicted class, its surest first: a bar of one
    height for all would leave out the hard classes, and the network would forget them.
    Source: Zou et al. 2018, "Unsupervised Domain Adaptation for Semantic Segmentation via Class-Balanced
    Self-Training", equation 5 and algorithm 1; the share follows from the confidence here.
    """
    sure, predicted = functional.softmax(logits.double(), dim=1).max(dim=1)
    share = max(LEAST_SHARE, float((sure >= confidence).double().mean()))
    labels = torch.full_like(predicted, NO_LABEL)
    for label in predicted.unique().tolist():
        places = (predicted == label).nonzero()[:, 0]
        # Stable: equally sure answers count in the order of the images.
        order = sure[places].argsort(descending=True, stable=True)
        labels[places[order[: math.ceil(share * len(places))]]] = label
    return labels


def self_train(
    network: nn.Module,
    images: TargetImages,
    confidence: float,
    recipe: AdaptationRecipe,
    device: torch.device,
    report: Report = silent,
) -> nn.Module:
    """Return the network after learning from pseudo-labels, on the CPU in evaluation mode.

    network: one whose batch statistics are those of the target already, or its first answers are poor. Before every
    epoch the average of its weights so far, the mean teacher, answers all images anew.
    Source: Tarvainen and Valpola 2017, "Mean teachers are better role models", for the average as the teacher.
    """

    def answer(teacher: nn.Module) -> Tensor:
        rows = torch.arange(len(images.packed)).numpy()
        return pseudo_labels(predict(teacher, images.packed, rows, images.mean, images.std, device), confidence)

    return go_on(network, images, answer, recipe, device, report)
