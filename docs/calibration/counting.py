"""Rules that count components: ours, and those of other packages, on the same draws."""

import warnings

import numpy as np
import torch

import phasescope as ps
from calibration.draws import CORRELATED, NOISES, K, P, T, draw
from calibration.rates import percent, rate, table

N_NOISE, N_PLANTED = 400, 50
AMPLITUDES = (0.8, 2.0, 5.0)
LEVEL, N_SURROGATES = 0.05, 19


def counts(A: torch.Tensor, seed: int) -> dict[str, int]:
    """The count of every rule."""
    return ours(A, seed) | formulas(A, seed) | packages(A)


def ours(A: torch.Tensor, seed: int) -> dict[str, int]:
    """Rules of phasescope."""
    gram = ps.gram(A)
    raw = ps.spectrum(gram, time_vectors=False)
    centered = ps.spectrum(gram, center="steps", time_vectors=False)
    options = {"center": "steps", "normalize": True, "n_surrogates": N_SURROGATES, "seed": seed}
    edge = ps.flip_rank_test(A, **options)
    pairwise = ps.flip_rank_test(A, rule="pairwise", **options)
    undeflated = edge.surrogates.max(0).values
    equal = ps.flip_rank_test(A, equalize=True, **options)
    vectors = ps.spectrum(gram, center="steps", normalize=True)
    white = ps.spectrum(
        ps.whitened_gram(A, vectors, equal.rank), center="steps", time_vectors=False
    )
    located = ps.located_components(white, 1.0)
    silverstein = ps.noise_edges(ps.parameter_variances(A, vectors), T - 1).upper
    norms = ps.count_above(ps.norm_null(raw).S)
    return {
        "**flip test**, steps normalised and centred, edge": edge.rank,
        "the same, parameters equalised": equal.rank,
        "the same, pairwise (not equalised)": pairwise.rank,
        "the same, edge, without deflation": above(edge.observed, undeflated, "edge"),
        "flip test, raw, edge": ps.flip_rank_test(A, n_surrogates=N_SURROGATES, seed=seed).rank,
        "Silverstein's edge, steps normalised and centred": int((silverstein < vectors.S).sum()),
        "the same + 5 %": int((1.05 * silverstein < vectors.S).sum()),
        "Tracy–Widom, p < .05, one variance": int((p_values(centered) < LEVEL).sum()),
        "`located_components`, whitened: detected": located.n_detected,
        "`located_components`, whitened: located": located.n_located,
        "Gavish–Donoho, unknown noise": int((ps.gavish_donoho(raw) < raw.S).sum()),
        "10 % of the largest": ps.count_above(raw.S, 0.1),
        "10 % count below the norms' count": max(0, norms - ps.count_above(raw.S, 0.1)),
    }


def p_values(spectrum: ps.Spectrum) -> torch.Tensor:
    return ps.edge_p_values(spectrum, ps.noise_scale(spectrum))


def formulas(A: torch.Tensor, seed: int) -> dict[str, int]:
    """Parallel analysis, of which no package installs beside a current NumPy."""
    S, permuted = singular(A), permuted_maxima(A, seed)
    return {
        "parallel analysis, permuted columns, edge": above(S, permuted, "edge"),
        "parallel analysis, permuted columns, pairwise": above(S, permuted, "pairwise"),
        "parallel analysis after Horn (standardised, normal)": horn(A, seed),
    }


