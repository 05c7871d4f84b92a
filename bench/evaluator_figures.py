"""Figures of the evaluator's measurements."""

import math
import statistics


def auroc(good, bad):
    """How often a good one stands above a bad one; ties count half."""
    wins = sum((g > b) + 0.5 * (g == b) for g in good for b in bad)
    return wins / (len(good) * len(bad)) if good and bad else math.nan


def pearson(pairs):
    if len(pairs) < 3:
        return math.nan
    return statistics.correlation([a for a, _ in pairs], [b for _, b in pairs])


def rms(pairs):
    return math.sqrt(statistics.fmean([(m - e) ** 2 for m, e in pairs] or [math.nan]))


def agreement(pairs):
    """Of (masked, exact): strong ones are those that exact removal finds worth more than a nat."""
    strong = [(m, e) for m, e in pairs if abs(e) > 1]
    signs = sum((m > 0) == (e > 0) for m, e in strong) / len(strong) if strong else math.nan
    return {
        "segments": len(pairs),
        "above_1_nat": len(strong),
        "pearson": pearson(strong),
        "signs": signs,
        "rms": rms(strong),
        "pearson_all": pearson(pairs),
        "rms_all": rms(pairs),
        "above_2_apart": sum(abs(m - e) > 2 for m, e in pairs),
    }
