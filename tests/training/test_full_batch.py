"""Full-batch training: what is measured when, single and in ensembles, resumed and controlled."""

import gc
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import phasescope as ps
from phasescope.datasets import modular_task, split_pairs
from phasescope.models import PairEnsemble, PairTransformer, QuadraticMLP
from phasescope.training import (
    EnsembleAdam,
    EnsembleSGD,
    EnsembleSteps,
    LearningRate,
    Rejecting,
    TrainingCurves,
    cross_entropy_float32,
    cross_entropy_float64,
    full_batch,
    squared_error,
    train_full_batch,
)

Examples = tuple[Tensor, Tensor]
TASK = modular_task("add", 11)
METRICS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


def examples(seed: int = 0, fraction: float = 0.5) -> tuple[Examples, Examples]:
    split = split_pairs(len(TASK.labels), fraction, seed=seed)
    return TASK.examples(split.train), TASK.examples(split.test)


def small(seed: int = 0) -> PairTransformer:
    generator = torch.Generator().manual_seed(seed)
    return PairTransformer(11, d_model=8, n_heads=2, d_mlp=16, generator=generator)


def adamw(model: torch.nn.Module, **settings: Any) -> torch.optim.AdamW:
    chosen = {"lr": 1e-2, "betas": (0.9, 0.98), "weight_decay": 0.5} | settings
    return torch.optim.AdamW(model.parameters(), **chosen)


def test_every_step_measures_both_sets_at_the_weights_before_its_update():
    model, (train, test) = small(), examples()
    seen: list[dict[str, float]] = []

    def by_hand(step: int, metrics: dict[str, Tensor]) -> None:
        assert step == len(seen)
        row = {}
        for name, (pairs, labels) in (("train", train), ("test", test)):
            with torch.no_grad():
                logits = model(pairs).double()
            row[f"{name}_loss"] = float(functional.cross_entropy(logits, labels))
            row[f"{name}_accuracy"] = float((logits.argmax(1) == labels).double().mean())
        assert {k: float(v) for k, v in metrics.items()} == pytest.approx(row, rel=1e-12)
        seen.append(row)

    curves = train_full_batch(model, adamw(model), train, test, 5, on_step=by_hand)
    assert curves.steps.tolist() == [0, 1, 2, 3, 4, 5]
    assert curves.test_loss.dtype == torch.float64
    for name in METRICS:
        assert getattr(curves, name).tolist() == pytest.approx([row[name] for row in seen])


def test_updates_are_those_of_the_plain_loop():
    model, plain = small().double(), small().double()
    train, test = examples()
    train_full_batch(model, adamw(model), train, test, 4)
    optimizer = adamw(plain)
    for _ in range(4):
        optimizer.zero_grad()
        functional.cross_entropy(plain(train[0]), train[1]).backward()
        optimizer.step()
    for (name, one), (_, other) in zip(
        model.named_parameters(), plain.named_parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("n_seeds", [None, 2])
def test_blocks_of_examples_add_up_to_the_same_curves_and_updates(
    n_seeds: int | None, monkeypatch: pytest.MonkeyPatch
):
    train, test = examples(fraction=0.4)

    def trained() -> tuple[TrainingCurves, Tensor]:
        model = small() if n_seeds is None else PairEnsemble([small(i) for i in range(n_seeds)])
        model = model.double()
        curves = train_full_batch(model, adamw(model), train, test, 3)
        return curves, torch.cat([p.detach().flatten() for p in model.parameters()])

    whole, weights = trained()
    monkeypatch.setattr("phasescope.training.full_batch._BLOCK", 16)
    monkeypatch.setattr("phasescope.training.full_batch._SMALLEST_BLOCK", 7)
    forward = PairEnsemble if n_seeds else PairTransformer
    sizes, original = [], forward.from_tables

    def counted(self: Any, tables: Any, pairs: Tensor) -> Tensor:
        sizes.append(len(pairs))
        return original(self, tables, pairs)

    monkeypatch.setattr(forward, "from_tables", counted)
    parts, other = trained()
    assert max(sizes) == 16 // (n_seeds or 1)
    assert sum(sizes) == 4 * len(TASK.labels)
    torch.testing.assert_close(other, weights, rtol=1e-9, atol=1e-12)
    for name in METRICS:
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-9, atol=0)


