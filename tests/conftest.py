"""Shared fixtures: a small real dataset and the outputs of each step, once per session."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import skimage.data
from PIL import Image, ImageDraw
from playwright.sync_api import Browser

from regraft_core.parallel import executor
from regraft_core.parallel.ray_cluster import RayCluster
from regraft_core.parallel.ray_executor import RAY_VARIABLE
from tests.browser import MISSING, running_browser
from tests.command_line import Ended, Regraft
from tests.object_servers import gcs_server, s3_server

CLASSES = ("circle", "cross", "square")
IMAGES_PER_CLASS, SEVERAL_IMAGES = 40, 120
SIDE_PX = 40

# Ray uses the loopback interface alone; it reads this when a test module imports it.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"


def draw_shape(kind: str, rng: random.Random) -> Image.Image:
    """Draw one shape of random size, position and color on a noisy background."""
    ground = tuple(rng.randrange(0, 90) for _ in range(3))
    image = Image.new("RGB", (SIDE_PX, SIDE_PX), ground)
    draw = ImageDraw.Draw(image)
    for _ in range(60):
        position = rng.randrange(SIDE_PX), rng.randrange(SIDE_PX)
        draw.point(position, tuple(rng.randrange(256) for _ in range(3)))
    half = rng.randrange(8, 14)
    x, y = (rng.randrange(half, SIDE_PX - half) for _ in range(2))
    box = (x - half, y - half, x + half, y + half)
    ink = tuple(rng.randrange(140, 256) for _ in range(3))
    if kind == "circle":
        draw.ellipse(box, fill=ink)
    elif kind == "square":
        draw.rectangle(box, fill=ink)
    else:
        draw.line((box[0], box[1], box[2], box[3]), fill=ink, width=4)
        draw.line((box[0], box[3], box[2], box[1]), fill=ink, width=4)
    return image


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders with small images of shapes."""
    folder = tmp_path_factory.mktemp("shapes")
    rng = random.Random(0)
    for kind in CLASSES:
        (folder / kind).mkdir()
        for number in range(IMAGES_PER_CLASS):
            draw_shape(kind, rng).save(folder / kind / f"{number:03}.png")
    return folder


@pytest.fixture(scope="session")
def dataset(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of the shapes."""
    from components.ingest.ingest import ingest
    from regraft_core.formats.options.ingest import IngestOptions

    out = tmp_path_factory.mktemp("ingest") / "dataset"
    ingest([str(shapes)], out, IngestOptions(processes=1))
    return out


@dataclass(frozen=True)
class Trained:
    """Outputs of the training steps for the shapes, with the backbone `tiny`."""

    features: Path
    head: Path
    candidates: dict[str, Path]


@pytest.fixture(scope="session")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Features, head and the candidates `head` and `top` of the shapes."""
    return train_shapes(dataset, tmp_path_factory.mktemp("trained"))


def train_shapes(dataset: Path, out: Path) -> Trained:
    """Run the training steps in a folder, with the backbone `tiny`."""
    from components.extract_features.extract_features import extract_features
    from components.fine_tune.fine_tune import fine_tune
    from components.train_head.train_head import train_head
    from regraft_core.formats.options.extract_features import FeatureOptions
    from regraft_core.formats.options.fine_tune import FineTuneOptions
    from regraft_core.formats.options.train_head import HeadOptions

    extract_features(dataset, out / "features", FeatureOptions(backbone="tiny"))
    train_head([out / "features"], out / "head", HeadOptions())
    for strategy in ("head", "top"):
        options = FineTuneOptions(
            strategy=strategy, fine_tune_epochs=6, learning_rate=3e-3, batch_norm="adapt"
        )
        fine_tune(dataset, [out / "features"], out / "head", out / f"by_{strategy}", options)
    candidates = {strategy: out / f"by_{strategy}" for strategy in ("head", "top")}
    return Trained(out / "features", out / "head", candidates)


@pytest.fixture(scope="session")
def several_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of images with any of the shapes: two places, each with a shape or without."""
    from components.ingest.ingest import ingest
    from regraft_core.formats.options.ingest import IngestOptions

    folder, rng = tmp_path_factory.mktemp("several"), random.Random(0)
    lines = ["path\tlabel"]
    for number in range(SEVERAL_IMAGES):
        shown = [rng.choice([*CLASSES, ""]) for _ in range(2)]
        image = Image.new("RGB", (2 * SIDE_PX, SIDE_PX))
        for place, kind in enumerate(shown):
            if kind:
                image.paste(draw_shape(kind, rng), (place * SIDE_PX, 0))
        image.putpixel((0, 0), (number, 0, 0))  # those without shapes differ
        image.save(folder / f"{number}.png")
        lines.append(f"{number}.png\t{json.dumps(sorted(set(filter(None, shown))))}")
    (folder / "table.csv").write_text("\n".join(lines))
    options = IngestOptions(processes=1, near_duplicates="off")
    ingest([str(folder / "table.csv")], folder / "dataset", options)
    return folder / "dataset"


@pytest.fixture(scope="session")
def several_trained(several_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Features, head and the candidates `head` and `top` of images with several labels."""
    return train_shapes(several_dataset, tmp_path_factory.mktemp("several_trained"))


@pytest.fixture(scope="session")
def started_cluster() -> Iterator[RayCluster]:
    """A Ray cluster on this machine, of one node with one CPU."""
    with RayCluster(1) as started:
        yield started


@pytest.fixture
def cluster(started_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> RayCluster:
    """The cluster, which this process uses; its workers also run functions of the tests."""
    for name, value in started_cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(RAY_VARIABLE, started_cluster.address)
    monkeypatch.setattr(executor, "PACKAGES", (*executor.PACKAGES, "tests"))
    from ray._private.authentication_test_utils import reset_auth_token_state

    reset_auth_token_state()  # it has read the token's variables if another test imported it
    return started_cluster


@pytest.fixture
def reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, str]]:
    """Make each count an event; return a function to the last count by what is counted."""
    from regraft_core.runtime import step_reports

    events = tmp_path / "events.jsonl"
    events.touch()
    monkeypatch.setenv(step_reports.EVENTS_VARIABLE, str(events))
    monkeypatch.setattr(step_reports, "LIVE_EVERY_S", 0.0)

    def read() -> dict[str, str]:
        found = map(json.loads, events.read_text(encoding="ascii").splitlines())
        texts = [event["text"].rpartition(": ") for event in found if event["event"] == "live"]
        return {what: count.partition(" (")[0] for what, _, count in texts}

    return read


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for pipelines, which kfp's local runner executes as in a local run."""
    from kfp import local

    from pipelines.local.run import without_traces
    from pipelines.local.step_processes import steps_by_forks

    root = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    with without_traces(), open(tmp_path / "steps.log", "w") as log, steps_by_forks(log):
        kfp_runner = local.SubprocessRunner(use_venv=False)
        local.init(kfp_runner, str(tmp_path / "root"), str(tmp_path / "workspace"))
        yield tmp_path


