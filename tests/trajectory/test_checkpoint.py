import json
import math
import random
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

import phasescope as ps
from phasescope.errors import RunError
from phasescope.trajectory import checkpoint
from phasescope.trajectory.checkpoint import load_checkpoint, restore
from trajectory import loops
from trajectory.loops import newest_checkpoint, save_checkpoint


class Box:
    """Something with a state."""

    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def save(folder, step=0, state=None):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    state = {} if state is None else {"box": Box(state)}
    return save_checkpoint(folder, step, model, optimizer, state, {})


def round_trip(folder, state):
    return load_checkpoint(save(folder, state=state))["state"]["box"]


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"a": {"b": [1, 2.5, "c", None, True, [], {}, ()]}},
        {0: "int", "0": "text", -3: {7: [8]}, (1, "x"): 2, None: 3, True: 4},
        {"tuple": (1, (2, [3, (4,)])), "bytes": b"\x00\xff~", "text": "~ σ \ud83d"},
        {"large": 2**80, "tiny": 5e-324, "third": 1 / 3, "zero": -0.0},
        {"~": "tensor", "key": {"~": "dict", "items": [1]}},
        OrderedDict(b=1, a=2),
    ],
    ids=["empty", "nested", "keys", "tuples", "numbers", "reserved words", "order"],
)
def test_plain_state_survives_exactly(tmp_path, state):
    found = round_trip(tmp_path, state)
    assert found == dict(state)
    assert repr(found) == repr(dict(state))  # types, order and the sign of zero too


def test_numbers_that_are_not_finite_survive(tmp_path):
    found = round_trip(tmp_path, {"values": [math.inf, -math.inf, math.nan]})["values"]
    assert found[:2] == [math.inf, -math.inf]
    assert math.isnan(found[2])


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.bool],
)
def test_tensors_survive_bit_for_bit(tmp_path, dtype):
    values = torch.tensor([[0.0, 1.0, -1.5], [3.0, 255.0, 1e-3]]).to(dtype)
    state = {"t": values, "view": values.t(), "empty": values[:0], "scalar": values[0, 0]}
    found = round_trip(tmp_path, state)
    for name, value in state.items():
        assert found[name].dtype == dtype
        assert found[name].shape == value.shape
        assert torch.equal(found[name], value)


def test_nan_payloads_and_infinities_in_tensors_survive(tmp_path):
    bits = torch.tensor([0x7FC00001, 0x7F800000, -0x800000, 1], dtype=torch.int32)
    found = round_trip(tmp_path, {"t": bits.view(torch.float32)})["t"]
    assert torch.equal(found.view(torch.int32), bits)


@pytest.mark.parametrize("code", ["u1", "u2", "u4", "u8", "i8", "f2", "f8", "?"])
def test_arrays_survive_with_their_type_and_shape(tmp_path, code):
    largest = np.frombuffer(b"\x01" * 48, "u1").view(code)
    arrays = {
        "array": largest.reshape(-1, 1),
        "scalar": np.array(largest[0]),
        "empty": largest[:0],
        "transposed": np.array([largest, largest]).T,
    }
    for name, value in arrays.items():
        found = round_trip(tmp_path / name, {"a": value})["a"]
        assert (found.dtype, found.shape) == (value.dtype, value.shape), name
        np.testing.assert_array_equal(found, value)


def test_scalars_of_numpy_become_numbers(tmp_path):
    assert round_trip(tmp_path, {"a": np.float32(0.5), "b": np.int64(3)}) == {"a": 0.5, "b": 3}


def test_names_that_look_like_the_same_path_stay_apart(tmp_path):
    one, two, three, four = torch.arange(4.0).split(1)
    state = {"a/b": one, "a": {"b": two}, 0: three, "0": four}
    found = round_trip(tmp_path, state)
    assert (found["a/b"], found["a"]["b"], found[0], found["0"]) == (0, 1, 2, 3)


def test_what_cannot_be_saved_is_named_by_its_path(tmp_path):
    for state, where in [
        ({"hooks": [1, {"f": print}]}, "/state/box/hooks/1/f is a builtin_function_or_method"),
        ({"device": torch.device("cpu")}, "/state/box/device is a device"),
        ({"texts": np.array(["a"])}, "/state/box/texts is a ndarray"),
        ({"set": {1}}, "/state/box/set is a set"),
        ({"t": torch.zeros(1, dtype=torch.complex128)}, "/state/box/t is a Tensor"),
        ({"t": torch.eye(2).to_sparse()}, "/state/box/t is a Tensor"),
    ]:
        with pytest.raises(TypeError, match=f"the state at {where}. Leave it out of state_dict"):
            save(tmp_path, state=state)
    assert newest_checkpoint(tmp_path) is None


