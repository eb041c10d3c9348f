"""A process that computes one Gram matrix and prints its own peak memory, in bytes.

With a number after the run it makes as many sign-flipped copies, too.
"""

import json
import sys
import time
from pathlib import Path

import phasescope as ps


def peak_bytes() -> int:
    # Linux hands ru_maxrss down from the process that started this one, so a large parent would
    # be measured instead. VmHWM belongs to this program alone.
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    imported = peak_bytes()
    start = time.perf_counter()
    gradients, n_surrogates = ps.open_run(sys.argv[1]).gradients, int(sys.argv[2])
    if n_surrogates:
        grams = list(ps.flipped_grams(gradients, n_surrogates))
    else:
        gram = ps.gram(gradients)
    seconds = time.perf_counter() - start
    found = {"peak_bytes": float(peak_bytes()), "after_imports_bytes": imported, "gram_s": seconds}
    print(json.dumps(found))
