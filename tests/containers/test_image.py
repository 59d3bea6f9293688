"""The image: rights, contents, labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from regraft_core.runtime.container_image import IMAGE
from regraft_core.runtime.version import VERSION

pytestmark = pytest.mark.containers


def test_its_user_is_1000_and_its_labels_say_what_it_is(engine: Any) -> None:
    config = engine.images.get(IMAGE).attrs["Config"]
    assert config["User"] == "1000:1000"
    assert config["Labels"]["org.opencontainers.image.version"] == VERSION
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert not config.get("Entrypoint")


def test_no_index_stands_in_its_settings(engine: Any) -> None:
    image = engine.images.get(IMAGE)
    assert not [value for value in image.attrs["Config"]["Env"] if "INDEX" in value]
    assert "://" not in str([layer.get("CreatedBy", "") for layer in image.history()])


@pytest.mark.parametrize("tool", ["gcc", "cc", "g++", "make", "ld", "nvcc"])
def test_no_compiler_is_left_in(in_image: Callable[..., str], tool: str) -> None:
    assert in_image("sh", "-c", f"command -v {tool} || echo none").strip() == "none"


@pytest.mark.parametrize("user", ["1000:1000", "12345:12345"])
def test_it_works_with_a_read_only_root_and_no_capabilities(
    in_image: Callable[..., str], user: str
) -> None:
    assert VERSION in in_image("regraft", "--version", user=user)
    program = "import keras; print(keras.layers.Dense(2)(keras.ops.ones((1, 3))).shape)"
    assert in_image("python", "-c", program, user=user).strip() == "(1, 2)"


def test_nothing_but_the_temporary_folder_can_be_written(in_image: Callable[..., str]) -> None:
    program = "touch /opt/regraft/x 2>/dev/null && echo wrote; touch /tmp/x && echo temporary"
    assert in_image("sh", "-c", program).split() == ["temporary"]


def test_steps_carry_their_templates(in_image: Callable[..., str]) -> None:
    program = (
        "from pathlib import Path; import components.evaluate as step; "
        "print({path.suffix for path in Path(step.__path__[0]).iterdir()})"
    )
    assert "'.j2'" in in_image("python", "-c", program)
