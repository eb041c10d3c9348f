import copy
import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import phasescope as ps
from phasescope.errors import RecordingError, RecordingWarning, RunError
from trajectory import loops


def sgd_run(directory, save, n=12, model=None, **options):
    torch.manual_seed(0)
    model = model or nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x = torch.randn(16, 3)
    with ps.Recorder(directory, model, optimizer, save=save, **options) as recorder:
        for _ in range(n):
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            recorder.log(train_loss=loss)
    return ps.open_run(directory), model


def test_training_is_bit_identical_with_and_without_everything_recorded(tmp_path):
    model, optimizer, scheduler, batches = loops.setup()
    for x, y in batches:
        loops.step(model, optimizer, x, y)
        scheduler.step()
    recorded = loops.recorded_training(tmp_path / "run")
    for name, value in model.state_dict().items():
        assert torch.equal(value, recorded.state_dict()[name]), name


def test_groups_hold_what_a_hand_written_loop_saves(tmp_path):
    model, optimizer, scheduler, batches = loops.setup()
    flat = lambda tensors: torch.cat([t.reshape(-1) for t in tensors]).numpy()  # noqa: E731
    kept = {name: [] for name in ("gradients", "updates", "weights", "decay", "exp_avg", "loss")}
    for x, y in batches:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        before = [p.detach().clone() for p in model.parameters()]
        group = optimizer.param_groups[0]
        kept["loss"].append(loss.item())
        kept["gradients"].append(flat([p.grad for p in model.parameters()]))
        kept["weights"].append(flat(before))
        kept["decay"].append(flat([-group["lr"] * group["weight_decay"] * w for w in before]))
        optimizer.step()
        scheduler.step()
        pairs = zip(model.parameters(), before, strict=True)
        kept["updates"].append(flat([p.detach() - w for p, w in pairs]))
        kept["exp_avg"].append(flat([optimizer.state[p]["exp_avg"] for p in model.parameters()]))
    kept["weights"].append(flat([p.detach() for p in model.parameters()]))

    loops.recorded_training(tmp_path / "run")
    run = ps.open_run(tmp_path / "run")
    for name in ("gradients", "updates", "weights", "decay"):
        series = run[name]
        expected = np.stack([kept[name][t] for t in series.steps])
        np.testing.assert_array_equal(series[:], expected, err_msg=name)
    moments = run["moments/exp_avg"]
    np.testing.assert_array_equal(moments[:], np.stack([kept["exp_avg"][t] for t in moments.steps]))
    loss = run["metrics/train_loss"]
    values = dict(zip(loss.steps.tolist(), loss[:, 0].tolist(), strict=True))
    assert [values[t] for t in range(40)] == [np.float32(v) for v in kept["loss"]]
    assert run.gradients.steps.tolist() == list(range(40))
    assert run.updates.steps.tolist() == list(range(0, 40, 2))
    assert run.weights.steps[-1] == 40  # the state after the last update


def test_norms_are_those_of_the_recorded_tensors(tmp_path):
    loops.recorded_training(tmp_path / "run")
    run = ps.open_run(tmp_path / "run")
    table = run.parameters
    for name in ("gradients", "updates", "weights", "decay"):
        for step in run[name].steps[:-1].tolist():
            row = run[name][run[name].steps.tolist().index(step)]
            parts = [row[slice(*table.interval(tensor))] for tensor in table.names]
            expected = [np.linalg.norm(part.astype(np.float64)) for part in parts]
            np.testing.assert_allclose(run[f"norms/{name}"][step], expected, rtol=1e-6, atol=1e-12)


def test_probes_are_evaluated_in_eval_mode_and_leave_the_random_state_alone(tmp_path):
    loops.recorded_training(tmp_path / "run")
    run = ps.open_run(tmp_path / "run")
    model, optimizer, scheduler, batches = loops.setup()
    probe_input = torch.linspace(-1, 1, 12).reshape(2, 6)
    expected = []
    for i, (x, y) in enumerate(batches):
        if i % 4 == 0:
            # The probe sees the buffers as the forward pass of update i left them.
            twin = copy.deepcopy(model)
            state = torch.get_rng_state()
            twin.train()(x)
            torch.set_rng_state(state)
            expected.append(twin.eval()(probe_input).detach())
        loops.step(model, optimizer, x, y)
        scheduler.step()
    logits = run["probes/logits"]
    assert logits.value_shape == (2, 3)
    np.testing.assert_array_equal(logits.array(), torch.stack(expected).numpy())


