"""The experiment maze_goals: its parts against planted answers, a small run through all of it."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("stable_baselines3")

import phasescope as ps
from figures.captions import check_house_rules
from phasescope.datasets import draw_mazes, observations
from phasescope.datasets.mazes import distances_from
from phasescope.experiments import maze_goals
from phasescope.experiments.maze_goals.ablations import (
    ALPHAS,
    CONTROLS,
    OTHER,
    REWIND,
    SHRINK,
    Trained,
    ablation,
)
from phasescope.experiments.maze_goals.behaviour import counts, kinds, names, shares
from phasescope.experiments.maze_goals.config import (
    CORNER,
    MIXTURES,
    NAMED,
    NEAR,
    NEAR_MLP,
    PROCGEN,
    Results,
    setting,
)
from phasescope.experiments.maze_goals.evidence import (
    after,
    beyond,
    drop,
    later_goal,
    order,
    selectivity,
    separation_beyond_frozen,
)
from phasescope.experiments.maze_goals.networks import Logits, agent, random_state_kept
from phasescope.experiments.maze_goals.spectra import adam_updates, layers_of, time_parts
from phasescope.experiments.maze_goals.training import frozen_gradients, learn, load, train
from phasescope.interventions import AtWeights, flat_weights

TINY = replace(
    maze_goals.SMOKE, n_envs=8, batch_size=64, n_moves=8 * 16 * 8, n_levels_measured=12, seed=3
)
U = TINY.updates_per_rollout


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    return train(replace(TINY, n_kept=U), tmp_path_factory.mktemp("mazes") / "run")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("phasescope.experiments.maze_goals.ablations.N_RANDOM", 1)
        return maze_goals.run(TINY, tmp_path_factory.mktemp("mazes"))


class Knows(nn.Module):
    """An agent that takes shortest ways to a goal, and at random where none is to be seen."""

    def __init__(self, goal):
        super().__init__()
        self.goal = goal

    def forward(self, seen):
        pictures = seen.numpy()
        n = pictures.shape[-1]
        walls = pictures[:, 0] > 0
        channel = {"cheese": 2, "star": 3}.get(self.goal)
        places = np.full(len(pictures), n - 1)
        known = np.ones(len(pictures), dtype=bool)
        if channel is not None:
            flat = pictures[:, channel].reshape(len(pictures), -1)
            places, known = flat.argmax(1), flat.any(1)
        distances = distances_from(walls, places)
        here = pictures[:, 1].reshape(len(pictures), -1).argmax(1)
        rows, columns = np.divmod(here, n)
        logits = np.zeros((len(pictures), 4), dtype=np.float32)
        for move, (down, right) in enumerate(((-1, 0), (0, 1), (1, 0), (0, -1))):
            r, c = rows + down, columns + right
            inside = (r >= 0) & (r < n) & (c >= 0) & (c < n)
            r, c = r.clip(0, n - 1), c.clip(0, n - 1)
            each = np.arange(len(pictures))
            nearer = distances[each, r, c] == distances[each, rows, columns] - 1
            logits[:, move] = np.where(inside & nearer & known, 60.0, 0.0)
        return torch.from_numpy(logits)


def measured(config, model):
    of = kinds(config)
    return dict(zip(names(of), shares(of, model, stars=config.stars).tolist(), strict=True))


def test_the_measures_tell_an_agent_of_the_corner_from_one_of_the_cheese():
    config = replace(maze_goals.DEFAULT, n_levels_measured=60)
    corner, cheese = measured(config, Knows("corner")), measured(config, Knows("cheese"))
    assert corner["corner"] == corner["corner first"] == 1
    assert corner["cheese first"] == 0
    assert cheese["cheese first"] == cheese["from the corner"] == 1
    assert cheese["corner first"] == 0
    assert cheese["corner"] < 0.6
    assert cheese["cheese far from the agent"] == cheese["cheese near the agent"] == 1
    assert cheese["hidden cheese far from the agent"] < 0.6
    # An agent of the corner finds cheese on its way: as often if it does not see it.
    for name in ("cheese near the corner", "cheese far from the corner"):
        assert abs(corner[name] - corner[f"hidden {name}"]) < 0.15


def test_the_measures_tell_an_agent_of_stars_from_one_of_the_cheese():
    config = replace(MIXTURES["both goals in every level"], n_levels_measured=60)
    star, cheese = measured(config, Knows("star")), measured(config, Knows("cheese"))
    assert star["star"] == star["star first"] == cheese["cheese"] == cheese["cheese first"] == 1
    assert star["cheese first"] == cheese["star first"] == 0
    assert max(star["cheese"], cheese["star"]) < 0.7


def test_levels_that_are_measured_are_not_those_of_another_seed():
    first, again = kinds(TINY)["ordinary"].levels, kinds(TINY)["ordinary"].levels
    other = kinds(replace(TINY, seed=4))["ordinary"].levels
    np.testing.assert_array_equal(first.walls, again.walls)
    assert (first.walls != other.walls).any()
    assert all(n > 0 for n in counts(kinds(TINY)))


def test_training_is_bit_identical_with_and_without_the_recorder(training):
    with random_state_kept():
        levels = draw_mazes(TINY.n_levels, TINY.mix, size=5, braid=TINY.braid, seed=3)
        plain = agent(TINY, levels, 3)
        torch.testing.assert_close(flat_weights(plain.policy), training.start, rtol=0, atol=0)
        learn(plain, TINY, 3)
    assert torch.equal(flat_weights(plain.policy), flat_weights(training.model))
    assert not torch.equal(flat_weights(plain.policy), training.start)


def test_all_is_recorded_that_is_promised(training):
    run = training.run
    assert run.gradients.shape == run.updates.shape == (8 * U, run.parameters.size)
    assert run["weights"].steps.tolist() == [*range(0, 8 * U, U), 8 * U]
    moved = run["weights"][-1:][0] - run["weights"][:1][0]
    np.testing.assert_allclose(run.updates[:].sum(0), moved, atol=1e-5)
    torch.testing.assert_close(
        torch.from_numpy(run["weights"][-1:][0]), flat_weights(training.model)
    )
    assert run["probes/policy"].shape[0] == run["probes/goals"].shape[0] == 8
    probabilities = np.exp(run["probes/policy"][:]).reshape(8, -1, 4).sum(-1)
    np.testing.assert_allclose(probabilities, 1, atol=1e-5)
    returns = run["metrics/episode_return"].steps
    assert len(returns) >= 6  # no episode has ended in the first rollouts
    # Under the weights that played the rollout.
    assert set(returns.tolist()) <= set(range(0, 8 * U, U))
    checkpoints = sorted(path.name for path in (run.path / "checkpoints").iterdir())
    assert len(checkpoints) >= 3


def test_the_logits_are_those_of_the_policy_in_its_order_of_parameters(training):
    model = agent(TINY, kinds(TINY)["ordinary"].levels, 1)
    logits = Logits(model.policy)
    assert torch.equal(flat_weights(logits), flat_weights(model.policy))
    seen = torch.from_numpy(observations(kinds(TINY)["ordinary"].levels))
    expected = model.policy.get_distribution(seen).distribution.logits
    torch.testing.assert_close(logits(seen).log_softmax(1), expected)
    before = flat_weights(logits)
    moved = AtWeights(logits, flat_weights(training.model))
    torch.testing.assert_close(moved(seen), training.model(seen))
    assert torch.equal(flat_weights(logits), before)


def test_the_global_random_state_is_put_back():
    before = torch.random.get_rng_state()
    with random_state_kept():
        agent(TINY, kinds(TINY)["ordinary"].levels, 0)
        assert not torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_another_order_starts_from_the_same_weights_and_ends_elsewhere(training, tmp_path):
    other = train(TINY, tmp_path / "other", other_order=True)
    assert torch.equal(other.start, training.start)
    assert not torch.equal(flat_weights(other.model), flat_weights(training.model))


def test_a_frozen_policy_gives_gradients_and_does_not_move(training, tmp_path):
    weights = flat_weights(training.model)
    run = frozen_gradients(TINY, weights, tmp_path / "frozen", 0)
    per_rollout = min(TINY.n_kept, U // TINY.n_epochs)
    assert run.gradients.shape == (8 * per_rollout, len(weights))
    rows = run.gradients[:]
    assert (np.linalg.norm(rows, axis=1) > 1e-3).all()
    model = agent(TINY, kinds(TINY)["ordinary"].levels, 0, frozen=True)
    load(model.policy, weights)
    with random_state_kept():
        model.learn(2 * TINY.n_envs * TINY.rollout)
    assert torch.equal(flat_weights(model.policy), weights)


def test_adam_on_recorded_gradients_makes_the_recorded_updates(training):
    gradients = torch.from_numpy(training.run.gradients[:])
    found = adam_updates(gradients, 1, TINY.learning_rate)
    torch.testing.assert_close(found, torch.from_numpy(training.run.updates[:]), rtol=0, atol=2e-6)
    whole = adam_updates(gradients, U, TINY.learning_rate)
    torch.testing.assert_close(whole, found.reshape(8, U, -1).sum(1), rtol=0, atol=1e-6)


def test_stars_come_in_when_the_configuration_says(monkeypatch):
    config = replace(TINY, elsewhere=1.0, hidden=0.0, star_only=1.0, stars_from=0.5)
    with random_state_kept():
        levels = draw_mazes(20, config.mix, size=5, seed=0)
        model = agent(config, levels, 0)
        seen = []
        collect = model.collect_rollouts

        def watched(env, *rest, **named):
            done = collect(env, *rest, **named)
            seen.append(float(model.rollout_buffer.observations[:, :, 3].sum()))
            return done

        monkeypatch.setattr(model, "collect_rollouts", watched)
        learn(model, config, 0)
    assert len(seen) == config.n_rollouts
    assert seen[:4] == [0.0] * 4
    assert min(seen[4:]) > 0


def test_components_that_act_early_and_late_are_found():
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(80, 3000, generator=generator)
    A[:25, 0] += 40
    A[55:, 1] += 45
    parts = time_parts(A, {"first": ps.Component("first", ((0, 10),)),
                           "rest": ps.Component("rest", ((10, 3000),))}, k=2)  # fmt: skip
    assert (parts.numbers["n_early"], parts.numbers["n_late"]) == (1, 1)
    assert abs(float(parts.early.basis[0, 0])) > 0.9
    assert abs(float(parts.late.basis[0, 1])) > 0.9
    assert parts.numbers["layers"]["first"]["early"] > 0.8
    still = time_parts(torch.randn(80, 3000, generator=generator), k=10)
    assert still.numbers["n_early"] + still.numbers["n_late"] <= 3


def test_layers_are_the_modules_of_the_agent(training):
    layers = layers_of(training.run.parameters)
    assert list(layers) == ["trunk 0", "trunk 2", "trunk 5", "head of moves", "head of the value"]
    assert sum(part.size for part in layers.values()) == training.run.parameters.size
    assert layers["head of the value"].size == TINY.width + 1


class Line(nn.Module):
    """Its output is its weights."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self):
        return self.weights


