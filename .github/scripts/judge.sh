#!/bin/bash
# Take the gate's verdict on the run, and lay out in FOLDER what a pull request is made of:
#   outcome       accepted, refused or unchanged (the bundle is the champion's already)
#   comment.md    verdict, metrics, settings and the way to the model, against the branch
#   dvc.lock, champion/    what is to be committed; the champion is the new one only if it was accepted
set -euo pipefail
folder=${1:?usage: judge.sh FOLDER}
against=${GITHUB_REF_NAME:?GITHUB_REF_NAME names the branch that the run started from}
mkdir -p "$folder"

code=0
.venv/bin/kinglet gate || code=$?
case $code in
  0) outcome=accepted ;;
  1) outcome=refused ;;
  *) exit "$code" ;; # no verdict at all
esac
# Before the promotion: after it, the verdict is on a champion that is gone.
.venv/bin/kinglet report --comment --against "$against" >"$folder/comment.md"
cat "$folder/comment.md" >>"${GITHUB_STEP_SUMMARY:-/dev/null}"
if [ "$outcome" = accepted ]; then
  if cmp -s champion/SHA256SUMS artifacts/bundle/SHA256SUMS; then
    outcome=unchanged
  else
    .venv/bin/kinglet promote
  fi
fi
cp dvc.lock "$folder/dvc.lock"
rm -rf "$folder/champion"
cp -R champion "$folder/champion"
echo "$outcome" >"$folder/outcome"
echo "outcome=$outcome" >>"${GITHUB_OUTPUT:-/dev/null}"