def test_log_files_a_value_under_the_step_of_its_weights(tmp_path):
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = ps.Recorder(tmp_path / "run", model, optimizer, save={"norms": ps.every(1)})
    with recorder:
        recorder.log(before_everything=0)
        for i in range(3):
            optimizer.zero_grad()
            model(torch.ones(1, 1)).sum().backward()
            recorder.log(gradient_pending=i)
            optimizer.step()
            recorder.log(after_step=i)
            optimizer.zero_grad(set_to_none=False)  # zeros are no pending gradient
            recorder.log(after_zero_grad=i)
            recorder.log(step=recorder.step, weights_now=i + 1)
    metrics = ps.open_run(tmp_path / "run").dataset("metrics").load()
    columns = {n: v.dropna("step").step.values.tolist() for n, v in metrics.data_vars.items()}
    assert columns == {
        "before_everything": [0],
        "gradient_pending": [0, 1, 2],
        "after_step": [0, 1, 2],
        "after_zero_grad": [0, 1, 2],
        "weights_now": [1, 2, 3],
    }
    assert metrics.weights_now.dropna("step").values.tolist() == [1, 2, 3]


@pytest.mark.parametrize("step", [1, -1, 400])
def test_log_refuses_a_step_that_has_not_been(tmp_path, step):
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    save = {"norms": ps.every(1)}
    with ps.Recorder(tmp_path / "run", model, optimizer, save=save) as recorder:
        with pytest.raises(ValueError, match=f"weights there have been, 0 to 0, but {step} "):
            recorder.log(step=step, loss=1.0)
        recorder.log(step=0, loss=2.0)
    assert ps.open_run(tmp_path / "run")["metrics/loss"].steps.tolist() == [0]


