"""The window of a convolution over an image, as ONNX writes it: sizes, and whether its pads have a name."""

from __future__ import annotations

from typing import Any


class Window:
    """The window of a convolution: kernel, strides, dilations, and pads (top, left, bottom, right)."""

    def __init__(self, kernel: tuple[int, ...], attributes: dict[str, Any]) -> None:
        self.kernel = kernel
        self.strides: list[int] = attributes.get("strides", [1, 1])
        self.dilations: list[int] = attributes.get("dilations", [1, 1])
        self.pads: list[int] = attributes.get("pads", [0, 0, 0, 0])

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of what the convolution gives."""
        return self._steps(height, 0), self._steps(width, 1)

    def is_same(self, size: tuple[int, int]) -> bool:
        """Return whether the pads are those of "SAME": as little as covers the image, the odd pixel at the end."""
        for axis, edge in enumerate(size):
            steps = -(-edge // self.strides[axis])
            total = max((steps - 1) * self.strides[axis] + self._reach(axis) - edge, 0)
            if (self.pads[axis], self.pads[axis + 2]) != (total // 2, total - total // 2):
                return False
        return True

    def _steps(self, edge: int, axis: int) -> int:
        padded = edge + self.pads[axis] + self.pads[axis + 2]
        return (padded - self._reach(axis)) // self.strides[axis] + 1

    def _reach(self, axis: int) -> int:
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1
