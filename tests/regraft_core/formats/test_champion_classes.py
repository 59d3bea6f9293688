"""A champion has the classes and the number of labels of a new model, or is refused."""

from __future__ import annotations

import pytest

from regraft_core.formats.champion_classes import ChampionClasses
from regraft_core.runtime.errors import InputError


def test_a_champion_with_another_number_of_labels_is_refused() -> None:
    for own, other in (("one", "several"), ("several", "one")):
        champion = ChampionClasses("pets version 1", ["cat", "dog"], own)
        champion.check(["dog", "cat"], own)
        with pytest.raises(InputError, match=f"pets version 1 predicts {own} label"):
            champion.check(["dog", "cat"], other)
    ChampionClasses("pets version 1", ["cat", "dog"]).check(["cat", "dog"], "several")
