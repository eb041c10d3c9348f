"""Make the data set `ps.datasets.transitions()` from its seeds.

    python docs/make_transitions.py FOLDER                    # all systems: 20 minutes on one core
    python docs/make_transitions.py FOLDER --systems spikes   # these alone
    python docs/make_transitions.py FOLDER --write            # put them into the data set

Every system is trained as a batch of seeds and kept in FOLDER with its provenance; a system that is
there is not trained again. Of systems that are not there the data set keeps what it has.
"""

import argparse
import time
from pathlib import Path

import torch

from phasescope.datasets.known_runs import (
    KnownRun,
    packed,
    transitions,
    unpacked,
    write_transitions,
)
from phasescope.experiments.phase_detection.config import N_SEEDS, SYSTEMS
from phasescope.experiments.phase_detection.system import record
from phasescope.trajectory.environment import describe_environment


def make(system: str, file: Path) -> None:
    """Train a system and keep its runs."""
    environment = describe_environment()
    seeds = list(range(N_SEEDS[system]))
    start = time.process_time()
    runs = record(SYSTEMS[system](system, seeds), seeds)
    seconds = round(time.process_time() - start, 1)
    about = {
        "commit": environment.get("commit"),
        "cpu_seconds": seconds,
        "torch": torch.__version__,
    }
    file.write_bytes(packed(runs, {system: about}))


def put_together(folder: Path) -> None:
    """One file of all systems."""
    before = transitions()
    runs: list[KnownRun] = []
    about = {}
    for system in SYSTEMS:
        file = folder / f"{system}.xz"
        part = unpacked(file.read_bytes()) if file.exists() else None
        runs += part.of(system) if part else before.of(system)
        about[system] = part.provenance[system] if part else before.provenance["systems"][system]
    write_transitions(
        runs, {"made_by": "docs/make_transitions.py", "seeds": dict(N_SEEDS), "systems": about}
    )


def main() -> None:
    """Train what is missing, or write the data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--write", action="store_true", help="put them into the data set")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.write:
        put_together(arguments.folder)
        return
    for system in arguments.systems:
        file = arguments.folder / f"{system}.xz"
        if not file.exists():
            make(system, file)


if __name__ == "__main__":
    main()
