"""Screenshots of the report by headless Chromium, without network."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from regraft_core.runtime.errors import InputError, RegraftError

NAMES = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge",
)  # fmt: skip
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--hide-scrollbars",
)  # fmt: skip
DEADLINE_S = 120.0


def find_chromium() -> str:
    """Return the path of the program.

    Raises:
        InputError: it is not installed.
    """
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        raise InputError("expected Chromium on the PATH, found none; apt-get install chromium")
    return found


def run_chromium(page: Path, *flags: str) -> str:
    """Open a page with more flags; return the output of Chromium.

    Raises:
        RegraftError: it failed or timed out.
    """
    with tempfile.TemporaryDirectory(prefix="regraft-chromium-") as profile:
        command = [find_chromium(), *FLAGS, f"--user-data-dir={profile}", *flags]
        try:
            done = subprocess.run(
                [*command, page.absolute().as_uri()],
                capture_output=True, text=True, timeout=DEADLINE_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise RegraftError(f"Chromium took more than {DEADLINE_S:g} s for {page}") from error
    if done.returncode != 0:
        raise RegraftError(f"Chromium failed on {page}: {' '.join(done.stderr.split())[-300:]}")
    return done.stdout


def capture_page(
    page: Path, target: Path, *, width_px: int = 1200, height_px: int = 1500, dark: bool = False
) -> None:
    """Write the top of a page to a PNG file, as a browser shows it.

    Args:
        page: an HTML file.
        target: the PNG file.
        width_px, height_px: size of the window, at least 500 px wide.
        dark: whether to prefer dark colors.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # Blink's values are 0 for dark and 1 for light.
    run_chromium(
        page, f"--screenshot={target.absolute()}", f"--window-size={width_px},{height_px}",
        f"--blink-settings=preferredColorScheme={int(not dark)}",
    )  # fmt: skip
    if not target.is_file():
        raise RegraftError(f"Chromium wrote no image of {page}")
