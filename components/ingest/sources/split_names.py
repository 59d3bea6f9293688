"""Names of splits, as folders and tables have them."""

from __future__ import annotations

import re

from regraft_core.formats.manifests.dataset import Split

_WORDS: dict[Split, str] = {
    "train": "train|training|trn",
    "validation": "validation|valid|val|dev|development|eval|evaluation",
    "test": "test|testing|tst|holdout",
}
_NAME = r"({})(?:[ _.-]?(?:set|split|data|images|imgs))?(?:[ _.-]?\d{{1,4}})?"
EXAMPLES = "train, validation (val, dev) and test, also as training_set or test1"


def split_of_name(name: str) -> Split | None:
    """Return the split that a name stands for, such as `val`, `training_set` or `test1`."""
    for split, words in _WORDS.items():
        if re.fullmatch(_NAME.format(words), name.strip(), re.IGNORECASE):
            return split
    return None
