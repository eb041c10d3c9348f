"""The tables of docs/gradient_nulls.md are what results/gradient_nulls.json says."""

from pathlib import Path

import tabulate_gradient_nulls as script

ROOT = Path(__file__).parents[2]


def test_the_tables_of_the_page_are_those_of_the_results():
    page = (ROOT / "docs" / "gradient_nulls.md").read_text(encoding="utf-8")
    shown = page.split(script.MARKS[0])[1].split(script.MARKS[1])[0]
    assert shown.strip() == "\n\n".join(script.tables(script.stored_runs())).strip()
