"""The page of all error messages, with links to the advice in `docs/help/troubleshooting.md`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from docs.error_messages import ROOT, Message

ADVICE = ROOT / "docs" / "help" / "troubleshooting.md"
TEXT = """
What Regraft can report, in alphabetical order by the part that reports it. `…` is what depends on
the case: a path, a number or an option. Search for the words around it. A command prints its
message as one line after `regraft: error:` and ends with the [exit code](exit-codes.md). A run
names the step before the message. A status such as `NOT_FOUND` is one of gRPC: the server has
replied with it; REST uses the matching HTTP status. Most messages name what was expected, what was
received, and the way out; a link leads to advice if there is more to say.
"""
# Title, and the start of the paths of the files that it has.
PARTS = (
    ("Reading images and making a dataset", "components/ingest/"),
    ("Reading images and making a dataset", "regraft_core/sources/"),
    ("Reading images and making a dataset", "regraft_core/images/"),
    ("Checks before a run, recipes and options", "components/resolve/"),
    ("Checks before a run, recipes and options", "pipelines/recipe"),
    ("Checks before a run, recipes and options", "regraft_core/formats/option"),
    ("Backbones and weights", "regraft_core/backbones/"),
    ("Features and training", "components/extract_features/"),
    ("Features and training", "components/merge_features/"),
    ("Features and training", "components/train_head/"),
    ("Features and training", "components/fine_tune/"),
    ("Features and training", "regraft_core/training/"),
    ("Evaluation and gate", "components/evaluate/"),
    ("Export, verification and publishing", "components/"),
    ("Export, verification and publishing", "serving/publishing/"),
    ("The server, and starting it", "serving/server/"),
    ("The server, and starting it", "serving/running/"),
    ("Clients", "regraft_client/"),
    ("Clients", "serving/client/"),
    ("Kubeflow", "pipelines/cluster/"),
    ("Runs on this machine", "pipelines/"),
    ("Commands and the Python API", "regraft/"),
    ("Files, machines and stores", "regraft_core/"),
)
_ENTRY = re.compile(r"^- `(.+)`$", re.MULTILINE)


def messages_page(note: str, messages: Iterable[Message]) -> str:
    """Return the page of all messages, with a link at those that have advice."""
    advice = read_advice(ADVICE.read_text(encoding="utf-8"))
    rows: dict[str, set[tuple[str, str]]] = {title: set() for title, _ in PARTS}
    for message in messages:
        rows[part_of(message)].add((message.text, message.code))
    lines = [note, "# Error messages", *TEXT.splitlines(), ""]
    for title, found in rows.items():
        lines += [f"## {title}", "", "| message | exit code or status | advice |", "|---|---|---|"]
        for text, code in sorted(found, key=lambda one: (one[0].strip("…: ").lower(), one)):
            anchor = advice.get(text)
            link = f"[advice](../help/troubleshooting.md#{anchor})" if anchor else ""
            lines.append(f"| {code_span(text)} | {code} | {link} |")
        lines.append("")
    return "\n".join(lines)


def part_of(message: Message) -> str:
    """Return the title of the part that a message belongs to."""
    return next(title for title, start in PARTS if message.path.startswith(start))


def read_advice(text: str) -> Mapping[str, str]:
    """Return the anchor of the advice for each message that the page of advice lists."""
    found = {}
    for section in re.split(r"^#+ ", text, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        anchor = re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
        found |= dict.fromkeys(_ENTRY.findall(body), anchor)
    return found


def code_span(text: str) -> str:
    """Return a text as code in a cell of a table."""
    mark = "``" if "`" in text else "`"
    pad = " " if "`" in text else ""
    return f"{mark}{pad}{text}{pad}{mark}".replace("|", "\\|")