_BUCKETS = itertools.count(1)


@pytest.fixture(scope="session")
def s3() -> Iterator[None]:
    """A local S3 server for `s3://` URIs."""
    with s3_server() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def gcs() -> Iterator[None]:
    """A local Google Cloud Storage server for `gs://` URIs."""
    with gcs_server() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(params=["s3", "gs"])
def bucket(request: pytest.FixtureRequest) -> str:
    """The URI of an empty bucket, in each kind of object store."""
    import fsspec

    request.getfixturevalue({"s3": "s3", "gs": "gcs"}[request.param])
    name = f"bucket-{next(_BUCKETS)}"
    fsspec.filesystem(request.param).mkdir(name)
    return f"{request.param}://{name}"


@dataclass(frozen=True)
class Resumed:
    """The output of a program that was killed (SIGKILL) at a line, and of its second run."""

    killed: str
    again: str


@pytest.fixture
def kill_and_run_again() -> Callable[[str, str], Resumed]:
    """Return a function that runs a Python program, kills it at a line, and runs it again."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}

    def run(program: str, line: str) -> Resumed:
        command = [sys.executable, "-c", program]
        lines = []
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            for text in process.stdout:
                lines.append(text)
                if line in text:
                    process.send_signal(signal.SIGKILL)
                    break
        assert process.returncode == -signal.SIGKILL, lines
        second = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=300, check=True
        )
        return Resumed("".join(lines), second.stdout)

    return run


PHOTOGRAPHS = Path(skimage.data.__file__).parent


@pytest.fixture
def regraft(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Regraft:
    """Return a function that runs `regraft` with arguments."""

    from regraft.cli.main import main

    def run(*arguments: str | Path | int) -> Ended:
        with pytest.raises(SystemExit) as ended, monkeypatch.context() as patch:
            # The command changes both for the processes that it starts.
            patch.setattr(sys, "path", sys.path[:])
            patch.setenv("PYTHONSAFEPATH", "")
            patch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))

            main([str(argument) for argument in arguments])
        written = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, written.out, written.err)

    return run


# Not for the session: Playwright's event loop would keep other tests of this thread from theirs.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A running browser; without one, tests that need it are skipped, and fail in CI."""
    with running_browser() as found:
        if found is None:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(MISSING)
        yield found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with the slowest tests first, so that no process ends long after the others."""
    seconds: dict[Path, float] = defaultdict(float)
    for item in items:
        mark = item.get_closest_marker("long")
        seconds[item.path] += mark.kwargs.get("seconds", 10) if mark else 0
    items.sort(key=lambda item: -seconds[item.path])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say once why tests were skipped for want of a browser."""
    skipped = terminalreporter.stats.get("skipped", [])
    if lacking := [report for report in skipped if MISSING in str(report.longrepr)]:
        terminalreporter.write_line(f"\n{len(lacking)} skipped: {MISSING}")


@pytest.fixture(scope="session")
def cat() -> Path:
    """A photograph of a cat."""
    return PHOTOGRAPHS / "chelsea.png"


@pytest.fixture(scope="session")
def coffee() -> Path:
    """A photograph of a cup of coffee."""
    return PHOTOGRAPHS / "coffee.png"
