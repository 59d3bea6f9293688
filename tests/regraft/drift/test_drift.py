"""`regraft drift` of request logs: alarms, pages, metrics, and logs that are refused."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser

from regraft.drift.sources import different_images
from regraft_core.formats.drift_reference import make_reference
from regraft_core.formats.fingerprint import write_fingerprint
from regraft_core.formats.manifest_storage import MadeBy
from regraft_core.formats.manifests.model import Preprocessing
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.request_log import LoggedAnswer, LoggedRequest, log_line
from tests.command_line import Regraft
from tests.page_checks import page_problems

CLASSES = ["cat", "<b>dog</b>"]
WIDTH = 8
FILE = "requests-20261127T061500123456Z.jsonl.gz"


def features(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features [count, WIDTH] of two separate classes, and the classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    return rng.normal(size=(count, WIDTH)) + 4 * labels[:, None], labels


def write_version(folder: Path, images: int = 120, with_reference: bool = True) -> Path:
    """Write what a published version has, except a graph that can be run."""
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"")
    if with_reference:
        values, labels = features(0, images)
        counts = np.bincount(labels, minlength=2)
        scores = -1.0 - 0.01 * np.random.default_rng(5).random(images)
        make_reference(values, labels, scores, -2.0, counts).write(folder)
    SavedModelManifest(
        digest=write_fingerprint(folder), made_by=MadeBy(step="export", version="0", seconds=1.0),
        model_digest="m" * 64, evaluation_digest="e" * 64, dataset_digest="d" * 64,
        strategy="head", backbone="tiny", weights_digest="w" * 64, classes=CLASSES,
        preprocessing=Preprocessing(image_px=8, scaling="tiny"), temperature=1.0, metrics={},
        checks=[], signatures=[], versions={},
    ).write(folder)  # fmt: skip
    return folder


def requests(
    count: int = 80, shift: float = 0.0, model: str = "pets", version: int = 1, seed: int = 1
) -> list[LoggedRequest]:
    values, labels = features(seed, count)
    rng = np.random.default_rng(seed)
    return [
        LoggedRequest(
            time=f"2026-11-27T06:{number // 60:02}:{number % 60:02}Z",
            model=model,
            signature="serving_default",
            sha256=f"{seed * 10_000 + number:064x}",
            answer=LoggedAnswer(version, CLASSES[label], 0.9, -1.0 - 0.01 * rng.random(), ""),
            features=(row + shift).astype("<f2").tobytes(),
        )
        for number, (row, label) in enumerate(zip(values, labels, strict=True))
    ]


def write_log(folder: Path, lines: Iterable[LoggedRequest | bytes], cut: int = 0) -> Path:
    folder.mkdir()
    data = [line if isinstance(line, bytes) else log_line(line) for line in lines]
    text = b"".join(data)
    (folder / FILE).write_bytes(gzip.compress(text[: len(text) - cut]))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_version(tmp_path_factory.mktemp("models") / "pets" / "1").parent


def test_requests_like_the_reference_are_no_drift(
    regraft: Regraft, model: Path, tmp_path: Path
) -> None:
    invalid = LoggedRequest(
        "now", "pets", "serving_default", "f" * 64, LoggedAnswer(1, "", 0.0, 0.0, "damaged")
    )
    same = requests()
    log = write_log(tmp_path / "log", [*same, *same[:7], invalid, *requests(5, version=2)])
    ended = regraft("drift", model, log, "--json")
    assert ended.code == 0
    found = ended.json
    assert (found["model"], found["version"], found["images"]) == ("pets", 1, 80)
    assert found["excluded"] == {"repeated": 7, "invalid": 1, "of other models or versions": 5}
    assert (found["first"], found["last"]) == ("2026-11-27T06:00:00Z", "2026-11-27T06:01:19Z")
    assert [one["name"] for one in found["tests"]] == [
        "classes", "classifier", "mean_discrepancy", "familiarity", "combined"
    ]  # fmt: skip
    assert not found["drift"] and found["unfamiliar"] == 0.0


def test_a_drift_is_shown_everywhere(
    regraft: Regraft, model: Path, tmp_path: Path, browser: Browser
) -> None:
    log = write_log(tmp_path / "log", requests(shift=1.0))
    page, metrics = tmp_path / "drift.html", tmp_path / "drift.prom"
    ended = regraft("drift", model / "1", log, "--html", page, "--prometheus", metrics)
    assert ended.code == 3
    assert "drift of pets: classifier, mean_discrepancy" in ended.err
    assert max(map(len, ended.out.splitlines())) <= 80 and "alarm" in ended.out
    html = page.read_text()
    assert '<h1 id="verdict">Drift</h1>' in html and "&lt;b&gt;dog" in html
    assert "<b>dog" not in html and "http" not in html.replace("http-equiv", "")
    lines = metrics.read_text().splitlines()
    assert 'regraft_drift_alarm{model="pets",version="1",test="classifier"} 1.0' in lines
    assert 'regraft_drift_alarm{model="pets",version="1",test="classes"} 0.0' in lines
    assert 'regraft_drift_images{model="pets",version="1"} 80.0' in lines
    sample = re.compile(r'[a-z_]+\{([a-z]+="[^"\n]*",?)+\} [-+0-9.e]+')
    assert all(line.startswith("# ") or sample.fullmatch(line) for line in lines)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drift.html", "drift.prom", "log"]
    assert page_problems(browser, page.as_uri()) == []


def test_the_newest_images_are_checked(regraft: Regraft, model: Path, tmp_path: Path) -> None:
    old, new = requests(90, shift=3.0), requests(60, seed=2)
    log = write_log(tmp_path / "log", [*old, *new])
    found = regraft("drift", model, log, "--json", "--max-images", 60).json
    assert (found["images"], found["excluded"], found["drift"]) == (60, {"older": 90}, False)


def test_a_line_that_is_cut_off_is_lost_and_reported(
    regraft: Regraft, model: Path, tmp_path: Path
) -> None:
    log = write_log(tmp_path / "log", requests(), cut=30)
    ended = regraft("drift", model, log)
    assert ended.code == 0
    assert "79 images" in ended.out
    assert "lost: the last line of 1 of the log's files is incomplete" in ended.out


def with_more_keys(request: LoggedRequest) -> bytes:
    return json.dumps({**json.loads(log_line(request)), "user": 1}).encode() + b"\n"


def with_other_class(request: LoggedRequest) -> bytes:
    values = json.loads(log_line(request)) | {"predicted": "horse\x1b[31m\nx"}
    return json.dumps(values).encode() + b"\n"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (requests(model="cars\n\x1b[31m"), "expected requests of pets version 1, found cars"),
        (requests(version=2), "expected requests of pets version 1, found pets version 2"),
        (requests(20), "expected 50 images or more, found 20"),
        ([], "expected requests of pets version 1, found none"),
        ([with_more_keys(requests(1)[0])], "got also user"),
        ([with_other_class(requests(1)[0])], "found 'horse x'; the log is of another model"),
        ([b'{"schema_version": 1}\n'], "expected the keys"),
    ],
)
def test_logs_that_cannot_be_checked_are_refused_in_one_line(
    regraft: Regraft, model: Path, tmp_path: Path, lines: list, message: str
) -> None:
    page = tmp_path / "drift.html"
    ended = regraft("drift", model, write_log(tmp_path / "log", lines), "--html", page)
    assert ended.code == 2 and not ended.out and not page.exists()
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1 and "\x1b" not in ended.err


def test_other_features_or_none_do_not_count(regraft: Regraft, model: Path, tmp_path: Path) -> None:
    wide = json.loads(log_line(requests(1)[0])) | {"features": "AAAAAAAA"}
    line = json.dumps(wide).encode() + b"\n"
    ended = regraft("drift", model, write_log(tmp_path / "wide", [line]))
    assert ended.code == 2 and "expected 8 features per image, found 3" in ended.err
    values = json.loads(log_line(requests(1)[0])) | {"features": None}
    infinite = json.loads(log_line(requests(2)[1])) | {"features": "AHwAfAB8AHwAfAB8AHwAfA=="}
    lines = [json.dumps(one).encode() + b"\n" for one in (values, infinite)]
    ended = regraft("drift", model, write_log(tmp_path / "none", lines))
    assert ended.code == 2
    assert "found 0 (not counted: 1 without features, 1 with features that are not" in ended.err


def test_models_without_a_reference_are_refused(regraft: Regraft, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", requests())
    old = write_version(tmp_path / "models" / "pets" / "1", with_reference=False)
    ended = regraft("drift", old, log)
    assert ended.code == 2 and "expected a drift reference, found none" in ended.err
    small = write_version(tmp_path / "small" / "pets" / "1", images=20)
    ended = regraft("drift", small, log)
    assert ended.code == 2 and "the reference: expected 50 images or more, found 20" in ended.err
    ended = regraft("drift", small, tmp_path / "missing")
    assert ended.code == 2 and "expected the folder of a request log or of images" in ended.err
    ended = regraft("drift", small, log, "--significance", "0.5")
    assert ended.code == 2 and "--significance: expected 0.001 to 0.2, got 0.5" in ended.err


def test_another_name_in_the_log_can_be_given(
    regraft: Regraft, model: Path, tmp_path: Path
) -> None:
    log = write_log(tmp_path / "log", requests(model="pets-eu"))
    assert regraft("drift", model, log, "--name", "pets-eu", "--json").json["model"] == "pets-eu"
    exported = write_version(tmp_path / "exported")  # named by no version
    assert regraft("drift", exported, log, "--json").json["images"] == 80
    both = write_log(tmp_path / "both", [*requests(), *requests(version=2, seed=3)])
    ended = regraft("drift", exported, both)
    assert ended.code == 2 and "expected requests of one model, found pets version" in ended.err


def test_values_that_no_server_writes_end_no_check(
    regraft: Regraft, model: Path, tmp_path: Path
) -> None:
    strange = [{"familiarity": 10**400}, {"familiarity": 1e300}, {"time": "9\ud800\x1b\n"}]
    lines = [
        json.dumps(json.loads(log_line(request)) | changes).encode() + b"\n"
        for request, changes in zip(requests(3, seed=4), strange, strict=True)
    ]
    log = write_log(tmp_path / "log", [*map(log_line, requests()), *lines])
    page = tmp_path / "drift.html"
    ended = regraft("drift", model, log, "--json", "--html", page)
    assert ended.code == 0 and not ended.err
    assert (ended.json["images"], ended.json["last"]) == (83, "9")
    assert "to 9, compared" in page.read_text()


def test_names_that_are_not_utf_8_are_written(
    regraft: Regraft, model: Path, tmp_path: Path
) -> None:
    log = write_log(tmp_path / "log\udcff", requests())
    page, metrics = tmp_path / "drift.html", tmp_path / "drift.prom"
    ended = regraft("drift", model, log, "--name", "pets", "--html", page, "--prometheus", metrics)
    assert ended.code == 0 and not ended.err
    assert "log?" in page.read_text() and "regraft_drift_images" in metrics.read_text()


def test_copies_of_an_image_in_a_folder_count_once(tmp_path: Path) -> None:
    for number in range(70):
        pixels = np.full((2, 2, 3), number // 2, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number:02}.png")
    (tmp_path / "70.png").mkdir()
    excluded: Counter[str] = Counter()
    batches = list(different_images(sorted(tmp_path.iterdir()), excluded))
    assert [len(one) for one in batches] == [32, 3]
    assert excluded == {"repeated": 35, "unreadable": 1}
