"""One call tells planted copies and forks from models of other basins."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import phasescope as ps
from figures.captions import check_house_rules
from phasescope.interventions import same_basin
from phasescope.models import MLP, seeded

X = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
Y = ((X[:, 0] * X[:, 1]) > 0).long()
DATA = {"train": (X[:300], Y[:300]), "test": (X[300:], Y[300:])}


def build() -> MLP:
    return MLP((2, 12, 2))


def trained(seed: int, *, model: nn.Module | None = None, order: int = 0, n: int = 300):
    model = seeded(build, seed) if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    generator = torch.Generator().manual_seed(order)
    for _ in range(n):
        rows = torch.randint(0, 300, (64,), generator=generator)
        optimizer.zero_grad()
        functional.cross_entropy(model(X[rows]), Y[rows]).backward()
        optimizer.step()
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def states() -> dict[str, dict[str, Tensor]]:
    first = trained(0)
    model = build()
    model.load_state_dict(first)
    fork = trained(0, model=model, order=9, n=30)
    symmetry = ps.permutation_symmetry(model, (X[:2],))
    planted = symmetry.permuted(fork, symmetry.random(torch.Generator().manual_seed(1)))
    copy = symmetry.permuted(first, symmetry.random(torch.Generator().manual_seed(2)))
    states = {"first": first, "fork": fork, "planted": planted, "copy": copy}
    return {**states, "other": trained(5)}


def test_a_fork_is_in_the_basin_as_it_is(states):
    found = same_basin(build(), states["first"], states["fork"], DATA, tolerance=0.05)
    assert found.same_basin
    assert found.how == "as they are"
    assert found.barriers["as they are"] < min(found.random_barriers)


def test_a_permuted_fork_is_found_by_matching(states):
    found = same_basin(build(), states["first"], states["planted"], DATA, tolerance=0.05)
    assert found.how == "weights matched"
    assert found.barriers["as they are"] > 0.1
    assert found.distances["weights matched"] < 0.5 * found.distances["as they are"]
    text = str(found)
    assert text.startswith("one basin (weights matched)\ntest loss: ")
    assert "tolerance: 0.05, as given" in text


def test_forks_give_the_tolerance(states):
    forks = [0.01 * i for i in range(101)]
    found = same_basin(build(), states["first"], states["fork"], DATA, forks=forks, match=())
    assert found.tolerance == pytest.approx(0.95)
    assert found.tolerance_source == "95th percentile of 101 barriers between forks"
    assert list(found.paths) == ["as they are"]


def test_another_training_is_in_another_basin_and_a_curve_may_connect(states):
    found = same_basin(
        build(),
        states["first"],
        states["other"],
        DATA,
        tolerance=1e-3,
        curve_steps=150,
        curve_lr=0.1,
    )
    assert not found.same_basin
    assert found.barriers["curve"] < min(b for name, b in found.barriers.items() if name != "curve")
    for t, state in ((0.0, states["first"]), (1.0, None)):
        point = found.curve.curve(t)
        if state is not None:
            assert all(torch.equal(point[n], state[n]) for n in state)
    assert str(found).startswith("different basins")


def test_rounding_makes_no_barrier(states):
    for second in (states["first"], states["copy"]):
        found = same_basin(build(), states["first"], second, DATA, forks=[0.0, 0.0])
        assert found.same_basin
        assert 0 < found.tolerance < 1e-5
    assert same_basin(build(), states["first"], states["first"], DATA).same_basin


def test_what_has_learned_nothing_lies_in_no_basin(states):
    fresh = [seeded(build, seed).state_dict() for seed in (7, 8)]
    labels = torch.randint(0, 2, (400,), generator=torch.Generator().manual_seed(3))
    blind = {"test": (X, labels)}
    small = [{n: 0.1 * v for n, v in state.items()} for state in fresh]
    found = same_basin(build(), *small, {"test": (X, torch.zeros(400).long())})
    assert str(found).startswith("undecided: neither model is better than one answer")
    assert not found.same_basin
    found = same_basin(build(), states["first"], fresh[0], DATA)
    assert str(found).startswith("undecided: one model has learned ")
    # A loss whose outputs have no rows for the inputs cannot be judged so.
    total = same_basin(Total(), *(2 * [Total().state_dict()]), blind, loss=of_total, match=())
    assert not total.undecided


def test_without_forks_the_tolerance_is_a_part_of_what_was_learned(states):
    found = same_basin(build(), states["first"], states["other"], DATA)
    learned = 0.7 - min(found.paths["as they are"].values["test loss"][[0, -1]].tolist())
    assert 0 < found.tolerance <= 0.1 * learned
    assert not found.same_basin
    assert "at most of what the better model has learned" in str(found)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 12, bias=False)
        self.hidden = nn.Linear(12, 12)
        self.head = nn.Linear(6, 12, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.hidden(self.embed(x).relu()).relu()
        return hidden @ self.head.weight


def test_tied_weights_count_once_under_any_name():
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(4))
    data = {"test": (x, x.roll(1, 1).argmax(1))}
    model = seeded(Tied, 0)
    first = {n: 2 * v.detach().clone() for n, v in model.state_dict().items()}
    second = {n: 2 * v.detach().clone() for n, v in seeded(Tied, 1).state_dict().items()}
    whole = same_basin(model, first, second, data, curve_steps=5)
    model.load_state_dict(first)
    loss = functional.cross_entropy(model(x), data["test"][1]).item()
    ends = whole.paths["as they are"].values["test loss"]
    assert ends[0].item() == pytest.approx(loss, rel=1e-6)
    for name in ("head.weight", "embed.weight"):
        parts = [{n: v for n, v in s.items() if n != name} for s in (first, second)]
        found = same_basin(seeded(Tied, 3), *parts, data, curve_steps=5)
        assert found.barriers == pytest.approx(whole.barriers, abs=1e-6)
        assert found.distances == pytest.approx(whole.distances)
    point = whole.curve.curve(0.5)
    assert set(point) == {"embed.weight", "hidden.weight", "hidden.bias"}
    unequal = {**first, "head.weight": first["head.weight"] + 1}
    with pytest.raises(ValueError, match=r"'head.weight' and 'embed.weight' are one"):
        same_basin(model, unequal, second, data)


class Total(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight).square().mean()


def of_total(out: Tensor, targets: Tensor) -> Tensor:
    return out


def test_batch_norms_are_handled_and_the_module_is_left_alone():
    def network() -> nn.Module:
        return nn.Sequential(
            nn.Linear(2, 12, bias=False), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 2)
        )

    model = seeded(network, 0)
    state = trained(0, model=model, n=100)
    before = {n: v.clone() for n, v in model.state_dict().items()}
    symmetry = ps.permutation_symmetry(model, (X[:2],))
    planted = symmetry.permuted(state, symmetry.random(torch.Generator().manual_seed(1)))
    model.train()
    found = same_basin(model, state, planted, DATA, tolerance=1e-4, curve_steps=3)
    assert found.barriers["weights matched"] == pytest.approx(0, abs=1e-6)
    assert found.barriers["as they are"] > 1e-2
    assert ", running statistics counted anew\n" in str(found)
    assert model.training
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


def test_the_figure_shows_every_path_and_the_null(states):
    found = same_basin(build(), states["first"], states["planted"], DATA, tolerance=0.05)
    figure = ps.figures.basin_paths(found)
    check_house_rules(figure)
    names = [trace.name for trace in figure.data]
    assert names[-3:] == ["as they are", "weights matched", "activations matched"]
    assert names.count("to random targets as far away") == 3
    assert "one basin" in figure.layout.title.text


def test_a_plane_is_drawn_with_its_models_and_trajectories(states):
    plane = ps.Plane.through(states["first"], states["other"], states["planted"])
    values = ps.plane_values(ps.StateMeasure(build(), DATA), plane, n_points=4)
    path = torch.stack([plane.coordinates(states[n]) for n in ("first", "fork")]).numpy()
    figure = ps.figures.loss_plane(values, "test loss", trajectories={"fork": path}, log=True)
    check_house_rules(figure)
    assert [trace.name for trace in figure.data[:2]] == ["test loss", "fork"]
    with pytest.raises(ValueError, match="name must be one of train loss, train accuracy"):
        ps.figures.loss_plane(values, "loss")


class Wrapped(nn.Module):
    """Returns a dictionary, as models of Hugging Face do."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = build()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.inside(x)}


