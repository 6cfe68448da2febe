"""The scale that a model was trained with is found from how often it is right."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from kinglet.adoption import adopt
from kinglet.adoption.channel_order import red_first
from kinglet.adoption.normalizations import NORMALIZATIONS, OWN, discover, own_normalization
from kinglet.runtime.sessions import open_session, run
from tests.unit.adoption.foreign_models import SIZE, foreign

LABELS = np.arange(200) % 4


def logits(n_right: int, confidence: float = 1.0) -> np.ndarray:
    """Return answers of which the first `n_right` are right."""
    predicted = np.where(np.arange(200) < n_right, LABELS, (LABELS + 1) % 4)
    return (confidence * np.eye(4)[predicted]).astype(np.float32)


def test_the_most_accurate_goes_first_and_its_lead_is_told():
    found = discover({"unit": logits(120), "imagenet": logits(180), "raw255": logits(60)}, LABELS)
    assert list(found.accuracies) == ["imagenet", "unit", "raw255"]
    assert (found.best, found.second, found.is_certain) == ("imagenet", "unit", True)
    assert found.lead.value == pytest.approx(0.3)
    assert found.accuracies["imagenet"].value == 0.9


@pytest.mark.parametrize("n_right", [179, 180])
def test_what_the_images_cannot_tell_apart_is_not_certain(n_right):
    found = discover({"unit": logits(n_right), "imagenet": logits(180)}, LABELS)
    assert not found.is_certain


def test_of_equally_accurate_ones_the_surer_goes_first():
    found = discover({"unit": logits(150, 1.0), "imagenet": logits(150, 4.0)}, LABELS)
    assert found.best == "imagenet"


def test_a_model_that_gives_no_numbers_under_a_scale_is_not_right_by_luck():
    broken = np.full((200, 4), np.nan, np.float32)
    assert discover({"raw255": broken, "unit": logits(40)}, np.zeros(200, np.int64)).accuracies
    assert discover({"raw255": broken, "unit": logits(0, 0.0)}, np.zeros(200, np.int64)).best == "unit"


@pytest.mark.parametrize(("n_right", "best"), [(181, "imagenet"), (199, OWN)])
def test_the_images_own_scale_leads_only_where_that_is_certain(n_right, best):
    found = discover({"imagenet": logits(180), OWN: logits(n_right)}, LABELS)
    assert found.best == best
    assert next(iter(found.accuracies)) == best
    assert found.is_certain == (best == OWN)


def test_one_candidate_is_certain():
    found = discover({"unit": logits(100)}, LABELS)
    assert (found.second, found.lead, found.is_certain) == (None, None, True)


def test_a_gray_model_takes_the_mean_of_the_colours():
    gray = NORMALIZATIONS["imagenet"].of_channels(1)
    assert gray.mean == pytest.approx((0.449,))
    assert NORMALIZATIONS["imagenet"].of_channels(3) is NORMALIZATIONS["imagenet"]


def test_the_images_own_scale_is_that_of_their_pixels():
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3), dtype=np.uint8)
    own = own_normalization(images)
    np.testing.assert_allclose(own.mean, (images / 255).mean((0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(own.std, (images / 255).std((0, 1, 2)), atol=1e-4)
    assert min(own_normalization(np.zeros((2, 4, 4, 1), np.uint8)).std) > 0


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("reader", ["Conv", "Relu"])
def test_a_network_that_takes_blue_first_is_turned_around(layout, reader):
    model = foreign(layout=layout, softmax="")
    if reader == "Relu":
        model.graph.node[0].input[0] = "bright"
        model.graph.node.insert(0, helper.make_node("Relu", ["input_1"], ["bright"]))
    adopted = adopt(model, "model.onnx")
    turned = red_first(adopted)
    images = np.random.default_rng(0).standard_normal((4, 3, SIZE, SIZE), dtype=np.float32)
    expected, found = (
        run(open_session(item.SerializeToString(), threads=1), pixels)
        for item, pixels in ((adopted, images[:, ::-1].copy()), (turned, images))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert not np.allclose(run(open_session(adopted.SerializeToString(), threads=1), images), expected)
    assert ("Gather" in {node.op_type for node in turned.graph.node}) == (reader == "Relu")
