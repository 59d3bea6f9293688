"""Listing images: lazily, in a fixed order, from files, folders and buckets."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import fsspec
import pytest

from regraft.bulk.image_listing import list_images
from regraft_client.predict_files import find_images
from regraft_core.runtime.errors import InputError

PNG = b"\x89PNG\r\n\x1a\n" + bytes(60)
NAMES = ("b/2.png", "b/10.png", "a.jpg", "b.png", "b/c/x.png", "c/none.txt", "c/by_content")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (*NAMES, ".hidden/a.png", "b/Thumbs.db", "b/.a.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"text" if name.endswith(".txt") else PNG)
    (tmp_path / "images" / "link").symlink_to(tmp_path / "images" / "b")
    return tmp_path / "images"


def test_folders_are_listed_as_the_client_finds_images(folder: Path) -> None:
    listed = list(list_images([str(folder), str(folder / "a.jpg")]))
    assert [image.name for image in listed] == [*map(str, find_images([folder, folder / "a.jpg"]))]
    assert len(listed) == 7
    assert {image.size for image in listed} == {len(PNG)}


def test_folders_are_read_as_images_are_taken(folder: Path) -> None:
    images = list_images([str(folder)])
    assert next(images).name == str(folder / "a.jpg")
    (folder / "b" / "2.png").unlink()
    shutil.rmtree(folder / "c")
    assert [image.name for image in images] == [
        str(folder / name) for name in ("b/10.png", "b/c/x.png", "b.png")
    ]


def test_a_changed_image_has_another_version(folder: Path, bucket: str) -> None:
    path, uri = folder / "a.jpg", f"{bucket}/set/a.jpg"
    files = fsspec.filesystem(bucket.split(":")[0])
    versions = []
    for content, changed_s in ((PNG, 1), (PNG[::-1], 2)):
        path.write_bytes(content)
        os.utime(path, (changed_s, changed_s))
        files.pipe_file(uri, content)
        found = [*list_images([str(path), str(folder), uri, f"{bucket}/set"])]
        file, below, one, listed = (image for image in found if image.name in (str(path), uri))
        assert (file, one) == (below, listed)
        versions += [file.version, one.version]
    assert len(set(versions)) == 4


def test_buckets_are_listed_by_name(bucket: str, folder: Path) -> None:
    files = fsspec.filesystem(bucket.split(":")[0])
    for name in (*NAMES, "b//double.png", ".hidden/a.png"):
        files.pipe_file(f"{bucket}/set/{name}", PNG)
    listed = list(list_images([f"{bucket}/set/", f"{bucket}/set/a.jpg"]))
    names = [image.name.removeprefix(f"{bucket}/set/") for image in listed]
    assert names == ["a.jpg", "b.png", "b//double.png", "b/10.png", "b/2.png", "b/c/x.png", "a.jpg"]
    assert {image.size for image in listed} == {len(PNG)}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing", "expected an image or a folder, got missing"),
        ("https://host/a.png", "expected an image, a folder or a bucket such as s3://"),
        ("s3://user:secret@bucket/a", "images: expected a URL without user and password"),
    ],
)
def test_sources_that_do_not_exist_are_found_before_the_work(source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list_images([".", source])


def test_a_bucket_that_does_not_exist(s3: None) -> None:
    with pytest.raises(InputError, match=r"^s3://of-nobody/images: nothing found at this URL"):
        list_images(["s3://of-nobody/images"])
