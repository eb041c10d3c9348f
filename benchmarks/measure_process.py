"""Measures an untrained network of a modulus several times, and prints seconds and memory."""

import json
import resource
import statistics
import sys
import time

import torch

from phasescope.analysis.grokking import measure, observe
from phasescope.datasets import modular_task, split_pairs
from phasescope.models import PairTransformer


def peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    p, turns = int(sys.argv[1]), int(sys.argv[2])
    model = PairTransformer(p, generator=torch.Generator().manual_seed(0))
    task = modular_task("add", p)
    split = split_pairs(len(task.pairs), 0.3, seed=0)
    before = peak_bytes()
    observed, measured = [], []
    for _ in range(turns + 1):
        start = time.perf_counter()
        seen = observe(model)
        middle = time.perf_counter()
        measure(seen, task, split)
        end = time.perf_counter()
        observed.append(middle - start)
        measured.append(end - middle)
        del seen
    observed, measured = observed[1:], measured[1:]  # the first call sets things up
    found = {
        "seconds": [a + b for a, b in zip(observed, measured, strict=True)],
        "observe_s": statistics.median(observed),
        "measure_s": statistics.median(measured),
        "before_bytes": before,
        "peak_bytes": peak_bytes(),
        "threads": torch.get_num_threads(),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
