"""A real Ray cluster: the same bits as local processes, also with workers and nodes lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.extract_features import shard_extraction
from components.extract_features.extract_features import extract_features
from components.ingest.ingest import ingest
from regraft.bulk.prediction import predict_here
from regraft_core.formats.manifests.features import FeaturesManifest
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.parallel import ray_connection
from regraft_core.parallel.executor import Executor
from regraft_core.parallel.ray_cluster import RayCluster
from regraft_core.parallel.ray_executor import RAY_VARIABLE, ray_executor
from regraft_core.runtime.errors import InputError, RegraftError
from regraft_core.runtime.out_of_memory import is_out_of_memory
from regraft_core.training.linear_head import head_rows
from regraft_core.training.linear_head.head_rows import HeadRows, scalings
from regraft_core.training.linear_head.linear_classifier import Weights
from regraft_core.training.linear_head.logistic_fits import LogisticFits
from regraft_core.training.linear_head.logistic_regression import MULTINOMIAL
from regraft_core.training.linear_head.ridge_regression import RidgeSystem
from tests.conftest import Trained
from tests.regraft_core.parallel.test_local_processes import die, die_once, refuse
from tests.regraft_core.training.linear_head.test_row_blocks import CLASSES, stored_rows

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.long(seconds=60)


@pytest.fixture
def workers(cluster: RayCluster, tmp_path: Path) -> Iterator[Executor]:
    """Workers on the cluster."""
    with ray_executor(tmp_path) as executor:
        assert executor
        yield executor


def test_dataset_and_features_of_four_nodes_are_those_of_local_processes(
    cluster: RayCluster,
    shapes: Path,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shard_extraction, "IMAGES_PER_TASK", 1)  # a task for each shard
    for _ in range(3):
        cluster.add_node()
    options = FeatureOptions(backbone="tiny", views=2, augment="light")
    with ray_executor(tmp_path, shapes, dataset) as executor:
        ingest([str(shapes)], tmp_path / "dataset", IngestOptions(), executor=executor)
        extract_features(dataset, tmp_path / "by_ray", options, executor=executor)
    for _ in range(3):
        cluster.stop_node()
    for file in sorted(dataset.glob("*.tfrecord")):
        assert (tmp_path / "dataset" / file.name).read_bytes() == file.read_bytes()
    here = extract_features(dataset, tmp_path / "here", options)
    by_ray = FeaturesManifest.read(tmp_path / "by_ray")
    assert (by_ray.digest, by_ray.shards) == (here.digest, here.shards)


def test_a_killed_worker_is_replaced_and_reported(
    workers: Executor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = [tmp_path / str(number) for number in range(8)]
    results = list(workers.map(die_once, tasks, "ingest"))
    assert results == [str(number) for number in range(8)]
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "lost" in line]
    assert line.startswith("[regraft] ingest: a Ray worker was lost (")
    assert line.endswith("); its tasks are repeated")


def test_a_killed_node_is_replaced_by_others(
    cluster: RayCluster, workers: Executor, tmp_path: Path
) -> None:
    cluster.add_node()
    results = workers.map(die_once, [tmp_path / f"n{number}" for number in range(40)], "ingest")
    found = [next(results) for _ in range(3)]
    cluster.stop_node()
    assert found + list(results) == [f"n{number}" for number in range(40)]


def exhaust(number: int) -> int:
    raise MemoryError("out of memory")


def raise_lock(number: int) -> int:
    error = ValueError("out of memory")
    error.lock = threading.Lock()  # type: ignore[attr-defined] # cannot be sent
    raise error


def test_errors_are_one_line(workers: Executor) -> None:
    with pytest.raises(RegraftError, match=r"ingest: Ray workers were lost 3 times .*memory\?"):
        list(workers.map(die, range(8), "ingest"))
    with pytest.raises(InputError, match=r"^expected no 0$"):
        list(workers.map(refuse, range(8), "ingest"))
    # As raised here, so that an extraction continues with smaller batches.
    for function in (exhaust, raise_lock):
        with pytest.raises((MemoryError, RuntimeError), match="out of memory") as raised:
            list(workers.map(function, range(8), "ingest"))
        assert is_out_of_memory(raised.value)


def prepare_mark(folder: Path) -> Callable[[int], int]:
    (folder / str(len(list(folder.iterdir())))).touch()
    return abs


def test_a_worker_prepares_again_only_for_another_setup(workers: Executor, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    for folder in (folders[0], folders[0], folders[1]):
        assert list(workers.map_prepared(prepare_mark, folder, [-1, -2], "predict")) == [1, 2]
    assert [len(list(folder.iterdir())) for folder in folders] == [1, 1]


def test_a_head_of_rows_on_disk_is_that_of_this_process(
    workers: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ridge regression and logistic regression, each of sums over blocks of rows."""
    monkeypatch.setattr(head_rows, "IN_MEMORY_BYTES", 0)
    here = stored_rows(tmp_path)
    scaling, targets = scalings(here)["level"], np.eye(CLASSES)[here.labels]

    def fit(rows: HeadRows) -> list[Weights]:
        ones = np.ones(len(rows))
        system = RidgeSystem(rows.parts, targets, ones, scaling, rows.executor)
        logistic = LogisticFits(rows, targets, ones, scaling, np.arange(10), MULTINOMIAL)
        return [system.fit(0.1), logistic.fit(1.0)]

    for one, other in zip(fit(here), fit(replace(here, executor=workers)), strict=True):
        np.testing.assert_array_equal(one.kernel, other.kernel)
        np.testing.assert_array_equal(one.bias, other.bias)


