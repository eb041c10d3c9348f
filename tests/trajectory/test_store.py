import json
import math
import os
import shutil

import numpy as np
import pytest
import torch
import xarray
import zarr
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from zarr.core.group import GroupMetadata
from zarr.core.metadata.v3 import ArrayV3Metadata

import phasescope as ps
from phasescope.errors import RunError
from phasescope.trajectory import files, plan
from phasescope.trajectory.channels import MetricsLog, WriterThread
from phasescope.trajectory.schema import read_metadata
from phasescope.trajectory.store import ArraySpec, TrajectoryStore
from trajectory import loops

DIMENSIONS = {
    "gradients": ("step", "parameter"),
    "unclipped_gradients": ("step", "parameter"),
    "updates": ("step", "parameter"),
    "decay": ("step", "parameter"),
    "weights": ("step", "parameter"),
    "moments": ("step", "parameter"),
    "norms": ("step", "tensor"),
    "component_norms": ("step", "component"),
    "sketches": ("step", "bucket"),
    "probes/logits": ("step", "logits_0", "logits_1"),
    "metrics": ("step",),
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A run with every group; read-only."""
    directory = tmp_path_factory.mktemp("store") / "run"
    loops.recorded_training(directory)
    return ps.open_run(directory)


def store_of(run):
    return run.path / "trajectory.zarr"


def values_of(run, group):
    """Every array of a group as its Series reads it."""
    prefix = f"{group}/"
    names = [n for n in run.series_names if n == group or n.startswith(prefix)]
    return {n.removeprefix(prefix) if n != group else "values": run[n] for n in names}


def test_the_run_has_exactly_the_documented_groups(recorded):
    nodes = read_metadata(store_of(recorded))["consolidated_metadata"]["metadata"]
    groups = {key for key, node in nodes.items() if node["node_type"] == "group"}
    assert groups == {*DIMENSIONS, "probes"}


@pytest.mark.parametrize("group", DIMENSIONS)
def test_xarray_opens_every_group_with_its_dimensions_coordinates_and_values(recorded, group):
    dataset = xarray.open_zarr(store_of(recorded), group=group)
    expected = values_of(recorded, group)
    assert set(dataset.data_vars) == set(expected)
    for name, series in expected.items():
        assert dataset[name].dims == DIMENSIONS[group]
        assert dataset.step.values.tolist() == series.steps.tolist()
        np.testing.assert_array_equal(dataset[name].values.astype(np.float32), series.array())
    if group == "norms":
        assert dataset.tensor.values.tolist() == list(recorded.parameters.names)
        assert dataset.gradients.sel(tensor="fc2.bias", step=7) == recorded["norms/gradients"][7, 5]
    elif group == "component_norms":
        assert dataset.component.values.tolist() == list(recorded.components)
    else:
        assert set(dataset.coords) == {"step"}


@pytest.mark.parametrize("group", DIMENSIONS)
def test_zarr_sees_the_same(recorded, group):
    whole = zarr.open_group(store_of(recorded), mode="r")
    alone = zarr.open_group(store_of(recorded), path=group, mode="r", use_consolidated=False)
    for name, series in values_of(recorded, group).items():
        for opened in (whole[group][name], alone[name]):
            np.testing.assert_array_equal(np.asarray(opened[:], np.float32), series.array())
        np.testing.assert_array_equal(alone["step"][:], series.steps)


def test_the_metadata_is_what_zarr_would_write(recorded):
    nodes = read_metadata(store_of(recorded))["consolidated_metadata"]["metadata"]
    for key, node in nodes.items():
        on_disk = json.loads((store_of(recorded) / key / "zarr.json").read_text())
        assert on_disk == node, key
        kind = ArrayV3Metadata if node["node_type"] == "array" else GroupMetadata
        parsed = kind.from_dict(node).to_dict()
        assert {name: _plain(parsed[name]) for name in node} == node, key


def _plain(value):
    """Zarr's own description as JSON values."""
    return json.loads(json.dumps(value, default=lambda v: v.to_dict()), parse_constant=str)


def rows_of(n, width, seed=0):
    return np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)


