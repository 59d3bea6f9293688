"""`regraft report` of a request log: agreement, and McNemar's test with labels."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from regraft.shadow_report import compare_versions
from regraft_core.formats.request_log import LoggedAnswer, LoggedRequest, log_line
from regraft_core.runtime.errors import InputError
from tests.command_line import Regraft

INVALID = "expected an undamaged image"


def request(
    number: int, predicted: str, shadow: str | None, version: int = 1, error: str = ""
) -> LoggedRequest:
    answer = LoggedAnswer(version, predicted, 0.5, None, error)
    other = None if shadow is None else LoggedAnswer(version + 1, shadow, 0.5, None, error)
    return LoggedRequest("now", "pets", "serving_default", f"{number:064x}", answer, shadow=other)


def write_log(folder: Path, requests: list[LoggedRequest]) -> Path:
    folder.mkdir()
    text = b"".join(log_line(one) for one in requests)
    (folder / "requests-20261127T061500123456Z.jsonl.gz").write_bytes(gzip.compress(text))
    return folder


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """80 images: both versions are correct for 50, only the shadow for 10, only the first for 2."""
    requests = [request(n, "cat", "cat") for n in range(50)]
    requests += [request(n, "dog", "cat") for n in range(50, 60)]
    requests += [request(n, "cat", "dog") for n in range(60, 62)]
    requests += [request(n, "dog", "dog") for n in range(62, 80)]
    requests += [request(0, "cat", "cat")] * 20  # the same image again
    requests += [request(80, "", "", error=INVALID), request(81, "cat", None)]
    return write_log(tmp_path / "log", requests)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    file = tmp_path / "labels.csv"
    rows = "".join(f"{n:064x},cat\n" for n in range(80))
    file.write_text(f"sha256,label\n{rows}{'f' * 64},dog\n")
    return file


def test_agreement_counts_each_image_once(log: Path) -> None:
    (report,) = compare_versions(log)
    assert (report.model, report.version, report.shadow) == ("pets", 1, 2)
    assert (report.sent, report.images, report.invalid) == (101, 80, 1)
    assert report.agreement == 68 / 80
    assert 0.75 < report.agreement_low < 0.78 < 0.91 < report.agreement_high < 0.92
    assert [(one.predicted, one.shadow, one.images) for one in report.disagreements] == [
        ("dog", "cat", 10),
        ("cat", "dog", 2),
    ]
    assert report.labeled is None


def test_labels_decide_which_version_is_better(log: Path, labels: Path) -> None:
    from scipy.stats import binomtest

    (report,) = compare_versions(log, labels)
    test = report.labeled
    assert test is not None
    assert (test.images, test.wins, test.losses) == (80, 10, 2)
    assert (test.accuracy, test.champion_accuracy) == (60 / 80, 52 / 80)
    assert test.p_two_sided == pytest.approx(binomtest(2, 12).pvalue)
    assert test.difference_low < 0.1 < test.difference_high


def test_sets_of_labels_are_compared(tmp_path: Path) -> None:
    def answer(version: int, *selected: str) -> LoggedAnswer:
        return LoggedAnswer(version, "cat", 0.5, None, "", selected)

    requests = [
        LoggedRequest(
            "now", "m", "s", f"{number:064x}", answer(1, *first), shadow=answer(2, *other)
        )
        for number, (first, other) in enumerate(
            [(("cat", "dog"), ("cat", "dog")), (("cat",), ("cat", "a, b")), ((), ("cat",))]
        )
    ]
    rows = ['["dog", "cat"]', '["a, b", "cat"]', "[]"]
    with (labels := tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sha256", "label"])
        writer.writerows([f"{number:064x}", row] for number, row in enumerate(rows))
    (report,) = compare_versions(write_log(tmp_path / "log", requests), labels)
    assert report.agreement == 1 / 3
    assert [(one.predicted, one.shadow) for one in report.disagreements] == [
        ('["cat"]', '["a, b", "cat"]'), ("[]", '["cat"]'),
    ]  # fmt: skip
    assert report.labeled is not None
    assert (report.labeled.wins, report.labeled.losses) == (1, 1)


def test_each_pair_of_versions_has_a_report(tmp_path: Path) -> None:
    requests = [request(1, "a", "a"), request(2, "a", "b", 3), request(3, "", "", 5, INVALID)]
    reports = compare_versions(write_log(tmp_path / "log", requests))
    assert [(one.version, one.shadow, one.images) for one in reports] == [
        (1, 2, 1), (3, 4, 1), (5, 6, 0),
    ]  # fmt: skip


def test_a_log_without_a_shadow_and_foreign_labels_are_refused(
    tmp_path: Path, log: Path, labels: Path
) -> None:
    plain = write_log(tmp_path / "plain", [request(1, "a", None)])
    with pytest.raises(InputError, match="found none among 1; serve with --shadow-label LABEL"):
        compare_versions(plain)
    labels.write_text(f"sha256,label\n{'f' * 64},dog\n")
    with pytest.raises(InputError, match=r"expected labels of images in .* found none among 1"):
        compare_versions(log, labels)


def test_the_command_prints_text_and_json(regraft: Regraft, log: Path, labels: Path) -> None:
    ended = regraft("report", log, "--labels", labels)
    assert ended.code == 0
    assert ended.out.splitlines() == [
        "pets: version 1, shadow version 2",
        "images     80 (1 invalid, 101 with repetitions)",
        "agreement  0.8500 (95% interval 0.7559 to 0.9121)",
        "different  10 images: dog, shadow cat",
        "           2 images: cat, shadow dog",
        "labeled    80 images",
        "accuracy   0.6500, shadow 0.7500 (difference +0.1000, 95% interval +0.0250 to +0.1875)",
        "McNemar    p = 0.03857 (only the shadow is correct: 10, only version 1: 2)",
    ]
    ended = regraft("report", log, "--json")
    (report,) = json.loads(ended.out)
    assert (report["agreement"], report["labeled"]) == (0.85, None)


def test_options_of_the_other_kind_of_folder_are_refused(
    regraft: Regraft, log: Path, labels: Path, tmp_path: Path
) -> None:
    ended = regraft("report", tmp_path, "--labels", labels)
    assert ended.code == 2
    assert "--labels: expected the folder of a request log, got" in ended.err
    ended = regraft("report", log, "--screenshot", tmp_path / "x.png")
    assert (ended.code, "got a request log" in ended.err) == (2, True)
    ended = regraft("report", log, "--labels", log / "missing.csv")
    assert (ended.code, "cannot read" in ended.err) == (2, True)
