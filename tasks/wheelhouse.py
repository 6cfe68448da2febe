"""The wheels that an image is made of: pinned by `deploy/image.lock`, downloaded once, checked at every build."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from kinglet.atomic import write_text
from kinglet.deployment.requirements import Pinned, closure, lock_text, pinned, read_pins
from kinglet.errors import KingletError
from kinglet.runtime.bundles import sha256_of
from tasks.artifacts import WORKSPACE

WHEELHOUSE = WORKSPACE / "wheelhouse"
IMAGE_LOCK = Path("deploy") / "image.lock"
LOCK = Path("requirements.lock")
PROJECT = Path("pyproject.toml")
# Of the base image.
PYTHON_VERSION = "3.11"
# glibc of the base image's Debian is 2.36; wheels name the oldest that they run on.
GLIBC = (28, 27, 26, 24, 17, 12, 5)
ARCHITECTURES = ("x86_64", "aarch64")
COMMENT = """What the image holds, out of requirements.lock, with the SHA-256 of every wheel.
Written by `kinglet image lock`; for these processors: {architectures}."""
DOWNLOAD_SECONDS = 1200


def runtime_packages() -> list[Pinned]:
    """Return what `pip install .` needs on Linux, at the versions of requirements.lock, sorted by name."""
    wanted = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    pins = read_pins(LOCK.read_text(encoding="utf-8"), str(LOCK))
    return pinned(closure(wanted, requirements_of, PYTHON_VERSION), pins, str(LOCK))


def requirements_of(name: str) -> Sequence[str] | None:
    """Return what an installed package requires; raises KingletError if it is not installed."""
    try:
        return requires(name)
    except PackageNotFoundError:
        raise KingletError(
            f"{name} is not installed here, so what it needs is not known.", "Run make install."
        ) from None


def read_image_lock() -> list[Pinned]:
    """Return the packages of deploy/image.lock with their hashes.

    Raises KingletError if it is not what requirements.lock gives.
    """
    if not IMAGE_LOCK.is_file():
        raise KingletError(f"{IMAGE_LOCK} does not exist.", "Write it with `kinglet image lock`.")
    locked = list(read_pins(IMAGE_LOCK.read_text(encoding="utf-8"), str(IMAGE_LOCK)).values())
    wanted = [(package.name, package.version) for package in runtime_packages()]
    if [(package.name, package.version) for package in locked] != wanted:
        raise KingletError(f"{IMAGE_LOCK} is not what {LOCK} gives.", "Write it anew with `kinglet image lock`.")
    for package in locked:
        if not package.hashes:
            raise KingletError(f"{IMAGE_LOCK} has no hash for {package.name}.", "Write it with `kinglet image lock`.")
    return locked


def write_image_lock() -> list[Pinned]:
    """Download the wheels for every kind of processor and write deploy/image.lock; return the packages."""
    packages = runtime_packages()
    hashes: dict[str, set[str]] = {package.name: set() for package in packages}
    for architecture in ARCHITECTURES:
        with tempfile.TemporaryDirectory(prefix="kinglet-wheels-") as folder:
            download([f"{package.name}=={package.version}" for package in packages], Path(folder), architecture)
            for wheel in Path(folder).glob("*.whl"):
                hashes[name_of(wheel)].add(sha256_of(wheel))
    locked = [Pinned(package.name, package.version, tuple(sorted(hashes[package.name]))) for package in packages]
    write_text(IMAGE_LOCK, lock_text(locked, COMMENT.format(architectures=", ".join(ARCHITECTURES))))
    return locked


def fill_wheelhouse(folder: Path, packages: Iterable[Pinned], architecture: str) -> list[Path]:
    """Return the wheel of every package, sorted by name; what the folder lacks is downloaded and checked too.

    A folder that is complete needs no network. architecture: of the image, "x86_64" or "aarch64".
    Raises KingletError if a wheel cannot be had with the locked hash.
    """
    packages = list(packages)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [package for package in packages if wheel_of(folder, package, architecture) is None]
    if missing:
        lines = lock_text(missing, "missing")
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as new:
            write_text(Path(new) / "requirements.txt", lines)
            download(["--require-hashes", "-r", str(Path(new) / "requirements.txt")], Path(new), architecture)
            for wheel in sorted(Path(new).glob("*.whl")):
                wheel.replace(folder / wheel.name)
    wheels = []
    for package in packages:
        found = wheel_of(folder, package, architecture)
        if found is None:
            raise KingletError(
                f"{folder} has no wheel of {package.name} {package.version} for {architecture} with a locked hash.",
                "Put it there, or write deploy/image.lock anew with `kinglet image lock`.",
            )
        wheels.append(found)
    return sorted(wheels)


def wheel_of(folder: Path, package: Pinned, architecture: str) -> Path | None:
    """Return the wheel of a package in a folder, with one of the locked hashes; None if there is none."""
    for wheel in sorted(folder.glob("*.whl")):
        try:
            name, version, _, tags = parse_wheel_filename(wheel.name)
        except InvalidWheelFilename:
            continue
        fits = any(tag.platform == "any" or tag.platform.endswith(architecture) for tag in tags)
        if (
            canonicalize_name(name) == package.name
            and str(version) == package.version
            and fits
            and sha256_of(wheel) in package.hashes
        ):
            return wheel
    return None


def name_of(wheel: Path) -> str:
    """Return the canonical name of a wheel's package."""
    return canonicalize_name(parse_wheel_filename(wheel.name)[0])


def download(wanted: Sequence[str], folder: Path, architecture: str) -> None:
    """Download wheels for the base image's Python; raises KingletError with pip's last words if that fails."""
    platforms = [f"--platform=manylinux_2_{minor}_{architecture}" for minor in GLIBC]
    platforms += [f"--platform=manylinux{year}_{architecture}" for year in (2014, 2010, 1)]
    options = ["--no-deps", "--only-binary=:all:", f"--python-version={PYTHON_VERSION}", "--implementation=cp"]
    pip("download", "--dest", str(folder), *options, *platforms, *wanted)


def build_own_wheel(folder: Path, epoch: int) -> Path:
    """Build Kinglet's own wheel from this checkout into a folder and return it; the same sources, the same bytes.

    epoch: seconds since 1970 of every file in it.
    """
    with tempfile.TemporaryDirectory(prefix="kinglet-source-") as source:
        # A copy: setuptools leaves its own folders beside what it builds.
        for name in (str(PROJECT), "README.md", "LICENSE"):
            shutil.copyfile(name, Path(source) / name)
        shutil.copytree("kinglet", Path(source) / "kinglet", ignore=shutil.ignore_patterns("__pycache__", "*.part"))
        pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(folder), source, epoch=epoch)
    return next(folder.glob("kinglet-*.whl"))


def pip(*arguments: str, epoch: int | None = None) -> None:
    """Run pip of this environment; raises KingletError with its last words if it fails."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    if epoch is not None:
        environment["SOURCE_DATE_EPOCH"] = str(epoch)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "--quiet", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise KingletError(f"pip {arguments[0]} was not done after {DOWNLOAD_SECONDS} s.", "Try again.") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise KingletError(
            f"pip {arguments[0]} failed: {lines[-1].strip() if lines else 'it said nothing'}",
            f"Without network, fill {WHEELHOUSE} on a machine that has one and copy it.",
        )
