"""Self-training of segmenters: which pixels are sure, that every class keeps some, and that they are learnt from."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kinglet.adaptation.mask_self_training import least_of_surest, self_train_segmenter, sure_masks
from kinglet.adaptation.training import AdaptationRecipe
from kinglet.data.batches import gather, standardize
from kinglet.runtime.segmentation import VOID
from kinglet.training.segmentation_losses import segmentation_loss
from tests.unit.data.test_mask_augmentation import painted
from tests.unit.models.segmenter_files import lively_segmenter

CPU = torch.device("cpu")
MEAN, STD = [0.0], [1.0]
WHOLE = np.array([[0, 0, 64, 64]] * 4)
RECIPE = AdaptationRecipe(epochs=4, batch_size=2, learning_rate=1e-2, ema_decay=0.5, augment=(), seed=1)


class Brightness(nn.Module):
    """Bright pixels are class 1, the surer the brighter; dark ones class 0, the surer the darker."""

    def forward(self, x: Tensor) -> Tensor:
        logit = 10 * (x[:, :, ::2, ::2] - 0.7)
        return torch.cat([-logit, logit], 1)


def blocks() -> np.ndarray:
    """Return four images, 3/4 dark in three shades, and 1/4 hardly bright enough for class 1 in two."""
    images = np.full((4, 64, 64, 1), 20, np.uint8)
    images[:, 32:, :32] = 120
    images[:, 32:, 32:] = 170
    images[:, :32, 32:48] = 182
    images[:, :32, 48:] = 190
    return images


def test_every_class_keeps_its_surest_pixels_and_borders_are_void():
    images = blocks()
    masks = sure_masks(Brightness(), images, WHOLE, 2, 0.9, MEAN, STD, CPU)
    assert (masks[:, 4:28, 4:28] == 0).all()
    # Half of the pixels are surer than 0.9, none of them bright: half of the bright ones are kept, the brighter.
    assert (masks[:, 4:28, 52:] == 1).all()
    assert (masks[:, 4:28, 36:44] == VOID).all()
    assert (masks[:, 36:, 36:] == VOID).all()
    insides = np.array([[8, 16, 64, 48]] * 4)
    bordered = sure_masks(Brightness(), images, insides, 2, 0.9, MEAN, STD, CPU)
    assert (bordered[:, :16] == VOID).all()
    assert (bordered[:, :, :8] == VOID).all()
    assert (bordered[:, 18:28, 10:28] == 0).all()


def test_where_nothing_is_sure_a_tenth_of_every_class_is_learnt_from():
    masks = sure_masks(
        Brightness(),
        np.arange(64, dtype=np.uint8)[None, None, :, None].repeat(64, 1) + 150,
        WHOLE[:1],
        2,
        0.9999,
        MEAN,
        STD,
        CPU,
    )
    assert set(np.unique(masks)) == {0, 1, VOID}
    assert 0.05 < (masks != VOID).mean() < 0.2


@pytest.mark.parametrize(
    ("sureness", "share", "expected"),
    [([1, 2, 3, 4], 0.5, 3), ([1, 2, 3, 4], 0.51, 2), ([4, 4, 4, 1], 0.1, 4), ([7], 1.0, 7), ([], 0.5, 65_535)],
)
def test_the_surest_are_a_share_of_all_and_those_as_sure(sureness, share, expected):
    assert least_of_surest(np.array(sureness, np.uint16), share) == expected


def trained(network: nn.Module, packed: np.ndarray, recipe: AdaptationRecipe = RECIPE) -> nn.Module:
    return self_train_segmenter(network, packed, WHOLE, 2, 0.6, [0.45], [0.25], recipe, CPU)


def test_a_segmenter_learns_what_it_is_sure_of_and_the_same_every_time():
    network, packed = lively_segmenter(2, 1), painted(4, 64).packed
    before = copy.deepcopy(network.state_dict())
    masks = torch.from_numpy(sure_masks(network, packed, WHOLE, 2, 0.6, [0.45], [0.25], CPU))
    inputs = standardize(gather(packed, np.arange(4)), [0.45], [0.25])
    adapted, again = (trained(network, packed) for _ in range(2))
    with torch.inference_mode():
        first, last = (float(segmentation_loss()(one(inputs), masks)) for one in (network.eval(), adapted))
    assert last < 0.95 * first
    state = adapted.state_dict()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in state.items())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    changed = {name.rpartition(".")[2] for name, value in state.items() if not torch.equal(value, before[name])}
    assert changed == {"weight", "bias"}
    other = trained(network, 255 - packed, replace(RECIPE, augment=("flip", "color"))).state_dict()
    assert any(not torch.equal(value, state[name]) for name, value in other.items())
