"""Scores of images -> the score of each patient (group): the slow float64 truth.

    mean      the mean of the group's scores
    max       the largest
    topk      the mean of the ceil(parameter * n) highest
    noisy_or  1 - prod(1 - p) of the group's probabilities: that one of several causes, each by itself, has acted
    fraction  the share of the group's scores above the parameter

A NaN among a group's scores makes the group's result NaN: what could not be scored is never counted as normal.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

METHODS = ("mean", "max", "noisy_or", "topk", "fraction")


def aggregate(scores: ArrayLike, groups: ArrayLike, count: int, *, method: str, parameter: float = 0.0) -> Array:
    """scores [N], groups [N] of 0..count-1 -> [count]. Raises ValueError for a group without members."""
    scores, groups = np.asarray(scores, np.float64), np.asarray(groups)
    out = np.empty(count)
    for group in range(count):
        members = scores[groups == group]
        if members.size == 0:
            raise ValueError(f"group {group} has no members")
        if np.isnan(members).any():
            out[group] = math.nan
        elif method == "mean":
            out[group] = members.mean()
        elif method == "max":
            out[group] = members.max()
        elif method == "topk":
            out[group] = np.sort(members)[-math.ceil(parameter * members.size) :].mean()
        elif method == "noisy_or":
            missed = math.prod(1 - Fraction(score) for score in members.tolist())
            out[group] = float(1 - missed)
        elif method == "fraction":
            out[group] = np.mean(members > parameter)
        else:
            raise ValueError(f"method is {method!r}, expected one of {METHODS}")
    return out
