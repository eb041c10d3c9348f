"""What exactly is recorded in every kind of loop; and training is bit-identical in each.

Every loop runs twice, with and without a recorder. A hook of its own on the optimizer says what
the optimizer really consumed.
"""

import copy
import errno
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import phasescope as ps
from phasescope.errors import RecordingError, RecordingWarning
from phasescope.trajectory.store import TrajectoryStore

EVERYTHING = ("gradients", "unclipped_gradients", "updates", "weights", "norms")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(5, 7)
        self.fc2 = nn.Linear(7, 3)

    def forward(self, x):
        return self.fc2(torch.tanh(self.fc1(x)))


def data(n=24):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(n, 8, 5, generator=generator)
    return list(zip(x, torch.randint(0, 3, (n, 8), generator=generator), strict=True))


def flat(tensors):
    return torch.cat([t.detach().float().reshape(-1) for t in tensors]).numpy()


class Consumed:
    """The gradients as they are when the optimizer has just used them, and the weights around."""

    def __init__(self, model, optimizer):
        self.gradients, self.weights, self.updates = [], [], []
        parameters = list(model.parameters())

        def before(*ignored):
            self.weights.append(flat(parameters))

        def after(optimizer, *ignored):
            if getattr(optimizer, "found_inf", None):
                self.weights.pop()
                return
            # A fused optimizer unscales in place, so what it consumed is there afterwards.
            zeros = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            self.gradients.append(flat([g.to_dense() for g in zeros]))
            self.updates.append(flat(parameters) - self.weights[-1])

        self.handles = [
            optimizer.register_step_pre_hook(before),
            optimizer.register_step_post_hook(after),
        ]


def twice(directory, build, loop, *, save=EVERYTHING, state=None, **options):
    """Run `loop(model, optimizer, extra, recorder)` without and with a recorder; compare weights.

    Returns the run and what an independent observer of the plain training saw.
    """
    torch.manual_seed(0)
    model, optimizer, *extra = build()
    seen = Consumed(model, optimizer)
    loop(model, optimizer, *extra, None)
    torch.manual_seed(0)
    recorded, optimizer, *extra = build()
    schedules = dict.fromkeys(save, ps.every(1)) if not isinstance(save, dict) else save
    if state is not None:
        options["state"] = state(*extra)
    with ps.Recorder(directory, recorded, optimizer, save=schedules, **options) as recorder:
        loop(recorded, optimizer, *extra, recorder)
    for (name, a), b in zip(
        model.state_dict().items(), recorded.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), f"training changed: {name}"
    return ps.open_run(directory), seen


def check_against(run, seen):
    np.testing.assert_array_equal(run.gradients[:], np.stack(seen.gradients))
    np.testing.assert_array_equal(run.weights[:-1], np.stack(seen.weights))
    assert run.gradients.steps.tolist() == list(range(len(seen.gradients)))
    table = run.parameters
    for i, row in enumerate(seen.gradients):
        parts = [row[slice(*table.interval(name))] for name in table.names]
        expected = [np.linalg.norm(part.astype(np.float64)) for part in parts]
        np.testing.assert_allclose(run["norms/gradients"][i], expected, rtol=1e-6)


def sgd():
    model = Net()
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


# --- accumulation, clipping, gradients before clipping ----------------------------------------


def clipping_loop(model, optimizer, recorder, *, kept=None, max_norm=0.05):
    for i, (x, y) in enumerate(data()):
        (nn.functional.cross_entropy(model(x), y) / 3).backward()
        if i % 3 == 2:
            if kept is not None:
                kept.append(flat([p.grad for p in model.parameters()]))
            nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            optimizer.step()
            optimizer.zero_grad()


def test_accumulated_gradients_are_recorded_after_clipping_and_before_it(tmp_path):
    kept = []
    save = dict.fromkeys((*EVERYTHING, "norms/unclipped_gradients"), ps.every(1))
    run, seen = twice(
        tmp_path / "run", sgd, lambda m, o, r: clipping_loop(m, o, r, kept=kept), save=save
    )
    check_against(run, seen)
    assert len(run.gradients) == 8
    unclipped = run["unclipped_gradients"][:]
    np.testing.assert_array_equal(unclipped, np.stack(kept[:8]))
    assert (np.linalg.norm(unclipped, axis=1) > 0.05).all()
    np.testing.assert_allclose(np.linalg.norm(run.gradients[:], axis=1), 0.05, rtol=1e-4)
    table = run.parameters
    for t, row in enumerate(unclipped.astype(np.float64)):
        expected = [np.linalg.norm(row[slice(*table.interval(n))]) for n in table.names]
        np.testing.assert_allclose(run["norms/unclipped_gradients"][t], expected, rtol=1e-6)


