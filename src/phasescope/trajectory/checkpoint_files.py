"""Checkpoints of any training as named tensors, read one at a time and without pickle.

Known: safetensors (single files, and folders with an index), PyTorch files (``weights_only``),
folders as Hugging Face writes them, and the hub's cache with its revisions.
"""

from __future__ import annotations

import fnmatch
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
# What state dicts hold beside parameters.
NO_PARAMETERS = (
    "*.inv_freq",
    "*.masked_bias",
    "*IGNORE",
    "*running_mean",
    "*running_var",
    "*num_batches_tracked",
)
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE = ("model.safetensors", "pytorch_model.bin")
_NESTED = ("model", "state_dict", "model_state_dict", "module")
_PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class CheckpointFile:
    """One checkpoint of a series."""

    step: int
    """The step its name says."""
    path: Path
    """File, or folder with a model in it."""


def find_checkpoints(
    paths: Sequence[str | Path], steps: Sequence[int] | None = None
) -> list[CheckpointFile]:
    """Checkpoints with their steps, in the order of these.

    A path is a file, a folder with a model, a folder that holds such files or folders, or a
    repository in the hub's cache (with ``refs`` and ``snapshots``), whose revisions are taken. The
    step is the last number in the name of the file, or of the nearest folder above that has one:
    ``step1000/model.safetensors``, ``checkpoint-500``, ``SoLU_2L_0001234.pth``.

    Args:
        paths: Where to look.
        steps: Step of every path, where the names do not say it.

    Returns:
        The checkpoints, steps increasing.

    Raises:
        ValueError: A path is no checkpoint, a name has no number, or steps repeat or are missing.

    Example:
        >>> import tempfile, safetensors.torch
        >>> folder = Path(tempfile.mkdtemp())
        >>> for step in (10, 2):
        ...     (folder / f"step{step}").mkdir()
        ...     file = folder / f"step{step}" / "model.safetensors"
        ...     safetensors.torch.save_file({"w": torch.ones(3)}, file)
        >>> [checkpoint.step for checkpoint in find_checkpoints([folder])]
        [2, 10]
    """
    found = [one for path in paths for one in _expanded(Path(path))]
    if steps is not None:
        if len(steps) != len(found):
            raise ValueError(
                f"one step for each checkpoint is required, but there are {len(steps)} steps and "
                f"{len(found)} checkpoints: {', '.join(str(p) for p, _ in found[:4])}, ..."
            )
        found = [(path, step) for (path, _), step in zip(found, steps, strict=True)]
    checkpoints = [CheckpointFile(_step(path, step), path) for path, step in found]
    checkpoints.sort(key=lambda checkpoint: checkpoint.step)
    for a, b in itertools.pairwise(checkpoints):
        if a.step == b.step:
            raise ValueError(
                f"every checkpoint needs a step of its own, but {a.path} and {b.path} both say "
                f"{a.step}. Pass the steps: --steps 0 1000 2000 ..."
            )
    return checkpoints


def _expanded(path: Path) -> Iterator[tuple[Path, int | None]]:
    if not path.exists():
        raise ValueError(f"a checkpoint is a file or a folder, but {path} does not exist.")
    if path.is_file() or _is_model(path):
        yield path, None
    elif (path / "refs").is_dir() and (path / "snapshots").is_dir():
        for ref in sorted((path / "refs").iterdir(), key=_by_numbers):
            snapshot = path / "snapshots" / ref.read_text(encoding="utf-8").strip()
            number = _number(ref.name)
            if number is not None and snapshot.is_dir():  # "main" is a copy of one of the others
                yield snapshot, number
    else:
        inside = [
            child
            for child in sorted(path.iterdir(), key=_by_numbers)
            if (child.is_dir() and _is_model(child))
            or child.suffix in (*TORCH_SUFFIXES, ".safetensors")
        ]
        if not inside:
            raise ValueError(
                f"a folder of checkpoints holds .safetensors or {', '.join(TORCH_SUFFIXES)} files, "
                f"or folders with {' or '.join(_SINGLE)}, but {path} holds "
                f"{sorted(p.name for p in path.iterdir())[:6]}."
            )
        yield from ((child, None) for child in inside)


def _is_model(folder: Path) -> bool:
    return folder.is_dir() and any((folder / name).exists() for name in (*_INDICES, *_SINGLE))


def _by_numbers(path: Path) -> list[str | int]:
    """Sorts epoch_2 before epoch_10: between two words there is always a number."""
    return [int(s) if s.isdigit() else s for s in re.split(r"([0-9]+)", path.name)]


def _number(name: str) -> int | None:
    numbers = re.findall(r"\d+", name)
    return int(numbers[-1]) if numbers else None


def _step(path: Path, step: int | None) -> int:
    if step is not None:
        return step
    stems = [path.name.removesuffix(path.suffix) if path.is_file() else path.name]
    stems += [parent.name for parent in path.absolute().parents]
    for stem in stems[:3]:
        if (number := _number(stem)) is not None:
            return number
    raise ValueError(
        f"the step of a checkpoint is the last number in its name, but {path} has none. Pass the "
        "steps: --steps 0 1000 2000 ..."
    )


