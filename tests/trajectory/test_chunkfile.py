import contextlib
import errno
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import phasescope as ps
from phasescope.trajectory.chunkfile import DIRECT_BYTES, PAGE, ChunkFiles, page_aligned

ROWS, WIDTH = 64, 3 * PAGE // 4  # rows of three pages, chunks of 0.8 MB

direct_only = pytest.mark.skipif(
    not hasattr(os, "O_DIRECT"), reason="this system has no direct writes"
)


def block(seed=0, extra=0):
    """Rows that begin at pages, as columns of a larger block if there are `extra` ones."""
    total = WIDTH + extra
    rows = page_aligned(ROWS * total * 4).view(np.float32).reshape(ROWS, total)
    rows[:] = np.random.default_rng(seed).standard_normal(rows.shape)
    return rows[:, extra:]


def write(files, path, rows, offset=0, *, direct=True, fill=0):
    files.write(path, rows, offset, chunk_rows=ROWS, fill=fill, direct=direct)


@pytest.fixture
def opened(monkeypatch):
    """The names of the files that are opened for direct writes."""
    names, original = [], os.open

    def spy(path, flags, *mode):
        if flags & getattr(os, "O_DIRECT", 0):
            names.append(Path(path).name)
        return original(path, flags, *mode)

    monkeypatch.setattr(os, "open", spy)
    return names


@pytest.fixture(params=["temporary folder", "memory"])
def folder(request, tmp_path):
    """Folders on file systems that may write directly, or not."""
    if request.param == "temporary folder":
        yield tmp_path
    elif not os.path.isdir("/dev/shm"):
        pytest.skip("no file system in memory here")
    else:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as path:
            yield Path(path)


