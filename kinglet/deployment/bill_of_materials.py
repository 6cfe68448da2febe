"""What an image is made of, as a CycloneDX document: Python packages, Debian packages, the model."""

from __future__ import annotations

import uuid
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.parser import HeaderParser
from pathlib import Path

from cyclonedx.contrib.license.exceptions import LicenseFactoryException
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, License
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

# The document's serial number follows from the image, so that the same image has the same document.
NAMESPACE = uuid.UUID("6a1b3a5e-2f0c-5d5c-9a55-5b1d8f0c7e11")


@dataclass(frozen=True)
class Package:
    """A package in the image. kind: "pypi" or "deb". sha256, license: empty where they are not known."""

    kind: str
    name: str
    version: str
    sha256: str = ""
    license: str = ""


@dataclass(frozen=True)
class Model:
    """The model in the image. version: of its bundle; sha256: of its file."""

    name: str
    version: str
    sha256: str


def package_of_wheel(wheel: Path, sha256: str) -> Package:
    """Return the package that a wheel holds, with the license that its metadata states."""
    with zipfile.ZipFile(wheel) as opened:
        file = next(name for name in opened.namelist() if name.endswith(".dist-info/METADATA") and name.count("/") == 1)
        metadata = HeaderParser().parsestr(opened.read(file).decode("utf-8"))
    stated = metadata["License-Expression"] or metadata["License"] or ""
    # Some put the whole text there.
    name = stated.strip().splitlines()[0][:100] if stated.strip() else ""
    return Package("pypi", metadata["Name"].lower(), metadata["Version"], sha256, name)


def packages_of_dpkg(listing: str) -> list[Package]:
    """Return the packages in the output of `dpkg-query --show`: a name, a tab and a version on every line."""
    lines = [line.split("\t") for line in listing.splitlines() if line.strip()]
    return [Package("deb", name, version) for name, version in lines]


def document(image: str, version: str, image_id: str, packages: Iterable[Package], model: Model, epoch: int) -> str:
    """Return the CycloneDX document of an image, version 1.6, as JSON; the same input, the same text.

    image, version: its name and tag. image_id: sha256:... epoch: seconds since 1970, the time of the document.
    """
    digest = image_id.removeprefix("sha256:")
    subject = Component(
        name=image,
        version=version,
        type=ComponentType.CONTAINER,
        bom_ref="image",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
    )
    bom = Bom(
        serial_number=uuid.uuid5(NAMESPACE, image_id),
        metadata=BomMetaData(component=subject, timestamp=datetime.fromtimestamp(epoch, UTC)),
        components=[*map(component, packages), model_component(model)],
    )
    bom.register_dependency(subject, sorted(bom.components))
    return str(JsonV1Dot6(bom).output_as_string(indent=2)) + "\n"


def component(package: Package) -> Component:
    """Return a package as the document lists it."""
    namespace = "debian" if package.kind == "deb" else None
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        bom_ref=f"{package.kind}/{package.name}@{package.version}",
        purl=PackageURL(package.kind, namespace, package.name, package.version),
        hashes=hashes(package.sha256),
        licenses=licenses(package.license),
    )


def model_component(model: Model) -> Component:
    """Return the model as the document lists it."""
    return Component(
        name=model.name,
        version=model.version,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"model/{model.name}@{model.version}",
        hashes=hashes(model.sha256),
    )


def hashes(sha256: str) -> list[HashType]:
    """Return a hash as the document lists it; none if it is not known."""
    return [HashType(alg=HashAlgorithm.SHA_256, content=sha256)] if sha256 else []


def licenses(stated: str) -> Sequence[License]:
    """Return a license as the document lists it: by its SPDX name or expression where it is one, else as it is said."""
    if not stated:
        return []
    try:
        return [LicenseFactory().make_from_string(stated)]
    except LicenseFactoryException:
        return [DisjunctiveLicense(name=stated)]
