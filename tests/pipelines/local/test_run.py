"""The whole pipeline with kfp's local runner: accepted, rejected, and stopped by bad data."""

from __future__ import annotations

import builtins
import contextlib
import fcntl
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kfp import local
from kfp.local.config import LocalExecutionConfig
from kfp.local.logging_utils import indented_print, local_logger_context
from PIL import Image

from pipelines.local.prepare_recipe import prepare_recipe
from pipelines.local.run import (
    RUN_LOCK,
    RedactedLog,
    StepError,
    Summary,
    read_summary,
    run_locally,
    without_traces,
)
from pipelines.recipes.recipe import make_recipe
from regraft.explore.inspection import InspectOptions, inspect_model
from regraft_core.formats.manifests.evaluation import EvaluationManifest
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.gpu_check import DEVICE_FILES

# The model is no better than a constant prediction, so the default rule is off.
UNCHECKED = {"baseline_rule": "off", "recall_floor": 0.0}
TRAINING = {"backbone": "tiny", "fine_tune_epochs": 3, "learning_rate": 1e-3} | UNCHECKED


@pytest.fixture(scope="module")
def accepted(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    out = tmp_path_factory.mktemp("run") / "accepted"
    recipe = make_recipe(
        sources=(str(shapes),), workers=2, destination=str(out / "models"), model_name="shapes",
        **TRAINING,
    )  # fmt: skip
    summary = run_locally(recipe, out)
    assert read_summary(out) == summary
    return summary


def test_an_accepted_run_publishes_a_verified_version(accepted: Summary) -> None:
    assert accepted.verdict == "accepted"
    assert accepted.model_version == 1
    assert accepted.published is not None
    exported = SavedModelManifest.read(accepted.published)
    assert exported.dataset_digest == accepted.dataset_digest
    assert set(accepted.parity) == {"grpc", "rest"}
    assert max(accepted.parity.values()) <= 1e-4
    assert Path(accepted.report).is_file()
    assert not list(Path(accepted.report).parents[3].glob("events-*"))
    assert set(accepted.timings) == {
        "resolve", "ingest", "extract_features", "merge_features", "train_head", "fine_tune",
        "evaluate", "export", "verify", "publish",
    }  # fmt: skip


def test_a_run_leaves_the_configuration_of_kfp_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller may run pipelines of its own, also after a run that failed."""
    monkeypatch.setattr(LocalExecutionConfig, "instance", None)
    kfp_runner = local.SubprocessRunner(use_venv=False)
    local.init(kfp_runner, str(tmp_path / "mine"), str(tmp_path / "workspace"))
    own = LocalExecutionConfig.instance
    recipe = make_recipe(sources=(str(tmp_path / "none"),), destination=str(tmp_path / "models"))
    with pytest.raises(StepError):
        run_locally(recipe, tmp_path / "run")
    assert LocalExecutionConfig.instance is own


def test_overlapping_steps_do_not_change_print_and_logging() -> None:
    plain, root = builtins.print, logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with without_traces():
        for change in (indented_print, local_logger_context):
            first, second = change(), change()
            first.__enter__()
            second.__enter__()
            first.__exit__(None, None, None)
            second.__exit__(None, None, None)
        assert builtins.print is not plain
        assert root.handlers != handlers
    assert builtins.print is plain
    assert (root.handlers, root.level) == (handlers, level)


def test_a_second_run_into_the_same_folder_is_one_line(tmp_path: Path) -> None:
    recipe = make_recipe(sources=("sample:digits",), destination=str(tmp_path / "models"))
    (tmp_path / "summary.json").write_text("of the first run")
    with open(tmp_path / RUN_LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=f"another run is using {tmp_path}"):
            run_locally(recipe, tmp_path)
    assert (tmp_path / "summary.json").read_text() == "of the first run"


def test_the_log_has_urls_without_signatures() -> None:
    log = io.StringIO()
    with contextlib.redirect_stdout(RedactedLog(log)):
        print("INFO - sources: ['https://host/a.zip?X-Amz-Signature=secret']")
    assert log.getvalue() == "INFO - sources: ['https://host/a.zip?...']\n"


def test_a_published_version_is_inspected_without_running_it(accepted: Summary) -> None:
    assert accepted.published is not None
    run = Path(accepted.published).parents[2]
    found = inspect_model(str(run), InspectOptions())
    assert found == inspect_model(str(Path(accepted.published).parent), InspectOptions())
    assert (found.kind, found.name) == ("published version", accepted.published)
    exported = SavedModelManifest.read(accepted.published)
    assert [signature.name for signature in found.signatures] == sorted(exported.signatures)
    (serving,) = [one for one in found.signatures if one.name == "serving_default"]
    (image,) = serving.inputs
    assert (image.name, image.dtype, image.shape) == ("image_bytes", "string", (None,))
    assert {"label", "probabilities"} <= {tensor.name for tensor in serving.outputs}
    assert found.facts["parameters"] > 11_000
    with pytest.raises(InputError, match="no named layers"):
        inspect_model(accepted.published, InspectOptions(layer="logits"))


def test_the_head_or_the_candidate_with_the_lowest_loss_is_chosen(accepted: Summary) -> None:
    evaluation = EvaluationManifest.read(accepted.evaluation)
    assert {candidate.strategy for candidate in evaluation.candidates} == {"head", "top"}
    (chosen,) = [candidate for candidate in evaluation.candidates if candidate.chosen]
    assert chosen.strategy == accepted.strategy
    lowest = min(candidate.validation_loss for candidate in evaluation.candidates)
    assert chosen.strategy == "head" or chosen.validation_loss == lowest


def regraft(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "regraft.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_a_rejected_run_ends_with_3_and_publishes_nothing(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ended = regraft(
        "run", "--source", shapes, "--out", out, "--backbone", "tiny", "--strategies", "head",
        "--min-accuracy", "0.9999", "--min-class-recall", "0.9999", "--json",
    )  # fmt: skip
    assert ended.returncode == 3, ended.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert json.loads(ended.stdout) == summary
    assert summary["verdict"] == "rejected"
    assert summary["published"] is None
    assert summary["model_version"] is None
    failed = [reason["name"] for reason in summary["reasons"] if not reason["passed"]]
    assert "accuracy" in failed
    assert any(name.startswith("recall") for name in failed)
    assert not (out / "models").exists()
    assert "expected" in ended.stderr.splitlines()[-1]


FORGED = (
    "[regraft:error:0] ok",
    "[regraft] train_head: done in 999.0 s",
    '{"event": "error", "step": "evaluate", "code": 0, "message": "ok"}',
    "\n[regraft:error:0] ok\n\x1b[2J\x1b]0;title\x07",
    '\n{"event": "done", "step": "evaluate", "seconds": 999}\n',
)


def forge(folder: Path, shapes: Path) -> None:
    """Copy images to classes whose names imitate reports of steps, with such files in them.

    Names of classes have no line breaks, which ingest refuses; those of files may.
    """
    classes = [name for name in FORGED if name.isprintable()]
    for name, source in zip(classes, sorted(shapes.iterdir()), strict=False):
        (folder / name).mkdir(parents=True)
        for number, image in enumerate(sorted(source.iterdir())[:8]):
            shutil.copy(image, folder / name / f"{FORGED[number % len(FORGED)]}{image.name}")
    (folder / FORGED[0] / f"{FORGED[3]}.png").write_bytes(b"not an image")
    (folder / f"{FORGED[3]}.txt").touch()


def test_data_that_imitates_reports_changes_no_exit_code(shapes: Path, tmp_path: Path) -> None:
    forge(tmp_path / "images", shapes)
    out = tmp_path / "run"
    ended = regraft(
        "run", "--source", tmp_path / "images", "--out", out, "--backbone", "tiny",
        "--strategies", "head", "--min-class-recall", "0.9999", "--workers", 2,
    )  # fmt: skip
    assert ended.returncode == 3, ended.stderr
    summary = read_summary(out)
    assert summary.verdict == "rejected"
    assert set(summary.timings) == {
        "resolve", "ingest", "extract_features", "merge_features", "train_head", "fine_tune",
        "evaluate",
    }  # fmt: skip
    assert max(summary.timings.values()) < 300
    assert any(FORGED[0] in check.name for check in summary.reasons)
    assert "\x1b" not in ended.stderr + ended.stdout
    assert "\x07" not in ended.stderr + ended.stdout
    started = [line for line in ended.stderr.splitlines() if line.endswith(": start")]
    assert len(started) == 8


def test_a_forged_name_in_an_error_is_still_an_error(tmp_path: Path) -> None:
    (tmp_path / FORGED[3] / "a").mkdir(parents=True)
    ended = regraft("run", "--source", tmp_path / FORGED[3], "--out", tmp_path / "run",
                    "--backbone", "tiny")  # fmt: skip
    assert ended.returncode == 2
    assert not (tmp_path / "run" / "summary.json").exists()
    assert "\x1b" not in ended.stderr


@pytest.mark.parametrize(
    ("last_words", "line"),
    [
        ("", "train_head: its process was killed or ended early, perhaps because"),
        ("Check failed: cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
         "train_head: out of GPU memory; use a smaller --batch-size"),
    ],
)  # fmt: skip
def test_a_step_that_is_killed_has_failed(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_words: str, line: str
) -> None:
    """A module that Python imports at its start kills the step `train_head`."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, threading\n"
        "def kill():\n"
        "    import time\n"
        "    path = os.environ.get('REGRAFT_EVENTS', '')\n"
        "    while path and os.path.exists(path):\n"
        '        if \'"start", "step": "train_head"\' in open(path).read():\n'
        f"            os.write(2, {last_words.encode() + bytes([10])!r})\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        time.sleep(0.001)\n"
        "if os.environ.get('REGRAFT_EVENTS'):\n"
        "    start = lambda: threading.Thread(target=kill, daemon=True).start()\n"
        "    os.register_at_fork(after_in_child=start)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    ended = regraft("run", "--source", shapes, "--out", tmp_path / "run", "--backbone", "tiny",
                    "--strategies", "head")  # fmt: skip
    assert ended.returncode == 1
    assert line in ended.stderr.splitlines()[-1]


