"""What the sections of `params.yaml` are made of: typed values whose wrong ones are refused by name."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
AUTO: Literal["auto"] = "auto"


def auto_or_positive(value: Any) -> Any:
    """Return a value that is "auto" or a positive number; raises ValueError for any other."""
    if value == AUTO or (type(value) in (int, float) and 0 < value < math.inf):
        return value
    raise ValueError("auto, or a number above 0")


def auto_or_count(value: Any) -> Any:
    """Return a value that is "auto" or a whole number above 0; raises ValueError for any other."""
    if value == AUTO or (type(value) is int and value > 0):
        return value
    raise ValueError("auto, or a whole number above 0")


AutoOrPositive = Annotated[float | Literal["auto"], BeforeValidator(auto_or_positive)]
AutoOrCount = Annotated[int | Literal["auto"], BeforeValidator(auto_or_count)]


class Section(BaseModel):
    """A part of `params.yaml`: unknown keys are refused, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def yes_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `yes` and `no`, which would count as 1 and 0, where no truth value is wanted."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("a number or a word, not yes or no")
        return value
