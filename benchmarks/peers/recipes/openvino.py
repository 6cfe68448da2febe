"""The teacher in OpenVINO, not quantized: what the change of runtime alone brings."""

from __future__ import annotations

from typing import Any

import openvino

from benchmarks.peers.recipes.task import read_task


def settings_of(threads: int) -> dict[str, Any]:
    """Return OpenVINO's properties for one request at a time on so many threads."""
    return {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}


def main() -> None:
    """Convert the teacher."""
    task = read_task()
    openvino.save_model(openvino.convert_model(str(task.model)), str(task.output / "model.xml"), False)
    task.write_settings("converted, not quantized")


if __name__ == "__main__":
    main()