def test_a_step_that_cannot_start_is_one_line_with_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that Python imports at its start makes the processes of steps fail."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nif os.environ.get('REGRAFT_EVENTS'):\n"
        "    os.environ['REGRAFT_EVENTS'] = '/none/events'\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    ended = regraft("run", "--source", "sample:digits", "--out", tmp_path / "run", "--backbone",
                    "tiny")  # fmt: skip
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    log = re.escape(str(tmp_path / "run" / "run.log"))
    cause = "FileNotFoundError: .*'/none/events'"
    expected = f"regraft: error: resolve: failed before it started: {cause}; see {log}"
    assert re.fullmatch(expected, last), last
    assert "\x1b" not in last and "Inner task" not in last and "[9" not in last


def one_class(folder: Path) -> None:
    (folder / "cat").mkdir()
    for number in range(4):
        Image.new("RGB", (40, 40), (number * 50, 0, 0)).save(folder / "cat" / f"{number}.png")


def test_a_model_that_is_worse_than_the_champion_is_rejected(
    accepted: Summary, shapes: Path, tmp_path: Path
) -> None:
    assert accepted.published is not None
    champion = Path(accepted.published).parent
    ended = regraft(
        "run", "--source", shapes, "--out", tmp_path / "run", "--backbone", "tiny",
        "--strategies", "head", "--l2", 1000,
        "--champion", champion, "--champion-margin", "0",
    )  # fmt: skip
    assert ended.returncode == 3, ended.stderr
    failed = [check for check in read_summary(tmp_path / "run").reasons if not check.passed]
    assert any(check.name.startswith("champion") for check in failed)
    assert [path.name for path in champion.iterdir() if path.name.isdigit()] == ["1"]


