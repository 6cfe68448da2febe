"""The settings of what makes a trained network smaller, and other files of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tasks.setting_values import CalibrationMethod, Channels, Epochs, ExportRuntime, Share
from tasks.settings_section import AUTO, Count, Positive, Section


class Prune(Section):
    models: list[str] = []
    blocks: Annotated[int, Field(ge=0)] = 0
    channel_share: Share = 0.5
    importance: Literal["l2", "taylor", "hessian"] = "taylor"
    scope: Literal["layer", "global"] = "layer"
    steps: Count = 1
    round_to: Channels = AUTO
    baseline: Literal["resolution", "width", "none"] = "resolution"
    epochs: Epochs = AUTO
    batch_size: Count = 256
    learning_rate: Positive = 1e-3

    @model_validator(mode="after")
    def removes_something(self) -> Prune:
        if not self.blocks and not self.channel_share:
            raise ValueError("blocks or channel_share above 0")
        return self


class Quantize(Section):
    models: list[str] = []
    calibration_images: Count = 512
    methods: Annotated[list[CalibrationMethod], Field(min_length=1)] = ["minmax", "percentile", "entropy"]
    weight_bits: Annotated[list[Literal[7, 8]], Field(min_length=1)] = [8, 7]
    tolerance: Share = 0.005
    uint8_input: bool = True
    max_float_layers: Annotated[int, Field(ge=0)] = 4
    qat_epochs: Annotated[float, Field(ge=0)] = 1
    qat_learning_rate: Positive = 2e-4
    qat_steps: Literal["learned", "averaged"] = "averaged"
    stored_weights: list[Literal["fp16", "bf16", "int8"]] = []


class Export(Section):
    """Converts these models, all where none is named, for each of these runtimes."""

    runtimes: list[ExportRuntime] = []
    models: list[str] = []
