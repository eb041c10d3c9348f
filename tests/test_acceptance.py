"""The page of nulls names tests that exist, for every acceptance test of the reference."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "nulls.md"


def test_every_acceptance_test_of_spectra_names_tests_that_exist():
    table = PAGE.read_text(encoding="utf-8").split("## Where each promise is tested")[1]
    rows = re.findall(r"^\| (\d+) \|.*\| (.*) \|$", table, flags=re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 9))
    source = "\n".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    defined = set(re.findall(r"^def (test_\w+)", source, flags=re.MULTILINE))
    for _, cell in rows:
        named = re.findall(r"`(test_\w+)`", cell)
        assert named
        assert set(named) <= defined