def test_an_ablation_and_its_controls_move_the_weights_as_far():
    P = 50
    generator = torch.Generator().manual_seed(1)
    start, end = torch.zeros(P), torch.zeros(P)
    end[:4] = torch.tensor([3.0, 4.0, 5.0, 6.0])
    checkpoints = torch.stack([t * end for t in (0.0, 0.3, 0.6, 1.0)])
    eye = torch.eye(P)

    def measure(model):
        w = model().detach()
        return torch.stack([(w - end).norm(), w[0], w[2]]).double()

    part, leading = ps.Subspace("part", eye[:2]), ps.Subspace("leading", eye[:4])
    slanted = ps.Subspace.spanned_by("other", torch.randn(2, P, generator=generator))
    trained = Trained(Line(end), start, checkpoints, measure)
    found = ablation(trained, part, leading, {OTHER: slanted, "missing": None}, seed=0)
    values = np.array(found["values"])
    np.testing.assert_allclose(values[:, 0], [5 * alpha for alpha in ALPHAS], rtol=1e-4)
    np.testing.assert_allclose(values[:, 1], [1.5, 0.0, -3.0], atol=1e-4)
    np.testing.assert_allclose(values[:, 2], 5.0)
    assert abs(found["removed"] - 5 / np.sqrt(86)) < 1e-6
    assert set(found["controls"]) == set(CONTROLS) - {"a frozen policy's directions"}
    for name, rows in found["controls"].items():
        if name != REWIND:  # as near as the checkpoints allow
            moved = np.array(rows)[:, 0]
            np.testing.assert_allclose(moved, [5 * alpha for alpha in ALPHAS], rtol=1e-3)
    shrunk = 1 - 5 / np.sqrt(86)
    np.testing.assert_allclose(
        found["controls"][SHRINK][1][1:], [3 * shrunk, 5 * shrunk], rtol=1e-3
    )
    np.testing.assert_allclose(found["controls"][REWIND][1][1:], [0.6 * 3, 0.6 * 5], rtol=1e-3)