def small_store(directory, n_parameters=10, chunk_rows=4, chunk_columns=6, dtype="float32"):
    store = loops.bare_run(directory, n_parameters)
    attributes = {"encoding": "bfloat16"} if dtype == "uint16" else {}
    spec = ArraySpec(
        dtype, (n_parameters,), ("parameter",), chunk_rows, chunk_columns, attributes=attributes
    )
    return store, store.add_group("gradients", {"values": spec}), spec


def seen(directory):
    """The gradients' steps as the package, xarray, and zarr with and without the root see them."""
    path = directory / "trajectory.zarr"
    return [
        ps.open_run(directory).gradients.steps.tolist(),
        xarray.open_zarr(path, group="gradients").step.values.tolist(),
        zarr.open_group(path, mode="r")["gradients/step"][:].tolist(),
        zarr.open_array(path, path="gradients/step", mode="r")[:].tolist(),
        list(range(zarr.open_array(path, path="gradients/values", mode="r").shape[0])),
    ]


def test_rows_beyond_the_commit_do_not_exist_for_any_reader(tmp_path):
    store, group, spec = small_store(tmp_path)
    group.write(np.arange(3), {"values": rows_of(3, spec.width)})
    store.commit()
    group.write(np.arange(3, 9), {"values": rows_of(6, spec.width)})
    assert seen(tmp_path) == [[0, 1, 2]] * 5
    store.commit()
    assert seen(tmp_path) == [list(range(9))] * 5


@given(data=st.data())
def test_chunks_that_are_ragged_in_both_directions_are_read_bit_for_bit(tmp_path_factory, data):
    n_parameters = data.draw(st.integers(1, 40), "parameters")
    chunk_rows = data.draw(st.integers(1, 7), "rows of a chunk")
    chunk_columns = data.draw(st.integers(1, 50), "columns of a chunk")
    sizes = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=5), "appended")
    dtype = data.draw(st.sampled_from(["float32", "uint16"]), "dtype")
    directory = tmp_path_factory.mktemp("ragged")
    store, group, spec = small_store(directory, n_parameters, chunk_rows, chunk_columns, dtype)
    generator = np.random.default_rng(sum(sizes))
    steps = np.cumsum(generator.integers(1, 5, sum(sizes)))
    # Any bits at all: NaN, infinity and negative zero included.
    bits = generator.integers(0, 2**32, (sum(sizes), spec.width), np.uint32)
    rows = bits.astype(np.uint16) if dtype == "uint16" else bits.view(np.float32)
    done = 0
    for n in sizes:
        group.write(steps[done : done + n], {"values": rows[done : done + n]})
        store.commit()
        done += n
    expected = rows[:, :n_parameters]
    stored = zarr.open_group(directory / "trajectory.zarr", mode="r")["gradients/values"][:]
    assert stored.tobytes() == expected.tobytes()
    series = ps.open_run(directory).gradients
    if dtype == "uint16":
        expected = (expected.astype(np.uint32) << 16).view(np.float32)
    assert series[:].tobytes() == expected.tobytes()
    assert series.steps.tolist() == steps.tolist()
    left = data.draw(st.integers(0, n_parameters), "left")
    right = data.draw(st.integers(left, n_parameters), "right")
    out = np.empty((len(series), right - left), np.float32)
    series.read_columns(left, right, out)
    assert out.tobytes() == expected[:, left:right].tobytes()


def test_a_reopened_store_goes_on_where_the_last_commit_ended(tmp_path):
    store, group, spec = small_store(tmp_path)
    values = rows_of(9, spec.width)
    group.write(np.arange(3), {"values": values[:3]})
    store.commit()
    group.write(np.arange(3, 5), {"values": rows_of(2, spec.width, seed=1)})  # never committed
    again = TrajectoryStore(tmp_path / "trajectory.zarr").groups["gradients"]
    assert (again.rows, again.last_step) == (3, 2)
    assert again.specs == {"values": spec}
    again.write(np.arange(3, 9), {"values": values[3:]})
    assert seen(tmp_path) == [[0, 1, 2]] * 5