def test_accumulated_and_clipped_gradients_are_recorded_as_the_optimizer_consumes_them(tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(2, 8, 4)
    expected = []
    with ps.Recorder(tmp_path / "run", model, optimizer, save={"gradients": ps.every(1)}):
        for _ in range(3):
            optimizer.zero_grad()
            for micro in x:
                model(micro).square().sum().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            expected.append(torch.cat([p.grad.reshape(-1) for p in model.parameters()]).clone())
            optimizer.step()
    recorded = ps.open_run(tmp_path / "run").gradients[:]
    np.testing.assert_array_equal(recorded, torch.stack(expected).numpy())
    assert np.linalg.norm(recorded, axis=1) == pytest.approx(0.5, rel=1e-4)


def test_a_closure_is_read_after_its_gradient_exists(tmp_path):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = model(torch.tensor([[1.0, 2.0]])).sum()
        loss.backward()
        return loss

    with ps.Recorder(tmp_path / "run", model, optimizer, save={"gradients": ps.every(1)}):
        optimizer.step(closure)
    assert ps.open_run(tmp_path / "run").gradients[0].tolist() == [1, 2, 1]


def test_lbfgs_records_updates_and_refuses_gradients(tmp_path):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.LBFGS(model.parameters())
    with pytest.raises(ValueError, match="no one gradient"):
        ps.Recorder(tmp_path / "run", model, optimizer, save={"gradients": ps.every(1)})

    def closure():
        optimizer.zero_grad()
        loss = (model(torch.tensor([[1.0, 2.0]])) - 3).square().sum()
        loss.backward()
        return loss

    save = {"updates": ps.every(1), "weights": ps.every(1)}
    with ps.Recorder(tmp_path / "run", model, optimizer, save=save):
        optimizer.step(closure)
    run = ps.open_run(tmp_path / "run")
    np.testing.assert_allclose(run.weights[1] - run.weights[0], run.updates[0], rtol=1e-6)
    assert np.abs(run.updates[0]).max() > 0


def test_bfloat16_halves_the_bytes_and_rounds_by_less_than_one_in_256(tmp_path):
    full, _ = sgd_run(tmp_path / "full", {"gradients": ps.every(1)})
    half, _ = sgd_run(tmp_path / "half", {"gradients": ps.every(1)}, dtype="bfloat16")
    a, b = full.gradients[:], half.gradients[:]
    assert not np.array_equal(a, b)
    np.testing.assert_allclose(b, a, rtol=2**-8)
    expected = torch.from_numpy(a).bfloat16().float().numpy()
    np.testing.assert_array_equal(b, expected)
    out = np.empty((12, 3), np.float32)
    half.gradients.read_columns(2, 5, out)
    np.testing.assert_array_equal(out, expected[:, 2:5])


def test_a_gradient_that_is_not_finite_is_recorded_and_reported(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = ps.Recorder(tmp_path / "run", model, optimizer, save={"gradients": ps.every(1)})
    recorder.attach()
    for i in range(5):
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        if i == 3:
            model[1].weight.grad[0, 1] = torch.inf
        optimizer.step()
    with pytest.warns(RecordingWarning, match=r"'1.weight' was not finite \(inf\) at step 3"):
        recorder.close()
    run = ps.open_run(tmp_path / "run")
    assert run.info["nonfinite"] == [
        {"step": 3, "parameter": "1.weight", "kind": "inf", "entries": 1}
    ]
    assert np.isinf(run.gradients[3]).sum() == 1
    assert np.isfinite(run.gradients[[0, 1, 2, 4][-1]]).all()


@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {}])
def test_nan_is_found_in_bfloat16_and_in_norms_alone(tmp_path, options):
    save = {"gradients": ps.every(1)} if options else {"norms/gradients": ps.every(1)}
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = ps.Recorder(tmp_path / "run", model, optimizer, save=save, **options).attach()
    for i in range(3):
        for p in model.parameters():
            p.grad = torch.full_like(p, torch.nan if i == 1 and p.dim() == 1 else 3.0)
        optimizer.step()
    with pytest.warns(RecordingWarning, match=r"'bias' was not finite \(nan\) at step 1"):
        recorder.close()
    events = ps.open_run(tmp_path / "run").info["nonfinite"]
    assert (events[0]["step"], events[0]["parameter"]) == (1, "bias")


def test_large_finite_gradients_are_not_reported(tmp_path):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with ps.Recorder(tmp_path / "run", model, optimizer, save={"gradients": ps.every(1)}):
        for p in model.parameters():
            p.grad = torch.full_like(p, 3e38)
        optimizer.step()
    assert ps.open_run(tmp_path / "run").info["nonfinite"] == []


