"""Each message of the product is on the page of messages, and advice is for messages that exist."""

from __future__ import annotations

import ast
import re

import pytest

from docs.error_messages import FOLDERS, UNKNOWN, Message, collect_messages
from docs.reference_messages import ADVICE, messages_page, read_advice
from regraft.cli.windows_paths import check_paths
from regraft_core.formats.option_parsing import parse_options
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.runtime.errors import InputError, unknown_name
from tests.docs.blocks import ROOT

# Errors of Python and of libraries, and those that are always caught.
CAUGHT = {
    "AssertionError", "AttributeError", "KeyError", "ValueError", "argparse.ArgumentTypeError",
    "csv.Error", "pickle.UnpicklingError", "NotModifiedError", "RefusedHostError",
    "TransientError", "_AlreadyPublishedError", "_TooLargeError",
}  # fmt: skip


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    return collect_messages()


def matches(text: str, messages: list[Message]) -> list[Message]:
    """Return the messages whose texts can be `text`."""
    parts = {one: map(re.escape, one.text.split(UNKNOWN)) for one in messages}
    return [one for one, texts in parts.items() if re.fullmatch(".*".join(texts), text)]


def test_advice_is_for_messages_that_exist(messages: list[Message]) -> None:
    advice = read_advice(ADVICE.read_text(encoding="utf-8"))
    assert len(advice) > 50
    texts = {message.text for message in messages}
    assert [text for text in advice if text not in texts] == []


def test_messages_with_advice_link_to_it(messages: list[Message]) -> None:
    page = messages_page("", messages)
    advice = read_advice(ADVICE.read_text(encoding="utf-8"))
    assert set(re.findall(r"troubleshooting\.md#([\w-]+)", page)) == set(advice.values())


def test_the_page_has_every_text_that_an_error_is_raised_with(messages: list[Message]) -> None:
    """The texts are found in another way: as the constants of all `raise SomethingError(...)`."""
    page = messages_page("", messages)
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                call = node.exc if isinstance(node, ast.Raise) else None
                if not isinstance(call, ast.Call) or not call.args:
                    continue
                name = ast.unparse(call.func)
                if name.endswith("Error") and name not in CAUGHT:
                    assert [one for one in constants(call.args[0]) if one not in page] == [], path


def constants(node: ast.expr) -> list[str]:
    """Return the first constant of a text."""
    values = node.values if isinstance(node, ast.JoinedStr) else [node]
    texts = [one.value for one in values if isinstance(one, ast.Constant)]
    return [" ".join(text.split()) for text in texts[:1] if isinstance(text, str)]


def test_messages_that_are_raised_are_found(messages: list[Message]) -> None:
    with pytest.raises(InputError) as windows:
        check_paths([r"C:\photos"])
    with pytest.raises(InputError) as option:
        parse_options(IngestOptions, seed="x")
    for error, path in (
        (windows.value, "regraft/cli/windows_paths.py"),
        (option.value, "regraft_core/formats/option_parsing.py"),
        (unknown_name("backbone", "vgg", ["vgg16"]), "regraft_core/runtime/errors.py"),
    ):
        codes = {one.code for one in matches(str(error), messages) if one.path == path}
        assert codes == {str(error.exit_code)}


def test_codes_are_those_of_the_classes(messages: list[Message]) -> None:
    codes = {message.text: message.code for message in messages}
    assert codes["export: expected an accepted model, got a rejected one"] == "3"
    assert codes["…: a worker process was killed … times; is there enough memory?"] == "1"
    assert codes["found no readable image"] == "2"
    assert codes["the body is larger than … bytes"] == "RESOURCE_EXHAUSTED"
    assert codes["ModelSpec has no name specified."] == "INVALID_ARGUMENT"
    assert "" not in codes.values()