def test_a_truncated_store_is_appended_to_as_if_it_had_never_been_longer(tmp_path):
    for name in ("truncated", "plain"):
        (tmp_path / name).mkdir()
        store, group, spec = small_store(tmp_path / name)
        values = rows_of(20, spec.width)
        if name == "truncated":
            group.write(np.arange(0, 40, 2), {"values": rows_of(20, spec.width, seed=1)})
            store.commit()
            store.truncate(0)
            assert seen(tmp_path / name) == [[]] * 5
            group.write(np.arange(0, 34, 2), {"values": values[:17]})
            store.commit()
            store.truncate(11)  # between two recorded steps, in the middle of a chunk
            assert (group.rows, group.last_step) == (6, 10)
            assert seen(tmp_path / name)[0] == [0, 2, 4, 6, 8, 10]
            assert not (group.directory / "values" / "c" / "2").exists()
            group.write(np.arange(12, 40, 2), {"values": values[6:]})
        else:
            group.write(np.arange(0, 40, 2), {"values": values})
        store.commit()
    digests = [loops.fingerprint(tmp_path / name) for name in ("truncated", "plain")]
    assert digests[0] == digests[1]


class Killed(Exception):
    """Stands for the death of the process."""


def test_a_truncation_that_is_cut_short_has_destroyed_nothing(tmp_path, monkeypatch):
    store, group, spec = small_store(tmp_path)
    values = rows_of(9, spec.width)
    group.write(np.arange(9), {"values": values})
    store.commit()

    def die(source, target):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(files.os, "replace", die)
        store.truncate(0)
    np.testing.assert_array_equal(ps.open_run(tmp_path).gradients[:], values[:, :10])
    TrajectoryStore(tmp_path / "trajectory.zarr").truncate(0)
    assert seen(tmp_path) == [[]] * 5


@pytest.mark.parametrize("n_renames", range(4))
def test_a_commit_happens_wholly_or_not_at_all(tmp_path, monkeypatch, n_renames):
    store, group, spec = small_store(tmp_path)
    group.write(np.arange(3), {"values": rows_of(3, spec.width)})
    store.commit()
    group.write(np.arange(3, 9), {"values": rows_of(6, spec.width)})
    replace, calls = os.replace, []

    def die_later(source, target):
        if len(calls) == n_renames:
            raise Killed
        calls.append(target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", die_later)
        if n_renames < 3:  # the root and two arrays
            with pytest.raises(Killed):
                store.commit()
        else:
            store.commit()
    steps = list(range(9 if n_renames else 3))
    assert seen(tmp_path)[:3] == [steps] * 3
    # What is read without the root is never ahead of it.
    assert all(alone in (steps, [0, 1, 2]) for alone in seen(tmp_path)[3:])
    TrajectoryStore(tmp_path / "trajectory.zarr").commit()
    assert seen(tmp_path) == [steps] * 5


def test_leftovers_of_a_killed_process_are_not_seen(tmp_path):
    store, group, spec = small_store(tmp_path)
    group.write(np.arange(3), {"values": rows_of(3, spec.width)})
    store.commit()
    path = tmp_path / "trajectory.zarr"
    for folder in (path, path / "gradients", path / "gradients" / "values"):
        (folder / "zarr.json.new").write_text('{"cut of')
    for chunk in ("0/0", "5/0"):
        file = path / "gradients/values/c" / chunk
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "ab") as opened:
            opened.write(b"\xff" * 7)
    assert seen(tmp_path) == [[0, 1, 2]] * 5
    np.testing.assert_array_equal(
        ps.open_run(tmp_path).gradients[:], rows_of(3, spec.width)[:, :10]
    )


def log_rows(directory, rows):
    store = TrajectoryStore(directory / "trajectory.zarr")
    writer = WriterThread(store)
    metrics = MetricsLog(writer)
    for step, values in enumerate(rows):
        metrics.log(step, values)
        metrics.flush()
    writer.drain()
    writer.close()