def test_a_run_goes_through_every_part(result):
    numbers = result.numbers
    assert list(numbers["final"]) == names(kinds(TINY)) == list(numbers["untrained"])
    assert all(0 <= share <= 1 for share, _ in numbers["final"].values())
    assert set(numbers["frozen"]["gradients"]) == {"start", "middle", "end"}
    for found in numbers["ablations"].values():
        rows = np.array(found["values"])
        assert rows.shape == (len(ALPHAS), len(numbers["final"]))
        assert np.isfinite(rows).all()
    curves = numbers["training"]["curves"]
    assert len(numbers["training"]["steps"]) == 9
    assert all(len(curve) == 9 for curve in curves.values())
    assert set(maze_goals.summary(result)) == set(numbers["final"])


def test_a_stored_run_draws_what_it_drew(result, tmp_path):
    import json

    stored = maze_goals.for_storage([result])[0]
    numbers = json.loads(json.dumps(stored["numbers"]))
    again = maze_goals.load(TINY, tmp_path, numbers)
    for one, other in zip(result.detail.replays, again.detail.replays, strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one.walks.places, other.walks.places)
        for thing in ("cheese", "corner"):
            np.testing.assert_array_equal(one.walks.reached(thing), other.walks.reached(thing))
    first, second = maze_goals.for_storage([result, replace(result)])
    assert "replays" in first["numbers"]
    assert set(first["numbers"]) - set(second["numbers"]) == {"replays"}
    seen = observations(again.detail.levels)
    assert seen.shape == (len(again.detail.levels), 3, 5, 5)


