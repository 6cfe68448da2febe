"""What is said wherever scores are shown on data that a program made."""

from __future__ import annotations

GENERATED_SENTENCE = "The videos are generated: the scores say that the method works, not how it does on real ones."
