"""run.json: what a run is, its status, and what went wrong in it."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phasescope.errors import RunError
from phasescope.trajectory import schema
from phasescope.trajectory.environment import describe_environment
from phasescope.trajectory.files import write_json

# What must not change between a run and its resumption.
_FIXED = (
    "parameters",
    "components",
    "sketch",
    "save",
    "n_steps",
    "dtype",
    "optimizer",
    "config",
)


class RunFile:
    """Writes a run's run.json.

    Args:
        directory: The run's directory.
        content: What describes the run.
    """

    def __init__(self, directory: Path, content: dict[str, Any]) -> None:
        self._path = directory / schema.RUN_FILE
        self._content = content

    def read(self) -> dict[str, Any]:
        """The file as it is on disk."""
        return schema.read_run_file(self._path.parent)

    def check_same(self) -> None:
        """Refuse to resume another run than the one that was begun.

        Raises:
            RunError: Something differs that would make the recording inconsistent.
        """
        stored = self.read()
        for key in _FIXED:
            if stored.get(key) != self._content[key]:
                raise RunError(
                    f"{self._path.parent} was begun with {key} = {_shorten(stored.get(key))}, but "
                    f"is resumed with {_shorten(self._content[key])}. Resume with the same "
                    "settings, or record into another directory."
                )
        self._content["created"] = stored["created"]
        if "origin" in stored:
            self._content["origin"] = stored["origin"]

    def write(self, **changes: Any) -> None:
        """Write the file with some entries changed."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._content.setdefault("created", now)
        if "environment" not in self._content:
            self._content["environment"] = describe_environment()
        self._content.update(changes)
        head = {"format": schema.FORMAT, "schema_version": schema.SCHEMA_VERSION}
        config = self._content["config"]
        seed = config.get("seed") if isinstance(config, dict) else None
        write_json(self._path, head | {"seed": seed, "modified": now} | self._content)


def _shorten(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 200 else text[:200] + "…"


def as_json(config: Any) -> Any:
    """A configuration as plain JSON values.

    Raises:
        TypeError: It holds something that JSON cannot.
    """
    if config is None:
        return {}
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        config = dataclasses.asdict(config)
    if not isinstance(config, Mapping):
        raise TypeError(
            "config requires a mapping or a dataclass instance, but "
            f"{type(config).__name__} arrived."
        )
    try:
        return json.loads(json.dumps(dict(config), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"config is kept as JSON and requires plain values, but it cannot be written: {error}. "
            "Turn objects into their names or numbers."
        ) from error
