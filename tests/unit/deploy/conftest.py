"""Importing Prefect makes its home: not in the checkout."""

import os
import tempfile

os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="kinglet-prefect-")
