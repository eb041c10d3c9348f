"""A headless Chromium for the tests that open a report."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    # Figures with many points use WebGL, which a machine without a GPU draws in software.
    "--disable-gpu",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Opened:
    """An open page, and what went wrong or went out since it was opened."""

    page: Page
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The browser; without one the tests skip, under CI they fail."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        reason = f"needs a browser: none of {', '.join(NAMES)} is installed"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def open_report(chromium: Browser) -> Iterator[Callable[..., Opened]]:
    """Opens a report and waits until its figures are drawn."""
    pages: list[Page] = []

    def open_at(path: Path, width: int = 1280, height: int = 900) -> Opened:
        page = chromium.new_page(viewport={"width": width, "height": height})
        pages.append(page)
        opened = Opened(page)

        def heard(message: ConsoleMessage) -> None:
            # The software renderer's remarks on its own speed are no fault of the page.
            if message.type in ("error", "warning") and "GL Driver Message" not in message.text:
                opened.problems.append(message.text)

        page.on("console", heard)
        page.on("pageerror", lambda error: opened.problems.append(str(error)))
        page.on("request", lambda request: opened.requests.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-drawn=true]", state="attached", timeout=60_000)
        return opened

    yield open_at
    for page in pages:
        page.close()
