"""The table of docs/low_rank_replay.md is what results/low_rank_replay.json says."""

import json
from pathlib import Path

import pytest

from phasescope.experiments import low_rank_replay as experiment
from phasescope.experiments.evidence import OverSeeds
from phasescope.experiments.low_rank_replay import config

ROOT = Path(__file__).parents[2]
K = 100
ROWS = {
    "the run's own 100": config.TOP,
    "the complement: all but these": config.COMPLEMENT,
    "other order's 100": config.OTHER_ORDER,
    "other initialisation's 100": config.OTHER_START,
    "frozen weights' 100": config.FROZEN,
}


@pytest.fixture(scope="module")
def settings():
    stored = json.loads((ROOT / "results" / "low_rank_replay.json").read_text())
    runs = [
        experiment.Results(experiment.Config(**run["config"]), run["numbers"])
        for run in stored["settings"]["runs"]
    ]
    return config.group_by_setting(runs)


def test_the_table_of_the_page_is_that_of_the_results(settings):
    page = (ROOT / "docs" / "low_rank_replay.md").read_text(encoding="utf-8")
    for title, variant in ROWS.items():
        cells = [
            str(OverSeeds.of(runs, lambda r, v=variant: config.fall(r, config.row_of(r, v, K))))
            for runs in settings.values()
        ]
        assert f"| {title} | {' | '.join(cells)} |" in page
    random = [
        str(OverSeeds.of(runs, lambda r: config.best_random_fall(r, K)))
        for runs in settings.values()
    ]
    assert f"| random 100, best of three rates | {' | '.join(random)} |" in page


def test_the_sentences_about_offline_projections_are_those_of_the_results(settings):
    sgd = next(runs for name, runs in settings.items() if name.startswith("SGD"))
    accuracy = {
        variant: OverSeeds.of(
            sgd, lambda r, v=variant: config.row_of(r, v, 10, online=False)["test_accuracy"]
        ).mean
        for variant in (config.TOP, config.COMPLEMENT)
    }
    page = (ROOT / "docs" / "low_rank_replay.md").read_text(encoding="utf-8")
    assert f"classifies {100 * accuracy[config.TOP]:.0f}% of the digits under SGD" in page
    assert f"without them {100 * accuracy[config.COMPLEMENT]:.0f}%" in page
