from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from kinglet.runtime.preprocessing import model_input
from kinglet.runtime.sessions import open_session, read_metadata, run
from kinglet.runtime.single_image import ImageRun
from tests.unit.tasks.small_project import CLASSES, RECIPES, noisy_quadrants, write_model


@pytest.fixture(scope="module")
def session_and_images(tmp_path_factory):
    pixels, labels = noisy_quadrants(40, 16, 3)
    folder = write_model(tmp_path_factory.mktemp("model"), RECIPES[1], pixels, labels, np.ones(40, bool), CLASSES)
    session = open_session(folder / "model.onnx")
    return session, model_input(pixels, read_metadata(session)[0])


def test_a_single_image_gets_the_same_bits_as_from_the_runtime(session_and_images):
    session, images = session_and_images
    single = ImageRun(session)
    for position in range(10):
        image = images[position : position + 1]
        assert single(image).tobytes() == run(session, image).tobytes()


def test_an_answer_is_not_changed_by_the_next_image(session_and_images):
    session, images = session_and_images
    single = ImageRun(session)
    single(images[:1])  # binds the memory
    first = single(images[1:2])
    kept = first.copy()
    second = single(images[2:3])
    assert first.tobytes() == kept.tobytes() != second.tobytes()


def test_threads_do_not_see_each_others_images(session_and_images):
    session, images = session_and_images
    single = ImageRun(session)
    expected = [run(session, images[position : position + 1]).tobytes() for position in range(40)]
    with ThreadPoolExecutor(4) as pool:
        positions = list(range(40)) * 10
        found = list(pool.map(lambda position: single(images[position : position + 1]).tobytes(), positions))
    assert found == [expected[position] for position in positions]


def test_batches_and_views_are_computed_as_well(session_and_images):
    session, images = session_and_images
    single = ImageRun(session)
    single(images[:1])
    assert single(images[:3]).tobytes() == run(session, images[:3]).tobytes()
    mirrored = images[3:4, :, :, ::-1]
    assert single(mirrored).tobytes() == run(session, np.ascontiguousarray(mirrored)).tobytes()


def test_an_image_of_another_size_is_refused_as_by_the_runtime(session_and_images):
    session, images = session_and_images
    single = ImageRun(session)
    single(images[:1])
    with pytest.raises(InvalidArgument, match="dimension"):
        single(images[:1, :, :8])
