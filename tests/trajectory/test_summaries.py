"""Norms of components and sketches, recorded beside the vectors that they summarise."""

import numpy as np
import pytest
import torch
from torch import nn

import phasescope as ps
from phasescope.components import Subspace
from trajectory import loops

SKETCH = ps.CountSketch(size=16, seed=3)


def parts(model):
    found = dict(ps.components(model, "fc1.weight", "*.bias"))
    mask = {n: torch.rand(p.shape) < 0.3 for n, p in model.named_parameters()}
    table = ps.ParameterTable.from_module(model)
    found["some"] = ps.Component.from_mask("some", table.flatten(mask))
    directions = torch.randn(2, table.size, generator=torch.Generator().manual_seed(0))
    found["plane"] = Subspace.spanned_by("plane", directions)
    return found


def record(directory, save, **options):
    model, optimizer, scheduler, batches = loops.setup()
    torch.manual_seed(0)
    components = parts(model)
    torch.manual_seed(0)
    with ps.Recorder(
        directory, model, optimizer, save=save, n_steps=40, components=components, **options
    ) as recorder:
        for x, y in batches:
            loops.step(model, optimizer, x, y)
            scheduler.step()
    return ps.open_run(directory), components, recorder


def test_norms_of_components_are_those_of_the_recorded_vectors(tmp_path):
    vectors = dict.fromkeys(("gradients", "updates", "weights", "decay"), ps.every(1))
    run, components, _ = record(tmp_path / "run", {**vectors, "component_norms": ps.every(3)})
    for name in vectors:
        norms = run[f"component_norms/{name}"]
        assert norms.labels == tuple(components)
        assert norms.steps.tolist() == list(range(0, 40, 3))
        rows = torch.from_numpy(run[name][:40:3]).double()
        for j, part in enumerate(components.values()):
            inside = (
                rows @ part.basis.double().T
                if isinstance(part, Subspace)
                else rows[:, part.columns]
            )
            np.testing.assert_allclose(norms[:, j], inside.norm(dim=1), rtol=2e-6, err_msg=name)
    # They come back with the run, ready for an analysis, all but the basis of the subspace.
    assert run.components == {n: p for n, p in components.items() if n != "plane"}
    gram = ps.gram(run.gradients, components=run.components)
    squares = run["component_norms/gradients"][:, 0].astype(np.float64) ** 2
    np.testing.assert_allclose(gram.components["fc1.weight"].K.diagonal()[::3], squares, rtol=1e-5)
    dataset = run.dataset("component_norms")
    assert dataset.gradients.dims == ("step", "component")
    assert dataset.component.values.tolist() == list(components)


def test_sketches_are_those_of_the_recorded_vectors(tmp_path):
    save = {"gradients": ps.every(1), "updates": ps.every(1), "component_norms": ps.every(1)}
    save |= {"sketches/gradients": ps.every(2), "sketches/updates": ps.every(2)}
    run, _, _ = record(tmp_path / "run", save, sketch=SKETCH)
    for name in ("gradients", "updates"):
        rows = run[f"sketches/{name}"]
        expected = [SKETCH.apply([torch.from_numpy(row)]) for row in run[name][::2]]
        np.testing.assert_array_equal(rows[:], torch.stack(expected).numpy())
    assert run.sketch == SKETCH
    assert ps.gram(run["sketches/gradients"]).K.shape == (20, 20)


def test_sketches_are_of_gradients_unless_others_are_named(tmp_path):
    save = {"sketches": ps.every(5), "component_norms": ps.every(5)}
    run, _, _ = record(tmp_path / "run", save, sketch=SKETCH)
    assert [n for n in run.series_names if n.startswith("sketches")] == ["sketches/gradients"]


def test_the_plan_shows_the_components_with_their_bytes(tmp_path):
    model, optimizer, *_ = loops.setup()
    recorder = ps.Recorder(
        tmp_path / "run",
        model,
        optimizer,
        save={"component_norms/gradients": ps.every(1)},
        n_steps=10,
        components=ps.components(model, "tensors"),
    )
    plan = str(recorder.plan())
    assert "component_norms/gradients" in plan
    assert "6 components, 24 B for a row of norms" in plan
    assert recorder.plan().rows[0].total == 240


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"save": {"component_norms": ps.every(1)}}, r"needs components=ps\.components"),
        ({"save": {"sketches": ps.every(1)}}, r"needs sketch=ps\.CountSketch"),
        ({"save": {"norms": ps.every(1)}, "sketch": SKETCH}, r"needs save=\{'sketches'"),
        (
            {"save": {"norms": ps.every(1)}, "components": {"a": ps.Component("a", ((0, 1),))}},
            r"needs save=\{'component_norms'",
        ),
    ],
)
def test_what_belongs_together_is_asked_for(tmp_path, options, message):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=message):
        ps.Recorder(tmp_path / "run", model, optimizer, **options)


def test_parts_that_do_not_exist_are_refused(tmp_path):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(KeyError, match="parts of 'component_norms' are"):
        ps.Recorder(
            tmp_path / "run",
            model,
            optimizer,
            save={"component_norms/unclipped_gradients": ps.every(1)},
            components=ps.components(model, "tensors"),
        )
    with pytest.raises(KeyError, match="save= takes the groups"):
        ps.Recorder(tmp_path / "run", model, optimizer, save={"skipped": ps.every(1)})
