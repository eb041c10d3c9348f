import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from phasescope.cli import main
from phasescope.models import PairTransformer, save_pair_transformer
from phasescope.report import analyse_checkpoint, checkpoint_table


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network that multiplies modulo 7, as far as anyone can tell."""
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    generator = torch.Generator().manual_seed(7)
    model = PairTransformer(
        7, d_model=8, n_heads=2, d_mlp=16, activation="gelu", generator=generator
    )
    save_pair_transformer(model, path)
    return path


def test_a_checkpoint_is_measured_beside_untrained_networks(checkpoint: Path):
    found = analyse_checkpoint(checkpoint, "multiply", train_fraction=0.5, n_untrained=2)
    assert found.task == "multiply modulo 7"
    assert found.activation == "gelu"
    assert (found.trained.basis, found.trained.orders) == ("multiplicative", (6,))
    assert (found.trained.train.n_pairs, found.trained.test.n_pairs) == (24, 25)
    assert found.trained.without_place is not None
    assert found.trained.without_place.n_pairs == 13  # all pairs with a 0
    assert len(found.untrained) == len(found.untrained_symmetricity) == 2
    losses = {row.train.loss for row in (found.trained, *found.untrained)}
    assert len(losses) == 3
    assert {row.restricted_keys for row in found.untrained} == {found.trained.restricted_keys}


def test_the_untrained_networks_have_the_shape_of_the_trained_one(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    shape = {"d_model": 8, "n_heads": 2, "d_mlp": 16, "n_layers": 2}
    save_pair_transformer(PairTransformer(7, init="pizza", attention_rate=0.5, **shape), path)
    found = analyse_checkpoint(path, "add", n_untrained=1)
    names = found.trained.squared_norms.keys()
    assert found.untrained[0].squared_norms.keys() == names


def test_the_wrong_basis_is_a_control(checkpoint: Path):
    found = analyse_checkpoint(checkpoint, "multiply", basis="additive", n_untrained=1)
    assert found.trained.orders == (7,)
    assert found.trained.without_place is None


def test_the_command_prints_a_table_and_json(checkpoint: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["analyse", str(checkpoint), "--operation", "multiply"]
    assert main(arguments) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "multiply modulo 7, multiplicative basis (Z6)" in text
    assert "3 untrained" in text
    assert "loss, all pairs" in text
    assert main([*arguments, "--json", "--train-fraction", "0.5"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["split_known"]
    assert len(printed["untrained"]) == 3
    assert set(printed["trained"]["restricted"]) == {"train", "test", "all"}


@pytest.mark.parametrize(("operation", "within"), [("multiply", " in the group"), ("add", "")])
def test_losses_say_of_which_pairs_they_are(checkpoint: Path, operation: Any, within: str):
    table = checkpoint_table(analyse_checkpoint(checkpoint, operation, n_untrained=1))
    names = [str(cell).split(" (")[0] for cell in table.columns[0].cells]
    assert "loss, all pairs" in names
    for name in ("restricted loss", "excluded loss", "largest loss without one frequency"):
        assert f"{name}, all pairs{within}" in names
    assert f"loss in float32, all pairs{within}" in names


def test_a_table_shows_the_range_of_the_untrained(checkpoint: Path):
    table = checkpoint_table(analyse_checkpoint(checkpoint, "add", n_untrained=2))
    first = next(iter(table.columns[2].cells))
    assert " to " in str(first)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.pt", "--operation", "add"], "there is none at nothing.pt"),
        (["{}"], "does not say what it was trained on"),
        (["{}", "--operation", "power"], "add, subtract, multiply, divide"),
        (["{}", "--operation", "add", "--basis", "cyclic"], r"additive, multiplicative"),
        (["{}", "--operation", "add", "--activation", "step"], "activation must be one of"),
        (["{}", "--operation", "add", "--train-fraction", "1"], "strictly between 0 and 1"),
        (["{0.parent}"], "model.safetensors is a checkpoint, which does not say"),
    ],
)
def test_errors_say_what_to_do(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
):
    assert main(["analyse", *(part.format(checkpoint) for part in arguments)]) == 1
    assert message in capsys.readouterr().err


def test_the_only_checkpoint_of_a_directory_is_taken(checkpoint: Path):
    inside = analyse_checkpoint(checkpoint.parent, "add", n_untrained=1)
    given = analyse_checkpoint(checkpoint, "add", n_untrained=1)
    assert str(inside.to_dict()) == str(given.to_dict())  # some numbers are nan


def test_a_published_directory_is_a_checkpoint(capsys: pytest.CaptureFixture[str]):
    folder = Path(os.environ.get("PHASESCOPE_DATA", "none"), "grokked_pizza_a")
    if not folder.is_dir():
        pytest.skip("needs a model of Zhong et al.: PHASESCOPE_DATA has no grokked_pizza_a")
    assert main(["analyse", str(folder), "--basis", "cyclic", "--operation", "add"]) == 1
    assert "additive" in capsys.readouterr().err  # it was read, and its basis is refused


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "a directory with one (.pt, .pth, .safetensors), is required, but there is none in"),
        (["b.pth", "a.pt", "README.md"], "holds 2: a.pt, b.pth. Pass one of them."),
        (["run.json"], "is a recorded run. Analyse it without an operation."),
        (
            ["run.json", "checkpoints/step-3/tensors.safetensors"],
            "without an operation, or pass one of its checkpoints, such as {}/checkpoints/step-3/",
        ),
        (["junk.pt"], "phasescope: junk.pt must be a PyTorch file that holds a state dict, but it"),
    ],
)
def test_a_directory_without_one_checkpoint_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: list[str], message: str
):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert main(["analyse", str(tmp_path), "--operation", "add"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message.format(tmp_path) in line


def test_no_control_is_refused(checkpoint: Path):
    with pytest.raises(ValueError, match="at least 1 untrained"):
        analyse_checkpoint(checkpoint, "add", n_untrained=0)
