"""docs/induction_heads.md: verdicts and table are what results/induction_heads.json says."""

from pathlib import Path

import tabulate_induction_heads as script

from phasescope.experiments.induction_heads.config import DEFAULT, TEXT, Results

ROOT = Path(__file__).parents[2]


def test_the_page_says_what_the_results_say():
    page = (ROOT / "docs" / "induction_heads.md").read_text(encoding="utf-8")
    between = page.split(script.MARKS[0])[1].split(script.MARKS[1])[0]
    assert between.strip() == "\n\n".join(script.shown()).strip()


def test_a_row_counts_networks_with_induction_heads():
    def planted(config, stripe, window):
        heads = {"stripe": [[0.0, 0.1], [0.0, stripe]], "previous_token": [[0.1, 0.5], [0.1, 0.2]]}
        numbers = {"heads": heads, "window": window, "final": {"copy_loss": 1.25}}
        return Results(config, numbers)

    runs = [planted(DEFAULT, 0.6, [100.0, 150.0, 200.0]), planted(DEFAULT, 0.2, None)]
    first, second = script.table([*runs, planted(TEXT, 0.4, [300.0, 350.0, 400.0])]).splitlines()[
        2:
    ]
    cells = first.strip("| ").split(" | ")
    assert cells[:4] == ["2 layers, mixture", "2", "1 of 2", "100 to 200 (1 seeds)"]
    assert cells[4].startswith("1.25")
    assert cells[5].startswith("0.4 [")
    assert second.startswith("| 2 layers, text | 1 | 1 of 1 | 300 to 400 (1 seeds) |")


def test_nothing_has_run_without_a_file(tmp_path):
    (said,) = script.shown(tmp_path / "none.json")
    assert "No seed has been run yet" in said