def test_a_missing_gradient_is_zero_and_marked(tmp_path):
    model = nn.ModuleDict({"used": nn.Linear(2, 1), "idle": nn.Linear(2, 1)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with ps.Recorder(tmp_path / "run", model, optimizer, save={"gradients": ps.every(1)}):
        for _ in range(2):
            model["used"](torch.ones(1, 2)).sum().backward()
            optimizer.step()
    run = ps.open_run(tmp_path / "run")
    assert run.gradients[0].tolist() == [1, 1, 1, 0, 0, 0]
    assert run.info["missing_gradients"] == {"idle.weight": [0, 1, 2], "idle.bias": [0, 1, 2]}


def test_nothing_is_left_behind_and_attaching_is_idempotent(tmp_path):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = ps.Recorder(tmp_path / "run", model, optimizer, save={"norms": ps.every(1)})
    assert recorder.attach() is recorder.attach()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.save(model.state_dict(), tmp_path / "model.pt")
        torch.save(model, tmp_path / "whole.pt")
    recorder.close()
    recorder.close()
    assert len(ps.open_run(tmp_path / "run")["norms/gradients"]) == 1
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert not model.weight._post_accumulate_grad_hooks


def test_an_exception_in_the_loop_keeps_what_was_recorded(tmp_path):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        pytest.raises(KeyboardInterrupt),
        ps.Recorder(tmp_path / "run", model, optimizer, save={"gradients": ps.every(1)}),
    ):
        for i in range(10):
            if i == 7:
                raise KeyboardInterrupt
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
    run = ps.open_run(tmp_path / "run")
    assert run.status == "interrupted"
    assert len(run.gradients) == 7


def test_a_run_can_be_read_while_it_is_written(tmp_path):
    counts = []

    def look(step):
        if step in (10, 25):
            counts.append(len(ps.open_run(tmp_path / "run").gradients))

    loops.recorded_training(tmp_path / "run", on_step=look)
    assert counts[0] == 10  # a checkpoint commits everything before it
    assert 20 <= counts[1] <= 25


def test_an_existing_run_is_neither_overwritten_nor_resumed_by_accident(tmp_path):
    sgd_run(tmp_path / "run", {"norms": ps.every(1)})
    with pytest.raises(RunError, match=r"holds a run already.*resume=True"):
        sgd_run(tmp_path / "run", {"norms": ps.every(1)})
    with pytest.raises(RunError, match=r"begun with config = \{\}.*resumed with"):
        sgd_run(tmp_path / "run", {"norms": ps.every(1)}, resume=True, config={"lr": 2})


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_has_lost_its_run_json_is_not_written_over(tmp_path, resume):
    save = {"gradients": ps.every(1)}
    sgd_run(tmp_path / "run", save, checkpoint=ps.every(100), n=3)
    (tmp_path / "run" / "run.json").rename(tmp_path / "kept")
    message = (
        r"holds \['trajectory.zarr', 'checkpoints/step-000000000'.*no run.json.*put the run.json"
    )
    with pytest.raises(RunError, match=message):
        sgd_run(tmp_path / "run", save, checkpoint=ps.every(100), resume=resume)
    (tmp_path / "kept").rename(tmp_path / "run" / "run.json")
    assert len(ps.open_run(tmp_path / "run").gradients) == 3
    # Checkpoints alone would be gone back to by the next resume.
    shutil.rmtree(tmp_path / "run" / "trajectory.zarr")
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(RunError, match=r"holds .'checkpoints/step-000000000'"):
        sgd_run(tmp_path / "run", save)


@pytest.mark.parametrize("name", ["trajectory.zarr/mine", "checkpoints/model.pt", "lock"])
def test_what_somebody_else_keeps_in_the_directory_is_left_as_it_is(tmp_path, name):
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.write_text("precious")
    with pytest.raises(RunError, match="a directory of its own"):
        sgd_run(tmp_path / "run", {"norms": ps.every(1)}, checkpoint=ps.every(100))
    assert path.read_text() == "precious"


def test_what_a_death_at_the_very_beginning_leaves_is_not_in_the_way(tmp_path):
    directory = tmp_path / "run" / "trajectory.zarr"
    directory.mkdir(parents=True)
    (directory / "zarr.json.123.new").write_text("half")
    sgd_run(tmp_path / "run", {"norms": ps.every(1)}, n=0)
    (tmp_path / "run" / "run.json").unlink()  # an empty store
    run, _ = sgd_run(tmp_path / "run", {"norms": ps.every(1)}, n=3)
    assert len(run["norms/gradients"]) == 3


def test_a_file_is_no_directory_for_a_run(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match=r"directory is required, but .*file is a file"):
        sgd_run(tmp_path / "file", {"norms": ps.every(1)})


def test_complex_parameters_are_refused(tmp_path):
    model = nn.ParameterDict({"w": torch.ones(4, dtype=torch.complex64)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"\['w'\] \(1 in all\) are complex.*view_as_complex"):
        ps.Recorder(tmp_path / "run", model, optimizer, save={"norms": ps.every(1)})


def test_a_second_writer_is_refused(tmp_path):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"save": {"norms": ps.every(1)}}
    with (
        ps.Recorder(tmp_path / "run", model, optimizer, **options),
        pytest.raises(RunError, match="another Recorder of this process"),
    ):
        ps.Recorder(tmp_path / "run", model, optimizer, resume=True, **options).attach()


def test_resuming_without_a_data_position_says_what_is_not_promised(tmp_path):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"save": {"norms": ps.every(1)}, "checkpoint": ps.every(1)}
    with ps.Recorder(tmp_path / "run", model, optimizer, **options):
        pass
    with pytest.warns(RecordingWarning, match="without a data position"):
        ps.Recorder(tmp_path / "run", model, optimizer, resume=True, **options).attach().close()