@pytest.mark.parametrize("recorded", [False, True])
def test_no_step_leaves_tensors_behind(recorded: bool, tmp_path: Path):
    """Small tensors that stay keep the large ones between them from being used again."""
    model, (train, test) = small(), examples()
    optimizer = adamw(model)
    counts: list[int] = []

    def count(step: int, metrics: dict[str, Tensor]) -> None:
        if step in (5, 30):
            gc.collect()
            counts.append(sum(issubclass(type(x), Tensor) for x in gc.get_objects()))

    if recorded:
        save = {"norms": ps.every(1)}
        with ps.Recorder(tmp_path / "run", model, optimizer, save=save, n_steps=31) as recorder:
            train_full_batch(model, optimizer, train, test, 31, recorder=recorder, on_step=count)
    else:
        train_full_batch(model, optimizer, train, test, 31, on_step=count)
    assert counts[0] == counts[1]


@pytest.mark.slow
def test_a_compiled_training_is_the_same_up_to_rounding():
    model, (train, test) = small(), examples()
    eager = train_full_batch(model, adamw(model), train, test, 20)
    model = small()
    compiled = train_full_batch(model, adamw(model), train, test, 20, compiled=True)
    for name in METRICS:
        torch.testing.assert_close(
            getattr(compiled, name), getattr(eager, name), rtol=1e-5, atol=1e-7
        )


def test_losses_are_computed_in_their_precision():
    logits, label = torch.tensor([[25.0, 0.0]]), torch.tensor([0])
    exact = math.log1p(math.exp(-25))
    assert float(cross_entropy_float64(logits, label)) == pytest.approx(exact, rel=1e-4)
    assert float(cross_entropy_float32(logits, label)) == 0.0
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(3, 6, 5, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 4, 2, 2, 1, 3])
    for loss_fn, wanted in (
        (cross_entropy_float64, lambda o: functional.cross_entropy(o, labels, reduction="none")),
        (squared_error, lambda o: (o - functional.one_hot(labels, 5)).square().mean(-1)),
    ):
        found = loss_fn(outputs, labels)
        own = loss_fn(outputs, labels.expand(3, 6).clone())
        for seed in range(3):
            torch.testing.assert_close(found[seed], wanted(outputs[seed]))
            torch.testing.assert_close(own[seed], wanted(outputs[seed]))


