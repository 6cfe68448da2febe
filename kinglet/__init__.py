"""Kinglet makes computer-vision models small and fast for the edge, and proves that they are still good."""

__version__ = "0.1.0"
