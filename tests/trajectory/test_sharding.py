import numpy as np
import pytest
import torch
from torch import nn

import phasescope as ps
from phasescope.trajectory.checkpoint import rank_folder
from phasescope.trajectory.sharding import (
    TensorNorms,
    check_sharded,
    communicates,
    local_tensor,
    sharded_names,
)
from trajectory import loops, several, shards


@pytest.fixture(scope="module")
def sharded(together, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    return folder, together(shards.sharded_and_replicated, folder)


def test_norms_of_a_sharded_model_are_those_of_the_replicated_one(sharded):
    folder, _ = sharded
    runs = [ps.open_run(folder / name) for name in ("sharded", "replicated")]
    assert runs[0].parameters.to_json() == runs[1].parameters.to_json()
    for name in ("gradients", "unclipped_gradients", "updates", "decay", "weights"):
        found, expected = (run[f"norms/{name}"] for run in runs)
        assert found.steps.tolist() == expected.steps.tolist() == list(range(20))
        # Both trained in float64, and were rounded to float32 once: half a unit each.
        np.testing.assert_allclose(found[:], expected[:], rtol=2.0**-23, atol=1e-12, err_msg=name)
    assert (runs[0]["norms/gradients"][:] < runs[0]["norms/unclipped_gradients"][:]).any()


def test_the_part_of_one_process_has_a_smaller_norm(sharded):
    folder, results = sharded
    whole = ps.open_run(folder / "sharded")["norms/gradients"][-1]
    parts = np.stack([result["sharded"]["parts"] for result in results])
    np.testing.assert_allclose(np.sqrt((parts**2).sum(axis=0)), whole, rtol=2.0**-23)
    assert (parts[1] < 0.9 * whole).all()
    assert (parts[:, -1] == [whole[-1], 0]).all() or parts[1, -1] == 0  # an empty part


def test_a_sharded_model_trains_on_as_if_nobody_recorded(sharded):
    _, results = sharded
    for result in results:
        for found, expected in zip(
            result["sharded"]["weights"], result["bare"]["weights"], strict=True
        ):
            np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(result["sharded"]["random"], result["bare"]["random"])


def test_probes_of_a_sharded_model_see_the_weights_before_the_update(sharded):
    folder, _ = sharded
    runs = [ps.open_run(folder / name) for name in ("sharded", "replicated")]
    found, expected = (run["probes/output"] for run in runs)
    assert found.steps.tolist() == expected.steps.tolist() == list(range(0, 20, 3))
    np.testing.assert_allclose(found[:], expected[:], rtol=2.0**-22)
    assert np.ptp(found[:], axis=0).min() > 0


def test_a_sharded_model_is_resumed_bit_for_bit(forks, together, tmp_path):
    expected = together(shards.training, tmp_path / "whole")

    def check(directory, results):
        assert loops.fingerprint(directory) == loops.fingerprint(tmp_path / "whole")
        for rank in (0, 1):
            pairs = zip(results[rank]["weights"], expected[rank]["weights"], strict=True)
            assert all(np.array_equal(a, b) for a, b in pairs)
            np.testing.assert_array_equal(results[rank]["random"], expected[rank]["random"])

    deaths = several.Deaths(forks, tmp_path, 2, shards.training, 20)
    several.die_and_resume(deaths, tmp_path, 2, check)


def test_a_sharded_model_cannot_go_on_with_fewer_processes(together, tmp_path):
    together(shards.training, tmp_path / "run")
    (said,) = together(several.error_of, shards.resumed, tmp_path / "run", size=1)
    assert "one process's part of 'first.weight'" in said
    assert "Resume with as many processes as before" in said


def test_a_rank_that_lost_its_part_of_a_sharded_model_says_which(together, tmp_path):
    together(shards.training, tmp_path / "run")
    folder = rank_folder(tmp_path / "run" / "checkpoints", 1)
    folder.rename(tmp_path / "lost")
    said = together(several.error_of, shards.resumed, tmp_path / "run")[1]
    assert f"its own part of a checkpoint, but {folder / 'step-000000020'} is missing" in said
    assert "or delete" in said


def test_whole_tensors_of_a_sharded_model_are_refused_with_what_to_do(together, tmp_path):
    results = together(shards.refusals, tmp_path / "run")
    assert results[0] == results[1]
    said = results[0]
    for group in ("gradients", "unclipped_gradients", "updates", "weights", "moments", "decay"):
        assert f"save= asks for ['{group}'], which needs whole tensors" in said[group]
    assert "['sketches']" in said["sketches"]
    assert "6 of the model's 6 parameters are sharded" in said["gradients"]
    assert "('first.weight', ...)" in said["gradients"]
    assert "Record 'norms'" in said["gradients"]
    assert "on_failure='continue' cannot be kept with sharded parameters" in said["continue"]
    assert "Use torch.distributed.fsdp.fully_shard" in said["older"]
    assert "checkpoints and 'moments' need the optimizer's whole state" in said["zero"]
    assert not (tmp_path / "run").exists()


def test_a_model_sharded_over_one_process_is_recorded_whole(together, tmp_path):
    together(shards.fully_recorded_alone, tmp_path, size=1)
    sharded, plain = (loops.fingerprint(tmp_path / name) for name in ("sharded", "plain"))
    norms = [name for name in plain if name.startswith("norms/")]
    assert len(norms) == 4
    for name in norms:  # sums round differently where a gradient is a view at an odd address
        del sharded[name], plain[name]
        recorded = [ps.open_run(tmp_path / run)[name] for run in ("sharded", "plain")]
        np.testing.assert_array_equal(recorded[0].steps, recorded[1].steps)
        np.testing.assert_allclose(recorded[0][:], recorded[1][:], rtol=1e-6)
    assert sharded == plain


def test_norms_over_any_layout_are_those_of_the_whole_tensors(together):
    results = together(shards.norms_on_meshes, size=4)
    placements = results[0]["placements"]
    assert any("_StridedShard" in p for p in placements), placements
    for result in results:
        np.testing.assert_allclose(result["found"], result["whole"], rtol=1e-6)
    # Counting the parts of this process alone, or replicas twice, would be far off.
    assert any((r["local"] < 0.9 * r["whole"]).sum() > 5 for r in results)
    replicated = [i for i, p in enumerate(placements) if p == "(Replicate(), Replicate())"]
    assert replicated
    assert not {str(i) for i in replicated} & set(results[0]["sharded"])


def test_an_ordinary_tensor_is_its_own_part():
    tensor = nn.Parameter(torch.ones(3))
    assert torch.equal(local_tensor(tensor), tensor)
    assert not local_tensor(tensor).requires_grad
    assert sharded_names({"w": tensor}) == []
    assert not communicates([tensor])
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    named = dict(model.named_parameters())
    check_sharded(model, optimizer, named, ["gradients"], checkpoint=True, on_failure="continue")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_norms_of_half_precision_tensors_are_neither_rounded_nor_overflow(dtype):
    tensor = torch.full((1000,), 300.0, dtype=dtype)
    (found,) = TensorNorms([tensor])([tensor])
    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, tensor.double().norm(), rtol=1e-6)


def test_norms_of_mixed_types_and_empty_tensors_are_those_of_each():
    tensors = [torch.ones(4, dtype=torch.float64), torch.ones(9), torch.zeros(0)]
    np.testing.assert_array_equal(TensorNorms(tensors)(tensors), [2, 3, 0])


def test_norms_of_large_tensors_and_extreme_entries_keep_their_digits():
    generator = torch.Generator().manual_seed(0)
    large = torch.randn(3_000_001, generator=generator)
    parts = [large, large.view(-1)[:6].view(2, 3).t(), 1e25 * large[:9], 1e-25 * large[:9]]
    parts += [torch.zeros(3), torch.empty(0)]
    expected = [float(part.double().norm()) for part in parts]
    np.testing.assert_allclose(TensorNorms(parts)(parts), expected, rtol=1e-6, atol=0.0)


def test_norms_of_tensors_that_are_not_finite_are_not_finite():
    parts = [torch.tensor([1.0, torch.nan]), torch.tensor([torch.inf, 1.0])]
    norms = torch.tensor(TensorNorms(parts)(parts))
    assert norms[0].isnan()
    assert norms[1].isinf()
