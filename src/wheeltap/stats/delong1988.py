"""Area under the ROC curve: how often one label's scores are above the other's, and each item's part in that.

Source: DeLong, DeLong & Clarke-Pearson (1988), eq. 2-5; by ranks, as Sun & Xu (2014).
"""

import numpy as np

from wheeltap.stats.crossed import FloatArray


def mean_ranks(values: FloatArray) -> FloatArray:
    """Ranks ``[item]`` from 1, ties as their mean."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2.0)[places]


def placements(ones: FloatArray, zeros: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Of each item of label 1 the share of zeros below it, and of each zero the share of ones above it; ties half.

    The mean of either is the AUC; how they vary from item to item is its sampling error.
    """
    ranks = mean_ranks(np.concatenate([ones, zeros]))
    own, others = mean_ranks(ones), mean_ranks(zeros)
    return (ranks[: len(ones)] - own) / len(zeros), 1.0 - (ranks[len(ones) :] - others) / len(ones)


def auc(ones: FloatArray, zeros: FloatArray) -> float:
    """Probability that an item of label 1 has the higher score, ties half."""
    return float(placements(ones, zeros)[0].mean())
