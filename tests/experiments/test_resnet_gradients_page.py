"""The verdicts and tables of docs/resnet_gradients.md are what the results say."""

import dataclasses
import json
from pathlib import Path

import tabulate_resnet_gradients as script

from experiments.test_resnet_gradients import one_file
from experiments.test_resnet_units import scored
from phasescope.experiments import resnet_gradients as experiment
from phasescope.experiments.resnet_gradients.config import CLAIM_IDS, DEFAULT, NO_DECAY, Config

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "resnet_gradients.md"


def test_the_tables_of_the_page_are_those_of_the_results():
    page = PAGE.read_text(encoding="utf-8")
    between = page.split(script.MARKS[0])[1].split(script.MARKS[1])[0]
    assert between.strip() == "\n\n".join(script.shown()).strip()


def test_the_page_names_every_claim_and_the_numbers_of_the_preset():
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"| {name} |" in page for name in CLAIM_IDS)
    for number in (DEFAULT.n_train, DEFAULT.n_steps, DEFAULT.batch_size):
        assert f"{number}" in page
    assert f"{DEFAULT.time_scale:.0f} steps" in page
    assert NO_DECAY.weight_decay == 0


def test_stored_runs_have_the_fields_of_today():
    file = ROOT / "results" / "resnet_gradients.json"
    if file.exists():
        for run in json.loads(file.read_text(encoding="utf-8"))["settings"]["runs"]:
            added = {f.name for f in dataclasses.fields(Config) if f.metadata.get("added")}
            assert set(vars(Config())) - added <= set(run["config"]) <= set(vars(Config()))


def test_a_file_with_every_preset_has_a_table_for_each_kind_of_run():
    runs = [*one_file(), *(scored(seed, slower=1.0, readers=0.0) for seed in range(2))]
    stored = {"settings": {"runs": experiment.for_storage(runs)}}
    text = "\n".join(script.tables(stored))
    assert text.count("| kind | drop |") == 2
    assert "| frozen when settled | 12 | 0.405" in text
    assert "| all stages, shorter | 10 |" in text
    assert "| edge | 0 [0, 0] | 0.3 [0.3, 0.3] | 0.3 [0.3, 0.3] | 0.01" in text
    assert "| colour | 0 [0, 0] |" in text
    assert "| 2 | 0.48 [0.48, 0.48] | 0.5 [0.5, 0.5] | 0.3 [0.3, 0.3] |" in text