@pytest.mark.parametrize("loss_fn", [cross_entropy_float64, cross_entropy_float32])
def test_a_sure_network_gets_no_subnormal_gradients(loss_fn: Callable[[Tensor, Tensor], Tensor]):
    (pairs, labels), _ = examples()
    model = small()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # logits a hundred nats apart

    def gradients(loss: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(loss, list(model.parameters())))

    exact = gradients(functional.cross_entropy(model(pairs).double(), labels))
    found = gradients(loss_fn(model(pairs), labels).mean())
    logits = model(pairs).detach().requires_grad_()
    loss_fn(logits, labels).sum().backward()
    assert logits.grad is not None
    least = logits.grad[logits.grad != 0].abs().min().item()
    assert least > 2.0**40 * torch.finfo(torch.float32).tiny
    plain = logits.detach().double().requires_grad_()
    functional.cross_entropy(plain, labels, reduction="sum").backward()
    assert plain.grad is not None
    assert bool((plain.grad.float().abs() < 1e-30).any())  # there was something to leave out
    for a, b in zip(found, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=1e-6 * float(b.abs().max()))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_losses_can_be_differentiated_twice_and_in_both_directions():
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 4])

    def loss(x: Tensor) -> Tensor:
        return cross_entropy_float64(x, labels)

    assert torch.autograd.gradcheck(loss, logits, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(loss, logits)
    one_by_one = torch.func.vmap(torch.func.grad(lambda x: loss(x).sum()))
    stacked = torch.randn(2, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(
        one_by_one(stacked)[1], torch.func.grad(lambda x: loss(x).sum())(stacked[1])
    )


def adamw_rule(**settings: Any) -> EnsembleAdam:
    return EnsembleAdam(**settings, decoupled=True)


@pytest.mark.parametrize(
    ("rule", "single", "settings"),
    [
        (adamw_rule, torch.optim.AdamW, {"lr": [1e-2, 3e-3, 1e-2], "weight_decay": [0.5, 0.0, 2]}),
        (EnsembleSGD, torch.optim.SGD, {"lr": [0.5, 0.1, 0.3], "weight_decay": [0.0, 1e-2, 0.1]}),
    ],
)
@pytest.mark.parametrize("controls", [{}, {"warmup_steps": 3, "decay_on_rise": 1.5}])
def test_an_ensemble_learns_what_each_seed_learns_alone(
    rule: Any, single: Any, settings: dict[str, list[float]], controls: dict[str, Any]
):
    sets = [examples(seed) for seed in range(3)]
    members = [small(seed).double() for seed in range(3)]
    ensemble = PairEnsemble(members)
    train, test = (
        tuple(torch.stack([s[part][i] for s in sets]) for i in (0, 1)) for part in (0, 1)
    )
    per_seed = {name: torch.tensor(values) for name, values in settings.items()}
    optimizer = EnsembleSteps(ensemble, rule(**per_seed))
    rate = LearningRate(optimizer, **controls)
    together = train_full_batch(ensemble, optimizer, train, test, 12, rate=rate)
    for seed, (model, (own_train, own_test)) in enumerate(zip(members, sets, strict=True)):
        own = {name: values[seed] for name, values in settings.items()}
        optimizer = single(model.parameters(), **own)
        rate = LearningRate(optimizer, **controls)
        alone = train_full_batch(model, optimizer, own_train, own_test, 12, rate=rate)
        for name in METRICS:
            torch.testing.assert_close(
                getattr(together, name)[:, seed], getattr(alone, name), rtol=1e-6, atol=0
            )


def recorded(directory: Path, n_steps: int, *, stop: int | None = None) -> ps.Run:
    """A recorded training with warm-up and decay, perhaps interrupted before `stop`."""
    model, (train, test) = small(), examples()
    optimizer = adamw(model)
    rate = LearningRate(optimizer, warmup_steps=5, decay_on_rise=1.1)

    def on_step(step: int, metrics: dict[str, Tensor]) -> None:
        if step == stop:
            raise KeyboardInterrupt

    recorder = ps.Recorder(
        directory, model, optimizer, n_steps=n_steps, resume=True, loss_reduction="mean",
        save={"weights": ps.every(4), "gradients": ps.every(1)},
        checkpoint=ps.every(8), state={"rate": rate},
    )  # fmt: skip
    try:
        with recorder:
            train_full_batch(
                model, optimizer, train, test, n_steps,
                rate=rate, recorder=recorder, on_step=on_step,
            )  # fmt: skip
    except KeyboardInterrupt:
        assert stop is not None
    return ps.open_run(directory)


def test_a_recorded_training_is_resumed_to_the_same_bits(tmp_path: Path):
    whole = recorded(tmp_path / "whole", 30)
    recorded(tmp_path / "parts", 30, stop=19)
    parts = recorded(tmp_path / "parts", 30)
    for name in (*(f"metrics/{m}" for m in METRICS), "gradients", "weights"):
        assert whole[name].steps.tolist() == parts[name].steps.tolist(), name
        assert (whole[name][:] == parts[name][:]).all(), name
    losses = whole["metrics/test_loss"]
    assert losses.steps.tolist() == list(range(31))
    assert bool(torch.as_tensor(losses[:]).isfinite().all())


def test_the_first_update_of_a_warm_up_changes_nothing():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=2.0)
    rate = LearningRate(optimizer, warmup_steps=4)
    rates = []
    for step in range(6):
        rate.before_update(step, 1.0)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]


