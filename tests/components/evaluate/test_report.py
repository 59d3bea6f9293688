"""The page as text: self-contained, without missing sections, safe with any names."""

from __future__ import annotations

import json
import re
from dataclasses import asdict

import numpy as np
import pytest

from components.evaluate.metrics.slices import measure_slices
from components.evaluate.report.report import REPORT_FILE, rebuild_report, render
from components.evaluate.report.report_data import ReportData
from regraft_core.runtime.errors import InputError

SECTIONS = ("checks", "data", "training", "classes", "confidence", "model", "provenance")


def test_the_page_contains_its_sections_and_loads_nothing(report_of) -> None:
    page = render(report_of())
    for section in SECTIONS:
        assert f'<section id="{section}">' in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "<script" not in page and "@import" not in page and "url(" not in page


def test_verdict_and_checks_come_first(report_of) -> None:
    page = render(report_of(min_accuracy=0.99))
    assert '<h1 id="verdict">Rejected</h1>' in page
    assert page.index("Rejected") < page.index('id="checks"') < page.index('id="data"')
    assert "checks failed: accuracy" in page and "at least 0.99" in page
    assert '<h1 id="verdict">Accepted</h1>' in render(report_of())


def test_candidates_are_listed_and_the_chosen_one_is_marked(report_of) -> None:
    page = render(report_of())
    assert '<td>head</td><td class="n">95.00%</td>' in page
    chosen = '<td>top <span class="badge">chosen</span></td><td class="n">98.00%</td>'
    assert f'<tr class="chosen">{chosen}' in page


def test_the_best_fit_of_each_levels_and_method_is_shown(report_of) -> None:
    data = report_of()
    fits = [
        {"levels": levels, "scaling": "level", "method": method, "penalty": 1e-3, "loss": loss,
         "accuracy": 0.9, "temperature": 1.0, "rows": 1234, "accuracy_low": 0.876,
         "accuracy_high": 0.923}
        for levels, method, loss in (("gap", "ridge", 0.5), ("gap", "ridge", 0.4),
                                     ("all levels", "logistic", 0.3))
    ]  # fmt: skip
    models = [
        m.model_copy(update={"measurements": {"cross_validation": fits}}) for m in data.models
    ]
    page = render(data.model_copy(update={"models": models}))
    table = page[page.index('id="head-fits"') :].split("</table>")[0]
    assert [table.index(loss) for loss in ("0.3000", "0.4000")] == sorted(
        table.index(loss) for loss in ("0.3000", "0.4000")
    )
    assert "0.5000" not in table and "1.0e-03" in table
    assert "87.6% – 92.3%" in table and "1\u202f234" in table
    assert 'id="head-fits"' not in render(data)


def test_the_curve_by_training_images_answers_whether_more_would_help(report_of) -> None:
    data = report_of()
    sizes = [
        {"images": n, "rows": n, "accuracy": a, "accuracy_low": a - 0.03, "accuracy_high": a + 0.02}
        for n, a in ((90, 0.8), (180, 0.85), (270, 0.87), (360, 0.88))
    ]
    found = {"sizes": sizes, "sentence": "More images would probably help."}
    models = [m.model_copy(update={"measurements": {"training_sizes": found}}) for m in data.models]
    page = render(data.model_copy(update={"models": models}))
    card = page[page.index('id="training-sizes"') :].split("</svg>")[0]
    assert "<p>More images would probably help.</p>" in card
    assert card.count('class="whisker"') == 4 and ">90%<" in card and ">300<" in card
    assert 'id="training-sizes"' not in render(data)


def test_the_backbones_that_were_compared_are_a_table(report_of) -> None:
    data = report_of()
    trials = [
        {"backbone": name, "weights": "imagenet", "image_px": px, "accuracy": accuracy,
         "accuracy_low": 0.8, "accuracy_high": 0.99, "difference_low": low,
         "difference_high": low + 0.04, "image_ms": ms, "mb": 18.9, "chosen": name == "tiny"}
        for name, px, accuracy, low, ms in (("vgg16", 224, 0.95, -0.01, 91.25),
                                            ("tiny", 96, 0.9375, -0.012, 1.5))
    ]  # fmt: skip
    found = {"images": 1000, "folds": 5, "trials": trials, "sentence": "tiny at 96 px is chosen."}
    models = [m.model_copy(update={"measurements": {"backbones": found}}) for m in data.models]
    page = render(data.model_copy(update={"models": models}))
    table = page[page.index('id="backbones"') :].split("</div>")[0]
    rows = table.split("<tr")[2:]
    assert "vgg16" in rows[0] and "95.00%" in rows[0] and "91.25" in rows[0]
    assert "badge" not in rows[0] and "badge" in rows[1]
    assert "-1.2 to +2.8 points" in rows[1] and "tiny at 96 px is chosen." in table
    assert 'id="backbones"' not in render(data)