def test_gradients_before_clipping_follow_their_own_schedule(tmp_path):
    kept = []
    save = {"unclipped_gradients": ps.every(3), "gradients": ps.every(1)}
    run, _ = twice(
        tmp_path / "run", sgd, lambda m, o, r: clipping_loop(m, o, r, kept=kept), save=save
    )
    assert run["unclipped_gradients"].steps.tolist() == [0, 3, 6]
    np.testing.assert_array_equal(run["unclipped_gradients"][:], np.stack(kept[:8:3]))


def test_a_gradient_that_was_thrown_away_is_not_recorded_before_clipping(tmp_path):
    def loop(model, optimizer, recorder):
        for i, (x, y) in enumerate(data(9)):
            nn.functional.cross_entropy(model(x), y).backward()
            if i % 3 == 2:
                # The last batch of three reaches only the second layer.
                optimizer.zero_grad()
                model.fc2(torch.ones(1, 7)).sum().backward()
                optimizer.step()
                optimizer.zero_grad()

    run, seen = twice(tmp_path / "run", sgd, loop)
    np.testing.assert_array_equal(run["unclipped_gradients"][:], run.gradients[:])
    np.testing.assert_array_equal(run.gradients[:], np.stack(seen.gradients))
    assert not run.gradients[:, : 5 * 7 + 7].any()
    assert run.info["missing_gradients"]["fc1.weight"] == [0, 2, 3]


def clip(model, norm=0.05):
    nn.utils.clip_grad_norm_(model.parameters(), norm)


def test_a_gradient_set_by_hand_may_be_clipped_and_is_not_taken_for_unclipped(tmp_path):
    def loop(model, optimizer, recorder):
        for i, (x, y) in enumerate(data(4)):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            if i % 2:
                loss.backward()
            else:
                parameters = list(model.parameters())
                for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                    p.grad = g
            clip(model)
            optimizer.step()

    save = dict.fromkeys((*EVERYTHING, "norms/unclipped_gradients"), ps.every(1))
    with pytest.warns(RecordingWarning, match="not known at step 0 .*recorded as NaN") as caught:
        run, seen = twice(tmp_path / "run", sgd, loop, save=save)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    check_against(run, seen)
    unclipped = run["unclipped_gradients"][:]
    assert np.isnan(unclipped[::2]).all()
    assert np.isnan(run["norms/unclipped_gradients"][::2]).all()
    assert (np.linalg.norm(unclipped[1::2], axis=1) > 0.1).all()


def test_a_gradient_that_is_used_twice_is_unclipped_once(tmp_path):
    def loop(model, optimizer, recorder):
        for x, y in data(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            clip(model)
            optimizer.step()
            optimizer.step()

    with pytest.warns(RecordingWarning, match="not known at step 1"):
        run, seen = twice(tmp_path / "run", sgd, loop)
    check_against(run, seen)
    unclipped = run["unclipped_gradients"][:]
    assert np.isnan(unclipped[1::2]).all()
    assert (np.linalg.norm(unclipped[::2], axis=1) > 0.1).all()


def test_an_update_without_any_gradient_has_none_before_clipping(tmp_path):
    run, _ = twice(tmp_path / "run", sgd, lambda model, optimizer, recorder: optimizer.step())
    assert not run["unclipped_gradients"][:].any()


def test_an_update_within_the_backward_pass_has_no_gradient_before_clipping(tmp_path):
    def build():
        model = Net()
        optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}

        def update(p):
            optimizers[p].step()
            optimizers[p].zero_grad()

        for p in model.parameters():
            p.register_post_accumulate_grad_hook(update)
        return model, optimizers[model.fc1.weight]

    def loop(model, optimizer, recorder):
        for x, y in data(3):
            nn.functional.cross_entropy(model(x), y).backward()

    run, seen = twice(tmp_path / "run", build, loop, save=("gradients", "updates"))
    np.testing.assert_array_equal(run.gradients[:, :35], np.stack(seen.gradients)[:, :35])
    with pytest.raises(RecordingError, match=r"at step 0 optimizer.step\(\) was called within one"):
        twice(tmp_path / "refused", build, loop)