def test_the_rate_decays_at_every_rise_and_only_there():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=8.0)
    rate = LearningRate(optimizer, decay_on_rise=2.0)
    rates = []
    for step, loss in enumerate([3.0, 3.0, 4.0, 2.0, 2.5, 2.6]):
        rate.before_update(step, loss)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [8.0, 8.0, 4.0, 4.0, 2.0, 1.0]
    assert float(rate.n_rises) == 3


def flat_loss(params: Tensor) -> Tensor:
    """A narrow valley in two dimensions, one per seed."""
    return params[..., 0] ** 2 + 100 * params[..., 1] ** 2


def test_updates_that_raise_the_loss_are_taken_back_seed_by_seed():
    start = torch.tensor([[1.0, 0.5], [1.0, 0.5]])
    module = torch.nn.Module()
    module.x = x = torch.nn.Parameter(start.clone())
    # 2·100·lr must stay below 2 for the steep direction to converge.
    inner = EnsembleSteps(module, EnsembleSGD(torch.tensor([0.02, 0.002])))
    optimizer = Rejecting(inner, lambda: flat_loss(x.detach()))
    flat_loss(x).sum().backward()
    optimizer.step()
    assert optimizer.rejected.tolist() == [True, False]
    assert torch.equal(x[0], start[0])
    assert not torch.equal(x[1], start[1])


@pytest.mark.parametrize("inner", ["sgd", "adam"])
def test_a_training_with_rejection_never_rises(inner: str):
    model, (train, test) = small(), examples()
    optimizer = (
        torch.optim.SGD(model.parameters(), lr=4.0)
        if inner == "sgd"
        else adamw(model, lr=0.1, weight_decay=0.0)
    )

    def loss() -> Tensor:
        with torch.no_grad():
            return cross_entropy_float64(model(train[0]), train[1]).mean()

    rejecting = Rejecting(optimizer, loss)
    rejected: list[bool] = []
    rate = LearningRate(rejecting, decay_on_rise=1.5)
    curves = train_full_batch(
        model, rejecting, train, test, 60, rate=rate,
        on_step=lambda step, metrics: rejected.append(bool(rejecting.rejected)),
    )  # fmt: skip
    assert any(rejected)
    assert int(rate.n_rises) == sum(rejected[1:-1])
    differences = curves.train_loss.diff()
    assert float(differences.max()) <= 0
    assert float(differences.min()) < 0


def test_rejected_updates_are_recorded_as_none(tmp_path: Path):
    model, (train, test) = small(), examples()

    def loss() -> Tensor:
        with torch.no_grad():
            return cross_entropy_float64(model(train[0]), train[1]).mean()

    optimizer = Rejecting(torch.optim.SGD(model.parameters(), lr=0.7), loss)
    rejected = []
    with ps.Recorder(
        tmp_path / "run", model, optimizer, save={"updates": ps.every(1)}, n_steps=20
    ) as recorder:
        train_full_batch(
            model, optimizer, train, test, 20, recorder=recorder,
            on_step=lambda step, metrics: rejected.append(bool(optimizer.rejected)),
        )  # fmt: skip
    moved = (torch.as_tensor(ps.open_run(tmp_path / "run").updates[:]) != 0).any(1)
    assert moved.tolist() == [not r for r in rejected[1:]]
    assert 0 < int(moved.sum()) < 20


def test_the_state_of_an_ensemble_is_not_lost_silently():
    optimizer = EnsembleSteps(PairEnsemble([small(0), small(1)]), EnsembleSGD(0.1))
    with pytest.raises(RuntimeError, match="an ensemble cannot be resumed"):
        optimizer.state_dict()


def test_rejection_resumes_from_a_state(tmp_path: Path):
    model = small()
    optimizer = Rejecting(adamw(model), lambda: torch.tensor(0.0))
    model(TASK.pairs).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    other = Rejecting(adamw(small()), lambda: torch.tensor(0.0))
    other.load_state_dict(state)
    assert len(other.state) == len(optimizer.state) > 0
    assert other.param_groups is other.inner.param_groups


