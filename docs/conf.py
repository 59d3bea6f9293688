"""Settings of the site. The reference is written from the code before Sphinx reads the pages."""

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from docs.accessible_pages import complete_pages  # noqa: E402
from docs.reference_pages import write_pages  # noqa: E402
from regraft_core.runtime.version import VERSION  # noqa: E402

write_pages(HERE / "reference")

project = "Regraft"
release = VERSION
extensions = ["myst_parser"]
exclude_patterns = ["images"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = f"Regraft {VERSION}"
html_static_path = ["static"]
html_css_files = ["regraft.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
# The site loads no fonts, scripts or images from other hosts, so it works without a network.
html_theme_options = {"navigation_with_keys": True}
highlight_language = "none"


def setup(app: Any) -> None:
    """Connect what is done after Sphinx has written the pages."""
    app.connect("build-finished", complete_pages)