def test_outputs_may_be_what_the_loss_takes_out_of_them(states):
    inside, other = ({f"inside.{n}": v for n, v in states[k].items()} for k in ("first", "planted"))
    found = same_basin(
        Wrapped(),
        inside,
        other,
        DATA,
        loss=lambda out, y: functional.cross_entropy(out["logits"], y),
        tolerance=0.05,
    )
    assert found.how == "weights matched"
    assert set(found.paths["as they are"].values) == {"train loss", "test loss"}


def test_bad_input_is_refused(states, unchecked_types: None):
    good = states["first"]
    other = MLP((2, 9, 2)).state_dict()
    with pytest.raises(ValueError, match=r"'fc1.weight' has shape \(12, 2\), but in the second"):
        same_basin(build(), good, other, DATA)
    with pytest.raises(ValueError, match=r"'fc1.weight' is missing in the first one. Is it of"):
        same_basin(build(), {f"module.{n}": v for n, v in good.items()}, good, DATA)
    with pytest.raises(ValueError, match=r"no axis of its 2 parameters could.* pass match=\(\)"):
        line = nn.Linear(2, 2)
        same_basin(line, line.state_dict(), line.state_dict(), DATA)
    with pytest.raises(TypeError, match=r"the first one is a MLP\. Pass its state_dict"):
        same_basin(build(), build(), good, DATA)
    broken = {**good, "fc2.bias": torch.tensor([0.0, float("nan")])}
    with pytest.raises(ValueError, match=r"finite weights are required, but 'fc2.bias' of the sec"):
        same_basin(build(), good, broken, DATA)
    with pytest.raises(ValueError, match=r"such as {'train': \(x, y\)}, but tuple arrived"):
        same_basin(build(), good, good, (X, Y))
    with pytest.raises(TypeError, match=r"cross_entropy does not take \w+: .* Pass loss="):
        same_basin(Wrapped(), *(2 * [Wrapped().state_dict()]), DATA, match=())
    for names in (["wm"], "weights matched"):
        with pytest.raises(ValueError, match=r"such as \('weights matched',\), but .*w"):
            same_basin(build(), good, good, DATA, match=names)
    with pytest.raises(ValueError, match=r"either forks or a tolerance can be given, but both"):
        same_basin(build(), good, good, DATA, forks=[0.1], tolerance=0.1)
    for wrong in ({"tolerance": -0.1}, {"tolerance": float("nan")}, {"forks": [float("nan")]}):
        with pytest.raises(ValueError, match="a tolerance of 0 or more and finite barriers of fo"):
            same_basin(build(), good, good, DATA, **wrong)
    for forks, shape in (([], r"\(0,\)"), (torch.zeros(2, 2), r"\(2, 2\)")):
        with pytest.raises(
            ValueError, match=rf"one barrier or more in a row, but .* shape {shape}"
        ):
            same_basin(build(), good, good, DATA, forks=forks)
    with pytest.raises(TypeError, match=r"the first one is a str\. Load files first"):
        same_basin(build(), "a.pt", good, DATA)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y))
    with pytest.raises(TypeError, match=r"for the set 'test', but a DataLoader arrived.*concaten"):
        same_basin(build(), good, good, {"test": loader})
    with pytest.raises(ValueError, match=r"set 'test', .*torch.float64.*weights of torch.float32"):
        same_basin(build(), good, good, {"test": (X.double(), Y)})
    with pytest.raises(ValueError, match=r"at least one random target .* n_random is 0"):
        same_basin(build(), good, good, DATA, n_random=0)
    with pytest.raises(ValueError, match="on must be one of train loss"):
        same_basin(build(), good, good, DATA, on="loss", match=())
    with pytest.raises(ValueError, match="at least one set, such as"):
        same_basin(build(), good, good, {})