def test_a_forgotten_end_step_is_an_error_that_names_it(tmp_path):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = ps.Recorder(
        tmp_path / "run", model, optimizer, save={"norms": ps.every(1)}, checkpoint=ps.every(2)
    )
    with recorder, pytest.raises(RecordingError, match=r"due at step 2.*recorder.end_step"):
        for _ in range(3):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()


@pytest.mark.parametrize(
    ("save", "error", "message"),
    [
        ({"gradient": ps.every(1)}, KeyError, "Did you mean 'gradients'"),
        ({"gradients": 1}, TypeError, "requires a schedule, but 1 arrived"),
        (["gradients"], TypeError, r"dictionary .* but list arrived.*save=\{'gradients'"),
        ({"sketches": ps.every(1)}, ValueError, r"^save=\{'sketches': ...\} needs sketch=ps.Count"),
        ({"gradients": ps.log_spaced(5)}, ValueError, "Pass Recorder.*n_steps"),
        ({"gradients/fc": ps.every(1)}, KeyError, "has no parts"),
        ({"norms/momentum": ps.every(1)}, KeyError, "the parts of 'norms' are"),
        ({"probes/logits": ps.every(1)}, KeyError, r"probes= defines \[\]"),
        (
            {"norms/gradients": ps.every(1), "norms/updates": ps.every(2)},
            ValueError,
            "need one schedule",
        ),
        ({}, ValueError, "nothing would be saved"),
        ({"probes": ps.every(1)}, ValueError, r"none were passed.*Add probes=\{'logits'"),
    ],
)
def test_bad_save_arguments_say_what_to_do(tmp_path, unchecked_types, save, error, message):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(error, match=message):
        ps.Recorder(tmp_path / "run", model, optimizer, save=save)
    assert not (tmp_path / "run").exists()


def test_an_optimizer_without_state_has_no_moments_and_unknown_decay_is_refused(tmp_path):
    model = nn.Linear(2, 1)
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"which SGD keeps .* not known. Name them"):
        ps.Recorder(tmp_path / "run", model, plain, save={"moments": ps.every(1)})
    decayed = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    with pytest.raises(ValueError, match="how SGD applies its weight decay is not known"):
        ps.Recorder(tmp_path / "run", model, decayed, save={"decay": ps.every(1)})
    recorder = ps.Recorder(tmp_path / "run", model, decayed, save={"norms": ps.every(1)})
    assert [row.name for row in recorder.plan().rows] == [
        "norms/gradients",
        "norms/updates",
        "norms/weights",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint": 5}, r"checkpoint= requires a schedule, but 5 .*every\(500\)"),
        ({"state": {"a": 3}}, "with state_dict and load_state_dict, but 'a' is int"),
        ({"components": ["full"]}, r"list arrived. Write components=ps.components\(model"),
    ],
)
def test_arguments_of_another_kind_are_refused_at_once(tmp_path, unchecked_types, options, message):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    save = {"norms": ps.every(1)}
    with pytest.raises(TypeError, match=message):
        ps.Recorder(tmp_path / "run", model, optimizer, save=save, **options)
    with pytest.raises(TypeError, match=r"one torch.optim.Optimizer is required, but list"):
        ps.Recorder(tmp_path / "run", model, [optimizer], save=save)


def test_a_group_that_was_not_recorded_has_no_data_set(tmp_path):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with ps.Recorder(tmp_path / "run", model, optimizer, save={"norms": ps.every(1)}):
        pass
    with pytest.raises(KeyError, match=r"not recorded 'metrics'.*recorder.log\("):
        ps.open_run(tmp_path / "run").dataset("metrics")


def test_the_columns_of_a_plan_stand_below_each_other(tmp_path):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    save = {"component_norms": ps.every(1), "gradients": ps.every(1)}
    parts = ps.components(model, "full")
    recorder = ps.Recorder(tmp_path / "run", model, optimizer, save=save, components=parts)
    lines = [line for line in str(recorder.plan()).splitlines() if "every(1)" in line]
    assert len({line.index("every(1)") for line in lines}) == 1


