"""Each command of docs/kubeflow.md: is run, or run with `--dry-run`, or its files are checked."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest
import yaml
from PIL import Image

from regraft_core.formats.content_store import ContentStore
from tests.command_line import Regraft
from tests.pipelines.cluster.kfp_server import kfp_server

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/kubeflow.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [shlex.split(line) for block in BLOCKS
            for line in block.replace("\\\n", " ").splitlines()]  # fmt: skip
REGRAFT = [words[1:] for words in COMMANDS if words[0] == "regraft"]


@pytest.fixture(scope="module")
def reader_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of a reader of the page: images and a token."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("cat", "dog"):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (40, 40), (number, 0, 0)).save(
                folder / "images" / name / f"{number}.png"
            )
    (folder / "token").write_text("abc")
    return folder


@pytest.mark.parametrize("words", REGRAFT, ids=" ".join)
def test_a_regraft_command_of_the_page_works(
    words: list[str], reader_folder: Path, regraft: Regraft, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(reader_folder)
    if "pets.yaml" in words and words[0] != "init" and not Path("pets.yaml").exists():
        assert regraft("init", "./images", "-o", "pets.yaml").code == 0
    if words[0] == "init":
        words = [*words, "--force"]
    if "--resume" in words:
        return  # see the next test
    if words[0] == "submit":
        words = [word for word in words if word not in ("--dry-run", "--wait")] + ["--dry-run"]
    if words[0] == "gc":
        ContentStore("store").generation()
        words = ["store" if "://" in word else word for word in words]
    if words[0] in ("predict", "bench", "run") or "--from-run" in words:
        # They need a server, minutes, or runs.
        words = [words[0], "--help"]
    ended = regraft(*words)
    assert ended.code == 0, ended.err
    if words[0] == "compile":
        documents = list(yaml.safe_load_all(Path("pipeline.yaml").read_text()))
        assert documents[0]["root"]["inputDefinitions"]["parameters"]["sources"]


def test_the_page_resumes_a_run(regraft: Regraft) -> None:
    (words,) = (words for words in REGRAFT if "--resume" in words)
    with kfp_server() as server:
        real = {"http://127.0.0.1:8080": server.address, "RUN_ID": "run-1"}
        sent = regraft("submit", "digits", "--host", server.address, "--destination", "s3://a/b")
        assert sent.code == 0, sent.err
        server.runs["run-1"].state = "FAILED"
        ended = regraft(*(real.get(word, word) for word in words), "--poll-s", "0.01")
        assert ended.code == 0, ended.err
        assert len(server.runs) == 2


def test_links_within_the_page_lead_to_its_headings() -> None:
    headings = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", one.lower()).replace(" ", "-") for one in headings}
    links = set(re.findall(r"\]\(#([^)]+)\)", PAGE))
    assert {"resume-a-run", "what-the-cache-reuses"} <= links <= anchors


def test_the_page_has_a_command_for_each_task() -> None:
    ours = {words[0] for words in REGRAFT}
    assert ours >= {"init", "compile", "submit", "estimate", "predict"}
    others = {words[0] for words in COMMANDS} - {"regraft"}
    assert others == {"export", "kubectl", "make", "docker"}


def test_the_files_for_kubectl_exist() -> None:
    for words in COMMANDS:
        for option, value in itertools.pairwise(words):
            if words[0] == "kubectl" and option in ("-f", "-k") and "://" not in value:
                assert (ROOT / value).exists(), value


def test_pvc_and_model_are_those_that_serving_reads() -> None:
    claim = yaml.safe_load((ROOT / "serving/k8s/base/pvc.yaml").read_text())["metadata"]["name"]
    served = (ROOT / "serving/k8s/base/models.config").read_text()
    submits = [" ".join(words) for words in REGRAFT if "--pvc" in words]
    assert submits
    for command in submits:
        assert f"--pvc {claim}=/models" in command
        assert "--model-name images --destination /models" in command
    assert '"/models/images"' in served
