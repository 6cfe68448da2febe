#!/bin/bash
# Start the image, try it through HTTP, push it to the registry that deploy/settings.yaml names, and make its bundle the
# champion of KINGLET_STORE; a step that fails takes back all before it (docs/deploy.md).
# REGISTRY_USER and REGISTRY_TOKEN: who pushes there.
set -euo pipefail
if [ -z "${KINGLET_STORE:-}" ]; then
  echo "error: KINGLET_STORE is empty: the variable of the repository has to name the store, s3://BUCKET/PREFIX/NAME." >&2
  exit 2
fi
registry=$(.venv/bin/python -c 'import yaml; print(yaml.safe_load(open("deploy/settings.yaml"))["image"]["registry"])')
host=${registry%%/*}
if [ -z "$host" ]; then
  echo "error: deploy/settings.yaml: image.registry is empty: name the registry to push to, e.g. HOST/OWNER." >&2
  exit 2
fi
printf '%s' "${REGISTRY_TOKEN:?}" | docker login "$host" --username "${REGISTRY_USER:?}" --password-stdin
trap 'docker logout "$host" >/dev/null' EXIT
.venv/bin/kinglet deploy --store "$KINGLET_STORE"