@pytest.fixture(scope="module")
def grokked() -> TrainingCurves:
    """The quadratic network modulo 31, which groks within a second."""
    task = modular_task("add", 31)
    split = split_pairs(len(task.labels), 0.5, seed=0)
    model = QuadraticMLP(31, 200, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=5.0, betas=(0.9, 0.98))
    return train_full_batch(
        model, optimizer, task.examples(split.train), task.examples(split.test), 150,
        loss_fn=squared_error,
    )  # fmt: skip


def test_the_quadratic_network_memorises_and_then_groks(grokked: TrainingCurves):
    memorised = int((grokked.train_accuracy >= 0.99).int().argmax())
    generalised = int((grokked.test_accuracy >= 0.95).int().argmax())
    assert 0 < memorised < generalised
    assert float(grokked.test_accuracy[-1]) == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LearningRate(adamw(small()), warmup_steps=-1), "warmup_steps must not be neg"),
        (lambda: LearningRate(adamw(small()), decay_on_rise=0.9), "decay_on_rise be at least 1"),
        (
            lambda: EnsembleSteps(small(), EnsembleSGD(0.1)),
            r"seeds as their first axis, but the shapes are \[\(12, 8\), \(3, 8\)",
        ),
        (
            lambda: train_full_batch(small(), adamw(small()), *examples(), 0),
            "at least one step, but .* n_steps is 0",
        ),
        (
            lambda: train_full_batch(
                small(), adamw(small()), examples()[0], TASK.examples(torch.arange(0)), 1
            ),
            "but there are 60 and 0 examples",
        ),
    ],
)
def test_what_cannot_be_trained_is_said(call: Callable[[], Any], message: str):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("n_seeds", [None, 3])
def test_accuracy_is_that_of_the_first_of_the_largest_outputs(n_seeds: int | None):
    size = (200, 5) if n_seeds is None else (n_seeds, 200, 5)
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (200,), generator=generator)
    apart = torch.randn(size, generator=generator)
    tied = torch.randint(0, 3, size, generator=generator).float()  # most rows have several largest
    for outputs in (apart, tied, torch.zeros(size)):
        _, accuracy = full_batch._measure(lambda x, y=outputs: y, labels, labels, squared_error)
        expected = (outputs.argmax(-1) == labels).double().mean(-1)
        assert torch.equal(accuracy, expected)


def test_rows_with_nan_do_not_hide_ties_in_other_seeds():
    outputs = torch.zeros(2, 4, 3)  # all tied: the first class is the answer
    outputs[1] = math.nan
    labels = torch.tensor([0, 1, 0, 2])
    _, accuracy = full_batch._measure(lambda x: outputs, labels, labels, squared_error)
    assert accuracy[0] == 0.5


def test_the_test_set_is_measured_in_evaluation_mode_and_changes_nothing():
    class Normalised(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.drop = torch.nn.BatchNorm1d(2), torch.nn.Dropout(0.5)
            self.linear = torch.nn.Linear(2, 7)

        def forward(self, pairs: Tensor) -> Tensor:
            return self.linear(self.drop(self.norm(pairs.float())))

    torch.manual_seed(0)
    model, optimizer = Normalised(), None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    train = (torch.zeros(8, 2, dtype=torch.int64), torch.zeros(8, dtype=torch.int64))
    test = (torch.full((8, 2), 6), torch.zeros(8, dtype=torch.int64))
    losses = []

    def note(step: int, metrics: dict[str, Tensor]) -> None:
        losses.append(float(metrics["test_loss"]))
        assert model.training

    train_full_batch(model, optimizer, train, test, 5, on_step=note)
    assert float(model.norm.running_mean.abs().max()) == 0  # of the training set
    model.eval()
    with torch.no_grad():
        expected = float(cross_entropy_float64(model(test[0]), test[1]).mean())
    assert losses[-1] == pytest.approx(expected)


def test_a_recorder_does_not_take_an_ensemble_with_decay_for_one_without(tmp_path: Path):
    ensemble = PairEnsemble([small(0), small(1)])
    optimizer = EnsembleSteps(ensemble, EnsembleAdam(0.1, weight_decay=1.0, decoupled=True))
    with pytest.raises(ValueError, match="decay"):
        ps.Recorder(tmp_path / "r", ensemble, optimizer, save={"decay": ps.every(1)}).attach()
