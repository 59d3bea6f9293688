"""Small folders of images and a local web server for the tests of ingest."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.ingest.catalog.catalog import Catalog
from components.ingest.catalog.rows import ImageRow
from tests.components.ingest.web import Web, certificates, serving


def photo(seed: int, px: int = 64) -> Image.Image:
    """Return a colorful smooth image, dissimilar to that of any other seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((px, px), Image.Resampling.BICUBIC)


def write_classes(
    folder: Path, classes: Sequence[str] = ("cat", "dog"), count: int = 20, first: int = 0
) -> Path:
    """Write `count` PNG files in each class folder below `folder`."""
    for position, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image = photo(first + 1000 * position + number)
            image.save(folder / name / f"{number:03d}.png")
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of 20 images."""
    return write_classes(tmp_path / "images")


@pytest.fixture
def make_classes() -> Callable[..., Path]:
    return write_classes


@pytest.fixture
def make_photo() -> Callable[..., Image.Image]:
    return photo


@pytest.fixture
def make_catalog(tmp_path: Path) -> Iterator[Callable[[Sequence[dict[str, Any]]], Catalog]]:
    """A factory of catalogs without files.

    Images have the given values; those with equal `id` are exact duplicates, those with equal
    `pixels` (or similar ones and a `thumbnail`) near duplicates.
    """
    made: list[Catalog] = []

    def make(images: Sequence[dict[str, Any]]) -> Catalog:
        catalog = Catalog(tmp_path / f"{len(made)}.sqlite", create=True)
        made.append(catalog)
        catalog.add_images(
            ImageRow(
                id=image.get("id", b"%05d" % number),
                key=image.get("key", number),
                path=b"%d.png" % number,
                file=b"",
                label=image.get("label", "cat"),
                source_split=image.get("split", ""),
                spool=0,
                start=0,
                length=1,
                width=1,
                height=1,
                conversions="",
                notes="",
                hash64=image.get("pixels", -1 - number),
                thumbnail=image.get("thumbnail"),
            )
            for number, image in enumerate(images, 1)
        )
        return catalog

    yield make
    for catalog in made:
        catalog.close()


@pytest.fixture
def web() -> Iterator[Web]:
    """A local web server with planned responses and faults."""
    with serving() as server:
        yield server


@pytest.fixture
def drive(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Web:
    """The local server as Google Drive: as a proxy, with a trusted certificate."""
    folder = tmp_path / "certificates"
    folder.mkdir()
    hosts = ["drive.google.com", "drive.usercontent.google.com", "accounts.google.com"]
    authority, own = certificates(folder, hosts)
    web.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    web.tls.load_cert_chain(own)
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, web.address)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    return web
