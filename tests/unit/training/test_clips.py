"""The training of what stands behind a clip classifier's backbone, on maps that lie in a file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kinglet.data.views import Views
from kinglet.training.checkpoints import Checkpoint
from kinglet.training.clips import accuracy_behind, fit_behind, write_places
from kinglet.training.epochs import Recipe
from kinglet.training.loop import ImageSet, accuracy_of, predict
from kinglet.training.losses import label_loss
from tests.unit.models.clip_classifier_files import FRAMES, SIZE, moving_squares, small_clip_classifier

CPU = torch.device("cpu")
SCALE = {"mean": [0.5] * 3, "std": [0.5] * 3}


def clip_set(n, seed):
    clips, labels = moving_squares(n, seed=seed)
    return ImageSet({SIZE: clips}, np.arange(n), labels)


def recipe(epochs):
    return Recipe(((epochs, SIZE),), 8, 0.02, 0.01, 0.06, 1.0, 0.9, 100, (), "fp32", seed=0)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The pooled maps of training and validation clips, with their labels."""
    folder, network = tmp_path_factory.mktemp("places"), small_clip_classifier()
    return [
        (write_places(folder / f"{n}.npy", network, clips, SIZE, device=CPU, **SCALE), clips.labels)
        for n, clips in ((48, clip_set(48, 0)), (30, clip_set(30, 1)))
    ]


def fitted(places, epochs, checkpoint=None):
    loss = label_loss(torch.from_numpy(places[0][1]), 0.0)
    network = small_clip_classifier().behind
    return fit_behind(network, *places, loss, recipe(epochs), device=CPU, checkpoint=checkpoint)


def brightness(n, seed):
    """Return maps that a perfect backbone would give, how bright each place is, with the labels of their clips."""
    clips, labels = moving_squares(n, seed=seed)
    edge = SIZE // 4
    places = clips.astype(np.float16).reshape(n, FRAMES, 4, edge, 4, edge, 3).mean((3, 5, 6)) / 128
    return places[:, :, None].repeat(small_clip_classifier().backbone.widths[0], 2), labels


def test_motion_is_learnt_from_where_things_are():
    given = brightness(90, 0), brightness(30, 1)
    network, history = fitted(given, 20)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert accuracy_behind(network, *given[1], CPU) > 0.8


def test_an_interrupted_training_ends_as_one_that_was_not(places, tmp_path):
    whole, history = fitted(places, 3)

    class Dying(Checkpoint):
        def save(self, state):
            super().save(state)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(places, 3, Dying(tmp_path))
    resumed, again = fitted(places, 3, Checkpoint(tmp_path))
    assert again == history
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_maps_in_the_file_give_the_answers_of_the_whole_network(places):
    network, clips = small_clip_classifier(), clip_set(30, 1)
    expected = predict(network, clips.packed[SIZE], clips.rows, **SCALE, device=CPU)
    stored = torch.from_numpy(np.asarray(places[1][0], np.float32)).flatten(0, 1)
    with torch.inference_mode():
        found = network.behind(stored)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)
    right = accuracy_of(network, clips, SIZE, **SCALE, device=CPU)
    assert right == float((expected.argmax(1).numpy() == clips.labels).mean())


def test_views_of_clips_lie_one_after_the_other_and_a_file_that_is_there_stays(tmp_path):
    network, clips = small_clip_classifier(), clip_set(3, 0)
    views = Views(["shift"], 3, 2, seed=0)
    stored = write_places(tmp_path / "a.npy", network, clips, SIZE, device=CPU, views=views, **SCALE)
    assert stored.shape == (6, FRAMES, network.backbone.widths[0], network.spec.grid, network.spec.grid)
    assert not np.array_equal(stored[:3], stored[3:])
    with torch.no_grad():
        network.backbone.stem[0].weight.zero_()
    again = write_places(tmp_path / "a.npy", network, clips, SIZE, device=CPU, views=views, **SCALE)
    np.testing.assert_array_equal(again, stored)


def test_all_frames_of_a_clip_are_shown_alike():
    still = np.random.default_rng(0).integers(0, 256, (2, 1, SIZE, SIZE, 3), np.uint8).repeat(FRAMES, 1)
    views = Views(["flip", "crop", "shift", "color"], 2, 4, seed=0)
    pixels, _ = views.show(still, np.arange(2), np.array([0, 1]), torch.tensor([1, 3]), CPU)
    shown = pixels.unflatten(0, (2, FRAMES))
    torch.testing.assert_close(shown, shown[:, :1].expand_as(shown), atol=1e-3, rtol=0)
    assert not torch.allclose(shown[0, 0], torch.from_numpy(still[0, 0]).permute(2, 0, 1).float(), atol=1)
