import numpy as np

from benchmarks.monitoring import Seen, darker, one_check
from benchmarks.tables.service import monitoring_rows
from kinglet.evidence.drift_test import Limits
from kinglet.runtime.predictor import Predictor
from tests.unit.serving.running_server import build_bundle
from tests.unit.tasks.small_project import CLASSES, noisy_quadrants


def test_a_check_sees_darker_images_and_names_them(tmp_path):
    predictor = Predictor(build_bundle(tmp_path), threads=1)
    images, labels = noisy_quadrants(7000, 16, 3)
    clean = Seen(predictor, images, labels.astype(np.int64))
    moved = Seen(predictor, darker(images, 0.8), clean.labels)
    assert one_check(clean, clean, Limits(0.01), 0, CLASSES) == []
    assert "brightness" in one_check(clean, moved, Limits(0.01), 0, CLASSES)


def test_the_tables_rows_say_alarms_and_cost():
    spread = {"median": 1.25, "low": 1.2, "high": 1.5, "values": [1.25, 1.2, 1.5]}
    without = {"checks": 400, "alarms": 3, "share": 0.0075, "low": 0.002, "high": 0.02}
    moved = {"5 % darker": {"checks": 25, "alarms": 24, "named": ["brightness"]}}
    alarms = {"stream_images": 1000, "false_alarm_rate": 0.01, "without_drift": without, "with_drift": moved}
    false, seen, cost = monitoring_rows({"alarms": alarms, "server": {"pixels": 28, "cpu_times": spread}})
    assert false[1:] == ("1 %, as asked for", "**0.8 %** (0.2 to 2.0): 3 of 400")
    assert seen[2] == "**5 % darker 24 of 25**"
    assert cost[2] == "**1.25 times** the processor time per request (1.20 to 1.50)"
