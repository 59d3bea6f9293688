"""Names of classes and files as markup, escape sequences, formulas and Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from components.export.model_card import _table
from pipelines.local.run import Summary
from regraft.cli.console_output import (
    print_json,
    print_line,
    print_predictions,
    print_summary,
    progress_bar,
)
from regraft_client.predict_files import FilePrediction, as_csv, as_json
from regraft_client.results import Prediction
from regraft_core.formats.manifests.evaluation import Check
from regraft_core.runtime.printable import neutral_cell

NAMES = ["[/]", "[red]x", "[link=http://a]b[/link]", ":smile:", "\x1b[2J\x1b]0;t\x07", "a\x9b2Jb",
         "a\u202eb", "\\[", "[/red]"]  # fmt: skip


def summary(name: str) -> Summary:
    check = Check(name=f"recall of {name}", expected="at least 0.5", received=name, passed=False)
    metrics = {"test_accuracy": 0.5, "test_accuracy_low": 0.4, "test_accuracy_high": 0.6}
    return Summary(
        verdict="rejected", reasons=[check], strategy="head", model_version=None, saved_model=None,
        published=f"/models/{name}/1", metrics=metrics, parity={}, timings={},
        report=f"/runs/{name}/report.html", dataset_digest="d", dataset="d", evaluation="e",
    )  # fmt: skip


def prediction(path: str, label: str) -> FilePrediction:
    return FilePrediction(path, Prediction(label, 0.5, (0.5, 0.5)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "show",
    [
        lambda name: print_summary(summary(name)),
        lambda name: print_predictions([prediction(name, name)]),
        lambda name: print_json({"label": name}),
        print_line,
        lambda name: print(as_csv([prediction(name, name)])),
        lambda name: print(as_json([prediction(name, name)])),
    ],
    ids=["summary", "predictions", "json", "line", "csv", "client's json"],
)
def test_a_name_is_printed_as_text(
    show: Callable[[str], None], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show(name)
    written = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in written)
    if name.isprintable():
        assert name in written.replace("\\\\", "\\")


def test_the_json_is_the_same_value(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(NAMES)
    assert json.loads(capsys.readouterr().out) == NAMES
    assert [
        row["path"] for row in json.loads(as_json([prediction(n, "a") for n in NAMES]))
    ] == NAMES


def test_a_progress_bar_shows_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    for name in NAMES:
        with progress_bar(name) as advance:
            assert advance is not None
            advance(1, 2)


DECIDED = [
    FilePrediction("a.png", Prediction("=x", 0.5, (0.5, 0.5), None, (True, True), abstain=True)),
    FilePrediction("b.png", Prediction("=x", 0.9, (0.9, 0.1), None, (True, False), abstain=False)),
    FilePrediction("c.png", None, "damaged"),
]


def test_sets_and_abstention_are_columns_of_a_model_that_reports_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The names of classes are text, and a class without a name has its number."""
    classes = ["=x", "y\x1b"]
    header, first, second, third = as_csv(DECIDED, classes).splitlines()
    assert header == "path,label,confidence,familiar,label_set,abstain,error"
    assert first == """a.png,'=x,0.500000,,"[""=x"", ""y\\u001b""]",true,"""
    assert second == """b.png,'=x,0.900000,,"[""=x""]",false,"""
    assert third == "c.png,,,,,,damaged"
    rows = json.loads(as_json(DECIDED, classes))
    assert [row.get("label_set") for row in rows] == [["=x", "y\x1b"], ["=x"], None]
    assert [row.get("abstain") for row in rows] == [True, False, None]
    assert json.loads(as_json(DECIDED))[0]["label_set"] == ["class 0", "class 1"]
    print_predictions(DECIDED, classes)
    table = capsys.readouterr().out
    assert "label set" in table and "abstain" in table and "\x1b" not in table
    assert "label_set" not in as_csv([prediction("a.png", "x")])
    assert "label_set" not in as_json([prediction("a.png", "x")])


SEVERAL = [
    FilePrediction("a.png", Prediction("=x", 0.5, (0.4, 0.5), selected=(True, True))),
    FilePrediction("b.png", Prediction("=x", 0.1, (0.1, 0.0), selected=(False, False))),
    FilePrediction("c.png", None, "damaged"),
]


def test_several_labels_of_an_image_are_shown_with_their_probabilities(
    capsys: pytest.CaptureFixture[str],
) -> None:
    classes = ["=x", "y\x1b"]
    header, first, second, _ = as_csv(SEVERAL, classes).splitlines()
    assert header == "path,label,confidence,familiar,selected,error"
    assert first == """a.png,'=x,0.500000,,"[""=x"", ""y\\u001b""]","""
    assert second == "b.png,'=x,0.100000,,[],"
    rows = json.loads(as_json(SEVERAL, classes))
    assert [row.get("selected") for row in rows] == [["=x", "y\x1b"], [], None]
    print_predictions(SEVERAL, classes)
    table = capsys.readouterr().out
    assert "confidence" not in table and "\x1b" not in table
    # The most probable label is the first.
    assert re.search(r"a\.png │ y\S* 0\.5000, =x 0\.4000", table)
    assert re.search(r"b\.png │ none", table) and re.search(r"c\.png │ damaged", table)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@a", "\ta", "=cmd|' /C calc'!A0"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert neutral_cell(text) == f"'{text}"
    assert neutral_cell("a=1") == "a=1"
    (_, row) = as_csv([prediction(text, text)]).splitlines()
    assert not any(
        cell.strip('"').startswith(("=", "+", "-", "@", "\t")) for cell in row.split(",")
    )


@pytest.mark.parametrize(
    "name", ["a|b", "<script>", "[a](javascript:b)", "`a`", "*a*", "a\nb", "&lt;", "_a_", "~~a~~"]
)
def test_a_name_in_the_model_card_is_text(name: str) -> None:
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    html = markdown.render(_table(("class",), [(name,)]))
    shown = name.replace("\n", " ").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert f"<td>{shown}</td>" in html
