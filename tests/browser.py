"""The browser that tests of pages run in.

`make test` starts `python -m tests.browser` first. It installs Debian's Chromium if no browser
starts and no question is needed (as root, with apt-get). Without a browser these tests are
skipped; in CI (`CI=true`) they fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from playwright.sync_api import Browser, Error, Playwright, sync_playwright

from regraft.cli.screenshot import find_chromium
from regraft_core.runtime.errors import InputError

# Playwright's own Node.js needs libatomic, which slim systems lack.
PACKAGES = ("chromium", "fonts-dejavu-core", "libatomic1")
MISSING = (
    "no browser found; install Chromium, Chrome or Edge (and libatomic1 on a slim system), "
    "or run .venv/bin/playwright install firefox"
)


def launch(playwright: Playwright) -> Browser | None:
    """Return the first browser that starts: an installed one, otherwise one of Playwright's."""
    choices = [
        (playwright.chromium, {"channel": "chrome"}),
        (playwright.chromium, {"channel": "msedge"}),
        (playwright.chromium, {}),
        (playwright.firefox, {}),
    ]
    with suppress(InputError):
        choices.insert(0, (playwright.chromium, {"executable_path": find_chromium()}))
    for kind, options in choices:
        try:
            return kind.launch(**options)
        except Error as error:
            if "exist" not in str(error) and "not found" not in str(error):
                raise
    return None


@contextmanager
def running_browser() -> Iterator[Browser | None]:
    """Yield a browser, or nothing if there is none."""
    with ExitStack() as stack:
        try:
            playwright = stack.enter_context(sync_playwright())
        except Exception as error:  # Playwright raises nothing narrower
            if "driver" not in str(error):
                raise
            yield None  # its Node.js does not start on this system
            return
        browser = launch(playwright)
        yield browser
        if browser is not None:
            browser.close()


def install() -> bool:
    """Install Chromium if that needs no question; return whether it was done."""
    if os.name != "posix" or os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    print(f"Installing {' and '.join(PACKAGES)} for the browser tests.", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    commands = (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES])
    return all(
        subprocess.run(
            ["apt-get", *command], env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, check=False,
        ).returncode == 0
        for command in commands
    )  # fmt: skip


def name_browser() -> str:
    """Return the name and the version of the browser, or nothing."""
    with running_browser() as browser:
        return f"{browser.browser_type.name} {browser.version}" if browser else ""


if __name__ == "__main__":
    name = name_browser() or (install() and name_browser())
    print(f"Browser tests: {name or MISSING}")
