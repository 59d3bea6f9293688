"""`regraft classify`: a pretrained model for files, folders and URLs, without a network."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from regraft.explore import classification
from regraft.explore.imagenet import imagenet_classes
from regraft_core.backbones.build import build_classifier
from tests.command_line import Regraft


@pytest.fixture(scope="module")
def site(cat: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server with an image of a cat and a page."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(cat, folder / "cat.png")
    (folder / "page.html").write_text("<html>no image</html>")
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    handler = functools.partial(quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_cat_and_coffee_in_files_folders_and_urls(
    regraft: Regraft, cat: Path, coffee: Path, site: str, tmp_path: Path
) -> None:
    shutil.copy(coffee, tmp_path / "cup.png")
    ended = regraft("classify", cat, tmp_path, f"{site}/cat.png", "--json")
    assert ended.code == 0, ended.err
    assert [one["image"] for one in ended.json] == [
        str(cat), str(tmp_path / "cup.png"), f"{site}/cat.png",
    ]  # fmt: skip
    first = [one["predictions"][0] for one in ended.json]
    assert [prediction["names"][0] for prediction in first] == [
        "Egyptian cat",
        "espresso",
        "Egyptian cat",
    ]
    assert [prediction["class"] for prediction in first] == [285, 967, 285]
    assert first[0]["wordnet"] == "n02124075"
    assert first[0]["probability"] == pytest.approx(0.788, abs=0.02)
    assert all(len(one["predictions"]) == 5 for one in ended.json)


def test_unreadable_images_have_an_error(
    regraft: Regraft, cat: Path, site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    monkeypatch.setattr(classification, "MAX_IMAGE_BYTES", cat.stat().st_size)
    large = tmp_path / "large.png"
    large.write_bytes(cat.read_bytes() + b"0")
    urls = (f"{site}/page.html", f"{site}/none.png")
    ended = regraft("classify", tmp_path / "broken.jpg", large, *urls, cat, "--top-k", 1)
    assert ended.code == 2
    assert "4 of 5 images were refused; the first is " in ended.err
    assert len(ended.err.splitlines()) == 1
    lines = ended.out.splitlines()
    for start in (
        f"│ {tmp_path / 'broken.jpg'} ", f"│ {large} ", *(f"│ {at} " for at in urls),
    ):  # fmt: skip
        assert any(line.startswith(start) for line in lines), start
    assert sum("Egyptian cat" in line for line in lines) == 1
    assert "[Op:" not in ended.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing.png",), "expected an image or a folder, got nothing.png"),
        (("{cat}", "--backbone", "vgg61"), "did you mean vgg19 or vgg16"),
        (("{cat}", "--backbone", "tiny"), "tiny has none"),
        (("{cat}", "--backbone", "mine.keras"), "got mine.keras; train a model with it by"),
        (("{cat}", "--backbone", "hub:dinov2_base"), "got hub:dinov2_base; train a model with it"),
        (("{cat}", "--top-k", "0"), "greater than or equal to 1"),
        (("{cat}", "--weights", "nowhere.h5"), "found no file at nowhere.h5"),
    ],
)
def test_bad_usage_is_one_line(
    regraft: Regraft, cat: Path, arguments: tuple[str, ...], message: str
) -> None:
    ended = regraft("classify", *(argument.format(cat=cat) for argument in arguments))
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_file_of_weights_replaces_the_download(
    regraft: Regraft, cat: Path, tmp_path: Path
) -> None:
    path = tmp_path / "lite.weights.h5"
    build_classifier("efficientnet_lite0").save_weights(path)
    ended = regraft("classify", cat, "--weights", path, "--top-k", 1, "--json")
    assert ended.json[0]["predictions"][0]["names"] == ["Egyptian cat"]


def test_class_names_are_unique() -> None:
    names = [found.name for found in imagenet_classes()]
    assert len(set(names)) == 1000
    shared = sorted(name for name in names if name.endswith(")"))
    assert shared == [
        "crane (n02012849)", "crane (n03126707)", "maillot (n03710637)", "maillot (n03710721)",
    ]  # fmt: skip
