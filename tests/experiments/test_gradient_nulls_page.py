"""The tables of docs/gradient_nulls.md are what results/gradient_nulls.json says."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_tables_of_the_page_are_those_of_the_results():
    path = ROOT / "docs" / "tabulate_gradient_nulls.py"
    spec = importlib.util.spec_from_file_location("tabulate_gradient_nulls", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (ROOT / "docs" / "gradient_nulls.md").read_text(encoding="utf-8")
    shown = page.split(script.MARKS[0])[1].split(script.MARKS[1])[0]
    assert shown.strip() == "\n\n".join(script.tables(script.stored_runs())).strip()
