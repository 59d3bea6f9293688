"""The site builds without a warning, needs no other host, and documents all of the code."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import typer
from playwright.sync_api import Browser

import regraft
import regraft_client
from pipelines.recipes.recipe import OPTION_FIELDS
from regraft.cli.main import app
from regraft_core.formats import manifest_storage, manifests
from tests.docs.blocks import ROOT
from tests.page_checks import page_problems

LOADED = re.compile(r"""<(?:script|img|iframe)[^>]*\ssrc="([^"]+)"|<link[^>]*\shref="([^"]+)"|"""
                    r"""url\(\s*["']?([^)"']+)|@import\s+["']([^"']+)""")  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as by `make docs`."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    flags = re.search(r"-m sphinx (.*) docs build/docs", makefile)
    assert flags is not None
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", *flags[1].split(), "-d", str(out / "doctrees"),
               "docs", str(out / "html")]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return out / "html"


def test_the_site_loads_nothing_from_other_hosts(site: Path) -> None:
    found = {
        address
        for page in (*site.rglob("*.html"), *site.rglob("*.css"))
        for match in LOADED.finditer(page.read_text(encoding="utf-8"))
        for address in match.groups()
        if address and re.match(r"(https?:)?//", address)
    }
    assert found == set()


@pytest.mark.parametrize("name", ["index", "kubeflow", "several-labels"])
def test_pages_hold_up_on_a_phone_in_the_dark_and_for_screen_readers(
    name: str, site: Path, browser: Browser
) -> None:
    assert page_problems(browser, (site / f"{name}.html").as_uri()) == []


def test_the_search_finds_the_page_of_a_message(site: Path, browser: Browser) -> None:
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    page.fill("input[name=q]", "activations reach beyond float16")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li a")
    found = page.eval_on_selector_all("#search-results li a", "all => all.map(a => a.href)")
    assert any("reference/messages.html" in one for one in found)
    assert any("help/troubleshooting.html" in one for one in found)
    page.close()


def test_the_reference_has_every_command_option_and_key(site: Path) -> None:
    reference = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        assert f"\n## {name}\n" in reference
        for parameter in command.params:
            if parameter.opts[0].startswith("-"):
                assert f"`{parameter.opts[-1]}`" in reference
    recipe = (ROOT / "docs/reference/recipe.md").read_text(encoding="utf-8")
    assert [name for name in OPTION_FIELDS if f"| `{name}` |" not in recipe] == []


def test_the_reference_has_the_python_api(site: Path) -> None:
    page = (ROOT / "docs/reference/python.md").read_text(encoding="utf-8")
    for module in (regraft, regraft_client):
        missing = [n for n in module.__all__ if f"### `{module.__name__}.{n}`\n" not in page]
        assert missing == []


def formats() -> Iterator[type[manifest_storage.Record]]:
    """Yield the manifests and their parts."""
    names = [module.name for module in pkgutil.iter_modules(manifests.__path__)]
    for module in (manifest_storage, *(import_module(f"{manifests.__name__}.{n}") for n in names)):
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, manifest_storage.Record):
                yield kind


def test_the_reference_has_every_format(site: Path) -> None:
    page = (ROOT / "docs/reference/manifests.md").read_text(encoding="utf-8")
    for kind in formats():
        if issubclass(kind, manifest_storage.Manifest) and "file_name" in vars(kind):
            assert f"\n## {kind.__name__}\n" in page
            assert kind.file_name in page
        rows = [(f"| `{name}` |", f"| {field.description} |")
                for name, field in kind.model_fields.items()]  # fmt: skip
        lines = page.splitlines()
        assert [row for row in rows
                if not any(row[0] in line and row[1] in line for line in lines)] == []  # fmt: skip


def test_every_field_of_a_format_is_explained() -> None:
    unexplained = [
        f"{kind.__name__}.{name}"
        for kind in formats()
        for name, field in kind.model_fields.items()
        if not field.description
    ]
    assert unexplained == []


def test_links_of_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = [target for target in re.findall(r"\]\(([^)\s]+)", text) if "://" not in target]
    assert found
    for target in found:
        name, _, anchor = target.partition("#")
        page = ROOT / (name or "README.md")
        assert page.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in titles]
            assert anchor in anchors, target


def test_the_first_screen_of_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    first = "\n".join(lines[:60])
    for part in ("docs/images/report.png", "make install", "regraft run", "regraft serve",
                 "regraft predict", "make demo", "make test"):  # fmt: skip
        assert part in first


def test_the_picture_of_the_pipeline_has_the_names_of_its_steps() -> None:
    text = (ROOT / "docs/images/pipeline.svg").read_text(encoding="utf-8")
    named = re.findall(r'font-weight="600"[^>]*>(\w+)<', text)
    steps = [name for name in named if (ROOT / "components" / name / "component.py").exists()]
    assert steps == ["ingest", "extract_features", "train_head", "fine_tune", "evaluate",
                     "export", "verify", "publish"]  # fmt: skip