def test_a_foreign_optimizer_is_refused(tmp_path):
    optimizer = torch.optim.SGD(nn.Linear(3, 3).parameters(), lr=0.1)
    with pytest.raises(ValueError, match="2 of its 2 tensors"):
        ps.Recorder(tmp_path / "run", nn.Linear(2, 1), optimizer, save={"norms": ps.every(1)})


def test_a_probe_that_changes_its_shape_or_kind_is_an_error(tmp_path):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    lengths = iter([2, 3])
    for name, probe, error, message in [
        ("a", lambda m: torch.ones(next(lengths)), RecordingError, "must return one shape"),
        (
            "b",
            lambda m: "text",
            RecordingError,
            "'b' failed at step 0: TypeError.*'b' returned str",
        ),
        ("c", lambda m: torch.ones(1, dtype=torch.complex64), RecordingError, "complex64"),
        ("d", lambda m: 1 / 0, RecordingError, "'d' failed at step 0: ZeroDivisionError.*is kept"),
    ]:
        recorder = ps.Recorder(
            tmp_path / name, model, optimizer, save={"probes": ps.every(1)}, probes={name: probe}
        )
        with recorder, pytest.raises(error, match=message):
            for _ in range(2):
                model(torch.ones(1, 2)).sum().backward()
                optimizer.step()


def test_log_refuses_tensors_and_a_closed_recorder(tmp_path, unchecked_types):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = ps.Recorder(tmp_path / "run", model, optimizer, save={"norms": ps.every(1)})
    with pytest.raises(RuntimeError, match="requires an attached recorder"):
        recorder.log(loss=1.0)
    with recorder, pytest.raises(ValueError, match=r"'loss' has shape \(2,\)"):
        recorder.log(loss=torch.ones(2))


def test_the_plan_counts_the_bytes_that_end_up_on_disk(tmp_path):
    loops.recorded_training(tmp_path / "run")
    model, optimizer, *_ = loops.setup()
    recorder = ps.Recorder(
        tmp_path / "other",
        model,
        optimizer,
        save=loops.everything(),
        n_steps=loops.N_STEPS,
        components=ps.components(model, "*.weight"),
        sketch=ps.CountSketch(16),
        probes={"logits": lambda m: m},
    )
    run = ps.open_run(tmp_path / "run")
    rows = {row.name: row for row in recorder.plan().rows if "probes" not in row.name}
    for name, row in rows.items():
        assert row.total == run[name].shape[0] * run[name].shape[1] * 4, name
    assert "free on this disk" in str(recorder.plan())


def test_the_plan_counts_the_checkpoints_too(tmp_path):
    model, optimizer, *_ = loops.setup()
    options = {"save": {"norms": ps.every(1)}, "checkpoint": ps.every(10), "n_steps": 40}
    row = ps.Recorder(tmp_path / "a", model, optimizer, **options).plan().rows[-1]
    assert (row.name, row.schedule, row.n_rows) == ("checkpoints (about)", "every(10)", 5)
    loops.recorded_training(tmp_path / "run")
    folders = sorted((tmp_path / "run" / "checkpoints").iterdir())
    sizes = [sum(p.stat().st_size for p in f.rglob("*") if p.is_file()) for f in folders]
    # What is counted: the weights, both moments of AdamW, the buffers. The rest (random state,
    # names) takes some 30 kB.
    moments = 3 * sum(p.nbytes for p in model.parameters())
    assert row.bytes_per_row == moments + sum(b.nbytes for b in model.buffers())
    assert 0 < max(sizes) - row.bytes_per_row < 60_000


def lengths(directory, n_steps, trained, save):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with ps.Recorder(directory, model, optimizer, save=save, n_steps=n_steps):
        for _ in range(trained):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
    return ps.open_run(directory)


@pytest.mark.parametrize("trained", [7, 12])
def test_a_training_of_another_length_than_announced_is_told_of_where_it_matters(tmp_path, trained):
    save = {"weights": ps.every(4) | ps.log_spaced(3), "norms": ps.every(1)}
    message = rf"n_steps=10 was announced, but .* after {trained} updates.*\['weights'\].*every\(\)"
    with pytest.warns(RecordingWarning, match=message):
        run = lengths(tmp_path / "spaced", 10, trained, save)
    assert run.status == "complete"
    lengths(tmp_path / "as announced", 10, 10, save)
    lengths(tmp_path / "nothing spaced", 10, trained, {"norms": ps.every(1)})