def test_a_metric_that_appears_late_is_nan_before_and_where_it_was_not_logged(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(MetricsLog, "ROWS", 3)
    loops.bare_run(tmp_path, 1)
    # Values of a killed process that were never committed.
    leftover = tmp_path / "trajectory.zarr" / "metrics" / "late" / "c" / "1"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(np.full(3, 7.0).tobytes())
    log_rows(
        tmp_path, [{"a": float(i)} | ({"late": 10.0 + i} if i in (5, 7) else {}) for i in range(8)]
    )
    expected = [math.nan] * 5 + [15, math.nan, 17]
    path = tmp_path / "trajectory.zarr"
    late = [
        ps.open_run(tmp_path)["metrics/late"][:, 0],
        xarray.open_zarr(path, group="metrics").late.values,
        zarr.open_group(path, mode="r")["metrics/late"][:],
    ]
    for values in late:
        np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(ps.open_run(tmp_path)["metrics/a"][:, 0], range(8))


def test_metrics_keep_float64(tmp_path):
    loops.bare_run(tmp_path, 1)
    log_rows(tmp_path, [{"a": 1 / 3}])
    assert xarray.open_zarr(tmp_path / "trajectory.zarr", group="metrics").a.values == [1 / 3]


@pytest.mark.parametrize("name", ["train/loss", "", "..", "values", "zarr.json"])
def test_a_metric_whose_name_cannot_be_an_arrays_is_refused(tmp_path, name):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = ps.Recorder(tmp_path / "run", model, optimizer, save={"norms": ps.every(1)})
    with recorder, pytest.raises(ValueError, match=r"requires a name without slashes"):
        recorder.log(**{name: 1.0})


def test_a_step_larger_than_a_block_is_a_block_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(plan, "CHUNK_BYTES", 400)
    model = nn.Linear(99, 3)  # 1200 bytes a step
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    gradients = []
    with ps.Recorder(tmp_path / "run", model, optimizer, save={"gradients": ps.every(1)}) as r:
        for i in range(5):
            for p in model.parameters():
                p.grad = torch.randn_like(p)
            gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]).numpy())
            optimizer.step()
            r._live._session.writer.drain()
            assert len(ps.open_run(tmp_path / "run").gradients) == i + 1  # committed at once
    series = ps.open_run(tmp_path / "run").gradients
    stored = zarr.open_group(tmp_path / "run/trajectory.zarr", mode="r")["gradients/values"]
    assert stored.chunks == (1, 112)
    assert series.chunk_columns == 112
    np.testing.assert_array_equal(series[:], gradients)
    np.testing.assert_array_equal(stored[:], gradients)


def bytes_of(directory):
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory): path.read_bytes() for path in paths}


@pytest.mark.skipif(not hasattr(os, "pwritev"), reason="there is only the other way to write here")
@pytest.mark.parametrize("missing", [True, False], ids=["without pwritev", "with short writes"])
def test_every_way_of_writing_gives_the_same_bytes(tmp_path, monkeypatch, missing):
    def write(directory):
        directory.mkdir()
        store, group, spec = small_store(directory, 50, 8, 7)
        values = rows_of(30, spec.width)
        for start in range(0, 30, 11):
            rows = values[start : start + 11]
            group.write(np.arange(start, start + len(rows)), {"values": rows})
        store.commit()

    write(tmp_path / "usual")
    calls = []

    def short(descriptor, views, position):
        calls.append(position)
        return os.pwrite(descriptor, views[0][:5], position)

    with monkeypatch.context() as patch:
        if missing:
            patch.delattr(os, "pwritev")
        else:
            patch.setattr(os, "pwritev", short)
        write(tmp_path / "other")
    assert missing or calls
    assert bytes_of(tmp_path / "usual") == bytes_of(tmp_path / "other")


@pytest.mark.parametrize("damage", [None, "{", "[]", '{"zarr_format": 3}', "\xff"])
def test_a_damaged_root_says_how_to_make_it_anew_and_that_works(tmp_path, recorded, damage):
    shutil.copytree(recorded.path, tmp_path / "run")
    path = tmp_path / "run" / "trajectory.zarr"
    (path / "zarr.json").unlink()
    message = "zarr.json is not there"
    if damage is not None:
        (path / "zarr.json").write_text(damage, encoding="latin-1")
        message = "cannot be read"
    with pytest.raises(RunError, match=rf"{message}.*delete it, then call zarr.open_group"):
        ps.open_run(tmp_path / "run")
    (path / "zarr.json").unlink(missing_ok=True)
    zarr.open_group(path, mode="a")
    with pytest.warns(zarr.errors.ZarrUserWarning, match="Consolidated metadata"):
        zarr.consolidate_metadata(path)
    assert loops.fingerprint(tmp_path / "run") == loops.fingerprint(recorded.path)


def test_a_new_store_without_groups_is_valid(tmp_path):
    TrajectoryStore(tmp_path / "a.zarr", {"schema": 1})
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    assert dict(group.attrs) == {"schema": 1}
    assert list(group) == []
