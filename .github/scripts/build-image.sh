#!/bin/bash
# Build the image of the bundle that dvc.lock names, if it is the champion of this commit: only the gate's `promote`
# puts one there. Where IMAGE_ID is set, the image has to be that one: builds are reproducible.
set -euo pipefail
if ! cmp -s champion/SHA256SUMS artifacts/bundle/SHA256SUMS; then
  echo "error: artifacts/bundle is not the bundle in champion/: release a commit in which an accepted model was merged." >&2
  exit 2
fi
mkdir -p .kinglet
.venv/bin/kinglet image wheels
.venv/bin/kinglet image build --json >.kinglet/image.json
value() { .venv/bin/python -c 'import json, sys; print(json.load(open(".kinglet/image.json"))[sys.argv[1]])' "$1"; }
id=$(value id)
if [ -n "${IMAGE_ID:-}" ] && [ "$id" != "$IMAGE_ID" ]; then
  echo "error: the image is $id, and the one that was scanned is $IMAGE_ID: nothing is released." >&2
  exit 1
fi
{
  echo "id=$id"
  echo "reference=$(value reference)"
  echo "bill=$(value bill)"
} >>"${GITHUB_OUTPUT:-/dev/null}"
