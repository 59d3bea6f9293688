"""The arithmetic of the cost model: an example by hand, and the effect of nodes and bandwidth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from components.fine_tune import rate_search
from pipelines.cluster.interruptions import Interruptions
from pipelines.cluster.runtime_estimate import (
    COMPARED,
    COMPARISONS,
    LEARNING_RATES,
    Plan,
    Rates,
    estimate_run,
    extraction_s,
    fit_rates,
    head_images,
    trial_epochs,
)
from regraft_core.runtime.errors import InputError
from regraft_core.training.linear_head.head_selection import SELECTION_ROWS
from tests.command_line import Regraft

RATES = Rates(
    start_s=10, ingest_rate=1000, extract_rate=100, head_rate=500, top_rate=500,
    image_kb=100, pooled_kb=2, activation_kb=8,
)  # fmt: skip
COMPARISONS_S = COMPARISONS * 3000 * 3000 / 2400 / 500


def test_an_example_by_hand() -> None:
    plan = Plan(
        100_000, nodes=4, node_mb_s=100, storage_mb_s=1000, cache_gb=1,
        train_fraction=0.6, validation_fraction=0.2, top_epochs=10,
    )  # fmt: skip
    found = estimate_run(plan, RATES)
    assert found.steps == pytest.approx({
        "ingest": 10 + 200,  # writing and reading 200 kB of each at 100 MB/s is slower than 1000/s
        "extract_features": 10 + 200,  # 80 shards: 20,000 images of each node at 100/s
        # 80,000 of 2 kB, then fits of 60,000 at 500/s, and comparisons of 3,000
        "train_head": 10 + 1.6 + 120 + COMPARISONS_S,
        "fine_tune": 10 + 4.8 + 1560,  # 60,000 of 8 kB, 3 trials of an epoch, then 10 epochs
        "evaluate": 10 + 200,
        "export, verify, publish": 30,
    })  # fmt: skip
    assert found.cached
    assert found.cut_gb == pytest.approx(0.64)
    alone = 210 + 131.6 + COMPARISONS_S + 1574.8 + 210 + 30
    assert found.total_s == pytest.approx(alone + 210)
    assert found.without_gain_s == pytest.approx(alone + 210 - 1200)
    assert found.node_hours == pytest.approx((alone + 4 * 210) / 3600)


def test_few_images_need_less_than_their_part_of_the_time_of_a_head() -> None:
    assert COMPARED == SELECTION_ROWS
    fewer, few, many, more = map(head_images, (500, 1000, 100_000, 200_000))
    assert few == pytest.approx(4 * fewer)
    assert many == pytest.approx(100_000 + 500 * COMPARISONS_S)
    assert more - many == pytest.approx(100_000)


@pytest.mark.parametrize("epochs", [1, 4, 10, 13, 14, 90])
def test_trials_of_learning_rates_are_those_of_fine_tuning(epochs: int) -> None:
    trials = len(rate_search.LEARNING_RATES) * rate_search.round_epochs(epochs)
    assert trial_epochs(Plan(1000, top_epochs=epochs)) == trials
    assert len(rate_search.LEARNING_RATES) == LEARNING_RATES


def test_more_nodes_help_up_to_the_number_of_shards_and_the_bandwidth() -> None:
    times = [
        estimate_run(Plan(100_000, nodes=n), RATES).steps["extract_features"] for n in (1, 2, 80)
    ]
    assert times == pytest.approx([10 + 800, 10 + 400, 10 + 1000 / 100])
    more = estimate_run(Plan(100_000, nodes=10_000), RATES)
    assert more.steps["extract_features"] == pytest.approx(times[-1])
    slow_storage = Plan(100_000, nodes=80, storage_mb_s=80)
    assert estimate_run(slow_storage, RATES).steps["extract_features"] == pytest.approx(
        10 + 1000 * 110_000 / 1e6
    )


def test_activations_beyond_the_cache_are_recomputed() -> None:
    found = estimate_run(Plan(100_000, cache_gb=0.5, top_epochs=10), RATES)
    assert not found.cached
    assert found.steps["fine_tune"] == pytest.approx(10 + 13 * 65_000 * (1 / 100 + 1 / 500))


@pytest.mark.parametrize("images", [100_000, 1_000_000, 10_000_000, 100_000_000])
def test_time_grows_with_images_and_falls_with_nodes(images: int) -> None:
    one, many = (estimate_run(Plan(images, nodes=n, cache_gb=1e6), RATES) for n in (1, 16))
    assert many.steps["extract_features"] < one.steps["extract_features"] / 8
    fewer = estimate_run(Plan(images // 10, cache_gb=1e6), RATES)
    assert 5 < one.total_s / fewer.total_s <= 10


def test_start_up_time_and_rate_of_two_workers() -> None:
    rates = fit_rates((5000, 60.0), (1000, 20.0), Rates())
    assert (rates.start_s, rates.extract_rate) == pytest.approx((10.0, 100.0))
    assert extraction_s(3000, rates) == pytest.approx(40.0)
    with pytest.raises(InputError, match="take longer"):
        fit_rates((5000, 20.0), (1000, 20.0), Rates())


def test_without_a_content_store_each_worker_downloads_the_dataset() -> None:
    plan = Plan(100_000, nodes=4, node_mb_s=100, storage_mb_s=200, work_dir=False)
    found = estimate_run(plan, RATES)
    # The dataset of 10 GB, four times, by all at 50 MB/s; then 20,000 images at 100/s.
    assert found.steps["extract_features"] == pytest.approx(10 + 200 + 200)
    features_gb = 80_000 * (2 + 8) / 1e6
    assert found.steps["train_head"] == pytest.approx(10 + 10 * features_gb + 130 + COMPARISONS_S)
    assert found.steps["export, verify, publish"] == pytest.approx(30 + 2 * 100)
    # The source, extraction, fine_tune, evaluate, export, verify; and the features twice.
    assert found.downloads_gb == pytest.approx(10 + 4 * 10 + 4 * 10 + 2 * features_gb)
    by_reference = estimate_run(Plan(100_000, nodes=4, node_mb_s=100, storage_mb_s=200), RATES)
    assert by_reference.total_s < found.total_s
    assert by_reference.downloads_gb == pytest.approx(10 + 10 + features_gb)


def test_a_slow_source_limits_ingest() -> None:
    found = estimate_run(Plan(100_000, source_mb_s=10), RATES)
    assert found.steps["ingest"] == pytest.approx(10 + 1000 + 100)  # read at 10, write at 100 MB/s


def test_a_ray_cluster_shares_two_steps_and_is_paid_to_the_end() -> None:
    rates = replace(RATES, ray_start_s=90)
    alone = estimate_run(Plan(100_000), rates)
    found = estimate_run(Plan(100_000, nodes=4, ray=True, node_price=2.0), rates)
    assert next(iter(found.steps)) == "start_ray"
    assert found.steps["start_ray"] == 90
    for step in ("ingest", "extract_features"):
        assert found.steps[step] - 10 == pytest.approx((alone.steps[step] - 10) / 4)
    assert found.steps["fine_tune"] == alone.steps["fine_tune"]
    assert found.node_hours == pytest.approx(5 * found.total_s / 3600)
    assert found.cost == pytest.approx(2 * found.node_hours)


def test_interruptions_cost_time_money_and_sometimes_the_run() -> None:
    rare, often = (
        estimate_run(
            Plan(1_000_000, nodes=8, node_price=1.0,
                 interruptions=Interruptions(per_hour, 120, 300)), RATES)
        for per_hour in (0.0, 0.2)
    )  # fmt: skip
    assert rare.failure == 0
    assert 0 < often.failure < 1
    assert often.cost > rare.cost
    assert all(often.steps[step] >= seconds for step, seconds in rare.steps.items())
    assert often.steps["train_head"] > rare.steps["train_head"]
    without_checkpoints = estimate_run(replace(often.plan, work_dir=False), RATES)
    assert without_checkpoints.steps["fine_tune"] > 1.4 * often.steps["fine_tune"]
    with pytest.raises(InputError, match="no step would end"):
        never = Interruptions(1e6, 120, 1e6)
        estimate_run(Plan(1_000_000, interruptions=never), RATES)


@pytest.mark.parametrize(
    "values",
    [
        {"images": 0},
        {"node_price": -1},
        {"source_mb_s": 0},
        {"interruptions": Interruptions(per_hour=-0.1)},
        {"interruptions": Interruptions(checkpoint_s=0)},
        {"nodes": 0},
        {"node_mb_s": float("nan")},
        {"train_fraction": 0.9, "validation_fraction": 0.1},
    ],
)
def test_invalid_values_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        estimate_run(Plan(**{"images": 1000, **values}), RATES)


def test_the_command_prints_a_row_for_each_number_of_nodes(regraft: Regraft) -> None:
    ended = regraft("estimate", "--images", "1e8", "--nodes", 1, "--nodes", 16, "--json")
    assert ended.code == 0, ended.err
    assert [(one["images"], one["nodes"]) for one in ended.json] == [(10**8, 1), (10**8, 16)]
    assert "not cached" in regraft("estimate", "--images", "1e8").out
    priced = regraft("estimate", "--images", "1e6", "--nodes", 4, "--ray-cluster",
                     "--whole-artifacts",
                     "--node-price", "0.5", "--interruptions", "0.1")  # fmt: skip
    assert [name in priced.out for name in ("start_ray", "price", "to be resumed")] == [True] * 3
    assert regraft("estimate", "--images", "0").code == 2
    for flag in ("--extract-rate", "--image-kb"):
        ended = regraft("estimate", flag, "0")
        assert ended.code == 2
        assert f"{flag[2:].replace('-', '_')}: expected a number above 0" in ended.err
