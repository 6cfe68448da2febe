"""What holds for the whole suite."""

from __future__ import annotations

import hypothesis

# An example may take long on a busy machine, and is none the worse for it.
hypothesis.settings.register_profile("kinglet", deadline=None)
hypothesis.settings.load_profile("kinglet")
