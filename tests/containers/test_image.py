"""The container image: rights, contents, labels, and a whole run in it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regraft_core.runtime.container_image import IMAGE
from regraft_core.runtime.version import VERSION

pytestmark = pytest.mark.containers


def test_its_user_is_1000_and_its_labels_describe_it(engine: Any) -> None:
    config = engine.images.get(IMAGE).attrs["Config"]
    assert config["User"] == "1000:1000"
    assert config["Labels"]["org.opencontainers.image.version"] == VERSION
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert not config.get("Entrypoint")


def test_its_settings_name_no_index(engine: Any) -> None:
    image = engine.images.get(IMAGE)
    assert not [value for value in image.attrs["Config"]["Env"] if "INDEX" in value]
    assert "://" not in str([layer.get("CreatedBy", "") for layer in image.history()])


@pytest.mark.parametrize("tool", ["gcc", "cc", "g++", "make", "ld", "nvcc"])
def test_it_has_no_compiler(in_image: Callable[..., str], tool: str) -> None:
    assert in_image("sh", "-c", f"command -v {tool} || echo none").strip() == "none"


@pytest.mark.parametrize("user", ["1000:1000", "12345:12345"])
def test_it_works_with_a_read_only_root_and_no_capabilities(
    in_image: Callable[..., str], user: str
) -> None:
    assert VERSION in in_image("regraft", "--version", user=user)
    program = "import keras; print(keras.layers.Dense(2)(keras.ops.ones((1, 3))).shape)"
    assert in_image("python", "-c", program, user=user).strip() == "(1, 2)"


def test_only_the_temporary_folder_can_be_written(in_image: Callable[..., str]) -> None:
    program = "touch /opt/regraft/x 2>/dev/null && echo wrote; touch /tmp/x && echo temporary"
    assert in_image("sh", "-c", program).split() == ["temporary"]


# The run of tests/package/test_wheel.py, by the image's own Python and with nothing mounted but the
# images: the built-in recipe, its report, a draft of a recipe, and the version served.
WHOLE_RUN = """
set -e
regraft --version
python -m regraft --version
regraft run digits --out runs/digits --backbone tiny --image-px 32 --cut auto \
    --strategies head --min-accuracy 0.1 --min-class-recall 0 \
    --baseline-rule off --recall-floor 0 >run.txt 2>&1 \
    || { cat run.txt; exit 1; }
regraft report runs/digits --no-open
regraft init /images -o mine.yaml
regraft serve runs/digits/models >server.txt 2>&1 &
for second in $(seq 120); do grep -q REST server.txt && break; sleep 1; done
regraft predict /images/circle/000.png --server grpc://127.0.0.1:8500 --model digits --json
kill $!
"""


def test_a_built_in_recipe_runs_and_is_served(in_image: Callable[..., str], shapes: Path) -> None:
    printed = in_image(
        "sh", "-c", WHOLE_RUN, network_mode="none", user=f"{os.getuid()}:{os.getgid()}",
        volumes={str(shapes): {"bind": "/images", "mode": "ro"}},
    )  # fmt: skip
    assert printed.splitlines()[:2] == [VERSION, VERSION]
    assert "/report.html" in printed
    assert re.search(r'"label": "\d"', printed), printed
