from __future__ import annotations

from pathlib import Path

import pytest

from components.verify.served_variants import served_variants
from tests.exported_model import write_manifest


@pytest.mark.parametrize(
    ("engines", "precisions", "names"),
    [
        (["tf"], ["float32"], []),
        (["tf"], ["float32", "bfloat16"], ["in bfloat16"]),
        (["tf", "openvino"], ["float32"], ["with OpenVINO"]),
        (
            ["tf", "openvino"],
            ["float32", "bfloat16"],
            ["in bfloat16", "with OpenVINO", "with OpenVINO in bfloat16"],
        ),
    ],
)
def test_every_combination_that_may_be_served_is_verified(
    tmp_path: Path, engines: list[str], precisions: list[str], names: list[str]
) -> None:
    manifest = write_manifest(tmp_path)
    changes = {"serving_engines": engines, "serving_precisions": precisions}
    found = served_variants(manifest.model_copy(update=changes))
    assert [variant.name for variant in found] == names
    for variant in found:
        assert ("OpenVINO" in variant.name) == (variant.server == "embedded")
        assert ("OpenVINO" in variant.name) == ("--serving_engine=openvino" in variant.flags)
        assert ("bfloat16" in variant.name) == ("--mixed_precision=bfloat16" in variant.flags)
        assert variant.tolerance == (0.05 if "bfloat16" in variant.name else 1e-3)
