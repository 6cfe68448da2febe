#!/bin/bash
# Commit what judge.sh laid out in FOLDER to the branch `retrain`, and show it in a pull request: a new one, or the one
# that is open. A refused model's is a draft. Needs git and gh, with GH_TOKEN; no Python.
set -euo pipefail
folder=${1:?usage: propose.sh FOLDER}
base=${GITHUB_REF_NAME:?GITHUB_REF_NAME names the branch to merge into}
branch=retrain
outcome=$(cat "$folder/outcome")
case $outcome in
  accepted) title="Replace the champion by a new model" ;;
  refused) title="A new model that the gate refused" ;;
  *)
    echo "The gate says $outcome: there is nothing to propose."
    exit 0
    ;;
esac

git switch --quiet --force-create "$branch"
cp "$folder/dvc.lock" dvc.lock
rm -rf champion
cp -R "$folder/champion" champion
git add --all -- dvc.lock champion
if git diff --cached --quiet; then
  echo "$base holds all of it already: there is nothing to propose."
  exit 0
fi
git -c user.name="github-actions[bot]" -c user.email="41898282+github-actions[bot]@users.noreply.github.com" \
  commit --quiet --message "$title"
gh auth setup-git
# The branch is this workflow's alone, and only one run of it works at a time.
git push --quiet --force origin "$branch"

number=$(gh pr list --head "$branch" --base "$base" --state open --json number --jq '.[0].number // empty')
if [ -z "$number" ]; then
  gh pr create --draft --head "$branch" --base "$base" --title "$title" \
    --body "Made by the workflow \`retrain\`. The comment below says what was found; merging makes it the champion."
  number=$(gh pr list --head "$branch" --base "$base" --state open --json number --jq '.[0].number')
else
  gh pr edit "$number" --title "$title"
fi
gh pr comment "$number" --edit-last --create-if-none --body-file "$folder/comment.md"
if [ "$outcome" = accepted ]; then gh pr ready "$number"; else gh pr ready "$number" --undo; fi
# What a workflow's token pushes starts no other workflow by itself.
gh workflow run ci.yml --ref "$branch"
