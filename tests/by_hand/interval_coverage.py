"""How often the 95 % intervals of `fssd_jax.evaluate` hold the truth, by simulation.

  python -m tests.by_hand.interval_coverage [REPEATS] > coverage.md

With 1,000 repeats ten minutes. Beside them stands the percentile bootstrap. The truth
is that of distributions of 100,000 images each, their quantiles.
"""

import sys

import numpy as np
from scipy import optimize, stats

from fssd_jax.metrics import evaluate

METRICS = ("auroc", "auprc", "fpr80", "fpr95")
AUROCS = (0.6, 0.8, 0.9, 0.97, 0.993, 0.998)
SIZES = (20, 50, 200, 1000)


def shifted(quantile):
    """auroc -> quantile functions of the scores of both kinds: a shift apart."""
    grid = quantile((np.arange(4000) + 0.5) / 4000)

    def of(auroc):
        def excess(shift):
            return np.searchsorted(grid, grid + shift).mean() / 4000 - auroc

        shift = optimize.brentq(excess, 0, 200)
        return lambda u: quantile(u) + shift, quantile

    return of


def contaminated(auroc):
    """In-distribution images lie below all OoD images with 1 − AUROC, or above all."""
    return lambda u: np.where(u < 1 - auroc, u - 9, u + 9), lambda u: u


SCORES = {
    "normal": shifted(stats.norm.ppf),
    "heavy tails (t, 2 d.f.)": shifted(lambda u: stats.t.ppf(u, 2)),
    "contaminated": contaminated,
}


def draws(of_ind, of_ood, size, repeats, ties, seed=0):
    """Pairs of samples; with ties the scores are rounded to halves."""
    rng = np.random.default_rng(seed)
    for _ in range(repeats):
        pair = of_ind(rng.random(size)), of_ood(rng.random(size))
        yield tuple((2 * s).round() / 2 if ties else s for s in pair)


def truth(of_ind, of_ood, ties, number=100_000):
    u = (np.arange(number) + 0.5) / number
    pair = (of_ind(u), of_ood(u))
    return np.array(evaluate(*((2 * s).round() / 2 if ties else s for s in pair))[:4])


def coverage(interval_fn, scores, auroc, size, ties, repeats):
    """Shares [metric] of the intervals that hold the truth, and their mean lengths."""
    pair = SCORES[scores](auroc)
    found = np.array([interval_fn(*s) for s in draws(*pair, size, repeats, ties)])
    low, high = np.moveaxis(found, 2, 0)
    true = truth(*pair, ties)
    # A grid has its truth to 1e-5; the intervals are seldom so short.
    return ((low - 1e-5 < true) & (true < high + 1e-5)).mean(0), (high - low).mean(0)


def ours(ind, ood):
    return evaluate(ind, ood)[4:]


def bootstrap(ind, ood, resamples=300):
    """Percentile intervals [metric, 2], both kinds resampled."""
    rng = np.random.default_rng(0)
    values, index = np.unique(-np.concatenate([ind, ood]), return_inverse=True)
    p, q = (
        rng.multinomial(len(of), np.bincount(of, minlength=len(values)) / len(of), n)
        for of, n in ((index[: len(ind)], resamples), (index[len(ind) :], resamples))
    )
    tp, fp = p.cumsum(1), q.cumsum(1)
    auroc = (q * (tp - p / 2)).sum(1) / (len(ind) * len(ood))
    auprc = (p * (tp / np.maximum(tp + fp, 1))).sum(1) / len(ind)
    rates = [
        np.take_along_axis(fp, (100 * tp >= r * len(ind)).argmax(1)[:, None], 1)[:, 0]
        for r in (80, 95)
    ]
    found = np.stack([auroc, auprc, *(rate / len(ood) for rate in rates)])
    return np.percentile(found, [2.5, 97.5], axis=1).T


def main(repeats=1000):
    print("| scores | ties | AUROC | images | " + " | ".join(METRICS) + " |")
    print("|---" * (4 + len(METRICS)) + "|")
    for name in SCORES:
        for ties in (False, True):
            for auroc in AUROCS:
                for size in SIZES:
                    cells = []
                    of = (name, auroc, size, ties)
                    fewer = max(repeats // (10 if size == 1000 else 4), 50)
                    old, old_length = coverage(bootstrap, *of, fewer)
                    new, length = coverage(ours, *of, repeats)
                    for k in range(len(METRICS)):
                        cells.append(
                            f"{100 * old[k]:.0f} → {100 * new[k]:.1f} "
                            f"({old_length[k]:.3f} → {length[k]:.3f})"
                        )
                    row = [name, "yes" if ties else "", f"{auroc}", f"{size}", *cells]
                    print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