def test_a_folder_that_the_nodes_do_not_have_is_found_before_the_work(
    cluster: RayCluster, s3: None, tmp_path: Path
) -> None:
    paths = ["/nowhere", str(tmp_path)]
    digest = ray_connection.code_digest()
    ray_connection.check_node(digest, paths[1:], [], [])
    message = "^cannot reach /nowhere; use a folder that all nodes share$"
    with pytest.raises(InputError, match=message):
        ray_connection.check_node(digest, paths, [], [])
    with pytest.raises(InputError, match=r"^cannot read s3://of-nobody/images: FileNot"):
        ray_connection.check_node(digest, [], ["s3://of-nobody/images"], [])
    with pytest.raises(InputError, match="another version of Regraft"):
        ray_connection.check_node("", [], [], [])


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://127.0.0.1:{port}", "no Ray cluster responds at ray://127.0.0.1:.*--ray local"),
        ("nonsense", "expected local, auto or ray://HOST:PORT, got nonsense"),
    ],
)
def test_no_cluster_at_the_address_is_one_line(
    address: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv(RAY_VARIABLE, address.format(port=port))
    with pytest.raises(InputError, match=message), ray_executor(tmp_path):
        pass


def test_another_user_has_no_access(cluster: RayCluster, tmp_path: Path) -> None:
    code = (
        "from regraft_core.parallel.ray_executor import ray_executor\n"
        f"with ray_executor({str(tmp_path)!r}): pass"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"RAY_AUTH_TOKEN": "0" * 64},
        capture_output=True, text=True, timeout=300, cwd=ROOT,
    )  # fmt: skip
    assert run.returncode == 1
    assert "InputError: ray: cannot use the cluster at 127.0.0.1" in run.stderr.splitlines()[-1]


def test_predictions_are_those_of_this_process(
    cluster: RayCluster, shapes: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(trained.candidates["head"])
    counts: list[tuple[int, int]] = []
    by_ray = predict_here([str(shapes)], model, "auto", lambda *count: counts.append(count))
    monkeypatch.delenv(RAY_VARIABLE)
    assert by_ray == predict_here([str(shapes)], model, "auto", None)
    assert counts[-1] == (120, 120)


def test_a_cluster_ends_with_its_process(tmp_path: Path) -> None:
    with RayCluster(1) as cluster:
        host, port = cluster.address.split(":")
        assert host == "127.0.0.1"
        os.kill(cluster._process.pid, signal.SIGKILL)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, int(port)), 5)