def test_figures_have_their_captions(result):
    drawn = maze_goals.figures([result, result])
    assert {"goals", "profiles", "policies", "layers", "distances", "replays"} <= set(drawn)
    for name, figure in drawn.items():
        if name == "replays":  # mazes have no axes
            assert len(figure.layout.sliders[0].steps) == len(result.detail.replays)
        else:
            check_house_rules(figure)


def test_runs_of_other_settings_settle_nothing(result):
    found = maze_goals.claims([result])
    assert [claim.id for claim in found] == list(maze_goals.CLAIM_IDS)
    assert {claim.verdict for claim in found} == {"not tested"}


def planted(setting_name, seed, *, late=None, early=None, controls=None, **changed):
    """A run whose ablations do what is said: shares of the first and the second goal."""
    config = replace(NAMED[setting_name], seed=seed)
    stars = config.stars
    goals = ("star", "cheese") if stars else ("from the corner", "corner")
    jitter = 0.004 * (seed % 5)
    measures = [*goals, "corner first", "cheese near the agent", "cheese far from the agent",
                "cheese near the corner", "hidden cheese near the corner",
                "cheese far from the corner", "hidden cheese far from the corner"]  # fmt: skip
    final = dict.fromkeys(measures, 0.5) | dict.fromkeys(goals, 0.9)
    final = {name: value - jitter for name, value in (final | changed.pop("final", {})).items()}

    def rows(first, second):
        row = [final[m] for m in measures]
        row[0], row[1] = first - jitter, second - jitter
        return [row] * len(ALPHAS)

    ablations = {}
    for part, values in (("late gradients", late), ("early gradients", early)):
        if values is not None:
            at = controls or (0.8, 0.8)
            ablations[part] = {
                "removed": 0.3, "values": rows(*values),
                "controls": {name: rows(*at) for name in CONTROLS},
            }  # fmt: skip
    centers = changed.pop("centers", [0.2, 0.3, 0.5, 0.8])
    first, second = changed.pop("learned", (40, 160))
    names_of = ("cheese", "star") if stars else ("corner", "from the corner")
    times = [None if step is None else [step, 0, 0] for step in (first, second)]
    learned = dict(zip(names_of, times, strict=True))
    spectra = {"centers": centers, "n_early": 4, "n_late": 4}
    still = {"start": {"centers": [0.45, 0.5, 0.55, 0.5 + jitter]}}
    numbers = {
        "final": {name: [value, 100] for name, value in final.items()},
        "untrained": dict.fromkeys(measures, 0.1),
        "training": {
            "learned": learned, "steps": [0, 400],
            "curves": {"corner first": [0.2, 0.6 + jitter, 0.05]},
        },
        "spectra": {"gradients": spectra, "updates": spectra},
        "frozen": {"gradients": still, "updates": still},
        "ablations": ablations,
    }  # fmt: skip
    return Results(config, copy.deepcopy(numbers))