def test_a_recording_larger_than_the_disk_is_refused_before_training(tmp_path):
    model = nn.Linear(1000, 100)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = ps.Recorder(
        tmp_path / "run", model, optimizer, save={"gradients": ps.every(1)}, n_steps=10**10
    )
    with pytest.raises(RecordingError, match=r"needs 4.*TB, but the disk.*Save fewer steps"):
        recorder.attach()
    assert not (tmp_path / "run").exists()


def test_a_full_disk_stops_with_a_clear_error_and_keeps_what_was_committed(tmp_path, monkeypatch):
    from phasescope.trajectory import chunkfile

    original, calls = chunkfile._write_all, []

    def failing(descriptor, views, position):
        calls.append(1)
        if len(calls) > 6:
            raise OSError(28, "No space left on device")
        original(descriptor, views, position)

    monkeypatch.setattr(chunkfile, "_write_all", failing)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        pytest.raises(RecordingError, match=r"the disk is full.*committed is intact.*resume=True"),
        ps.Recorder(tmp_path / "run", model, optimizer, save={"gradients": ps.every(1)}),
    ):
        for _ in range(1000):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
    run = ps.open_run(tmp_path / "run")
    assert run.status == "interrupted"
    assert len(run.gradients) in (128, 192)
    assert np.isfinite(run.gradients[:]).all()


def test_run_json_says_how_the_run_was_made(tmp_path):
    loops.recorded_training(tmp_path / "run")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["status"] == "complete"
    assert info["seed"] == 0
    assert info["loss_reduction"] == "unknown"
    assert info["decay"] == "split"
    assert info["save"]["weights"] == "log_spaced(9) | every(11)"
    assert info["environment"]["torch"] == torch.__version__


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda nodes: nodes.update({"other/values": nodes["norms/gradients"]}),
            "may hold the groups",
        ),
        (
            lambda nodes: nodes["norms/gradients"].update(dimension_names=["step", "layer"]),
            r"norms/gradients.*must have the dimensions \['step', 'tensor'\]",
        ),
        (lambda nodes: nodes["norms/step"].update(shape=[3]), "its steps have 3"),
        (
            lambda nodes: nodes["gradients/values"].update(shape=[12, 5]),
            "has 5 columns, but run.json",
        ),
    ],
)
def test_a_store_that_breaks_the_schema_is_refused_on_opening(tmp_path, change, message):
    sgd_run(tmp_path / "run", {"norms": ps.every(1), "gradients": ps.every(1)})
    root = tmp_path / "run" / "trajectory.zarr" / "zarr.json"
    metadata = json.loads(root.read_text())
    change(metadata["consolidated_metadata"]["metadata"])
    root.write_text(json.dumps(metadata))
    with pytest.raises(RunError, match=message):
        ps.open_run(tmp_path / "run")


def test_a_moment_that_the_optimizer_does_not_keep_is_refused_at_its_first_update(tmp_path):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters())
    save = {"moments/exp_avgg": ps.every(1)}
    with (
        ps.Recorder(tmp_path / "run", model, optimizer, save=save),
        pytest.raises(
            RecordingError, match=r"'moments/exp_avgg'.*Adam keeps \['exp_avg', 'exp_avg_"
        ),
    ):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()


def test_a_deleted_group_says_that_it_was_deleted(tmp_path):
    run, _ = sgd_run(tmp_path / "run", {"gradients": ps.every(1), "norms": ps.every(1)})
    assert len(run.gradients) == 12
    ps.delete_group(tmp_path / "run", "gradients")
    with pytest.raises(KeyError, match="recorded 'gradients', but it has been deleted since"):
        _ = ps.open_run(tmp_path / "run").gradients
    with pytest.raises(KeyError, match="has no group 'gradients' to delete"):
        ps.delete_group(tmp_path / "run", "gradients")
