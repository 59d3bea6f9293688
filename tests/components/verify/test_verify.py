from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf
from kfp.dsl import Artifact, Dataset, Markdown, Model

from components.export.export import export
from components.verify.component import verify as component
from components.verify.parity_sample import select_sample
from components.verify.served_variants import BFLOAT16, BFLOAT16_TOLERANCE
from components.verify.verify import verify
from regraft_client import GrpcClient, InvalidImageError, RestClient
from regraft_core.formats import engine_packages
from regraft_core.formats.manifests.parity import ParityManifest
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.options.export import ExportOptions
from regraft_core.formats.options.verify import VerifyOptions
from regraft_core.runtime import machine
from regraft_core.runtime.errors import InputError, ParityError
from regraft_core.runtime.machine import computes_bfloat16
from serving.batching_file import batching_flags
from serving.running.runner import ServeOptions, running_server
from tests.components.export.building import Built, write_candidate, write_evaluation

EMBEDDED = VerifyOptions(engine="embedded", verify_images=8, parity_tolerance=1e-5)


def test_served_predictions_equal_the_trained_ones_at_batch_sizes_1_and_7(
    built: Built, exported: Path, tmp_path: Path, reported: Callable[[], dict[str, str]],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "parity"
    parity, table = Artifact(uri=str(out)), Markdown(uri=str(tmp_path / "table.md"))
    inputs = (
        Model(uri=str(exported)),
        Model(uri=str(built.candidate)),
        Artifact(uri=str(built.evaluation)),
        Dataset(uri=str(built.dataset)),
    )
    component.python_func(EMBEDDED.model_dump(), *inputs, parity, table)
    report = ParityManifest.read(out)
    assert parity.metadata == {"engine": "embedded", **report.max_abs_diff}
    assert Path(table.path).read_bytes() == (out / "parity.md").read_bytes()
    assert report.passed
    assert report.images == 8
    assert report.engine == "embedded"
    assert (report.device, report.precision, report.verified) == ("CPU", "float32", True)
    assert report.batches == {"trained": [32], "served": [1, 7]}
    assert not tf.config.experimental.tensor_float_32_execution_enabled()
    assert set(report.max_abs_diff) == {"grpc", "rest"}
    assert max(report.max_abs_diff.values()) <= 1e-5
    assert report.saved_model_digest == SavedModelManifest.read(exported).digest
    assert len({row.label for row in report.rows}) > 1
    assert "passed with tolerance 1e-05" in (out / "parity.md").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["events.jsonl", "parity", "table.md"]
    assert reported() == {"verify: images sent": "16 of 16"}
    classes = len({row.true_label for row in report.rows})
    lines = capsys.readouterr().out.splitlines()
    assert "[regraft] verify: starting a server for 8 images" in lines
    assert f"[regraft] verify: 8 images of {classes} classes equal by grpc and rest" in lines


def test_different_served_predictions_fail_with_the_worst_image(
    built: Built, tmp_path: Path
) -> None:
    # An export with another temperature predicts the same labels with lower confidence.
    other = write_evaluation(tmp_path / "other", built.candidate, temperature=4.0)
    export(built.candidate, other, built.dataset, tmp_path / "saved_model")
    with pytest.raises(ParityError, match=r"worst: test/\d by (grpc|rest): .*difference 0"):
        verify(
            *(tmp_path / "saved_model", built.candidate, built.evaluation, built.dataset),
            *(tmp_path / "parity", EMBEDDED),
        )
    report = ParityManifest.read(tmp_path / "parity")
    assert not report.passed
    assert "**failed**" in (tmp_path / "parity" / "parity.md").read_text()


def test_a_gpu_with_tf32_is_not_verified(
    built: Built, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    monkeypatch.setattr("components.verify.verify.device_name", lambda: "NVIDIA H100")
    report = verify(
        *(exported, built.candidate, built.evaluation, built.dataset),
        *(tmp_path / "parity", EMBEDDED),
    )
    assert (report.precision, report.verified, report.passed) == ("tf32", False, True)
    assert "not verified: NVIDIA_TF32_OVERRIDE turns TF32 on" in capsys.readouterr().out
    assert "Not verified" in (tmp_path / "parity" / "parity.md").read_text()


@pytest.mark.long(seconds=60)
def test_a_model_for_bfloat16_is_also_verified_in_it(
    built: Built,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ExportOptions(serving_precision="bfloat16")
    export(built.candidate, built.evaluation, built.dataset, tmp_path / "saved_model", options)
    inputs = tmp_path / "saved_model", built.candidate, built.evaluation, built.dataset
    if computes_bfloat16():
        report = verify(*inputs, tmp_path / "parity", EMBEDDED)
        assert set(report.bfloat16_max_abs_diff) == {"grpc", "rest"}
        assert 1e-5 < max(report.bfloat16_max_abs_diff.values()) <= BFLOAT16_TOLERANCE
        assert max(report.max_abs_diff.values()) <= 1e-5
        assert "In bfloat16, tolerance 0.05: grpc " in (tmp_path / "parity/parity.md").read_text()
        assert "verify: in bfloat16 within 0.0" in capsys.readouterr().out
        strict = [replace(BFLOAT16, tolerance=1e-9)]
        with monkeypatch.context() as patch:
            patch.setattr("components.verify.verify.served_variants", lambda _: strict)
            with pytest.raises(ParityError, match=r"in bfloat16, \d of 8 images: .*; run without"):
                verify(*inputs, tmp_path / "failed", EMBEDDED)
    monkeypatch.setattr(machine, "computes_bfloat16", lambda: False)
    with pytest.raises(InputError, match="serving-precision: expected a processor that computes"):
        verify(*inputs, tmp_path / "other", EMBEDDED)


def test_a_model_for_openvino_is_also_verified_with_it(
    built: Built,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ExportOptions(serving_engine="openvino")
    saved_model = tmp_path / "saved_model"
    export(built.candidate, built.evaluation, built.dataset, saved_model, options)
    inputs = saved_model, built.candidate, built.evaluation, built.dataset
    with monkeypatch.context() as missing:
        missing.setattr(engine_packages, "ENGINE_PACKAGES", {"openvino": "not_installed_here"})
        with pytest.raises(InputError, match=r"serving-engine: openvino needs not_.*-engine tf"):
            verify(*inputs, tmp_path / "missing", EMBEDDED)
    report = verify(*inputs, tmp_path / "parity", EMBEDDED)
    assert report.passed and set(report.openvino_max_abs_diff) == {"grpc", "rest"}
    assert 0 < max(report.openvino_max_abs_diff.values()) <= 1e-4
    assert report.openvino_bfloat16_max_abs_diff == {}
    assert "With OpenVINO, tolerance 0.001: grpc " in (tmp_path / "parity/parity.md").read_text()
    assert "verify: with OpenVINO within " in capsys.readouterr().out


def test_a_damaged_export_is_an_error_before_it_is_served(
    built: Built, exported: Path, tmp_path: Path
) -> None:
    damaged = Path(shutil.copytree(exported, tmp_path / "saved_model"))
    data = damaged / "variables" / "variables.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    with pytest.raises(InputError, match=r"variables\.data-00000-of-00001 is damaged"):
        verify(
            *(damaged, built.candidate, built.evaluation, built.dataset),
            *(tmp_path / "parity", EMBEDDED),
        )


def test_another_candidate_or_evaluation_is_an_error(
    built: Built, exported: Path, tmp_path: Path
) -> None:
    other = write_candidate(tmp_path / "candidate", seed=5)
    with pytest.raises(InputError, match="expected the chosen model"):
        verify(*(exported, other, built.evaluation, built.dataset, tmp_path / "parity"), EMBEDDED)
    evaluation = write_evaluation(tmp_path / "evaluation", built.candidate, digest="f" * 64)
    with pytest.raises(InputError, match="expected the evaluation eeeeeeeeeeee, got ffffffffffff"):
        verify(
            *(exported, built.candidate, evaluation, built.dataset, tmp_path / "parity"),
            EMBEDDED,
        )


def test_a_damaged_image_is_an_error_of_its_own_request_only(
    built: Built, exported: Path, tmp_path: Path
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "1").symlink_to(exported)
    valid = [record.encoded for record in select_sample(built.dataset, 4)]
    damaged = valid[0][:40]
    options = ServeOptions(flags=batching_flags())
    with (
        running_server(tmp_path, "m", "embedded", options) as server,
        GrpcClient(server.grpc, "m") as by_grpc,
        RestClient(server.rest, "m") as by_rest,
        ThreadPoolExecutor(12) as pool,
    ):
        for client in (by_grpc, by_rest):
            expected = client.predict(valid)
            batches = [[damaged] if n % 4 == 1 else [valid[n % 4]] for n in range(40)]
            futures = [pool.submit(client.predict, batch) for batch in batches]
            for number, future in enumerate(futures):
                if number % 4 == 1:
                    with pytest.raises(InvalidImageError, match="image 0: expected an undamaged"):
                        future.result()
                else:
                    assert future.result()[0].label == expected[number % 4].label
            for send in (client.predict, client.classify, client.features):
                with pytest.raises(InvalidImageError) as raised:
                    send([valid[0], damaged, valid[1]])
                assert [one is None for one in raised.value.results] == [False, True, False]