def verdicts(runs):
    return {claim.id: claim for claim in maze_goals.claims(runs)}


def test_evidence_is_what_was_planted():
    one = planted(CORNER, 0, late=(0.1, 0.9), controls=(0.5, 0.7))
    assert drop(one, "late gradients", "from the corner") == pytest.approx(1.0)
    assert drop(one, "late gradients", "corner") == pytest.approx(0.0)
    assert selectivity(one, "late gradients", "from the corner", "corner") == pytest.approx(1.0)
    assert after(one, "late gradients", "corner", SHRINK) == pytest.approx(0.7)
    differences = beyond(one, "late gradients", "from the corner", "corner")
    assert set(differences) == set(CONTROLS)
    assert all(value == pytest.approx(0.75) for value in differences.values())
    assert order(one, "corner", "from the corner") == 2.0
    assert separation_beyond_frozen(one) == pytest.approx(np.std([0.2, 0.3, 0.5, 0.8]) - 0.0353553)
    # A run without the part takes nothing out.
    assert drop(one, "early gradients", "corner") == 0.0
    assert beyond(one, "early gradients", "corner", "from the corner")[SHRINK] == 0.0
    assert later_goal(planted("stars: both goals in every level", 0)) == ("star", "cheese")


def test_the_rules_give_the_verdicts_that_they_say():
    good = [planted(CORNER, s, late=(0.1, 0.88), early=(0.9, 0.1)) for s in range(10)]
    found = verdicts(good)
    assert (found["A24"].verdict, found["A25"].verdict) == ("reproduced", "reproduced")
    assert found["A26"].verdict == "answered"
    assert found["A26"].value == pytest.approx(1.0, abs=0.02)
    half = [planted(CORNER, s, learned=(40, None if s % 2 else 160)) for s in range(10)]
    assert verdicts(half)["A24"].verdict == "inconclusive"
    assert "5 of 10 seeds learned both" in verdicts(half)["A24"].sentence
    few = verdicts(good[:7])
    assert {few[i].verdict for i in ("A24", "A25", "A26")} == {"inconclusive"}

    whole = [planted(CORNER, s, late=(0.1, 0.1), learned=(160, 40), centers=[0.5] * 4)
             for s in range(10)]  # fmt: skip
    found = verdicts(whole)
    assert (found["A24"].verdict, found["A25"].verdict) == ("refuted", "refuted")
    # The earlier checkpoint does the same: nothing specific was found.
    same = [planted(CORNER, s, late=(0.1, 0.88), controls=(0.1, 0.88)) for s in range(10)]
    assert verdicts(same)["A25"].verdict == "inconclusive"
    better = [planted(CORNER, s, late=(0.3, 0.85), controls=(0.1, 0.88)) for s in range(10)]
    assert verdicts(better)["A25"].verdict == "refuted"
    assert verdicts([planted(CORNER, s) for s in range(10)])["A25"].verdict == "refuted"


