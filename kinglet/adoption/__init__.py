"""ONNX classifiers that other tools made: read, brought into Kinglet's form, and their pixels' scale found out."""

from __future__ import annotations

from kinglet.adoption.interface import Facts, adopt, facts_of
from kinglet.adoption.onnx_file import read_onnx

__all__ = ["Facts", "adopt", "facts_of", "read_onnx"]
