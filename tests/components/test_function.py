"""Heads, groups and neurons do what they are selected for, in tiny models of every layout."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from components import function, toys
from phasescope.components import structure, verify
from phasescope.models import seeded


@dataclass
class Toy:
    model: nn.Module

    def layers(self, model: nn.Module) -> list[toys.Block]:
        return [module for module in model.modules() if isinstance(module, toys.Block)]

    def look(self, model: nn.Module) -> list[function.Inside]:
        with torch.no_grad():
            model(toys.tokens())
        return [
            function.Inside(block.attn.z, block.attn.pattern, block.mlp.acts)
            for block in self.layers(model)
        ]

    def logits(
        self, model: nn.Module, layer: int = -1, *, heads: Tensor | None, neurons: Tensor | None
    ) -> Tensor:
        block = self.layers(model)[layer]
        block.attn.keep_z = 1.0 if heads is None else heads[:, None]
        block.mlp.keep_acts = 1.0 if neurons is None else neurons
        with torch.no_grad():
            found = model(toys.tokens())
        block.attn.keep_z = block.mlp.keep_acts = 1.0
        return found


@pytest.fixture(params=toys.FAMILIES)
def subject(request: pytest.FixtureRequest, float64_default: None) -> Toy:
    return Toy(seeded(toys.FAMILIES[request.param], 0))


def test_values_belong_to_their_heads(subject: Toy):
    function.check_values(subject)


def test_outputs_belong_to_their_heads(subject: Toy):
    function.check_outputs(subject)


def test_queries_and_keys_belong_to_their_heads(subject: Toy):
    function.check_patterns(subject)


def test_rows_and_columns_belong_to_their_neurons(subject: Toy):
    function.check_neurons(subject)


def test_heads_and_groups_are_their_parts(subject: Toy):
    function.check_unions(subject)


def test_verify_agrees(subject: Toy):
    verify(subject.model, toys.cube_loss)


def test_the_toys_have_the_heads_that_the_structure_names():
    counts = {
        name: [(layer.heads.n_heads, layer.heads.n_groups) for layer in structure(build()).layers]
        for name, build in toys.FAMILIES.items()
    }
    assert counts.pop("lens with groups") == [(4, 2), (4, 2)]
    assert counts.pop("groups") == [(4, 2), (4, 1)]
    assert counts.pop("width per layer") == [(4, 4), (4, 2)]
    assert all(found == [(4, 4), (4, 4)] for found in counts.values())
