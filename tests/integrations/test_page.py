"""The diffs of docs/integrations.md: both sides run, and train to the same weights."""

import re
from pathlib import Path

import numpy as np
import pytest

import phasescope as ps
from integrations.witness import Witness, weights_of

PAGE = (Path(__file__).parents[2] / "docs" / "integrations.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.* is deprecated:FutureWarning",
    "ignore:.*does not have many workers:UserWarning",
    "ignore:.*smaller than the logging interval:UserWarning",
)

# What stands before the diff in a user's script.
SETUPS = {
    "A loop of your own": """
        import torch
        from torch import nn
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.1), nn.Tanh(), nn.Linear(8, 3))
        device, n_iterations, n_micro_steps, max_norm = "cpu", 6, 3, 0.1
        loss_function = nn.functional.cross_entropy
        def next_batch():
            return torch.randn(4, 5), torch.randint(0, 3, (4,))
    """,
    "Hugging Face Trainer": """
        import torch
        import transformers
        transformers.logging.set_verbosity_error()
        torch.manual_seed(0)
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
            vocab_size=20, n_positions=8, n_embd=16, n_layer=1, n_head=2,
            bos_token_id=0, eos_token_id=0,
        ))
        ids = torch.randint(0, 20, (16, 8))
        dataset = [{"input_ids": row, "labels": row} for row in ids]
        arguments = transformers.TrainingArguments(
            "trainer", num_train_epochs=1, per_device_train_batch_size=2, use_cpu=True,
            gradient_accumulation_steps=2, report_to="none", save_strategy="no",
            disable_tqdm=True,
        )
    """,
    "Lightning": """
        import logging
        import lightning.pytorch
        import torch
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        class Module(lightning.pytorch.LightningModule):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(5, 3)
            def training_step(self, batch, batch_idx):
                return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
            def configure_optimizers(self):
                return torch.optim.Adam(self.parameters())
        torch.manual_seed(0)
        module = model = Module()
        data = torch.utils.data.TensorDataset(torch.randn(16, 5), torch.randint(0, 3, (16,)))
        loader = torch.utils.data.DataLoader(data, batch_size=4)
    """,
    "Stable-Baselines3": "import stable_baselines3",
    "TensorBoard and Weights & Biases": """
        import torch
        import phasescope as ps
        torch.manual_seed(0)
        model, batch = torch.nn.Linear(5, 3), torch.randn(4, 5)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        save = {"norms": ps.every(1)}
    """,
}
NEEDED = {
    "Hugging Face Trainer": ["transformers", "accelerate"],
    "Lightning": ["lightning"],
    "Stable-Baselines3": ["stable_baselines3"],
    "TensorBoard and Weights & Biases": ["tensorboard", "wandb"],
}


def diffs():
    """Per section, its one diff."""
    sections = re.split(r"^## (.*)$", PAGE, flags=re.MULTILINE)[1:]
    pairs = zip(sections[::2], sections[1::2], strict=True)
    found = {
        title: re.findall(r"```diff\n(.*?)```", text, flags=re.DOTALL) for title, text in pairs
    }
    return {title: blocks[0] for title, blocks in found.items() if blocks}


def side(diff, sign):
    """The script before (-) or after (+) the change."""
    return "\n".join(line[1:] for line in diff.splitlines() if line[:1] in (" ", sign, ""))


def run(title, sign, folder, monkeypatch):
    """Run one side in a folder of its own; returns the model and what a witness saw."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    setup = re.sub(r"^ {8}", "", SETUPS[title], flags=re.MULTILINE)
    names = {}
    with Witness() as witness:
        exec(f"{setup}\n{side(diffs()[title], sign)}", names)
    model = names["model"]
    return getattr(model, "policy", model), witness


def test_the_page_has_a_diff_for_every_setup():
    assert diffs().keys() == SETUPS.keys()


@pytest.mark.parametrize("title", SETUPS)
def test_both_sides_of_a_diff_train_to_the_same_weights(title, tmp_path, monkeypatch, request):
    for library in NEEDED.get(title, ()):
        pytest.importorskip(library)
    if "wandb" in NEEDED.get(title, ()):
        request.getfixturevalue("wandb_offline")
    before, witness = run(title, "-", tmp_path / "before", monkeypatch)
    after, _ = run(title, "+", tmp_path / "after", monkeypatch)
    np.testing.assert_array_equal(weights_of(after), weights_of(before))
    (path,) = (tmp_path / "after" / "runs").glob("*/run.json")
    recorded = ps.open_run(path.parent)
    assert recorded.status == "complete"
    if "gradients" in recorded.series_names:
        expected = witness.rows(before, "gradients")
        np.testing.assert_array_equal(recorded.gradients[:], expected)
        assert len(expected) >= 4
    else:
        assert recorded["metrics/train_loss"].steps.tolist() == list(range(20))