def test_the_trainings_of_a_search_are_a_table(report_of) -> None:
    data = report_of()
    compared = {"images": 90, "difference": -0.0321, "standard_error": 0.004, "trainings": 1}
    trials = [
        {"part": "top from block2", "learning_rate": 1e-3, "first": first, "steps": 1600,
         "epochs": 1.5, "seconds": 12.0, "against_head": found}
        for first, found in ((0, compared), (1600, None))
    ]  # fmt: skip
    trials[1]["views"] = "light views with flips"
    search = {"budget_s": 600.0, "used_before_s": 60.0, "seconds": 500.0,
              "stopped": "the time was over", "trials": trials}  # fmt: skip
    head, *others = data.models
    models = [head, *(m.model_copy(update={"measurements": {"search": search}}) for m in others)]
    page = render(data.model_copy(update={"models": models}))
    card = page[page.index('id="search"') :].split("</table>")[0]
    assert "Search in 10 min 00 s" in card and "the time was over" in card
    assert "-0.0321 ± 0.0040" in card and "diverged" in card
    assert "continues after 1\u202f600 steps" in card
    assert card.count("top from block2") == 2
    assert card.count("top from block2 on light views with flips") == 1
    assert 'id="search"' not in render(data)


def test_names_are_escaped(report_of) -> None:
    data = report_of(gallery=1)
    name = "<img src=x onerror=alert(1)>"
    evaluation = data.evaluation.model_copy(
        update={
            "classes": [name, *data.evaluation.classes[1:]],
            "notes": [name],
            "per_class": [
                row.model_copy(update={"name": name}) for row in data.evaluation.per_class
            ],
        }
    )
    dataset = data.dataset.model_copy(update={"classes": [name], "sources": [name]})
    page = render(data.model_copy(update={"evaluation": evaluation, "dataset": dataset}))
    assert "<img src=x" not in page


@pytest.mark.parametrize("classes", [2, 13, 40, 61, 300])
def test_any_number_of_classes_makes_a_page(report_of, classes) -> None:
    page = render(report_of(classes=classes, images=600))
    assert ('id="confusion"' in page) == (classes <= 60)
    assert page.count("<tr><td>digit") <= 60 + 8
    assert len(page) < 1_000_000


def test_the_worst_slices_are_a_table_of_text(report_of) -> None:
    hostile = "<script>alert(1)</script>"
    values = [(hostile,)] * 30 + [(f"lens {k}",) for k in range(25)]
    labels = np.ones(len(values), int)
    predicted = np.where(np.arange(len(values)) < 32, 0, 1)
    slices = measure_slices(["camera"], values, predicted, labels, ["a", "<b>"])
    data = report_of()
    details = data.evaluation.details | {"slices": [asdict(one) for one in slices]}
    evaluation = data.evaluation.model_copy(update={"details": details})
    page = render(data.model_copy(update={"evaluation": evaluation}))
    assert hostile not in page and "<td>&lt;script&gt;alert(1)&lt;/script&gt;</td>" in page
    assert "<b>&lt;b&gt;</b>: 0.0%" in page
    assert page.count("<td>camera</td>") == 20 and "The worst 20 of 26 slices." in page
    assert 'id="slices"' not in render(data)


def test_the_pooling_of_the_head_is_highlighted(report_of) -> None:
    page = render(report_of())
    heads = page[page.index("parameters of a head by pooling") :].split("</svg>")[0]
    assert heads.index('class="fill"') < heads.index('class="muted"')
    assert heads.count('class="fill"') == heads.count('class="muted"') == 1


def test_the_reasoning_of_a_candidate_that_was_not_chosen_is_shown(report_of) -> None:
    data = report_of()
    head, top = data.models
    models = [
        head.model_copy(update={"reasoning": ["Of 11 heads.", "Fitted again."]}),
        top.model_copy(update={"reasoning": ["Of 11 heads.", "No gain."]}),
    ]
    for chosen, shown in ((head, "top: No gain."), (top, "No gain.")):
        changed = {"model_digest": chosen.digest}
        evaluation = data.evaluation.model_copy(update=changed)
        page = render(data.model_copy(update={"models": models, "evaluation": evaluation}))
        assert page.count("Of 11 heads.") == 1
        assert f"<li>{shown}</li>" in page
        assert ("Fitted again." in page) is (chosen is head)


def test_sections_without_data_are_omitted(report_of) -> None:
    data = report_of(gallery=0, champion=False)
    bare = data.model_copy(
        update={
            "models": [],
            "reliability_before": [],
            "reliability_after": [],
            "versions": {},
            "options": {},
            "evaluation": data.evaluation.model_copy(
                update={"metrics": {"test_images": 0.0}, "details": {}, "per_class": []}
            ),
        }
    )
    page = render(bare)
    for part in ("errors", "reliability", "champion", "ood", "reasoning"):
        assert f'id="{part}"' not in page
    assert "no champion yet" in page


def test_a_report_is_rebuilt_from_its_stored_data(report_of, tmp_path) -> None:
    folder = tmp_path / "run" / "evaluation"
    folder.mkdir(parents=True)
    data = report_of()
    (folder / ReportData.file_name).write_text(data.model_dump_json())
    assert rebuild_report(folder).read_text() == render(data)
    summary = {"timings": {"ingest": 1.5, "extract_features": 75.0}}
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    page = rebuild_report(tmp_path / "run")
    assert page == folder / REPORT_FILE
    assert "extract_features" in page.read_text() and "75.0 s" in page.read_text()


def test_nan_is_stored_and_loaded(report_of) -> None:
    data = report_of(images=8)
    text = data.model_dump_json()
    assert "NaN" in text
    assert render(ReportData.model_validate_json(text)) == render(data)


def test_a_run_without_an_evaluation_is_an_error(tmp_path) -> None:
    with pytest.raises(InputError, match="expected a finished evaluation"):
        rebuild_report(tmp_path)
    (tmp_path / ReportData.file_name).write_text("{}")
    with pytest.raises(InputError, match="cannot read"):
        rebuild_report(tmp_path)
