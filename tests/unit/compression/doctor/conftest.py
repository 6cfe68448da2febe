import pytest

from kinglet.runtime import latency
from tests.unit.compression.doctor.broken_files import make_work, quantized


@pytest.fixture(scope="session")
def work():
    return make_work("residual-cnn")


@pytest.fixture(scope="session")
def good(work):
    return quantized(work.float_model, work.calibration)


@pytest.fixture(autouse=True)
def short_timings(monkeypatch):
    """Timings of many files in turns, of which only the signs and the bookkeeping are looked at here."""
    monkeypatch.setattr(latency, "BLOCK_SECONDS", 0.001)
    monkeypatch.setattr(latency, "WARM_UP_SECONDS", 0.005)