@pytest.mark.parametrize("name", ["sgd", "fused sgd"])
def test_gradients_before_clipping_need_the_scaler_that_scales_them(tmp_path, name):
    with pytest.raises(RecordingError, match=r"GradScaler .* not passed.*state=\{'scaler': scaler"):
        twice(tmp_path / "run", amp(FUSED[name]), lambda *a: amp_loop(*a, clip=True))
    loop = amp(FUSED[name], enabled=False)
    twice(tmp_path / "disabled", loop, lambda *a: amp_loop(*a, clip=True))


# --- automatic mixed precision -----------------------------------------------------------------


def amp(optimizer, **settings):
    def build():
        model = Net()
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, **settings)
        return model, optimizer(model.parameters()), scaler

    return build


FUSED = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    # Without momentum: PyTorch leaves the buffer uninitialised where the first update is skipped.
    "fused sgd": lambda p: torch.optim.SGD(p, lr=0.1, fused=True),
    "fused adamw": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
}


def amp_loop(model, optimizer, scaler, recorder, *, clip=False, bad=(), unclipped=None):
    for i, (x, y) in enumerate(data(12)):
        loss = nn.functional.cross_entropy(model(x), y)
        scaled = scaler.scale(loss)
        if i in bad:
            scaled = scaled * float("inf")
        scaled.backward()
        if unclipped is not None and i not in bad:
            scale = scaler.get_scale()
            unclipped.append(flat([p.grad / scale for p in model.parameters()]))
        if clip:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        scaler.step(optimizer)
        scaler.update()
        if recorder is not None:
            recorder.log(train_loss=loss, iteration=i)
        optimizer.zero_grad()


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("told", [True, False])
def test_gradients_under_a_scaler_are_recorded_unscaled(tmp_path, name, clip, told):
    unclipped = []
    # Without the scaler in `state` only gradients that the optimizer consumes are known.
    save = EVERYTHING if told else ("gradients", "weights", "norms")
    run, seen = twice(
        tmp_path / "run",
        amp(FUSED[name]),
        lambda *a: amp_loop(*a, clip=clip, unclipped=unclipped),
        save=save,
        state=(lambda scaler: {"scaler": scaler}) if told else None,
    )
    check_against(run, seen)
    assert np.linalg.norm(run.gradients[0]) < 10  # and not a thousand times that
    if told:
        np.testing.assert_array_equal(run["unclipped_gradients"][:], np.stack(unclipped[:12]))


@pytest.mark.parametrize("growth_interval", [1, 2000])
@pytest.mark.parametrize("name", FUSED)
def test_skipped_updates_take_no_step_and_are_listed(tmp_path, name, growth_interval):
    bad = (0, 3, 4, 11)
    run, seen = twice(
        tmp_path / "run",
        amp(FUSED[name], growth_interval=growth_interval),
        lambda *a: amp_loop(*a, bad=bad),
        state=lambda scaler: {"scaler": scaler},
    )
    check_against(run, seen)
    assert len(run.gradients) == 8
    skipped = run.dataset("skipped").load()
    # Before iteration 3 two updates were done (iterations 1 and 2), before iteration 11 eight.
    assert skipped.step.values.tolist() == [0, 2, 2, 8]
    if growth_interval == 2000:
        assert skipped.scale.values.tolist() == [1024, 512, 256, 128]
    # A value logged after a skip belongs to the weights that are still the same.
    iterations = run["metrics/iteration"]
    logged = dict(zip(iterations.steps.tolist(), iterations[:, 0].tolist(), strict=True))
    assert logged == {0: 1, 1: 2, 2: 5, 3: 6, 4: 7, 5: 8, 6: 9, 7: 10, 8: 11}
    assert "4 updates skipped" in repr(run)


def test_a_scaler_is_left_as_it_was(tmp_path):
    model, optimizer, scaler = amp(FUSED["sgd"])()
    before = dict(vars(scaler))
    recorder = ps.Recorder(
        tmp_path / "run", model, optimizer, save={"norms": ps.every(1)}, state={"scaler": scaler}
    )
    with recorder:
        assert vars(scaler) != before
    assert vars(scaler) == before


