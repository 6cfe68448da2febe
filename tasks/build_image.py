"""The image of a bundle: context laid out, built without network, made to depend on its content alone, listed.

It acts on the machine's container engine, so it is no stage of dvc.yaml.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

from kinglet.atomic import write_text
from kinglet.deployment.bill_of_materials import Model, document, package_of_wheel, packages_of_dpkg
from kinglet.deployment.requirements import Pinned, lock_text
from kinglet.deployment.saved_image import rewrite
from kinglet.errors import KingletError
from kinglet.runtime import bundles
from kinglet.runtime.engines import ONNXRUNTIME
from tasks.artifacts import BUNDLE, SPLIT, WORKSPACE
from tasks.champion import bundle_digest
from tasks.container_engine import explained, image_or_pulled, open_engine, run_client
from tasks.deploy_settings import ImageSettings
from tasks.wheelhouse import IMAGE_LOCK, WHEELHOUSE, build_own_wheel, fill_wheelhouse, read_image_lock

DOCKERFILE = Path("deploy") / "Dockerfile"
# The lists of what the images hold, one per version.
BILLS = WORKSPACE / "images"
BUILD_SECONDS = 900.0
# Letters of the bundle's SHA-256 that name its version, as `kinglet publish` names it.
VERSION_LETTERS = 16
# What Docker calls the kinds of processors that wheels call otherwise.
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
# What decides the image's bytes beside bundle and wheels: its label says if one of them is not as committed.
SOURCES = ("kinglet", "deploy", "pyproject.toml", "requirements.lock")
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Image:
    """A built image. reference: its name and tag. id: of its content. bill: the file that lists what it holds.

    bytes, base_bytes: how large it is, and how large the image that it starts from.
    """

    reference: str
    id: str
    version: str
    bundle_sha256: str
    bill: str
    bytes: int
    base_bytes: int


def build_image(
    bundle: Path,
    settings: ImageSettings,
    *,
    data_version: str = "",
    wheelhouse: Path = WHEELHOUSE,
    cache: bool = True,
) -> Image:
    """Build the image of a bundle and the list of what it holds; the same inputs give the same image.

    data_version: what the model was trained on; by default known for the bundle of the last run. wheelhouse: a folder
    of wheels, complete or to be completed. cache: whether the engine may take steps that it has built before.
    Raises KingletError if the bundle is damaged, a wheel is not to be had, or the engine refuses.
    """
    bundles.verify(bundle)
    refuse_other_runtimes(bundle)
    engine = open_engine()
    base = image_or_pulled(engine, settings.base)
    digest = bundle_digest(bundle)
    version = digest[:VERSION_LETTERS]
    reference, epoch = f"{settings.name}:{version}", commit_time()
    model_sha256 = bundles.sha256_of(bundle / bundles.MODEL)
    labels = {
        "VERSION": version,
        "GIT_COMMIT": git_commit(),
        "DATA_VERSION": data_version or known_data_version(bundle),
        "MODEL_SHA256": model_sha256,
        "BUNDLE_SHA256": digest,
    }
    with tempfile.TemporaryDirectory(prefix="kinglet-image-") as folder:
        wheels = lay_out_context(Path(folder), bundle, wheelhouse, architecture_of(base), epoch)
        built = f"{settings.name}:building-{version}"
        run_build(Path(folder), built, settings.base, labels, cache)
        try:
            image_id = make_timeless(engine, base, built, reference, epoch)
        finally:
            with explained(f"The image {built} cannot be removed"):
                engine.images.remove(built)
        packages = [package_of_wheel(wheel, bundles.sha256_of(wheel)) for wheel in wheels]
        packages += packages_of_dpkg(debian_packages(engine, reference))
    bill = BILLS / f"{settings.name}-{version}.cdx.json"
    model = Model(settings.name, version, model_sha256)
    write_text(bill, document(settings.name, version, image_id, packages, model, epoch))
    sizes = engine.images.get(reference).attrs["Size"], base.attrs["Size"]
    return Image(reference, image_id, version, digest, str(bill), *sizes)


def refuse_other_runtimes(bundle: Path) -> None:
    """Raise KingletError for a bundle whose model is computed by what the image does not hold."""
    runtime = bundles.runtime_of(bundle)
    if runtime != ONNXRUNTIME:
        raise KingletError(
            f"{bundle} is for {runtime}; the image holds ONNX Runtime alone.",
            f"Choose a model for ONNX Runtime, or serve this one where {runtime} is installed: `kinglet serve`.",
        )


def lay_out_context(folder: Path, bundle: Path, wheelhouse: Path, architecture: str, epoch: int) -> list[Path]:
    """Put everything that the Dockerfile copies into a folder; return the wheels."""
    shutil.copyfile(DOCKERFILE, folder / "Dockerfile")
    (folder / "wheels").mkdir()
    locked = read_image_lock()
    wheels = [
        Path(shutil.copy(wheel, folder / "wheels")) for wheel in fill_wheelhouse(wheelhouse, locked, architecture)
    ]
    own = build_own_wheel(folder / "wheels", epoch)
    version = own.name.split("-")[1]
    packages = [*locked, Pinned("kinglet", version, (bundles.sha256_of(own),))]
    write_text(folder / "requirements.txt", lock_text(packages, f"{IMAGE_LOCK} and Kinglet itself"))
    for name in (*bundles.verify(bundle), bundles.CHECKSUMS):
        target = folder / "bundle" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle / name, target)
    # Whoever builds: root owns the files in the image, and its user may read them.
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return [*wheels, own]


def run_build(context: Path, reference: str, base: str, labels: dict[str, str], cache: bool) -> None:
    """Build the Dockerfile of a context, without network."""
    arguments = {"BASE": base, **labels}
    options = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
    options += [] if cache else ["--no-cache"]
    command = ["build", "--network", "none", "--force-rm", "--tag", reference, *options, str(context)]
    run_client(command, f"The image {reference} cannot be built", BUILD_SECONDS)


def make_timeless(engine: docker.DockerClient, base: Any, built: str, reference: str, epoch: int) -> str:
    """Load a built image again under its final name, with one time everywhere; return its id."""
    with (
        tempfile.TemporaryDirectory(prefix="kinglet-saved-") as folder,
        explained(f"The image {reference} cannot be saved and loaded"),
    ):
        saved, timeless = Path(folder) / "saved.tar", Path(folder) / "timeless.tar"
        with saved.open("wb") as file:
            for block in engine.images.get(built).save(chunk_size=1 << 20, named=False):
                file.write(block)
        rewrite(saved, timeless, reference, epoch, len(base.attrs["RootFS"]["Layers"]), len(base.history()))
        saved.unlink()
        with timeless.open("rb") as file:
            engine.images.load(file)
        return str(engine.images.get(reference).id)


def debian_packages(engine: docker.DockerClient, reference: str) -> str:
    """Return name and version of the Debian packages in an image, one on each line."""
    show = ["--show", "--showformat", "${Package}\\t${Version}\\n"]
    with explained(f"The packages of {reference} cannot be listed", "Name a base image of Debian in image.base."):
        listing = engine.containers.run(
            reference, show, entrypoint="dpkg-query", remove=True, network_mode="none", read_only=True
        )
    return str(listing.decode())


def architecture_of(base: Any) -> str:
    """Return the kind of processor of an image as wheels call it; raises KingletError for one without wheels."""
    name = str(base.attrs["Architecture"])
    if name not in ARCHITECTURES:
        raise KingletError(f"There are no wheels for {name}, the processor of the base image.", "Use amd64 or arm64.")
    return ARCHITECTURES[name]


def known_data_version(bundle: Path) -> str:
    """Return the SHA-256 of the manifest of all images and splits, for the bundle of the last run alone."""
    manifest = SPLIT / "manifest.parquet"
    is_of_last_run = bundle.resolve() == BUNDLE.resolve() and manifest.is_file()
    return bundles.sha256_of(manifest) if is_of_last_run else UNKNOWN


def git_commit() -> str:
    """Return the commit of the checkout, with "-dirty" where what the image is made of was changed since."""
    commit = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--", *SOURCES) if commit else ""
    return f"{commit}-dirty" if changed else commit or UNKNOWN


def commit_time() -> int:
    """Return when the last commit was made, in seconds since 1970; the beginning of 1980 outside of git.

    Zip archives, wheels among them, know no earlier time.
    """
    return int(git("log", "-1", "--format=%ct") or 315_532_800)


def git(*arguments: str) -> str:
    """Return what git says; empty where there is no repository or no git."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, timeout=60)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
