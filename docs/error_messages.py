"""Collects the error messages of the product from its code, without running it.

A message is the text that an error class of the product is called with, or a function that returns
an error with its first argument as the message. What is only known at run time becomes `…`. Errors
that only pass on the message of another one have none of their own.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (
    "regraft", "pipelines", "components", "serving/server", "serving/running",
    "serving/publishing", "serving/client/regraft_client", "regraft_core",
)  # fmt: skip
# Where the classes of errors start: the product's own, the client's and the server's.
BASES = ("RegraftError", "RegraftClientError", "ServingError")
UNKNOWN = "…"
_MOST_TEXTS = 8
_WORDS = re.compile(r"[A-Za-z]{3}")
_STATUS_NAME = re.compile(r"[A-Z_]+")
Definition = tuple[str, str]


@dataclass(frozen=True, order=True)
class Message:
    """A message: its text, the file that has it, and what a command ends or a server replies with.

    `code` is an exit code such as `2`, or the name of a status of the server.
    """

    path: str
    text: str
    code: str


def collect_messages() -> list[Message]:
    """Return all messages, by file and text."""
    paths = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    trees = {
        _module(path): (path, ast.parse(path.read_text(encoding="utf-8")))
        for path in paths
        if not path.name.endswith("_pb2.py")
    }
    names = {module: _names_of(module, tree) for module, (_, tree) in trees.items()}
    codes = _exit_codes(trees, names)
    codes |= _codes_of_functions(trees, names, codes)
    found = {
        Message(path.relative_to(ROOT).as_posix(), text, code)
        for module, (path, tree) in trees.items()
        for text, code in _File(tree, names[module], codes).messages()
    }
    return sorted(found)


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removeprefix("serving.client.").removesuffix(".__init__")


def _names_of(module: str, tree: ast.Module) -> dict[str, Definition]:
    """Return what a module defines or imports, by its name there."""
    found: dict[str, Definition] = {}
    package = module.rpartition(".")[0]
    for node in _statements(tree):
        if isinstance(node, ast.ImportFrom):
            source = f"{package}.{node.module}" if node.level else node.module or ""
            found |= {one.asname or one.name: (source, one.name) for one in node.names}
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node.name] = module, node.name
    return found


def _exit_codes(
    trees: Mapping[str, tuple[Path, ast.Module]], names: Mapping[str, Mapping[str, Definition]]
) -> dict[Definition, str]:
    """Return the exit code of each class of errors, of the server's the status, "" if it varies."""
    classes = {
        (module, node.name): node
        for module, (_, tree) in trees.items()
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }

    def code_of(key: Definition) -> str | None:
        node = classes.get(key)
        if node is None:
            return None
        for line in node.body:
            if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "exit_code":
                return ast.unparse(line.value)
        if status := re.search(r"super\(\)\.__init__\(Code\.(\w+)", ast.unparse(node)):
            return status[1]
        if node.name in BASES:
            return "" if node.name == "ServingError" else "1"
        bases = [names[key[0]].get(ast.unparse(base)) for base in node.bases]
        return next((code for base in bases if base and (code := code_of(base)) is not None), None)

    found = {key: code for key in classes if (code := code_of(key)) is not None}
    # The command line ends with 2 for this error of the client.
    return found | {("regraft_client.errors", "InvalidInputError"): "2"}


def _codes_of_functions(
    trees: Mapping[str, tuple[Path, ast.Module]],
    names: Mapping[str, Mapping[str, Definition]],
    codes: Mapping[Definition, str],
) -> dict[Definition, str]:
    """Return the code of each function that returns an error with its first argument as message."""
    found = {}
    for module, (_, tree) in trees.items():
        for function in tree.body:
            if not isinstance(function, ast.FunctionDef) or not function.args.args:
                continue
            for node in _statements(function):
                call = node.value if isinstance(node, ast.Return) else None
                if not isinstance(call, ast.Call) or not call.args:
                    continue
                kind = names[module].get(ast.unparse(call.func))
                if kind in codes and ast.unparse(call.args[-1]) == function.args.args[0].arg:
                    status = _status_of(call)
                    found[module, function.name] = status or codes[kind]
    return found


def _status_of(call: ast.Call) -> str:
    """Return the name of the status that an error of the server is made with, if it is."""
    status = re.fullmatch(r"Code\.(\w+)", ast.unparse(call.args[0]))
    return status[1] if status else ""


class _File:
    """The messages of one file."""

    def __init__(
        self, tree: ast.Module, names: Mapping[str, Definition], codes: Mapping[Definition, str]
    ) -> None:
        self._tree = tree
        self._codes = {name: codes[key] for name, key in names.items() if key in codes}
        self._functions = {n.name: n for n in _statements(tree) if isinstance(n, ast.FunctionDef)}

    def messages(self) -> Iterator[tuple[str, str]]:
        """Yield texts and codes."""
        for scope in self._scopes() if self._codes else ():
            for node in _own_nodes(scope):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    yield from self._of_call(node, node.func.id, scope)

    def _scopes(self) -> Iterator[ast.AST]:
        yield self._tree
        yield from (n for n in _statements(self._tree) if isinstance(n, ast.FunctionDef))

    def _of_call(self, call: ast.Call, name: str, scope: ast.AST) -> Iterator[tuple[str, str]]:
        if name not in self._codes or not call.args:
            return
        status = _status_of(call)
        arguments = call.args[1:] if status else call.args
        for text in self._texts(arguments[0], scope) if arguments else ():
            flat = " ".join(text.split())
            if _WORDS.search(flat) and not _STATUS_NAME.fullmatch(flat):
                yield flat, status or self._codes[name]

    def _texts(self, node: ast.expr, scope: ast.AST, depth: int = 0) -> list[str]:
        """Return the texts that an expression can have, `…` if they are not known."""
        if depth > 5:
            return [UNKNOWN]
        if isinstance(node, ast.Constant):
            return [node.value] if isinstance(node.value, str) else [UNKNOWN]
        if isinstance(node, ast.FormattedValue):
            return [UNKNOWN]
        parts: list[ast.expr] = []
        if isinstance(node, ast.JoinedStr):
            parts = node.values
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            parts = [node.left, node.right]
        if parts:
            choices = [self._texts(part, scope, depth + 1) for part in parts]
            joined = ("".join(one) for one in itertools.product(*choices))
            return list(itertools.islice(joined, _MOST_TEXTS))
        values: list[ast.expr] = []
        if isinstance(node, ast.IfExp):
            values = [node.body, node.orelse]
        elif isinstance(node, ast.Name):
            values = list(_values_of(node.id, scope))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            scope = self._functions.get(node.func.id, scope)
            values = [
                one.value
                for one in _own_nodes(scope)
                if isinstance(one, ast.Return) and one.value and scope is not self._tree
            ] if node.func.id in self._functions else []  # fmt: skip
        found = [text for value in values for text in self._texts(value, scope, depth + 1)]
        return found or [UNKNOWN]


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements in a module or statement, of functions and classes too."""
    for part in ("body", "orelse", "finalbody", "handlers", "cases"):
        for child in getattr(node, part, ()):
            yield child
            yield from _statements(child)


def _own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a module or function, without those of functions in it."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, ast.FunctionDef):
            yield child
            yield from _own_nodes(child)


def _values_of(name: str, scope: ast.AST) -> Iterator[ast.expr]:
    """Yield what is assigned to a name in a function, if every assignment is that simple."""
    for node in _own_nodes(scope):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr):
            targets = [node.target]
        if [ast.unparse(one) for one in targets] == [name] and node.value:
            yield node.value
