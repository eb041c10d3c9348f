"""The table of docs/spectrum_controls.md is what results/spectrum_controls.json says."""

from pathlib import Path

from phasescope.experiments.spectrum_controls.table import axes_table, stored

ROOT = Path(__file__).parents[2]


def test_the_table_of_the_page_is_that_of_the_results():
    page = (ROOT / "docs" / "spectrum_controls.md").read_text(encoding="utf-8")
    shown = page.split("results/spectrum_controls.json -->")[1].split("<!-- end of table -->")[0]
    table = axes_table(stored(ROOT / "results" / "spectrum_controls.json"))
    assert shown.strip().splitlines() == [line.strip() for line in table]
