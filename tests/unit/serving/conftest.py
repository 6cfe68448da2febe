import pytest

from kinglet.serving.served_model import open_model
from tests.unit.serving.running_server import build_bundle, running


@pytest.fixture(scope="package")
def bundle(tmp_path_factory):
    return build_bundle(tmp_path_factory.mktemp("serving"))


@pytest.fixture(scope="package")
def model(bundle):
    return open_model(bundle, threads=1)


@pytest.fixture(scope="module")
def server(model):
    with running(model, body_timeout=5.0, max_megapixels=1.0, max_body_mb=0.5, max_images=4) as started:
        yield started
