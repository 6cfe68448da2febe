#!/bin/bash
# Look for known vulnerabilities in the image REFERENCE: of its Python packages by pip-audit, of its Debian packages, as
# far as Debian has mended them, by debsecan. Both ask the network; what cannot be asked fails, it does not pass.
set -euo pipefail
reference=${1:?usage: scan-image.sh REFERENCE}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
found=0

python3 -m venv "$work/audit"
"$work/audit/bin/python" -m pip install --quiet pip-audit==2.10.1
# The lock holds a hash for every wheel in the image.
"$work/audit/bin/python" -m pip_audit --requirement deploy/image.lock --require-hashes --disable-pip || found=1

command -v debsecan >/dev/null || { sudo apt-get -qq update && sudo apt-get -qq install -y --no-install-recommends debsecan; }
container=$(docker create "$reference")
docker cp --quiet "$container:/var/lib/dpkg/status" "$work/status" || found=1
docker cp --quiet "$container:/etc/os-release" "$work/os-release" || found=1
docker rm "$container" >/dev/null
if [ ! -s "$work/status" ] || [ ! -s "$work/os-release" ]; then
  echo "error: $reference holds no list of Debian packages to scan." >&2
  exit 1
fi
suite=$(. "$work/os-release" && echo "${VERSION_CODENAME:?the image does not say which Debian it is}")
debsecan --suite "$suite" --status "$work/status" --only-fixed --format detail >"$work/debian"
if [ -s "$work/debian" ]; then
  cat "$work/debian"
  echo "error: Debian has mended these packages of the image: build it on a newer base." >&2
  found=1
fi
exit "$found"
