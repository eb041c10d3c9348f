"""Before any library of an integration is imported."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# transformers looks for a library called `datasets`, and takes the folder tests/datasets for it.
_found = importlib.util.find_spec("datasets")
if _found is not None and _found.origin is None:
    sys.modules["datasets"] = None  # type: ignore[assignment]
    if "transformers.utils.import_utils" in sys.modules:
        sys.modules["transformers.utils.import_utils"].is_datasets_available.cache_clear()


@pytest.fixture
def wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep W&B silent, off the network, and with all its files in the test's folder."""
    wandb = pytest.importorskip("wandb")
    # It reads the environment only once in a process.
    wandb.teardown()
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield
    wandb.teardown()
