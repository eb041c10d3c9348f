"""Fixtures and settings of the whole suite.

Nothing here imports the package at the top: its annotations are checked only in modules imported
after pytest has started (see `--jaxtyping-packages` in pyproject.toml).
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests run side by side on all cores: PyTorch, which is imported after this, takes one in each.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs ignore Ctrl-C and so does what they start, but tests send it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("local", deadline=None, max_examples=25)
# The same examples every time, so that a red run of CI can be repeated.
settings.register_profile("ci", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` on a machine that has none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def float64_default() -> Iterator[None]:
    """Make float64 the dtype of new tensors for one test."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def unchecked_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn the annotation checks off: users do not have them, and get our message instead."""
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="session")
def mnist_directory() -> Path:
    """The folder with the four MNIST files; skips without them."""
    data = os.environ.get("PHASESCOPE_DATA")
    if not data:
        pytest.skip("needs MNIST: PHASESCOPE_DATA is not set")
    folder = Path(data) / "mnist"
    if not (folder / "train-images-idx3-ubyte.gz").is_file():
        pytest.skip(f"needs MNIST: {folder} has no train-images-idx3-ubyte.gz")
    return folder