def test_a_disabled_scaler_scales_nothing(tmp_path):
    run, seen = twice(
        tmp_path / "run",
        amp(FUSED["fused adamw"], enabled=False),
        amp_loop,
        state=lambda scaler: {"scaler": scaler},
    )
    check_against(run, seen)
    np.testing.assert_array_equal(run["unclipped_gradients"][:], run.gradients[:])


# --- parameters of every kind ------------------------------------------------------------------


def plain_loop(model, optimizer, recorder, batches=None):
    for x, y in batches or data(8):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def test_several_parameter_groups_each_decay_by_their_own(tmp_path):
    def build():
        model = Net()
        groups = [
            {"params": model.fc1.parameters(), "weight_decay": 0.5, "lr": 0.01},
            {"params": [model.fc2.weight], "weight_decay": 0.0},
            {"params": [model.fc2.bias], "weight_decay": 0.1},
        ]
        return model, torch.optim.AdamW(groups, lr=0.1)

    run, seen = twice(tmp_path / "run", build, plain_loop, save=(*EVERYTHING, "decay"))
    check_against(run, seen)
    rate = np.concatenate([np.full(42, 0.005), np.zeros(21), np.full(3, 0.01)])
    np.testing.assert_allclose(run.decay[:], -rate * run.weights[:-1], rtol=1e-6)


def test_a_frozen_parameter_is_marked_and_one_unfrozen_and_added_later_is_recorded(tmp_path):
    def build():
        model = Net()
        model.fc1.requires_grad_(False)
        return model, torch.optim.SGD(model.fc2.parameters(), lr=0.1)

    def loop(model, optimizer, recorder):
        batches = data(8)
        plain_loop(model, optimizer, recorder, batches[:3])
        model.fc1.requires_grad_(True)
        optimizer.add_param_group({"params": model.fc1.parameters(), "lr": 0.01})
        plain_loop(model, optimizer, recorder, batches[3:])

    run, seen = twice(tmp_path / "run", build, loop)
    check_against(run, seen)
    assert run.info["missing_gradients"] == {"fc1.weight": [0, 2, 3], "fc1.bias": [0, 2, 3]}
    assert run.gradients[3:, :35].any()
    np.testing.assert_array_equal(run["unclipped_gradients"][:], run.gradients[:])


def test_a_gradient_that_nobody_saw_arriving_is_not_invented(tmp_path):
    def build():
        model = Net().requires_grad_(False)
        return model, torch.optim.SGD(model.parameters(), lr=0.1)

    def loop(model, optimizer, recorder):
        optimizer.step()
        model.requires_grad_(True)  # no hook can be there before the next update
        for x, y in data(3):
            nn.functional.cross_entropy(model(x), y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.01)
            optimizer.step()

    with pytest.warns(RecordingWarning, match=r"not known at step 1 .*frozen until now"):
        run, seen = twice(tmp_path / "run", build, loop)
    check_against(run, seen)
    unclipped = run["unclipped_gradients"][:]
    assert not unclipped[0].any()
    assert np.isnan(unclipped[1]).all()
    assert (np.linalg.norm(unclipped[2:], axis=1) > 0.02).all()


def test_a_parameter_group_from_elsewhere_is_refused_when_it_is_used(tmp_path):
    model, optimizer = sgd()
    with ps.Recorder(tmp_path / "run", model, optimizer, save={"norms": ps.every(1)}):
        plain_loop(model, optimizer, None)
        optimizer.add_param_group({"params": nn.Linear(1, 1).parameters()})
        with pytest.raises(ValueError, match=r"1\), \(1.*are not among them"):
            optimizer.step()
    assert len(ps.open_run(tmp_path / "run")["norms/weights"]) == 8


