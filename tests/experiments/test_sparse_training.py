"""The run at a tiny size, and the decision rules on numbers that were made up."""

import dataclasses

import numpy as np
import pytest
import torch

from phasescope.experiments import sparse_training as experiment
from phasescope.experiments.sparse_training.config import MONO, POLY, SMOKE, WIDTHS, Results
from phasescope.experiments.sparse_training.training import Chunk

N = 120


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return experiment.run(SMOKE, tmp_path_factory.mktemp("run"))


def test_every_number_is_there_and_finite(smoke: Results):
    numbers = smoke.numbers["per_seed"]
    assert {len(values) for values in numbers.values()} == {SMOKE.n_seeds}
    assert all(np.isfinite(values).all() for values in numbers.values())
    kinds = {name.rsplit(" loss", 1)[0] for name in numbers if name.endswith(" loss")}
    tickets = {f"{kind} {level}" for kind in ("ticket", "shuffled", "reinit") for level in (1, 2)}
    assert kinds == {"dense", "fixed", "set", "rigl"} | tickets
    assert [c.verdict for c in experiment.claims([smoke])] == ["not tested"] * 2
    assert set(experiment.summary(smoke)) == {
        f"{n} loss" for n in ("dense", "fixed", "set", "rigl")
    }


def test_all_ways_of_being_sparse_have_the_density_that_they_say(smoke: Results):
    numbers = smoke.numbers["per_seed"]
    n_in, n_out = 16 * 8, 12 * 16
    for kind in ("fixed", "set", "rigl"):
        assert numbers[f"{kind} density W_in"] == pytest.approx([round(0.2 * n_in) / n_in] * 2)
        assert numbers[f"{kind} density W_out"] == pytest.approx([round(0.2 * n_out) / n_out] * 2)
    left = n_in + n_out
    for level in (1, 2):
        left -= -(-left // 3)  # rounded up
        for kind in ("ticket", "shuffled", "reinit"):
            total = [
                n_in * a + n_out * b
                for a, b in zip(
                    numbers[f"{kind} {level} density W_in"],
                    numbers[f"{kind} {level} density W_out"],
                    strict=True,
                )
            ]
            assert total == pytest.approx([left] * 2, abs=1e-3)


def test_dense_and_sparse_trainings_see_the_same_batches_and_controls_differ_as_they_say():
    chunk = Chunk(SMOKE, [0, 1])
    start = chunk.start(0)
    full = {n: torch.ones_like(start[n], dtype=torch.bool) for n in ("W_in", "W_out")}
    dense, masked = chunk.train(start, None), chunk.train(start, full)
    assert all(torch.equal(dense[n], masked[n]) for n in dense)
    other = chunk.train(start, None, stream=1)
    assert not torch.equal(other["W_in"], dense["W_in"])
    assert not torch.equal(chunk.start(7)["W_in"], start["W_in"])
    alone = Chunk(dataclasses.replace(SMOKE, n_seeds=1), [0])
    assert torch.equal(alone.start(0)["W_in"][0], start["W_in"][0])


def made_up(config, values: dict[str, float], n: int = N) -> Results:
    rng = np.random.default_rng(0)
    kinds = ["dense", "fixed", "set", "rigl"]
    kinds += [f"{k} {level}" for k in ("ticket", "shuffled", "reinit") for level in (4, 7)]
    named = {f"{kind} {what}": 0.5 for kind in kinds for what in ("loss", "mono")}
    named |= {"dense instability": 0.01, "ticket 4 instability": 0.01, **values}
    per_seed = {k: (v * (1 + 0.01 * rng.random(n))).tolist() for k, v in named.items()}
    return Results(dataclasses.replace(config, n_seeds=n), {"per_seed": per_seed})


def claim(values: dict[str, float], name: str, n: int = N):
    results = [made_up(c, values, n) for c in (POLY, MONO)]
    return {c.id: c for c in experiment.claims(results)}[name]


@pytest.mark.parametrize(
    ("dense", "fixed", "rigl", "verdict"),
    [
        (0.1, 0.3, 0.15, "reproduced"),
        (0.1, 0.11, 0.10, "refuted"),  # the fixed mask does not fail
        (0.1, 0.3, 0.25, "refuted"),  # growing does not help much
        (0.1, 0.3, 0.2, "inconclusive"),
    ],
)
def test_d14_needs_a_failure_and_a_cure(dense, fixed, rigl, verdict: str):
    values = {"dense loss": dense, "fixed loss": fixed, "rigl loss": rigl, "set loss": rigl}
    assert claim(values, "D14").verdict == verdict
    assert claim(values, "D14", n=50).verdict == "inconclusive"
    assert claim(values, "D14", n=3).verdict == "not tested"


def test_d15_is_answered_with_its_controls():
    values = {"dense mono": 0.2, "ticket 4 mono": 0.5, "shuffled 4 mono": 0.05}
    found = claim(values, "D15")
    assert found.verdict == "answered"
    assert found.value == pytest.approx(0.3, abs=0.01)
    assert "80%: shuffled 0.05" in found.null
    assert "94%" in found.sentence
    wide = [made_up(c, values) for c in (POLY, MONO, *WIDTHS)]
    sentence = {c.id: c for c in experiment.claims(wide)}["D15"].sentence
    assert "k 32, N 64, bias 0" in sentence
    assert "k 256, N 64, bias -1 with decay 0.3" in sentence


def test_figures_have_a_row_for_each_kind(smoke: Results):
    from figures.captions import check_house_rules

    found = experiment.figures([smoke])
    assert [name.split(" ")[0] for name in found] == ["loss", "mono"]
    for figure in found.values():
        check_house_rules(figure)
        assert len(figure.layout.yaxis.ticktext) == 10


def test_configurations_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="odd number of half periods"):
        dataclasses.replace(POLY, n_steps=4096)
    with pytest.raises(ValueError, match="levels from 1 to 3 can have controls"):
        dataclasses.replace(POLY, n_levels=3)
