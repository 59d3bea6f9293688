"""The search for the learning rate, without a model."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from components.fine_tune.rate_search import LEARNING_RATES, round_epochs, search_rate
from regraft_core.training.loop import DivergedError

NOISE = np.random.default_rng(0).normal(0, 0.1, 200)
NOISE -= NOISE.mean()
HEAD = np.full(200, 1.0)


def search(gains: dict[float, float | None]) -> tuple[float, bool, str]:
    """Search with trainings that change the losses by `gains`, None for one that diverges."""

    def train(rate: float) -> NDArray[np.floating]:
        gain = gains.get(rate)
        if gain is None:
            raise DivergedError("the loss became nan")
        return HEAD - gain + NOISE

    found = search_rate(train, HEAD, 1)
    return found.best.learning_rate, found.promising, found.sentence()


def test_the_rate_with_the_lowest_loss_is_chosen() -> None:
    low, middle, high = LEARNING_RATES
    rate, promising, sentence = search({low: 0.0, middle: 0.2, high: None})
    assert (rate, promising) == (middle, True)
    assert f"{middle:.0e} -0.2000 ± 0.0068, " in sentence
    assert f"{high:.0e} diverged: {middle:.0e} was chosen" in sentence


@pytest.mark.parametrize("gain", [0.0, -0.5, None])
def test_without_a_gain_the_search_ends_there(gain: float | None) -> None:
    _, promising, sentence = search(dict.fromkeys(LEARNING_RATES, gain))
    assert not promising
    assert "no gain over the head, so the training ended there" in sentence


@pytest.mark.parametrize(("epochs", "expected"), [(1, 1), (8, 1), (10, 1), (20, 2), (90, 10)])
def test_all_short_trainings_have_a_third_of_the_epochs(epochs: int, expected: int) -> None:
    assert round_epochs(epochs) == expected
