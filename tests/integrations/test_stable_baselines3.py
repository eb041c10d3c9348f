import numpy as np
import pytest
import torch

import phasescope as ps
from integrations.witness import Witness, weights_of

pytest.importorskip("stable_baselines3")

from stable_baselines3 import PPO

SAVE = {name: ps.every(1) for name in ("gradients", "updates", "weights", "norms")}


def agent():
    options = {"n_steps": 32, "batch_size": 16, "n_epochs": 2, "seed": 0, "device": "cpu"}
    return PPO("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [8]}, **options)


def test_ppo_is_recorded_by_two_lines_and_stays_bit_identical(tmp_path):
    plain = agent()
    with Witness() as witness:
        plain.learn(64)
    model = agent()
    with ps.Recorder(tmp_path / "run", model.policy, model.policy.optimizer, save=SAVE) as recorder:
        model.learn(64)
    np.testing.assert_array_equal(weights_of(model.policy), weights_of(plain.policy))
    # Two rollouts, two epochs over each, two minibatches in an epoch.
    assert recorder.step == len(witness.events) == 8
    run = ps.open_run(tmp_path / "run")
    np.testing.assert_array_equal(run.gradients[:], witness.rows(plain.policy, "gradients"))
    np.testing.assert_array_equal(run.updates[:], witness.updates(plain.policy))
    # PPO clips to the norm 0.5, which at least one of these gradients exceeds before.
    norms = np.linalg.norm(run.gradients[:].astype(np.float64), axis=1)
    assert (norms < 0.5 * (1 + 1e-5)).all()
    assert np.isclose(norms, 0.5, rtol=1e-5).any()
    assert torch.isfinite(torch.from_numpy(run.weights[:])).all()