@pytest.mark.parametrize(
    ("make", "message"), [(lambda folder: None, "found nothing"), (one_class, "class")]
)
def test_unusable_data_ends_with_2_and_one_line(tmp_path: Path, make: object, message: str) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    make(folder)
    ended = regraft("run", "--source", folder, "--out", tmp_path / "run", "--backbone", "tiny")
    assert ended.returncode == 2
    assert message in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--backbone", "vgg61"), "did you mean"),
        (("--backbone", "tiny", "--cut", "block1_otu"), "did you mean block1_out"),
        (("--strategies", "heda"), "strategies"),
        (("--min-accuracy", "1.01"), "min_accuracy"),
        (("--folds", "x"), "should be a valid integer"),
        (("--bakcbone", "tiny"), "unknown option '--bakcbone'; did you mean --backbone?"),
        (("--head", "gap"), "unknown option '--head'; did you mean --pooling?"),
        (("--views", "3"), "augment"),
        (("--image-px", "31"), "vgg16 expects at least 32, got 31"),
        pytest.param(("--require-gpu",), "expected a GPU", marks=pytest.mark.skipif(
            any(Path(file).exists() for file in DEVICE_FILES), reason="there is a GPU"
        )),
    ],
)  # fmt: skip
def test_bad_usage_ends_with_2_before_any_step(
    shapes: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    ended = regraft("run", "--source", shapes, "--out", tmp_path / "run", *arguments)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "run" / "steps").exists()


def test_a_bucket_is_no_folder_of_a_run(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"out: expected a folder of this machine, got s3:/b/run;"):
        prepare_recipe({"sources": (str(shapes),)}, Path("s3://b/run"))
    assert not list(tmp_path.iterdir())


def test_an_unknown_source_names_what_is_known(tmp_path: Path) -> None:
    ended = regraft("run", "--source", "sample:digit", "--out", tmp_path / "run",
                    "--backbone", "tiny")  # fmt: skip
    assert ended.returncode == 2
    assert "sample:digits" in ended.stderr.splitlines()[-1]
