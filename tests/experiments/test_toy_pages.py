"""The verdicts and tables of four pages are what the results say."""

import re
from pathlib import Path

import pytest
import tabulate_toys as script

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "name", ["superposition", "monosemanticity", "mode_connectivity", "sparse_training"]
)
def test_the_tables_of_the_page_are_those_of_the_results(name):
    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    between = page.split(script.MARKS[0])[1].split(script.MARKS[1])[0]
    assert between.strip() == "\n\n".join(script.shown(name)).strip()


@pytest.mark.parametrize("name", ["superposition", "monosemanticity"])
def test_the_example_of_the_page_runs(name, unchecked_types):
    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(example, f"{name}.md", "exec"), {})
