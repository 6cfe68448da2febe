#!/bin/bash
# Name the DVC remote and take from it what it has: data, what the steps left, and the runs of before, so that nothing
# is trained twice. DVC_REMOTE: its address, e.g. s3://BUCKET/dvc. Arguments: only these stages, or files, and all of
# what they are must be there.
set -euo pipefail
if [ -z "${DVC_REMOTE:-}" ]; then
  echo "error: DVC_REMOTE is empty: the variable of the repository has to name the DVC remote, e.g. s3://BUCKET/dvc." >&2
  exit 2
fi
# In .dvc/config.local, which is not committed.
.venv/bin/dvc remote add --local --force --default remote "$DVC_REMOTE"
if [ $# -gt 0 ]; then
  .venv/bin/dvc pull "$@"
else
  # What is not there is made by the run: all of it, the first time.
  .venv/bin/dvc pull --run-cache --allow-missing
fi
