"""Nulls with p-values: time profiles, gradients at frozen weights, random walks."""

import torch

import phasescope as ps
from calibration.draws import NOISES, Noise, P, T, draw, norms, rows, scales
from calibration.rates import percent, rate, table

N = 400
LEVEL = 0.05
KINDS = ("equal variances", "log-normal .5, norms 1/√t", "log-normal 1, norms exp(−3t/T)")
POOLS = (2, 5, 20)  # frozen gradients per step
DRIFTS = (0.03, 0.1, 0.3)


def profiles(kind: Noise, seed: int, amplitude: float) -> dict[str, bool]:
    """Whether the first component has an order in time; a ramp is planted at an amplitude."""
    A = draw(kind, 0.0, seed)
    if amplitude:
        v = torch.randn(P, generator=torch.Generator().manual_seed(seed + 1))
        ramp = torch.linspace(0, 1, T) * norms(kind)
        sigma = scales(kind, torch.Generator().manual_seed(seed))
        A += amplitude * torch.outer(ramp, v / v.norm()) * float(sigma.norm()) / T**0.5
    spectrum = ps.spectrum(ps.gram(A), center="steps", normalize=True)
    found = ps.time_profiles(spectrum, 1, n_permutations=199, seed=seed)
    names = ("center", "spread", "early", "late", "autocorrelation")
    return {f"time profile: {name}": bool(getattr(found, name).p[0] <= LEVEL) for name in names}


def frozen(kind: Noise, seed: int, planted: bool) -> dict[str, bool]:
    """Whether statistics of a trajectory leave those of frozen gradients of the same law."""
    generator = torch.Generator().manual_seed(seed)
    sigma = scales(kind, generator)
    A = rows(kind, sigma, generator)
    if planted:
        u, v = (torch.randn(n, generator=generator) for n in (T, P))
        A += torch.outer(u / u.norm(), v / v.norm()) * float(sigma.norm()) * 2
    gram = ps.gram(A * norms(kind)[:, None])
    hits = {}
    for n in POOLS:
        pool = ps.gram(rows(kind, sigma, generator, n * T))
        found = ps.compare_with_frozen(
            gram, pool, center="steps", normalize=True, n_draws=99, seed=seed
        )
        for name in ("participation ratio", "stable rank"):
            hits[f"frozen weights, {n} T gradients: {name}"] = found.p[name] <= LEVEL
    return hits


def walks(kind: Noise, seed: int, drift: float) -> dict[str, bool]:
    """Whether a path of independent increments, with a drift or not, is told from a walk."""
    generator = torch.Generator().manual_seed(seed)
    sigma = scales(kind, generator)
    a = norms(kind)[:, None]
    increments = rows(kind, sigma, generator) * a
    v = torch.randn(P, generator=generator)
    increments += drift * v / v.norm() * float(sigma.norm()) * a
    path = ps.gram(increments.cumsum(0), dtype=torch.float64)
    spectrum = ps.spectrum(path, center="steps")
    own = ps.path_walk_null(path, n_draws=199, seed=seed)
    steps = ps.gram(increments)
    unit = ps.spectrum(steps, center="steps", normalize=True)
    d = min(round(ps.effective_dimension(unit)), 10**6) if drift == 0 else None
    hits = {"random walk of the path's increments": _first(spectrum, own)}
    if d is not None:
        simulated = ps.walk_null(
            steps.K.diagonal().sqrt(), torch.arange(1, T + 1), n_dimensions=d, n_draws=199,
            seed=seed,
        )  # fmt: skip
        simulated = type(simulated)(
            simulated.S, simulated.draws, simulated.time_vectors, spectrum.steps, "steps", False
        )
        hits["simulated walk of effective dimension"] = _first(spectrum, simulated)
    return hits


def _first(spectrum: ps.Spectrum, null: ps.WalkNull) -> bool:
    return bool(ps.path_p_values(spectrum, null)[0] <= LEVEL)


def measure(say) -> dict:
    """Rates of finding an order, training or a drift where there is none, and where there is."""
    noise, power = {}, {}
    for place, name in enumerate(KINDS):
        kind, first = NOISES[name], 10_000 * place
        noise[name] = _rates(lambda s, k=kind: _all(k, s), first, N)
        say(f"{name}: noise")
        power[name] = {}
        for amplitude in (1.0, 2.0, 4.0):
            found = _rates(lambda s, k=kind, a=amplitude: profiles(k, s, a), first + 5000, N // 4)
            power[name] |= {f"{rule}, ramp {amplitude:g}": cell for rule, cell in found.items()}
        found = _rates(lambda s, k=kind: frozen(k, s, True), first + 6000, N // 4)
        power[name] |= {f"{rule}, one component of 2": cell for rule, cell in found.items()}
        for drift in DRIFTS:
            found = _rates(lambda s, k=kind, d=drift: walks(k, s, d), first + 7000, N // 4)
            power[name] |= {f"{rule}, drift {drift:g}": cell for rule, cell in found.items()}
        say(f"{name}: power")
    settings = {"steps": T, "parameters": P, "draws": N, "power_draws": N // 4, "level": LEVEL}
    return {"settings": settings, "noise": noise, "power": power}


def _all(kind: Noise, seed: int) -> dict[str, bool]:
    """Every rule on pure noise."""
    return profiles(kind, seed, 0.0) | frozen(kind, seed, False) | walks(kind, seed, 0.0)


def _rates(hits, first: int, n: int) -> dict[str, dict]:
    found = [hits(seed) for seed in range(first, first + n)]
    return {rule: rate(sum(hit[rule] for hit in found), n) for rule in found[0]}


def tables(numbers: dict) -> list[str]:
    s = numbers["settings"]
    return [
        f"{s['draws']} draws of {s['steps']} independent steps of {s['parameters']} parameters. "
        f"Share of draws with p ≤ {s['level']:.2f}, with 95 % Wilson intervals:",
        table(numbers["noise"], percent),
        f"{s['power_draws']} draws with a planted ramp (strength y = amplitude / √3), "
        "component or drift (length of the constant part of an increment over that of its noise):",
        table(numbers["power"], lambda cell: f"{100 * cell['rate']:.0f} %"),
    ]