def test_near_cheese_is_sought_in_at_least_one_network_or_in_none():
    def runs(name, near, far):
        final = {"cheese near the corner": near, "cheese far from the corner": far}
        unseen = {"hidden cheese near the corner": 0.5, "hidden cheese far from the corner": 0.3}
        return [planted(name, s, final=final | unseen) for s in range(10)]

    assert verdicts(runs(NEAR, 0.9, 0.3))["A27"].verdict == "reproduced"
    both = runs(NEAR, 0.9, 0.8) + runs(NEAR_MLP, 0.5, 0.3)
    assert verdicts(both)["A27"].verdict == "refuted"
    assert verdicts(runs(NEAR, 0.9, 0.8))["A27"].verdict == "inconclusive"
    assert verdicts(both[:10] + runs(NEAR_MLP, 0.7, 0.3))["A27"].verdict == "reproduced"


def test_stars_are_answered_with_three_mixtures():
    mixtures = [f"stars: {name}" for name in MIXTURES]
    runs = [planted(name, s, late=(0.1, 0.88), early=(0.5, 0.5))
            for name in mixtures[:3] for s in range(10)]  # fmt: skip
    found = verdicts(runs)["A28"]
    assert (found.verdict, found.value) == ("answered", pytest.approx(0.98, abs=0.01))
    assert "Possible in one goal a level, half stars, late gradients" in found.sentence
    assert verdicts(runs[:20])["A28"].verdict == "inconclusive"
    none = [planted(name, s, late=(0.5, 0.5)) for name in mixtures for s in range(10)]
    assert "Possible in none of them" in verdicts(none)["A28"].sentence


def test_settings_have_names_and_presets_their_lengths():
    assert setting(replace(maze_goals.DEFAULT, seed=7)) == CORNER
    assert setting(replace(maze_goals.DEFAULT, gamma=0.9)) == "gamma 0.9"
    assert len(maze_goals.PRESETS["paper"]) == 7
    assert {setting(config) for config in maze_goals.PRESETS["paper"]} <= set(NAMED)
    assert PROCGEN.n_rollouts * PROCGEN.updates_per_rollout == 73_248
    for configs in maze_goals.PRESETS.values():
        assert all(maze_goals.disk_bytes(config) < 4e9 for config in configs)


def test_the_network_of_the_procgen_scale_trains():
    small = replace(PROCGEN, n_levels=20, n_envs=2, rollout=4, batch_size=8, n_epochs=1, n_moves=8)
    with random_state_kept():
        model = agent(small, draw_mazes(20, small.mix, size=25, braid=0.0, seed=0), 0)
        before = flat_weights(model.policy)
        learn(model, small, 0)
    assert float((flat_weights(model.policy) - before).norm()) > 0.01
    assert len(before) == 230_213


@pytest.mark.slow
def test_the_first_update_at_the_procgen_scale(tmp_path):
    """The preset as it is, stopped after its first update."""

    class Enough(Exception):
        pass

    with random_state_kept():
        levels = draw_mazes(PROCGEN.n_levels, PROCGEN.mix, size=25, braid=0.0, seed=0)
        model = agent(PROCGEN, levels, 0)
        before = flat_weights(model.policy)

        def stop(optimizer, args, kwargs):
            raise Enough

        handle = model.policy.optimizer.register_step_post_hook(stop)
        with pytest.raises(Enough):
            learn(model, PROCGEN, 0)
        handle.remove()
    assert float((flat_weights(model.policy) - before).norm()) > 0.01
    assert Logits(model.policy)(torch.zeros(2, 3, 25, 25)).shape == (2, 4)