@pytest.mark.parametrize("extra", [0, PAGE // 4, 5], ids=["whole", "columns", "no pages"])
def test_a_chunk_holds_the_same_bytes_however_it_is_written(folder, extra):
    assert ROWS * WIDTH * 4 >= DIRECT_BYTES
    rows, files = block(extra=extra), ChunkFiles()
    for direct in (True, False):
        write(files, folder / str(direct) / "0", rows, direct=direct)
        assert (folder / str(direct) / "0").read_bytes() == rows.tobytes()


@direct_only
def test_only_blocks_of_whole_pages_are_written_directly(tmp_path, opened):
    files = ChunkFiles()
    write(files, tmp_path / "whole", block())
    write(files, tmp_path / "columns", block(extra=PAGE // 4))
    write(files, tmp_path / "part", block()[:-1], 1)
    write(files, tmp_path / "no pages", block(extra=5))
    write(files, tmp_path / "part of what is filled", block()[:-1], fill=np.nan)
    write(files, tmp_path / "unasked", block(), direct=False)
    write(files, tmp_path / "small", block()[:5])
    # A file is opened twice where it is not there yet.
    assert opened == [name for name in ("whole", "columns", "part") for _ in range(2)]
    assert len(list(tmp_path.iterdir())) == 7
    found = np.fromfile(tmp_path / "part", np.float32).reshape(ROWS, WIDTH)
    np.testing.assert_array_equal(found, np.concatenate([np.zeros((1, WIDTH)), block()[:-1]]))


@direct_only
@pytest.mark.parametrize("where", ["open", "pwritev"])
def test_a_file_system_that_refuses_is_asked_once(tmp_path, monkeypatch, opened, where):
    original, asked = getattr(os, where), []

    def refusing(target, second, *rest):
        if second & os.O_DIRECT if where == "open" else not asked:
            asked.append(target)
            raise OSError(errno.EINVAL, "Invalid argument")
        return original(target, second, *rest)

    monkeypatch.setattr(os, where, refusing)
    files = ChunkFiles()
    for i in range(3):
        write(files, tmp_path / str(i), block(i))
        assert (tmp_path / str(i)).read_bytes() == block(i).tobytes()
    assert len(asked) == 1


@direct_only
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_any_other_error_is_raised(tmp_path, monkeypatch, number):
    def failing(*ignored):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwritev", failing)
    with pytest.raises(OSError, match=os.strerror(number)):
        write(ChunkFiles(), tmp_path / "0", block())


@direct_only
@pytest.mark.parametrize("n_bytes", [PAGE, 5 * PAGE, 7 * PAGE, 1000])
def test_short_writes_are_gone_on_with(tmp_path, monkeypatch, n_bytes):
    calls, original = [], os.pwritev

    def short(descriptor, views, position):
        calls.append(position)
        return original(descriptor, [views[0][:n_bytes]], position)

    monkeypatch.setattr(os, "pwritev", short)
    rows = block(extra=PAGE // 4)
    write(ChunkFiles(), tmp_path / "0", rows)
    assert len(calls) >= ROWS
    assert (tmp_path / "0").read_bytes() == rows.tobytes()


@pytest.mark.parametrize("missing", [("O_DIRECT",), ("O_DIRECT", "pwritev")])
def test_systems_without_direct_or_positioned_writes_give_the_same(tmp_path, monkeypatch, missing):
    for name in missing:
        monkeypatch.delattr(os, name, raising=False)
    rows = block(extra=PAGE // 4)
    write(ChunkFiles(), tmp_path / "0", rows)
    write(ChunkFiles(), tmp_path / "1", rows[3:5], 7, fill=np.nan)
    assert (tmp_path / "0").read_bytes() == rows.tobytes()
    found = np.fromfile(tmp_path / "1", np.float32).reshape(ROWS, WIDTH)
    np.testing.assert_array_equal(found[7:9], rows[3:5])
    assert np.isnan(np.delete(found, [7, 8], axis=0)).all()


def test_readers_see_what_was_written_last_past_the_cache_or_through_it(folder):
    files, path = ChunkFiles(), folder / "0"
    old, new = block(1), block(2)
    write(files, path, old, direct=False)
    assert path.read_bytes() == old.tobytes()  # in the page cache now
    write(files, path, new)
    assert path.read_bytes() == new.tobytes()
    write(files, path, old[10:20], 10)
    write(files, path, old[:7], 57)
    expected = np.concatenate([new[:10], old[10:20], new[20:57], old[:7]])
    assert path.read_bytes() == expected.tobytes()


@pytest.mark.parametrize("size", [10, ROWS * WIDTH * 4 + 100])
@pytest.mark.parametrize("direct", [True, False])
def test_a_file_of_another_size_gets_the_right_one(tmp_path, size, direct):
    (tmp_path / "0").write_bytes(b"x" * size)
    write(ChunkFiles(), tmp_path / "0", block(), direct=direct)
    assert (tmp_path / "0").read_bytes() == block().tobytes()


def test_small_blocks_fill_a_chunk_and_are_committed_with_it(tmp_path, monkeypatch):
    from phasescope.trajectory import channels

    expected = recorded(tmp_path / "one")
    monkeypatch.setattr(channels, "BUFFER_BYTES", 600_000)  # eight rows
    seen = []

    def look(recorder, step):
        if step in (63, 64, 100):
            recorder._live._session.writer._jobs.join()
            seen.append(len(ps.open_run(recorder.directory).gradients))

    recorded(tmp_path / "eight", on_step=look)
    assert seen == [0, 64, 64]
    assert chunks(tmp_path / "eight") == chunks(tmp_path / "one")
    # A flush commits what lies in finished blocks too, and nothing is committed twice.
    recorded(tmp_path / "flushed", flush_at=79)
    np.testing.assert_array_equal(ps.open_run(tmp_path / "flushed").gradients[:], expected)


def recorded(directory, *, flush_at=None, n_steps=150, on_step=None):
    """Chunks of 2.4 MB, two side by side, the last ones of which are not full."""
    torch.manual_seed(0)
    model = nn.Linear(130, 130)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    kept = []
    recorder = ps.Recorder(directory, model, optimizer, save={"gradients": ps.every(1)})
    with recorder:
        for step in range(n_steps):
            for p in model.parameters():
                p.grad = torch.randn_like(p)
            kept.append(torch.cat([p.grad.flatten() for p in model.parameters()]).numpy())
            optimizer.step()
            if step == flush_at:
                recorder.flush()
                assert len(ps.open_run(directory).gradients) == step + 1
            if on_step is not None:
                on_step(recorder, step + 1)
    return np.array(kept)


def chunks(directory):
    folder = directory / "trajectory.zarr" / "gradients" / "values" / "c"
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_recording_holds_the_same_bytes_with_and_without_direct_writes(tmp_path, monkeypatch):
    expected = recorded(tmp_path / "direct")
    recorded(tmp_path / "flushed", flush_at=37)  # the rest of this block is a part
    monkeypatch.delattr(os, "O_DIRECT", raising=False)
    recorded(tmp_path / "cached")
    assert len(chunks(tmp_path / "direct")) == 6
    for name in ("flushed", "cached"):
        assert chunks(tmp_path / name) == chunks(tmp_path / "direct")
    np.testing.assert_array_equal(ps.open_run(tmp_path / "direct").gradients[:], expected)


@direct_only
def test_a_recording_writes_its_blocks_directly(tmp_path, opened):
    recorded(tmp_path / "run")
    assert len(opened) == 12  # two chunks of three blocks, each opened and then made


@direct_only
def test_the_page_cache_takes_over_where_the_disk_is_behind(tmp_path, monkeypatch, opened):
    from phasescope.trajectory import channels

    monkeypatch.setattr(channels.Channel, "_behind", lambda self: True)
    expected = recorded(tmp_path / "run")
    assert opened == []
    np.testing.assert_array_equal(ps.open_run(tmp_path / "run").gradients[:], expected)


@direct_only
def test_a_full_disk_is_an_error_for_direct_writes_too(tmp_path):
    mount = shutil.which("mount")
    disk = tmp_path / "disk"
    disk.mkdir()
    with contextlib.ExitStack() as stack:
        import subprocess

        command = [mount or "mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
        if not mount or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("a small file system cannot be mounted here: needs root on Linux")
        stack.callback(subprocess.run, ["umount", "-l", str(disk)], check=False)
        files = ChunkFiles()
        write(files, disk / "0", block())
        write(files, disk / "1", block())
        with pytest.raises(OSError, match="No space left"):
            write(files, disk / "2", block())
        assert (disk / "1").read_bytes() == block().tobytes()
