import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

import gymnasium
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as check_with_sb3

from phasescope.datasets import MazeBatch, MazeMix, draw_mazes
from phasescope.integrations.mazes import MazeEnv, MazeVecEnv

NAME = "phasescope.integrations.mazes:phasescope/Maze-v0"


@pytest.mark.parametrize("stars", [0.0, 0.5])
def test_both_checkers_pass(stars):
    mix = MazeMix(elsewhere=0.5, with_star=stars)
    env = gymnasium.make(NAME, size=5, mix=mix, n_levels=50, render_mode="rgb_array")
    check_env(env.unwrapped)
    check_with_sb3(MazeEnv(size=5, mix=mix, n_levels=50), warn=False)


def test_the_seed_of_a_reset_decides_the_levels():
    env = MazeEnv(n_levels=500)
    first = [env.reset(seed=3)[1]["level"]] + [env.reset()[1]["level"] for _ in range(5)]
    again = [env.reset(seed=3)[1]["level"]] + [env.reset()[1]["level"] for _ in range(5)]
    assert first == again
    assert len(set(first)) > 3
    assert env.reset(options={"level": 17})[1]["level"] == 17


def test_an_episode_ends_at_the_cheese_with_its_picture_of_that_moment():
    levels = draw_mazes(30, size=3, braid=1.0, seed=0)  # the cheese is in the corner, place 2
    level = int(np.flatnonzero(levels.agent == 0)[0])
    env = MazeEnv(levels, render_mode="rgb_array")
    env.reset(options={"level": level})
    seen, reward, terminated, truncated, info = env.step(1)
    assert (reward, terminated, truncated, info["agent"]) == (0.0, False, False, 1)
    assert (env.render() == (230, 159, 0)).all(-1).any()
    seen, reward, terminated, truncated, info = env.step(1)
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info == {"level": level, "agent": 2, "cheese": -1, "star": -1}
    assert seen[1, 0, 2] == 1
    assert seen[2].sum() == 0
    assert not (env.render() == (230, 159, 0)).all(-1).any()


def test_the_many_are_told_of_ends_as_stable_baselines_wants_it():
    levels = draw_mazes(100, MazeMix(elsewhere=1.0), size=5, seed=0)
    env = MazeVecEnv(MazeBatch(levels, 6, seed=1, time_limit=7))
    twin = MazeBatch(levels, 6, seed=1, time_limit=7)
    np.testing.assert_array_equal(env.reset(), twin.reset())
    rng, kinds = np.random.default_rng(0), set()
    for _ in range(60):
        actions = rng.integers(4, size=6)
        seen, rewards, dones, infos = env.step(actions)
        moved = twin.step(actions)
        np.testing.assert_array_equal(seen, moved.observation)
        np.testing.assert_array_equal(rewards, moved.reward)
        np.testing.assert_array_equal(dones, moved.done)
        ended = [info for info in infos if info]
        for info, last in zip(ended, moved.last_observation, strict=True):
            np.testing.assert_array_equal(info["terminal_observation"], last)
            kinds.add((info["TimeLimit.truncated"], info["episode"]["r"]))
            assert info["episode"]["l"] <= 7
    assert kinds == {(False, 1.0), (True, 0.0)}


def test_ppo_trains_on_it_and_the_seed_decides():
    def weights(seed):
        batch = MazeBatch(draw_mazes(100, size=3, seed=0), 4, seed=seed)
        model = PPO("MlpPolicy", MazeVecEnv(batch), n_steps=8, batch_size=16, n_epochs=1, seed=seed)
        model.learn(64)
        return model.policy.state_dict()["action_net.weight"].numpy()

    np.testing.assert_array_equal(weights(0), weights(0))
    assert (weights(0) != weights(1)).any()


def test_what_cannot_be_is_refused_with_a_reason():
    env = MazeVecEnv(MazeBatch(draw_mazes(5, seed=0), 2, seed=0))
    with pytest.raises(AttributeError, match="they are one MazeBatch"):
        env.set_attr("time_limit", 3)
    with pytest.raises(AttributeError, match="Call a method of"):
        env.env_method("reset")
    with pytest.raises(ValueError, match="render_mode must be None or 'rgb_array', but 'human'"):
        MazeEnv(n_levels=5, render_mode="human")
    with pytest.raises(ValueError, match="from 0 to 4, but 9 arrived"):
        MazeEnv(n_levels=5).reset(options={"level": 9})
    assert env.get_attr("time_limit") == [42, 42]
    assert env.env_is_wrapped(object) == [False, False]


def test_the_example_of_the_page_makes_an_agent_that_trains():
    page = Path(__file__).parents[2] / "docs" / "integrations.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    (block,) = (text for text in blocks if "MazeVecEnv" in text)
    names = {}
    exec(block, names)
    names["model"].learn(1)
    assert names["model"].num_timesteps == 16 * 32
