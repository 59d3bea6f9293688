"""The reference of the Python API: docstrings in Google style as Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from docs.reference_python import module_lines, parse_docstring, signature_of


def predict(images: list[str], *, batch_size: int = 32) -> list[str]:
    """Predict the classes of images.

    All at once.

    Args:
        images: paths,
            or bytes.
        batch_size: images per batch.

    Returns:
        One label per image.

    Raises:
        ValueError: an image is damaged.
    """
    raise ValueError(images, batch_size)


@dataclass(frozen=True)
class Prediction:
    """A label and its confidence."""

    label: str

    @property
    def upper(self) -> str:
        """The label | in capital letters."""
        return self.label.upper()

    def close(self) -> None:
        """Do nothing."""


def page() -> str:
    module = ModuleType("package", "A package.\n\nWith two names.")
    module.__all__ = ["predict", "Prediction"]  # type: ignore[attr-defined]
    module.predict, module.Prediction = predict, Prediction  # type: ignore[attr-defined]
    return "\n".join(module_lines(module))


def test_a_docstring_has_text_and_sections() -> None:
    parsed = parse_docstring(predict.__doc__)
    assert parsed.text == "Predict the classes of images.\n\nAll at once."
    assert parsed.sections == {
        "Args": ["images: paths, or bytes.", "batch_size: images per batch."],
        "Returns": ["One label per image."],
        "Raises": ["ValueError: an image is damaged."],
    }


def test_signatures_have_no_quotes_and_long_ones_have_lines() -> None:
    assert signature_of("predict", predict) == (
        "predict(images: list[str], *, batch_size: int = 32) -> list[str]"
    )
    long = signature_of("p" * 60, predict)
    assert long.splitlines()[1:] == [
        "    images: list[str],", "    *,", "    batch_size: int = 32,", ") -> list[str]",
    ]  # fmt: skip


def test_functions_show_arguments_and_errors() -> None:
    text = page()
    assert text.startswith("## package\n\nA package.\n\nWith two names.\n\n### `package.predict`\n")
    assert "- `images`: paths, or bytes.\n" in text
    assert "**Returns:** One label per image.\n" in text
    assert "- `ValueError`: an image is damaged.\n" in text


def test_classes_show_properties_and_methods() -> None:
    text = page()
    assert "```python\nPrediction(label: str)\n```\n\nA label and its confidence.\n" in text
    assert "| `upper` | The label \\| in capital letters. |\n" in text
    assert "Prediction.close() -> None\n```\n\nDo nothing.\n" in text
