#!/bin/bash
# Put what the steps left, and how they came to it, into the DVC remote that pull.sh named.
set -euo pipefail
.venv/bin/dvc push --run-cache
