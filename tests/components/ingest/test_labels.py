"""Labels of classes: which are refused, and which are easily confused."""

from __future__ import annotations

import pytest

from components.ingest.sources.labels import class_label, describe_confusable
from regraft_core.runtime.errors import DataError


@pytest.mark.parametrize("name", ["cat", "=1+1", "<b>", "نام‌ها", "🏳️‍🌈", "é" * 127, "x" * 255])
def test_a_label_is_its_name(name: str) -> None:
    assert class_label(name) == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x" * 256, f"class '{'x' * 40}'...: expected a name of at most 255 bytes"),
        ("é" * 128, "expected a name of at most 255 bytes"),
        ("y" * 1_000_000, "expected a name of at most 255 bytes"),
        ("a\nb", "expected a name without line breaks and control characters"),
        ("a\u2028b", "expected a name without line breaks and control characters"),
        ("\u202egnp.exe", "expected a name without line breaks and control characters"),
        ("a\u2066b\u2069", "expected a name without line breaks and control characters"),
        ("a\udce9", "expected a name in UTF-8"),
    ],
)
def test_names_that_cannot_be_labels_are_refused(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        class_label(name)
    assert len(str(raised.value)) < 200
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    "other", ["CAT", "cat.", "cat\u200b", "\ufeffcat", "ｃａｔ", "c\u0430t", "C\u0391t"]
)
def test_labels_that_look_the_same_are_reported(other: str) -> None:
    (warning,) = describe_confusable(["cat", "dog", other])
    assert "differ only by case, Unicode form, letters that look alike" in warning
