"""Mistakes of new users: one line on standard error, before anything is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command_line import Regraft


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "run --out OUT",
            "sources: expected a folder of images, a recipe or --source, got none; "
            "`regraft run FOLDER`",
        ),
        ("run mine.yaml --out OUT", "found no file mine.yaml"),
        (
            "run --source x --backbone tiny --out FILE",
            "out: cannot write to FILE: FILE is not",
        ),
        ("run --source x --backbone tiny --out FILE/run", "FILE/run: FILE is not a folder"),
        ("run digits --destination shop://models --out OUT", "s3:// or gs://, got shop://"),
        ("serve OUT --port 99999", "port: expected 0 to 65535, got 99999"),
        ("run digits --lr 1e-3", "unknown option '--lr'; did you mean --learning-rate?"),
        ("run digits --img-size 64", "did you mean --image-px?"),
        ("run digits --epochs 3", "did you mean --fine-tune-epochs?"),
        ("run digits --model vgg16", "did you mean --backbone?"),
        ("run digits --batch 8", "did you mean --batch-size?"),
        ("run digits --augmentation light", "did you mean --augment?"),
        ("run digits --averaging 0.9", "did you mean --ema-momentum?"),
        ("run digits --label canary", "did you mean --version-label?"),
        ("run digits --pictures 8", "did you mean --verify-images?"),
        ("run digits --cache DIR", "did you mean --download-cache?"),
        ("estimate --pictures 1e6", "did you mean --images?"),
        ("inspect vgg16 --plan top", "did you mean --strategy?"),
        ("classify cat.png --top 3", "did you mean --top-k?"),
        ("doctor --work runs", "did you mean --runs-dir?"),
        ("report runs/x --picture x.png", "did you mean --screenshot?"),
        ("predict cat.png --label stable", "did you mean --version-label?"),
        ("plan --images 5", "unknown command 'plan'; did you mean estimate?"),
        ("train digits", "unknown command 'train'; did you mean run?"),
        ("run imges", "unknown recipe or folder 'imges'; "),
        ("run digits --bakcbone vgg16", "unknown option '--bakcbone'; did you mean --backbone?"),
        ("run digits --zzz 1", "unknown option '--zzz'. See 'regraft run --help'"),
    ],
)
def test_a_mistake_is_one_line_with_exit_code_2(
    regraft: Regraft, tmp_path: Path, words: str, message: str
) -> None:
    paths = {"OUT": tmp_path / "out", "FILE": tmp_path / "file"}
    paths["FILE"].touch()
    for name, path in paths.items():
        words, message = words.replace(name, str(path)), message.replace(name, str(path))
    ended = regraft(*words.split())
    assert ended.code == 2
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert not paths["OUT"].exists()


def test_a_path_with_a_space_is_quoted_in_the_next_command(
    regraft: Regraft, shapes: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "my recipe.yaml"
    ended = regraft("init", shapes, "-o", recipe)
    assert f"next: regraft run '{recipe}' --out" in ended.out


def test_ingest_prints_progress_to_standard_error(
    regraft: Regraft, shapes: Path, tmp_path: Path
) -> None:
    ended = regraft("ingest", shapes, "--out", tmp_path / "dataset", "--processes", 1)
    assert ended.code == 0
    assert ended.out.startswith(f"{tmp_path / 'dataset'}: 3 classes, ")
    assert ended.err.startswith("ingest: 3 classes; ")
