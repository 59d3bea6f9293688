"""Checks the commands and the Python of the pages without running them."""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
import re
from typing import Any

import typer

from pipelines.recipes.recipe import Recipe, make_recipe
from pipelines.recipes.recipe_file import with_recipe
from regraft.cli.main import app
from tests.docs.blocks import ROOT

# Programs of others, of which only the name is checked.
FOREIGN = frozenset({
    "apt-get", "base64", "cat", "cd", "chromium", "cp", "cut", "docker", "echo", "export", "git",
    "head", "ls", "mkdir", "mv", "nvidia-smi", "pip", "rm", "saved_model_cli", "sha256sum",
    "sleep", "sort", "source", "tail", "tar", "tensorflow_model_server", "tr", "unzip", "kill",
})  # fmt: skip
ROUTE = re.compile(
    r"/v1/models/[\w.-]+(/versions/\d+|/labels/[\w.-]+)?(:predict|:classify|:regress|/metadata)?"
    r"|/v2(/health/(live|ready)|/models/[\w.-]+(/versions/[\w.-]+)?(/infer|/ready)?)?"
)


def problem_of(words: list[str]) -> str | None:
    """Return the problem of a command, or None."""
    program, *rest = words
    if program == "regraft":
        return _regraft(rest)
    if program == "make":
        return _make(rest)
    if program == "curl":
        return _curl(rest)
    if program in ("python", "python3"):
        return _python(rest)
    if program == "kubectl":
        return _paths(rest, after=("-k", "-f"))
    return None if program in FOREIGN else f"unknown program {program!r}"


def _regraft(arguments: list[str]) -> str | None:
    """Parse the arguments with the real command line, and check the values of the recipe."""
    group: Any = typer.main.get_command(app)
    while arguments and arguments[0].startswith("-"):
        arguments = arguments[1:]
    if not arguments:
        return None
    name, *rest = arguments
    if name not in group.commands:
        return f"regraft has no command {name!r}"
    if {"-h", "--help"} & set(rest):
        return None
    command = group.commands[name]
    try:
        given = command.make_context(name, list(rest)).params
        if name in ("run", "compile", "submit"):
            _check_recipe(given)
    except typer.TyperException as error:
        return f"regraft {name}: {error.format_message()}"
    except Exception as error:
        return f"regraft {name}: {error}"
    return None


def _check_recipe(given: dict[str, Any]) -> None:
    values = {name: value for name, value in given.items()
              if name in Recipe.model_fields and value not in (None, [], ())}  # fmt: skip
    for name, value in values.items():
        if "tuple" in str(Recipe.model_fields[name].annotation) and isinstance(value, str):
            values[name] = value.split(",")
    recipe = given.get("recipe") or ""
    own = "/" in recipe or recipe.endswith(".yaml") or recipe.isupper()
    if recipe and not own:  # built-in; a reader's own file is checked as a block
        values = with_recipe(recipe, values)
    make_recipe(**{"sources": ("sample:digits",), **values})


def _make(targets: list[str]) -> str | None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    unknown = [t for t in targets if "=" not in t and not t.startswith("-") and t not in known]
    return f"Makefile has no target {unknown}" if unknown else None


def _curl(arguments: list[str]) -> str | None:
    """Check that a URL of a local server is one that it has."""
    addresses = [a for a in arguments if re.match(r"(https?://)?(127\.0\.0\.1|localhost):\d+", a)]
    if not addresses:
        return "curl: expected the URL of a local server"
    monitoring = (ROOT / "serving/config/monitoring.config").read_text(encoding="utf-8")
    for address in addresses:
        path = re.sub(r"^(https?://)?[^/]*", "", address)
        if not (ROUTE.fullmatch(path) or f'"{path}"' in monitoring):
            return f"curl: the server has no {path!r}"
    return None


def _python(arguments: list[str]) -> str | None:
    if arguments[:1] == ["-c"]:
        return python_problem(arguments[1])
    if arguments[:1] != ["-m"]:
        return _paths(arguments[:1])
    module = arguments[1]
    if not _is_module(module):
        return f"python: no module {module}"
    if module == "pytest":
        return _paths([a for a in arguments[2:] if a.endswith(".py") or a.startswith("tests/")])
    return None


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _paths(arguments: list[str], after: tuple[str, ...] = ()) -> str | None:
    """Check that files of the project exist: all of them, or those after a flag."""
    named = [
        value for flag, value in zip(["", *arguments], arguments, strict=False)
        if not after or flag in after
    ]  # fmt: skip
    missing = [p for p in named if "://" not in p and p != "-" and not (ROOT / p).exists()]
    return f"no such file in the project: {missing}" if missing else None


def python_problem(source: str) -> str | None:
    """Return the problem of a Python block, or None: its syntax, imports or names."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            missing = [alias.name for alias in node.names if not hasattr(module, alias.name)
                       and not _is_module(f"{node.module}.{alias.name}")]  # fmt: skip
            if missing:
                return f"{node.module} has no {missing}"
    unbound = sorted(_loaded(tree) - _bound(tree) - set(dir(builtins)) - {"__file__", "__name__"})
    return f"undefined names: {unbound}" if unbound else None


def _loaded(tree: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def _bound(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
    return names
