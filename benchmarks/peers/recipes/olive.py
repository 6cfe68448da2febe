"""Olive: its search over ONNX Runtime's static quantization, judged by its own evaluator.

The workflow of its ResNet example for CPUs (static quantization, joint search, accuracy first), with weights
per channel: every type and calibration method of its search space, and beside it uint8 activations with int8
weights, which ONNX Runtime's documentation advises for x86 and the search space lacks. Batch by batch, as all
activations of large images at once do not fit into memory.
Source: microsoft/Olive, examples/resnet/resnet_ptq_cpu.json
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from olive.data.registry import Registry
from olive.workflows import run

from benchmarks.peers.recipes.task import BATCH_SIZE, Task, read_task

SEARCHED = "SEARCHABLE_VALUES"
INPUT_NAME = "images"
STATIC = {
    "type": "OnnxStaticQuantization",
    "data_config": "calibration",
    "per_channel": True,
    "quant_preprocess": True,
    "quant_format": "QDQ",
    "calibrate_method": SEARCHED,
    "reduce_range": SEARCHED,
    "extra_options": {"CalibStridedMinMax": 1},
}


class Images(torch.utils.data.Dataset):
    """Images of the task with labels, as Olive reads them."""

    def __init__(self, images: Any, labels: Any) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[dict[str, Any], int]:
        return {INPUT_NAME: np.array(self.images[index])}, int(self.labels[index])


@Registry.register_dataset()
def task_images(folder: str, name: str, **_: Any) -> Images:
    """Return the images called `name` of the task in `folder`."""
    task = Task(Path(folder), Path(folder), Path(folder), {})
    images = task.array(name)
    labels = task.array("choice_labels") if name == "choice" else np.zeros(len(images), np.int64)
    return Images(images, labels)


@Registry.register_post_process()
def predicted_class(output: Any, **_: Any) -> Any:
    """Return the predicted classes."""
    logits = output[next(iter(output))] if isinstance(output, dict) else output
    return torch.as_tensor(logits).argmax(dim=1)


def data_config(task: Task, name: str) -> dict[str, Any]:
    """Return Olive's description of the images called `name`."""
    return {
        "name": name,
        "load_dataset_config": {"type": "task_images", "folder": str(task.folder.resolve()), "name": name},
        # Every part by its name: Olive 0.13 stumbles over one without.
        "pre_process_data_config": {"type": "skip_pre_process"},
        "post_process_data_config": {"type": "predicted_class"},
        "dataloader_config": {"type": "default_dataloader", "batch_size": BATCH_SIZE},
    }


def workflow(task: Task) -> dict[str, Any]:
    """Return Olive's configuration."""
    accuracy = {
        "name": "accuracy",
        "type": "accuracy",
        "data_config": "choice",
        "sub_types": [
            {
                "name": "accuracy_score",
                "priority": 1,
                "metric_config": {"task": "multiclass", "num_classes": task.facts["n_classes"]},
            }
        ],
    }
    return {
        "input_model": {"type": "OnnxModel", "model_path": str(task.model.resolve())},
        "systems": {
            "local": {
                "type": "LocalSystem",
                "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
            }
        },
        "data_configs": [data_config(task, "calibration"), data_config(task, "choice")],
        "evaluators": {"common": {"type": "OnnxEvaluator", "metrics": [accuracy]}},
        "passes": {
            "quantization": [
                {**STATIC, "precision": SEARCHED, "activation_type": SEARCHED},
                {**STATIC, "precision": "int8", "activation_type": "uint8", "prepare_qdq_config": False},
            ]
        },
        "search_strategy": {"execution_order": "joint", "sampler": "sequential"},
        "evaluator": "common",
        "host": "local",
        "target": "local",
        "cache_dir": str(task.output / "cache"),
        "output_dir": str(task.output / "olive"),
    }


def main() -> None:
    """Run the workflow and keep its best model."""
    task = read_task()
    best = run(workflow(task)).get_best_candidate()
    shutil.copyfile(best.model_path, task.output / "model.onnx")
    footprint = json.loads((task.output / "olive" / "footprint.json").read_text(encoding="utf-8"))
    found = footprint[best.model_id]["pass_run_config"]
    task.write_settings(
        f"static QDQ, {found['precision']} per channel, {found['activation_type']} activations, "
        f"{found['calibrate_method']}, {7 if found['reduce_range'] else 8}-bit weights",
        choice_accuracy=best.metrics_value["accuracy-accuracy_score"]["value"],
    )


if __name__ == "__main__":
    main()
