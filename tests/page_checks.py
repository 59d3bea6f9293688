"""What every page of the product must hold: checked in a real browser, without network."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

PHONE, DESKTOP = 360, 1280
# WCAG 2.2, levels A and AA, and the practices that axe-core recommends.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
TOO_WIDE = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  const found = [...document.querySelectorAll("body *")]
    .filter(e => e.getBoundingClientRect().right > width + 1 && !e.closest(".scroll, nav"))
    .map(e => e.outerHTML.slice(0, 200));
  return found.length ? found.slice(0, 3) : ["a text without a place to break"];
}"""
INK = "getComputedStyle(document.body).color.match(/\\d+/g).slice(0, 3).map(Number)"


def page_problems(
    browser: Browser, url: str, use: Callable[[Page], object] | None = None
) -> list[str]:
    """Return what is wrong with a page, on a phone in light and on a desktop in dark.

    These are violations of axe-core's rules, parts that are wider than a phone, light text in
    print, and requests to other hosts.

    Args:
        browser: the browser.
        url: of a file or of a server of this machine.
        use: what a user does on the page before it is checked.
    """
    problems: list[str] = []
    own = url.rpartition("/")[0] + "/"
    for width, scheme in ((PHONE, "light"), (DESKTOP, "dark")):
        page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        requested: list[str] = []
        page.on("request", lambda request, to=requested: to.append(request.url))
        page.goto(url)
        if use:
            use(page)
        # What is in closed details counts when they are opened.
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        problems += (f"{scheme}: {one}" for one in _violations(page))
        problems += (f"wider than {width} px: {one}" for one in page.evaluate(TOO_WIDE))
        page.emulate_media(media="print", color_scheme=scheme)
        if sum(page.evaluate(INK)) > 300:
            problems.append(f"{scheme}: the text is light in print")
        page.close()
        other = (one for one in requested if not one.startswith((own, "data:", "blob:")))
        problems += (f"requests {one}" for one in other)
    return problems


def _violations(page: Page) -> Iterator[str]:
    options = {"resultTypes": ["violations"], "runOnly": {"type": "tag", "values": RULES}}
    for rule in Axe().run(page, options=options).response["violations"]:
        first = rule["nodes"][0]
        reasons = [check["message"] for check in (*first["any"], *first["all"], *first["none"])]
        yield f"{rule['id']}, {len(rule['nodes'])} times, such as {first['html'][:200]}: {reasons}"