def test_tied_weights_count_once(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(5, 5, bias=False)
            self.unembed = nn.Linear(5, 5, bias=False)
            self.unembed.weight = self.embed.weight

        def forward(self, x):
            return self.unembed(torch.relu(self.embed(x)))[:, :3]

    def build():
        model = Tied()
        return model, torch.optim.AdamW(model.parameters(), lr=0.01)

    run, seen = twice(tmp_path / "run", build, plain_loop)
    assert run.parameters.names == ("embed.weight",)
    check_against(run, seen)
    np.testing.assert_array_equal(run["unclipped_gradients"][:], run.gradients[:])


def test_bfloat16_and_non_contiguous_parameters_are_recorded_in_logical_order(tmp_path):
    def build():
        model = Net().to(torch.bfloat16)
        model.fc1.weight = nn.Parameter(model.fc1.weight.detach().t().contiguous().t())
        assert not model.fc1.weight.is_contiguous()
        return model, torch.optim.AdamW(model.parameters(), lr=0.01)

    batches = [(x.to(torch.bfloat16), y) for x, y in data(6)]
    run, seen = twice(tmp_path / "run", build, lambda m, o, r: plain_loop(m, o, r, batches))
    check_against(run, seen)
    first = run.gradients[0, :35].reshape(7, 5)
    assert first.dtype == np.float32
    torch.manual_seed(0)
    model, _ = build()
    x, y = batches[0]
    nn.functional.cross_entropy(model(x), y).backward()
    np.testing.assert_array_equal(first, model.fc1.weight.grad.float().numpy())


def test_sparse_gradients_are_made_dense_and_the_run_says_so(tmp_path):
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(6, 3, sparse=True)

        def forward(self, x):
            return self.embed((x.abs() * 2).long().clamp(max=5)[:, 0])

    def build():
        model = Words()
        return model, torch.optim.SGD(model.parameters(), lr=0.1)

    run, seen = twice(tmp_path / "run", build, plain_loop)
    check_against(run, seen)
    np.testing.assert_array_equal(run["unclipped_gradients"][:], run.gradients[:])
    assert run.info["densified_gradients"] == ["embed.weight"]
    assert "sparse gradients recorded as dense: embed.weight" in repr(run)


# --- compiled models, other optimizers ---------------------------------------------------------


def test_a_compiled_model_is_recorded_under_its_own_names(tmp_path):
    def build():
        model = torch.compile(Net(), backend="aot_eager")
        return model, torch.optim.SGD(model.parameters(), lr=0.1)

    run, seen = twice(tmp_path / "run", build, plain_loop)
    check_against(run, seen)
    assert run.parameters.names == ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
    np.testing.assert_array_equal(run["unclipped_gradients"][:], run.gradients[:])


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_compiled_optimizer_step_is_recorded(tmp_path):
    def build():
        model = Net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return model, optimizer, torch.compile(optimizer.step, backend="eager")

    def loop(model, optimizer, step, recorder):
        for x, y in data(6):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            step()

    run, seen = twice(tmp_path / "run", build, loop)
    check_against(run, seen)
    assert len(run.gradients) == 6


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {"foreach": False}])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_fused_and_foreach_optimizers_are_recorded_alike(tmp_path, kind, options):
    def build():
        model = Net()
        return model, kind(model.parameters(), lr=0.01, weight_decay=0.1, **options)

    check_against(*twice(tmp_path / "run", build, plain_loop))


@pytest.mark.gpu
def test_capturable_optimizers_on_a_device_are_recorded(tmp_path):
    def build():
        model = Net().cuda()
        return model, torch.optim.Adam(model.parameters(), lr=0.01, capturable=True)

    batches = [(x.cuda(), y.cuda()) for x, y in data(8)]
    run, _ = twice(tmp_path / "run", build, lambda m, o, r: plain_loop(m, o, r, batches))
    np.testing.assert_array_equal(run["unclipped_gradients"][:], run.gradients[:])


def test_a_closure_that_clips_shows_both_gradients(tmp_path):
    def loop(model, optimizer, recorder):
        for x, y in data(5):

            def closure(x=x, y=y):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.05)
                return loss

            optimizer.step(closure)

    run, seen = twice(tmp_path / "run", sgd, loop)
    check_against(run, seen)
    np.testing.assert_allclose(np.linalg.norm(run.gradients[:], axis=1), 0.05, rtol=1e-4)
    assert (np.linalg.norm(run["unclipped_gradients"][:], axis=1) > 0.06).all()


def test_states_loaded_in_mid_run_are_followed(tmp_path):
    torch.manual_seed(1)
    other = copy.deepcopy(Net().state_dict())

    def loop(model, optimizer, recorder):
        batches = data(9)
        plain_loop(model, optimizer, recorder, batches[:3])
        model.load_state_dict(other)
        optimizer.load_state_dict(optimizer.state_dict())
        plain_loop(model, optimizer, recorder, batches[3:])

    run, seen = twice(tmp_path / "run", sgd, loop)
    check_against(run, seen)
    # The jump is in the weights; no update made it.
    np.testing.assert_array_equal(run.weights[3], flat(other.values()))
    jump = run.weights[3] - run.weights[2]
    assert not np.allclose(jump, run.updates[2], atol=1e-3)


