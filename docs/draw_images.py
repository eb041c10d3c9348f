"""Draw the README's picture again, from the run that `make demo` leaves in runs/demo.

    make demo && .venv/bin/python docs/draw_images.py

Needs Chromium, as the browser tests do.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

import phasescope as ps
from phasescope.experiments import gradient_spectrum
from phasescope.experiments.runner import config_hash

IMAGES = Path(__file__).parent / "images"
SIZE = {"width": 900, "height": 500}


def main() -> None:
    folders = list(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo").glob("seed0-*"))
    config = gradient_spectrum.Config(dataset="mnist")
    (folder,) = [f for f in folders if f.name.endswith(config_hash(config))]
    detail = gradient_spectrum.load(config, folder, {}).detail
    figure = ps.figures.scree(detail.spectrum, detail.null)
    figure.update_layout(**SIZE)
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        page_file = Path(scratch) / "figure.html"
        figure.write_html(page_file, include_plotlyjs=True, config={"displayModeBar": False})
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
            args=["--no-sandbox", "--enable-unsafe-swiftshader", "--disable-background-networking"],
        )
        page = browser.new_page(viewport=SIZE, device_scale_factor=1.5)
        page.goto(page_file.as_uri())
        page.wait_for_timeout(3000)
        page.screenshot(path=IMAGES / "scree.png")
        browser.close()


if __name__ == "__main__":
    main()