def packages(A: torch.Tensor) -> dict[str, int]:
    """What PyPI offers, called as its documentation says."""
    from dyson_equalizer.dyson_equalizer import DysonEqualizer
    from kneed import KneeLocator
    from optht import optht
    from screenot.ScreeNOT import adaptiveHardThresholding
    from sklearn.decomposition import PCA

    X = A.double().numpy()
    S = np.linalg.svd(X, compute_uv=False)
    spectrum = ps.spectrum(ps.gram(A), time_vectors=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "no knee found", divisions by zero
        knee = KneeLocator(range(1, T + 1), S, curve="convex", direction="decreasing").knee
        equalized = DysonEqualizer(X).compute().r_hat
        return {
            "optht 0.2: unknown noise": or_zero(lambda: optht(T / P, S)),
            "optht 0.2: noise given": or_zero(
                lambda: optht(T / P, S, sigma=ps.noise_scale(spectrum))
            ),
            "screenot 0.0.2 (rank ≤ 10)": int(adaptiveHardThresholding(X, 10)[2]),
            "dyson-equalizer 0.1.8": int(equalized),
            "kneed 0.9: elbow of the scree": int(knee or 0),
            "scikit-learn: PCA('mle') of the transpose": PCA("mle").fit(X.T).n_components_,
        }


def or_zero(count) -> int:
    """Optht raises where nothing is above its threshold."""
    try:
        return int(count())
    except ValueError:
        return 0


def permuted_maxima(A: torch.Tensor, seed: int) -> torch.Tensor:
    """Largest singular values of copies in which every column is permuted over the steps."""
    generator = np.random.default_rng(seed)
    copies = [
        singular(torch.from_numpy(generator.permuted(A.numpy(), axis=0)))
        for _ in range(N_SURROGATES)
    ]
    return torch.stack(copies).max(0).values


def horn(A: torch.Tensor, seed: int) -> int:
    """Parallel analysis after Horn, index by index, above the maximum of the copies."""
    generator = torch.Generator().manual_seed(seed + 10**6)

    def standardised(X: torch.Tensor) -> torch.Tensor:
        X = X - X.mean(0)
        return singular(X / X.std(0))

    copies = [standardised(torch.randn(T, P, generator=generator)) for _ in range(N_SURROGATES)]
    return above(standardised(A), torch.stack(copies).max(0).values, "pairwise")


def singular(A: torch.Tensor) -> torch.Tensor:
    return ps.spectrum(ps.gram(A), time_vectors=False).S


def above(S: torch.Tensor, thresholds: torch.Tensor, rule: str) -> int:
    if rule == "edge":
        return int((thresholds[0] < S).sum())
    return int((thresholds < S).int().cumprod(0).sum())


def measure(say) -> dict:
    """Rates of finding anything in noise, and of counting what was planted."""
    noise, planted = {}, {str(amplitude): {} for amplitude in AMPLITUDES}
    for name, kind in (NOISES | CORRELATED).items():
        if not kind.loud_signal:  # without a signal it is the noise before
            found = collect(kind, 0.0, N_NOISE)
            noise[name] = {
                rule: rate(sum(bool(r > 0) for r in ranks), N_NOISE) | median(ranks)
                for rule, ranks in found.items()
            }
        say(f"{name}: noise")
        for amplitude in AMPLITUDES if name in NOISES else ():
            found = collect(kind, amplitude, N_PLANTED)
            planted[str(amplitude)][name] = {
                rule: rate(sum(bool(r == K) for r in ranks), N_PLANTED) | median(ranks)
                for rule, ranks in found.items()
            }
            say(f"{name}: {amplitude}")
    settings = {
        "steps": T, "parameters": P, "planted": K, "noise_draws": N_NOISE,
        "planted_draws": N_PLANTED, "level": LEVEL, "surrogates": N_SURROGATES,
    }  # fmt: skip
    return {"settings": settings, "noise": noise, "planted": planted}


def collect(kind, amplitude: float, n: int) -> dict[str, list[int]]:
    """The count of every rule in every draw; no two kinds or amplitudes share one."""
    kinds = list((NOISES | CORRELATED).values())
    first = 10_000 * (1 + len(kinds) * (0.0, *AMPLITUDES).index(amplitude) + kinds.index(kind))
    seeds = range(first, first + n)
    found = [counts(draw(kind, amplitude, seed), seed) for seed in seeds]
    return {rule: [count[rule] for count in found] for rule in found[0]}


def median(ranks: list[int]) -> dict[str, float]:
    return {"median_count": float(np.median(ranks))}


def tables(numbers: dict) -> list[str]:
    s = numbers["settings"]
    parts = [
        f"{s['noise_draws']} draws of pure noise, {s['steps']} steps, {s['parameters']} "
        f"parameters, {s['surrogates']} surrogates, nominal level {s['level']:.2f}. Share of draws "
        "in which a rule found a component, with 95 % Wilson intervals:",
        table(numbers["noise"], percent),
        "Median count in the same pure noise:",
        table(numbers["noise"], lambda cell: f"{cell['median_count']:g}"),
    ]
    for amplitude, columns in numbers["planted"].items():
        parts += [
            f"{s['planted']} components planted at amplitude {amplitude}, {s['planted_draws']} "
            "draws. Share of draws in which the rule counts exactly that many, and its median "
            "count:",
            table(columns, lambda cell: f"{100 * cell['rate']:.0f} % ({cell['median_count']:g})"),
        ]
    return parts
