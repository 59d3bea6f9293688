"""A step that runs out of memory goes on with smaller batches, or ends with one line and a hint."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tensorflow as tf

from components.evaluate import evaluate as evaluation
from components.extract_features import extract_features as extraction
from components.extract_features.extract_features import extract_features
from components.fine_tune import fine_tune as tuning
from components.fine_tune.fine_tune import fine_tune
from components.train_head.train_head import train_head
from regraft_core.formats.options.evaluate import GateOptions
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.options.fine_tune import FineTuneOptions
from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.runtime.errors import InputError, NodeMemoryError, RegraftError
from regraft_core.runtime.out_of_memory import (
    explain_out_of_memory,
    is_out_of_memory,
    with_halved_batches,
)
from tests.regraft_core.runtime.nvidia import install, report

if TYPE_CHECKING:
    from tests.conftest import Trained

NO_CONTEXT = "cudaSetDevice() on GPU:0 failed. Status: out of memory"
ALLOCATION = (
    "OOM when allocating tensor with shape[2048,64,512,512] and type float on "
    "/job:localhost/replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc"
)
FORMS: list[Exception] = [
    MemoryError(),
    tf.errors.ResourceExhaustedError(None, None, ALLOCATION),
    tf.errors.InternalError(None, None, NO_CONTEXT),
    tf.errors.InternalError(None, None, "Failed to allocate 1073741824 bytes: CUDA_ERROR_OUT_OF_"
                            "MEMORY"),
    tf.errors.InternalError(None, None, "failed to create cublas handle: CUBLAS_STATUS_NOT_INITIAL"
                            "IZED"),
    tf.errors.InternalError(None, None, "cublasCreate: CUBLAS_STATUS_ALLOC_FAILED"),
    tf.errors.FailedPreconditionError(None, None, "DNN library initialization failed. Look at the "
                                      "errors above for more details."),
    tf.errors.UnknownError(None, None, "Could not create cudnn handle: "
                           "CUDNN_STATUS_NOT_INITIALIZED"),
]  # fmt: skip
TINY = FeatureOptions(backbone="tiny")
STEPS: dict[str, Callable[[Path, Trained, Path], object]] = {
    "extract_features.extract_features._extract": lambda data, made, out: extract_features(
        data, out, TINY
    ),
    "train_head.train_head.solve_head": lambda data, made, out: train_head(
        [made.features], out, HeadOptions()
    ),
    "fine_tune.fine_tune.gather_evidence": lambda data, made, out: fine_tune(
        data, [made.features], made.head, out, FineTuneOptions(strategy="auto")
    ),
}


def once(function: Callable[..., Any], error: Exception) -> Callable[..., Any]:
    """Return the function, whose first call fails."""
    errors = [error]

    def call(*arguments: Any, **named: Any) -> Any:
        if errors:
            raise errors.pop()
        return function(*arguments, **named)

    return call


@pytest.mark.parametrize("error", FORMS, ids=str)
def test_every_form_is_recognized(error: Exception) -> None:
    assert is_out_of_memory(error)
    line = r"^out of (GPU )?memory.*; use a smaller --batch-size"
    with pytest.raises(RegraftError, match=line), explain_out_of_memory():
        raise error


@pytest.mark.parametrize(
    "error",
    [
        pickle.loads(pickle.dumps(tf.errors.ResourceExhaustedError(None, None, "OOM"))),
        NodeMemoryError("Ray workers were lost 3 times"),
    ],
)
def test_batches_are_halved_when_the_memory_of_another_process_is_exhausted(
    error: Exception,
) -> None:
    def run(batch_size: int) -> str:
        if batch_size > 8:
            raise error
        return "done"

    assert with_halved_batches("extract_features", 32, run) == ("done", 8)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("out of memory"),
        RegraftError("out of memory"),
        tf.errors.InternalError(None, None, "ptxas failed"),
    ],
)
def test_other_errors_stay_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, explain_out_of_memory():
        raise error
    assert raised.value is error


def test_an_operation_without_a_deterministic_form_gets_a_line() -> None:
    text = "A deterministic GPU implementation of DepthwiseConvBackpropFilter is not available"
    error = tf.errors.UnimplementedError(None, None, f"{text}\n\t [[node x]]")
    line = f"^deterministic: expected operations that can be, got: {text}; run without"
    with pytest.raises(InputError, match=line), explain_out_of_memory():
        raise error


def test_the_line_has_the_request_the_card_and_who_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    install(monkeypatch, tmp_path, report(free_mb=1200, held_mb=79000))
    with pytest.raises(RegraftError) as raised, explain_out_of_memory():
        raise tf.errors.ResourceExhaustedError(None, None, ALLOCATION)
    assert str(raised.value) == (
        "out of GPU memory (requested shape [2048,64,512,512] of float; NVIDIA H100 80GB HBM3, "
        "1200 of 81559 MB free, held by process 417 (python3) 79000 MB); use a smaller "
        "--batch-size or --image-px, or end the processes that hold the card; with --work-dir, "
        "the next run resumes from what is finished"
    )


@pytest.mark.parametrize("function", STEPS)
def test_the_hint_names_the_options_that_reduce_memory(
    function: str, dataset: Path, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhaust_memory(*_: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")

    monkeypatch.setattr(f"components.{function}", exhaust_memory)
    with pytest.raises(RegraftError, match="out of memory; use a smaller --batch-size or --image"):
        STEPS[function](dataset, trained, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_card_that_cannot_be_used_is_not_tried_again(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def exhaust_memory(*_: object) -> None:
        calls.append(1)
        raise tf.errors.InternalError(None, None, NO_CONTEXT)

    monkeypatch.setattr(extraction, "_extract", exhaust_memory)
    with pytest.raises(RegraftError, match="or end the processes that hold the card"):
        extract_features(dataset, tmp_path / "out", TINY)
    assert calls == [1]


def test_extraction_goes_on_with_half_of_the_batch(
    dataset: Path, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(extraction, "_extract", once(extraction._extract, FORMS[1]))
    manifest = extract_features(dataset, tmp_path / "out", TINY)
    assert manifest.batch_size == 16
    assert manifest.digest  # the features are complete
    text = "extract_features: out of memory with batches of 32, goes on with 16"
    assert text in capsys.readouterr().out


def test_training_goes_on_with_half_of_the_batch(
    dataset: Path, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """From the weights before the failed training, as if it had begun with the smaller batch."""
    monkeypatch.setattr(tuning, "train_strategy", once(tuning.train_strategy, FORMS[6]))
    options = FineTuneOptions(fine_tune_epochs=1)
    manifest = fine_tune(dataset, [trained.features], trained.head, tmp_path / "out", options)
    assert manifest.options["batch_size"] == 16
    sentence = "Trained with batches of 16, because the memory ran out with 32."
    assert sentence in manifest.reasoning
    assert sentence in capsys.readouterr().out


def test_evaluation_goes_on_with_half_of_the_batch(
    dataset: Path, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(evaluation, "predict", once(evaluation.predict, FORMS[1]))
    evaluation.evaluate([trained.candidates["head"]], dataset, tmp_path / "out", GateOptions())
    text = "evaluate: out of memory with batches of 32, goes on with 16"
    assert text in capsys.readouterr().out