def test_two_optimizers_of_one_model_are_recorded_by_a_recorder_each(tmp_path):
    def build():
        torch.manual_seed(0)
        model = Net()
        return (
            model,
            torch.optim.SGD(model.fc1.parameters(), lr=0.1),
            torch.optim.Adam(model.fc2.parameters(), lr=0.01),
        )

    def loop(model, first, second):
        for i, (x, y) in enumerate(data(8)):
            nn.functional.cross_entropy(model(x), y).backward()
            first.step()
            if i % 2:
                second.step()
            model.zero_grad()

    model, first, second = build()
    loop(model, first, second)
    recorded, first, second = build()
    save = dict.fromkeys(EVERYTHING, ps.every(1))
    with (
        ps.Recorder(tmp_path / "first", recorded, first, save=save),
        ps.Recorder(tmp_path / "second", recorded, second, save=save),
    ):
        loop(recorded, first, second)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), recorded.parameters(), strict=True)
    )
    one, two = ps.open_run(tmp_path / "first"), ps.open_run(tmp_path / "second")
    assert (len(one.gradients), len(two.gradients)) == (8, 4)
    # Each sees what its own optimizer consumes, and the change that this one makes.
    for name in ("gradients", "unclipped_gradients", "updates"):
        assert one[name][:, :42].any()
        assert not one[name][:, 42:].any()
        assert two[name][:, 42:].any()
        assert not two[name][:, :42].any()
    assert set(one.info["missing_gradients"]) == {"fc2.weight", "fc2.bias"}


# --- when recording fails ----------------------------------------------------------------------


def failing_probe(after):
    calls = iter(range(100))
    return lambda model: torch.zeros(2 if next(calls) < after else 3)


def test_training_can_go_on_when_recording_cannot(tmp_path):
    model, optimizer = sgd()
    plain_loop(
        twin := copy.deepcopy(model), torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9), None
    )
    save = {"gradients": ps.every(1), "probes": ps.every(1)}
    options = {"save": save, "probes": {"shape": failing_probe(3)}, "on_failure": "continue"}
    recorder = ps.Recorder(tmp_path / "run", model, optimizer, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with recorder:
            for x, y in data(8):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
                recorder.log(step_done=recorder.step)
                recorder.end_step()
    assert [w.category for w in caught] == [RecordingWarning]
    assert "recording ended at step 3, the training goes on without it" in str(caught[0].message)
    assert recorder.step == 8
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True)
    )
    run = ps.open_run(tmp_path / "run")
    assert run.status == "interrupted"
    assert "probe 'shape' must return one shape" in run.info["failure"]
    assert run.gradients.steps.tolist() == [0, 1, 2]
    assert not optimizer._optimizer_step_pre_hooks


def test_a_failure_at_the_very_end_is_not_silent(tmp_path, monkeypatch):
    model, optimizer = sgd()
    save = {"gradients": ps.every(1)}
    recorder = ps.Recorder(
        tmp_path / "run", model, optimizer, save=save, on_failure="continue"
    ).attach()
    plain_loop(model, optimizer, None)

    def full(store):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TrajectoryStore, "commit", full)
    with pytest.warns(RecordingWarning, match="recording ended at step 8.*disk is full"):
        recorder.close()
    run = ps.open_run(tmp_path / "run")
    assert run.status == "interrupted"
    assert "disk is full" in run.info["failure"]


def test_by_default_a_failure_stops_the_training(tmp_path):
    model, optimizer = sgd()
    save = {"gradients": ps.every(1), "probes": ps.every(1)}
    with (
        pytest.raises(RecordingError, match="must return one shape"),
        ps.Recorder(
            tmp_path / "run", model, optimizer, save=save, probes={"shape": failing_probe(3)}
        ),
    ):
        plain_loop(model, optimizer, None)
    assert ps.open_run(tmp_path / "run").status == "interrupted"


def test_what_becomes_of_a_failure_must_be_said_in_known_words(tmp_path, unchecked_types):
    model, optimizer = sgd()
    with pytest.raises(ValueError, match="'raise' or 'continue', but 'ignore' arrived"):
        ps.Recorder(tmp_path, model, optimizer, save={"norms": ps.every(1)}, on_failure="ignore")
