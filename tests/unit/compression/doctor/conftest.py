import pytest

from tests.unit.compression.doctor.broken_files import make_work, quantized


@pytest.fixture(scope="session")
def work():
    return make_work("residual-cnn")


@pytest.fixture(scope="session")
def good(work):
    return quantized(work.float_model, work.calibration)