class CheckpointTensors:
    """The parameters of one checkpoint, read as they are asked for.

    Left out are tensors that are not floating point, single numbers and buffers (`NO_PARAMETERS`),
    and names of a PyTorch file that share the memory of an earlier one (tied weights).

    Args:
        path: File, or folder with a model.
        exclude: Further patterns of names to leave out, such as ``*.mask``.

    Raises:
        ValueError: The file holds no tensors, or cannot be read without pickle.
    """

    def __init__(self, path: Path, exclude: Sequence[str] = ()) -> None:
        self.path = path
        self.left_out: dict[str, str] = {}
        self._exclude = (*NO_PARAMETERS, *exclude)
        self._files: dict[str, tuple[Path, str]] = {}
        self._loaded: dict[Path, Any] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for file in _model_files(path):
            for name, shape in self._index(file):
                shapes[name] = shape
        if not shapes:
            raise ValueError(
                f"a checkpoint holds named floating-point tensors, but {path} has none"
                f"{' beside ' + ', '.join(list(self.left_out)[:4]) if self.left_out else ''}."
            )
        self.shapes = shapes

    def _index(self, file: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
        entries = _safetensors_entries(file) if file.suffix == ".safetensors" else None
        if entries is None:
            entries = self._torch_entries(file)
        names = [key for key, _, _ in entries]
        prefix = next((p for p in _PREFIXES if names and all(n.startswith(p) for n in names)), "")
        for key, shape, why in entries:
            name = key.removeprefix(prefix)
            if not why and any(fnmatch.fnmatch(name, pattern) for pattern in self._exclude):
                why = "a buffer, or excluded"
            if why:
                self.left_out[name] = why
            else:
                self._files[name] = (file, key)
                yield name, shape

    def _torch_entries(self, file: Path) -> list[tuple[str, tuple[int, ...], str]]:
        state = self._torch(file)
        seen: dict[tuple[int, int, tuple[int, ...]], str] = {}
        entries = []
        for key, tensor in state.items():
            why = _why_left_out(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
            place = (
                tensor.untyped_storage().data_ptr(),
                int(tensor.storage_offset()),
                tuple(tensor.shape),
            )
            if not why and seen.setdefault(place, key) != key:
                why = f"shares the memory of {seen[place]}"
            entries.append((key, tuple(tensor.shape), why))
        return entries

    def _torch(self, file: Path) -> Mapping[str, Tensor]:
        if file not in self._loaded:
            self._loaded[file] = _state_dict(file)
        return self._loaded[file]

    def __getitem__(self, name: str) -> Tensor:
        """A tensor, in its own dtype."""
        file, key = self._files[name]
        if file.suffix != ".safetensors":
            return self._torch(file)[key]
        from safetensors import safe_open

        with safe_open(file, framework="pt") as tensors:
            return tensors.get_tensor(key)


def _model_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    for name in _INDICES:
        if (path / name).exists():
            index = json.loads((path / name).read_text(encoding="utf-8"))
            return [path / file for file in dict.fromkeys(index["weight_map"].values())]
    return [next(path / name for name in _SINGLE if (path / name).exists())]


def _why_left_out(dtype: str, shape: tuple[int, ...]) -> str:
    if dtype.lower() not in (
        "float64",
        "float32",
        "float16",
        "bfloat16",
        "f64",
        "f32",
        "f16",
        "bf16",
    ):
        return f"of dtype {dtype}"
    return "a single number" if shape == () else ""


def _safetensors_entries(file: Path) -> list[tuple[str, tuple[int, ...], str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            slices = {key: tensors.get_slice(key) for key in tensors.keys()}  # noqa: SIM118
            # The order in the file, which is that of the model; keys() are sorted.
            keys = sorted(slices, key=_offsets(file).__getitem__)
            return [
                (key, tuple(slices[key].get_shape()), _why_left_out(
                    str(slices[key].get_dtype()), tuple(slices[key].get_shape())
                ))
                for key in keys
            ]  # fmt: skip
    except SafetensorError as error:
        raise ValueError(
            f"{file} must be a safetensors file, but cannot be read: {error}."
        ) from error


def _offsets(file: Path) -> dict[str, int]:
    """Where every tensor begins, from the file's header."""
    with open(file, "rb") as handle:
        header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
    return {k: v["data_offsets"][0] for k, v in header.items() if k != "__metadata__"}


def _state_dict(file: Path) -> Mapping[str, Tensor]:
    """The named tensors of a PyTorch file, memory mapped where its format allows."""
    try:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # the format of PyTorch before 1.6 cannot be mapped
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{file} must hold a state dict that can be read without pickle (weights_only=True), "
            f"but that fails: {str(error).splitlines()[0]} Save model.state_dict() by itself, "
            "as safetensors if possible."
        ) from error
    for key in ("", *_NESTED):
        found = content if not key else content.get(key) if isinstance(content, Mapping) else None
        if isinstance(found, Mapping):
            tensors = {k: v for k, v in found.items() if isinstance(v, Tensor)}
            if tensors and (key or len(tensors) * 2 > len(found)):
                return tensors
    there = list(content)[:6] if isinstance(content, Mapping) else type(content).__name__
    raise ValueError(
        f"{file} must hold named tensors, or have them under one of {', '.join(_NESTED)}, but it "
        f"holds {there}. Save the state dict by itself."
    )
