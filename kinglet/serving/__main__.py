"""The server without anything around it, as a container starts it: `python -m kinglet.serving BUNDLE`."""

from __future__ import annotations

import os
import sys

from kinglet.serving.server import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ, "python -m kinglet.serving"))
