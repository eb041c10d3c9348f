"""The tables of the page are what the results say, and its example runs."""

import json
import re
from pathlib import Path

import calibrate_phases as calibrate
import tabulate_phase_detection as tabulate

ROOT = Path(__file__).parents[2]


def test_the_tables_of_the_page_are_those_of_the_results():
    page = (ROOT / "docs" / "phase_detection.md").read_text(encoding="utf-8")
    between = page.split(tabulate.MARKS[0])[1].split(tabulate.MARKS[1])[0]
    assert between.strip() == "\n\n".join(tabulate.shown()).strip()


def test_the_example_of_the_page_runs(unchecked_types):
    page = (ROOT / "docs" / "phase_detection.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(example, "phase_detection.md", "exec"), {})


def test_the_penalties_of_change_points_are_those_that_were_measured():
    numbers = json.loads(calibrate.NUMBERS.read_text(encoding="utf-8"))
    assert calibrate.table_in_code(numbers["penalties"]) in calibrate.CODE.read_text(
        encoding="utf-8"
    )
