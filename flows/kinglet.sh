#!/bin/sh
# The `kinglet` command of a checkout; `make install` puts it beside the environment's python.
# flows/ and tasks/ are no installed packages, so the command brings its checkout along.
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
exec "$here/python" -c '
import sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv.pop(1)).parent.parent))
from flows.cli import main
main()
' "$here" "$@"
