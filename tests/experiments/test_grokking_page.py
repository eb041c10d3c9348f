"""What docs/grokking.md says came out is what results/grokking.json holds."""

import json
from pathlib import Path

import pages
import tabulate_grokking as script

from phasescope.experiments import grokking

ROOT = Path(__file__).parents[2]


def test_the_page_shows_what_its_script_writes():
    page = (ROOT / "docs" / "grokking.md").read_text(encoding="utf-8")
    between = page.split(script.MARKS[0])[1].split(script.MARKS[1])[0]
    assert between.strip() == "\n\n".join(script.shown())


def test_the_page_names_the_sizes_that_are_trained():
    page = (ROOT / "docs" / "grokking.md").read_text(encoding="utf-8")
    c = grokking.DEFAULT
    share = f"{c.train_fraction:g}".removeprefix("0")
    assert f"| modulus, share of training pairs | {c.p}, {share} | 113, .3 |" in page
    assert f"| {c.d_model}, {c.d_mlp}, {c.n_heads} | 128, 512, 4 |" in page
    assert f"| {c.weight_decay:g}, 1e-3 | 1, 1e-3 |" in page
    assert f"| steps | {c.n_steps:,} | 25,000 |" in page
    sizes = {name: len(configs) for name, configs in grokking.PRESETS.items()}
    assert f"`grid` ({sizes['grid']} settings" in page
    assert f"`optimizers` ({sizes['optimizers']}), `sizes` ({sizes['sizes']}), `spectra`" in page


def test_stored_seeds_fill_the_table(tmp_path: Path):
    seed = {
        "times": {"memorised": 300, "grokked": 900},
        "phases": [{"name": "memorisation"}, {"name": "clean-up"}],
        "final_measures": {"cube_fve": 0.95, "pure_neurons": 0.8},
        "other_basis": {"cube_fve": 0.02},
        "spikes": {"train_loss_up": {"n": 3}},
        "falling_share": 0.9,
    }
    late = seed | {"times": {"memorised": 400, "grokked": None}, "phases": []}
    config = grokking.for_storage([grokking.Results(grokking.DEFAULT, {})])[0]["config"]
    runs = [
        {"config": config | {"n_seeds": 3}, "numbers": {"seeds": [seed, seed, late]}},
        {"config": config | {"activation": "gelu", "n_seeds": 2}, "numbers": {"seeds": [late] * 2}},
    ]
    claims = [{"id": "C1", "verdict": "reproduced", "sentence": "It is so."}]
    file = tmp_path / "grokking.json"
    file.write_text(json.dumps({"claims": claims, "settings": {"runs": runs}}), encoding="utf-8")
    verdicts, _, table = script.shown(file)
    assert verdicts == "- **C1** (reproduced): It is so."
    rows = table.splitlines()[2:]
    assert rows == [
        "| add mod 53, relu | 3 | 300 (3) | 900 (2) | 2 | 0.95 | 0.02 | 0.8 | 3 | 0.9 |",
        "| add mod 53, gelu | 2 | 400 (2) | – (0) | 0 | 0.95 | 0.02 | 0.8 | 3 | 0.9 |",
    ]
    assert list(script.shown(tmp_path / "none.json")) == [pages.NOTHING]
