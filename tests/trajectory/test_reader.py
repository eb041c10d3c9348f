import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import phasescope as ps
from phasescope.errors import RunError
from phasescope.trajectory.store import STEP_CHUNK, ArraySpec, TrajectoryStore, read_steps
from trajectory import loops


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A run with every group; read-only."""
    directory = tmp_path_factory.mktemp("reader") / "run"
    loops.recorded_training(directory)
    return ps.open_run(directory)


@pytest.fixture
def copied(recorded, tmp_path):
    """A run that a test may damage."""
    shutil.copytree(recorded.path, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("name", ["gradients", "metrics/train_loss", "norms/updates"])
def test_rows_from_a_row_on_are_those_of_the_whole(recorded, name):
    whole = recorded[name]
    n = recorded.n_rows(name)
    assert n == len(whole)
    for start in (0, 1, n // 2, n - 1, n):
        for stop in (None, start, n):
            part = recorded.rows_from(name, start, stop)
            rows = slice(start, n if stop is None else stop)
            assert part.steps.tolist() == whole.steps[rows].tolist()
            assert part[:].tobytes() == whole[rows].tobytes()
            assert part.labels == whole.labels
    with pytest.raises(ValueError, match=f"must lie within the {n} that .* Open the run again"):
        recorded.rows_from(name, n, n + 1)


def test_steps_from_a_row_on_read_no_chunk_before(tmp_path):
    store = TrajectoryStore(tmp_path / "store")
    group = store.add_group("metrics", {})
    steps = np.cumsum(np.arange(1, 2 * STEP_CHUNK + 101) % 3 + 1)
    group.write(steps, {})
    (tmp_path / "store" / "metrics" / "step" / "c" / "0").unlink()
    for start in (STEP_CHUNK, STEP_CHUNK + 1, 2 * STEP_CHUNK, 2 * STEP_CHUNK + 100):
        found = read_steps(group.directory, len(steps), start)
        assert found.tolist() == steps[start:].tolist()
    with pytest.raises(RunError, match="must hold 4096 steps, but it holds 0"):
        read_steps(group.directory, len(steps), STEP_CHUNK - 1)


def change(directory, **entries):
    path = directory / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_a_directory_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"a run directory is required, but .*nowhere is not a dir"):
        ps.open_run(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file is not a directory"):
        ps.open_run(tmp_path / "file")


def test_a_folder_above_or_below_a_run_is_recognised_by_what_it_holds(copied):
    with pytest.raises(RunError, match=r"holds run.json.*it holds \['run'\]. Is it the folder"):
        ps.open_run(copied.parent)
    with pytest.raises(RunError, match=r"trajectory.zarr does not; it holds .*'gradients'"):
        ps.open_run(copied / "trajectory.zarr")


@pytest.mark.parametrize("content", ['{"a": 1}', "[]", "null"])
def test_a_foreign_run_json_is_refused(copied, content):
    (copied / "run.json").write_text(content)
    with pytest.raises(RunError, match="must say format 'phasescope-run': this is not a"):
        ps.open_run(copied)


@pytest.mark.parametrize("content", [b"", b'{"format": "phase', b"\xff\xfe"])
def test_a_damaged_run_json_says_what_can_still_be_read(copied, content):
    (copied / "run.json").write_bytes(content)
    with pytest.raises(RunError, match=r"cannot be read .*opened with xarray.open_zarr"):
        ps.open_run(copied)


@pytest.mark.parametrize(
    ("version", "age"), [(0, "an older"), (2, "a newer"), ("2.0", "a newer"), (None, "a newer")]
)
def test_another_schema_version_is_refused_by_name(copied, version, age):
    change(copied, schema_version=version, environment={"phasescope": "9.9"})
    message = rf"schema version {version}, .*reads version 1: .*{age} version \(9\.9\)\. Open it"
    with pytest.raises(RunError, match=message):
        ps.open_run(copied)


@pytest.mark.parametrize("group", ["gradients/values", "moments/exp_avg", "gradients/step"])
@pytest.mark.parametrize("damage", ["cut", "removed"])
def test_a_damaged_chunk_file_is_named(copied, group, damage):
    parent = copied / "trajectory.zarr" / group / "c" / "0"
    path = parent if group.endswith("step") else parent / "0"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        path.unlink()
    name = group.removesuffix("/values").replace("/step", "")
    with pytest.raises(RunError, match=rf"{path} (must hold|is missing).*record the run again"):
        ps.open_run(copied)[name][:]


KEYS = [
    slice(None),
    slice(3, 17),
    slice(-5, None),
    slice(None, None, 7),
    slice(30, 2, -3),
    slice(None, None, -1),
    slice(5, 5),
    slice(35, 10**9),
    0,
    -1,
    np.int64(12),
]


@pytest.mark.parametrize("rows", KEYS, ids=str)
@pytest.mark.parametrize("columns", KEYS, ids=str)
def test_slicing_equals_numpy(recorded, rows, columns):
    series = recorded.gradients
    whole = np.asarray(series)
    expected = whole[rows, columns]
    found = series[rows, columns]
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(series[rows], whole[rows])


@given(data=st.data())
def test_slicing_equals_numpy_across_chunks(tmp_path_factory, data):
    values = np.random.default_rng(0).standard_normal((11, 24)).astype(np.float32)
    directory = tmp_path_factory.mktemp("sliced")
    _write(directory, values)
    series = ps.open_run(directory).gradients
    rows = data.draw(st.slices(11), "rows")
    columns = data.draw(st.slices(24), "columns")
    np.testing.assert_array_equal(series[rows, columns], values[rows, columns])


def _write(directory, values):
    n, columns = values.shape
    store = loops.bare_run(directory, columns)
    spec = ArraySpec("float32", (columns,), ("parameter",), 4, 7)
    rows = np.zeros((n, spec.width), np.float32)
    rows[:, :columns] = values
    store.add_group("gradients", {"values": spec}).write(np.arange(n), {"values": rows})
    store.commit()


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (40, IndexError, "gradients has 40 rows, but index 40"),
        (-41, IndexError, "gradients has 40 rows, but index -41"),
        ((0, 99), IndexError, "gradients has 99 columns, but index 99"),
        ([0, 1], TypeError, "rows were given as list. Slice a range first"),
        ((0, np.array([1])), TypeError, "columns were given as ndarray"),
    ],
)
def test_indices_that_cannot_be_read_are_refused(recorded, key, error, message):
    with pytest.raises(error, match=message):
        recorded.gradients[key]


@pytest.mark.parametrize(("start", "stop"), [(0, 99), (0, 1), (98, 99), (13, 60), (5, 5), (0, 0)])
def test_read_columns_equals_slicing(recorded, start, stop):
    out = np.full((40, stop - start), np.nan, np.float32)
    recorded.gradients.read_columns(start, stop, out)
    np.testing.assert_array_equal(out, recorded.gradients[:, start:stop])


def test_bfloat16_codes_are_decoded_whatever_their_bits(tmp_path):
    codes = np.arange(2**16, dtype=np.uint16).reshape(4, -1)
    store = loops.bare_run(tmp_path, codes.shape[1])
    attributes = {"encoding": "bfloat16"}
    spec = ArraySpec("uint16", codes.shape[1:], ("parameter",), 2, None, attributes=attributes)
    store.add_group("weights", {"values": spec}).write(np.arange(4), {"values": codes})
    store.commit()
    found = torch.from_numpy(ps.open_run(tmp_path).weights[:])
    expected = torch.from_numpy(codes.view(np.int16)).view(torch.bfloat16).float()
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert found.isnan().sum() == 2 * 127  # every NaN among the codes, and nothing else


def test_values_of_probes_keep_their_shape(recorded):
    logits = recorded["probes/logits"]
    assert logits.value_shape == (2, 3)
    assert logits.array().shape == (10, 2, 3)
    np.testing.assert_array_equal(logits.array().reshape(10, 6), logits[:])


def test_columns_know_their_parameters_or_their_tensors(recorded):
    assert recorded.gradients.parameters == recorded.parameters
    assert recorded.gradients.labels is None
    assert recorded["norms/updates"].labels == recorded.parameters.names
    assert recorded["norms/updates"].parameters is None
    assert recorded["metrics/lr"].labels is recorded["metrics/lr"].parameters is None


def test_named_groups_are_the_series_of_their_name(recorded):
    for name in ("gradients", "updates", "decay", "weights"):
        series = getattr(recorded, name)
        assert series.name == name
        np.testing.assert_array_equal(series[:], recorded[name][:])


def test_a_series_is_taken_for_an_array(recorded):
    whole = np.asarray(recorded.gradients)
    assert (whole.shape, whole.dtype) == ((40, 99), np.float32)
    assert np.asarray(recorded.gradients, dtype=np.float64).dtype == np.float64
    assert np.linalg.norm(recorded.gradients) == np.linalg.norm(whole)
    assert len(recorded.gradients) == 40


def test_the_gram_of_a_run_is_the_gram_of_its_array(recorded):
    gram = ps.gram(recorded.updates)
    expected = ps.gram(torch.from_numpy(recorded.updates[:]))
    assert torch.equal(gram.K, expected.K)
    assert gram.steps.tolist() == list(range(0, 40, 2))
    slow = recorded.updates[:].astype(np.float64)
    np.testing.assert_allclose(gram.K.numpy(), slow @ slow.T, rtol=1e-5, atol=1e-9)


def test_a_run_is_read_without_its_model(copied):
    shutil.rmtree(copied / "checkpoints")
    run = ps.open_run(str(copied))
    assert run.parameters.names[0] == "fc1.weight"
    assert run.parameters.size == run.gradients.shape[1] == 99
    assert run.config == {"seed": 0}
    assert run.status == "complete"


def test_a_run_is_a_snapshot_of_what_was_committed_when_it_was_opened(tmp_path):
    runs = []

    def look(step):
        if step == 10:
            runs.append(ps.open_run(tmp_path / "run"))

    loops.recorded_training(tmp_path / "run", on_step=look)
    assert runs[0].status == "recording"
    assert len(runs[0].gradients) == 10
    later = ps.open_run(tmp_path / "run").gradients
    assert len(later) == 40
    np.testing.assert_array_equal(runs[0].gradients[:], later[:10])


def test_an_unknown_name_is_answered_with_what_is_there(recorded):
    message = (
        r"has not recorded 'gradient'; it holds \['comp.*'decay', .*Did you mean 'gradients'\?"
    )
    with pytest.raises(KeyError, match=message):
        recorded["gradient"]
    with pytest.raises(KeyError, match=r"Name one of \['moments/exp_avg', 'moments/exp_avg_sq'\]"):
        recorded["moments"]
    with pytest.raises(KeyError, match=r"'metrics/accuracy'.*recorder.log\(accuracy=\.\.\.\)"):
        recorded["metrics/accuracy"]


def test_a_group_that_was_not_saved_says_how_to_save_it(tmp_path):
    _write(tmp_path, np.ones((2, 3), np.float32))
    with pytest.raises(KeyError, match=r"it holds \['gradients'\].*save=\{'decay': phasescope.eve"):
        ps.open_run(tmp_path).decay  # noqa: B018


def test_runs_and_series_introduce_themselves(recorded):
    assert repr(recorded.gradients) == "<Series gradients: 40 x 99 float32, steps 0…39>"
    lines = repr(recorded).splitlines()
    assert lines[0] == "<Run run: complete, 99 parameters>"
    assert len(lines) == 1 + len(recorded.series_names)
    assert any(line.split() == ["weights", "13", "rows", "steps", "0", "…", "40"] for line in lines)


def test_a_run_without_rows_introduces_itself(tmp_path):
    store = loops.bare_run(tmp_path, 3)
    store.add_group("gradients", {"values": ArraySpec("float32", (3,), ("parameter",), 4)})
    store.commit()
    run = ps.open_run(tmp_path)
    assert "nothing yet" in repr(run)
    assert "no steps yet" in repr(run.gradients)
    assert run.gradients[:].shape == (0, 3)


def test_notebooks_get_a_table_whose_names_are_escaped(copied):
    hostile = copied.with_name("<script>alert(1)<&script>")
    copied.rename(hostile)
    html = ps.open_run(hostile)._repr_html_()
    assert html.startswith("<table><caption>&lt;script&gt;alert(1)&lt;&amp;script&gt;: complete")
    assert "<script>" not in html
    assert html.count("<tr>") == 1 + len(ps.open_run(hostile).series_names)


def test_the_examples_of_the_schema_page_are_true(tmp_path, monkeypatch):
    page = Path(__file__).parents[2] / "docs" / "schema.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    monkeypatch.chdir(tmp_path)
    exec("\n".join(blocks), {})
