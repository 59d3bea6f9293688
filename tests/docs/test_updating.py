"""Printed outputs replace those of the pages, without the lines that a page leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import blocks_of
from tests.docs.running import Exchange
from tests.docs.updating import updated_output, updated_page

PAGE = """\
<!-- test: run -->
```console
$ regraft run digits \\
>     --out runs/x
step 1: loss 0.5
...
accuracy 0.97
$ regraft report runs/x
.../report.html
```

<!-- test: run -->
```python
print(1)
```

<!-- test: output -->
```text
value 1
```
"""


@pytest.mark.parametrize(
    ("shown", "printed", "updated"),
    [
        ("a 1\nb 2", "a 3\nb 4", "a 3\nb 4"),
        ("a 1\n...\nend 2", "a 3\nb\nc\nend 4", "a 3\n...\nend 4"),
        ("...\nend 2", "a\nend 4\n", "...\nend 4"),
        ("start 1\n...", "start 2\na\nb", "start 2\n..."),
        ("first\nlast", "first\nnew\nlast", "first\nnew\nlast"),
        ("first\ngone\nlast", "first\nlast", "first\nlast"),
        ("epoch 1/9: 5\n...\nepoch 9/9: 1", "epoch 1/9: 6\nepoch 2/9: 4\nepoch 9/9: 2",
         "epoch 1/9: 6\n...\nepoch 9/9: 2"),
        ("report .../x.html", "report /tmp/a/x.html", "report .../x.html"),
        ("┃ image ┃ truth ┃", "┃ image    ┃ true class ┃", "┃ image    ┃ true class ┃"),
        ("the accuracy is 5", "the accuracy of all is 6", "the accuracy of all is 6"),
    ],
)  # fmt: skip
def test_lines_that_correspond_are_replaced(shown: str, printed: str, updated: str) -> None:
    assert updated_output(shown, printed) == updated.splitlines()


def test_all_outputs_of_a_page_are_replaced(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text(PAGE)
    console, _, output = blocks_of(file)
    (run, run_shown), (report, report_shown) = console.exchanges
    updated = updated_page(PAGE, [
        Exchange(console, run, run_shown, "step 1: loss 0.7\nstep 2\naccuracy 0.99\n"),
        Exchange(console, report, report_shown, "/tmp/y/report.html\n"),
        Exchange(output, "", output.text, "value 2\nvalue 3\n"),
    ])  # fmt: skip
    assert updated == (
        PAGE.replace("loss 0.5", "loss 0.7")
        .replace("accuracy 0.97", "accuracy 0.99")
        .replace("value 1", "value 2\nvalue 3")
    )