def test_a_training_leaves_no_pickle_and_torch_load_is_not_called(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("pickle was used")

    for name in ("load", "save"):
        monkeypatch.setattr(torch, name, refuse)
    for name in ("load", "loads", "dump", "dumps"):
        monkeypatch.setattr(f"pickle.{name}", refuse)
    loops.recorded_training(tmp_path / "run", stop=10)
    loops.recorded_training(tmp_path / "run", stop=12, resume=True)
    files = [p for p in (tmp_path / "run" / "checkpoints").rglob("*") if p.is_file()]
    assert {p.name for p in files} == {"state.json", "tensors.safetensors"}
    assert not any(p.suffix in (".pt", ".pth", ".pkl") for p in (tmp_path / "run").rglob("*"))


def test_the_weights_of_a_checkpoint_are_read_with_safetensors_alone(tmp_path):
    from safetensors.torch import load_file

    model = loops.recorded_training(tmp_path / "run")
    tensors = load_file(tmp_path / "run/checkpoints/step-000000040/tensors.safetensors")
    for name, value in model.state_dict().items():
        assert torch.equal(tensors[f"/model/{name}"], value)


def test_the_newest_complete_checkpoint_is_found_by_number(tmp_path):
    assert newest_checkpoint(tmp_path / "nowhere") is None
    for step in (5, 1000, 70):
        save(tmp_path, step)
    assert newest_checkpoint(tmp_path) == (1000, tmp_path / "step-000001000")


def test_leftovers_of_a_killed_process_are_not_checkpoints(tmp_path):
    save(tmp_path, 5)
    written = save(tmp_path, 7)
    written.rename(tmp_path / "step-000000009.new")  # killed before the rename
    (tmp_path / "step-000000011").mkdir()
    assert newest_checkpoint(tmp_path) == (5, tmp_path / "step-000000005")
    assert save(tmp_path, 9) == tmp_path / "step-000000009"
    assert not (tmp_path / "step-000000009.new").exists()


def test_a_checkpoint_appears_only_when_it_is_whole(tmp_path, monkeypatch):
    def fail(source, target):
        raise OSError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "replace", fail)
        with pytest.raises(OSError, match="killed here"):
            save(tmp_path, 3)
    assert newest_checkpoint(tmp_path) is None


@pytest.mark.parametrize("file", ["state.json", "tensors.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "garbage", "removed", "emptied"])
def test_a_damaged_checkpoint_says_what_to_do(tmp_path, file, damage):
    loops.recorded_training(tmp_path / "run", stop=20)
    path = tmp_path / "run" / "checkpoints" / "step-000000020" / file
    content = path.read_bytes()
    if damage == "removed":
        path.unlink()
    else:
        wrong = {"cut": content[: len(content) // 2], "garbage": b"\xff" * 99, "emptied": b""}
        path.write_bytes(wrong[damage])
    with pytest.raises(RunError, match=r"step-000000020 cannot be read .*Delete this folder"):
        load_checkpoint(path.parent)


def test_after_deleting_a_damaged_checkpoint_the_run_goes_on_from_the_one_before(tmp_path):
    loops.recorded_training(tmp_path / "whole")
    loops.recorded_training(tmp_path / "run", stop=20)
    folder = tmp_path / "run" / "checkpoints" / "step-000000020"
    (folder / "tensors.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match="Delete this folder"):
        loops.recorded_training(tmp_path / "run", resume=True)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    loops.recorded_training(tmp_path / "run", resume=True)
    assert loops.fingerprint(tmp_path / "run") == loops.fingerprint(tmp_path / "whole")


def test_random_states_of_torch_numpy_and_python_are_restored(tmp_path):
    def draw():
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()  # noqa: NPY002

    np.random.standard_normal()  # noqa: NPY002 - leaves half a pair behind, which is state too
    random.gauss(0, 1)
    model, optimizer, *_ = loops.setup()
    path = save_checkpoint(tmp_path, 0, model, optimizer, {}, {})
    normal = np.random.standard_normal(), random.gauss(0, 1)  # noqa: NPY002
    expected = draw()
    draw()
    restore(load_checkpoint(path), model, optimizer, {})
    assert (np.random.standard_normal(), random.gauss(0, 1)) == normal  # noqa: NPY002
    assert draw() == expected


def test_model_optimizer_and_state_are_restored(tmp_path):
    model, optimizer, scheduler, batches = loops.setup()
    for (x, y), _ in zip(batches, range(9), strict=False):
        loops.step(model, optimizer, x, y)
        scheduler.step()
    state = {"scheduler": scheduler, "loader": batches}
    path = save_checkpoint(tmp_path, 9, model, optimizer, state, {"note": 1})
    other = loops.setup(lr=1.0, weight_decay=0.0)
    for value in other[0].state_dict().values():
        value.zero_()
    tree = load_checkpoint(path)
    restore(tree, other[0], other[1], {"scheduler": other[2], "loader": other[3]})
    assert tree["extra"] == {"note": 1}
    for name, value in model.state_dict().items():
        assert torch.equal(other[0].state_dict()[name], value)
    old, new = optimizer.state_dict(), other[1].state_dict()
    assert old["param_groups"] == new["param_groups"]
    for index, values in old["state"].items():
        assert all(torch.equal(values[name], new["state"][index][name]) for name in values)
    assert other[2].state_dict() == scheduler.state_dict()


def test_other_state_than_was_saved_is_refused(tmp_path):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tree = load_checkpoint(save(tmp_path, state={"a": 1}))
    with pytest.raises(RunError, match=r"state of \['box'\].*given state=\['loader'\]"):
        restore(tree, model, optimizer, {"loader": Box({})})


def test_a_checkpoint_is_strict_json(tmp_path):
    save(tmp_path, 1, {"nan": math.nan})

    def refuse(constant):
        raise AssertionError(constant)

    text = (tmp_path / "step-000000001" / "state.json").read_text()
    assert json.loads(text, parse_constant=refuse)


def test_importing_the_recorder_does_not_import_safetensors():
    code = "import phasescope, sys; phasescope.Recorder; assert 'safetensors' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert ps.Recorder
