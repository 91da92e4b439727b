"""Random numbers that are functions: the same key gives the same bits in any order, process, rank and library version.

Used where the data stream must not depend on how it is read (:mod:`langsamp.train.batches.sampling`,
:mod:`langsamp.train.batches.stream`). SplitMix64 (Steele, Lea, Flood 2014), vectorised over uint64 arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def bits(*keys: Any) -> np.ndarray:
    """64 pseudo-random bits for each combination of keys.

    Args:
        keys: integers or integer arrays that broadcast together; order matters.

    Returns:
        uint64 of the broadcast shape.
    """
    state = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is the point
        for key in keys:
            mixed = state + _GAMMA + _as_uint64(key)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
            mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
            state = mixed ^ (mixed >> np.uint64(31))
    return state


def _as_uint64(key: Any) -> np.ndarray:
    """Integers as they are modulo 2**64, negative ones included."""
    array = np.asarray(key)
    return array if array.dtype == np.uint64 else array.astype(np.int64).view(np.uint64)


def uniform(*keys: Any) -> np.ndarray:
    """Numbers in [0, 1) with 53 random bits, one for each combination of keys (see :func:`bits`)."""
    return (bits(*keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permuted(index: np.ndarray, size: np.ndarray, *keys: Any) -> np.ndarray:
    """Where a pseudo-random permutation of ``range(size)`` puts ``index``, computed without building it.

    A Feistel network on the next power of four, walked until the value is below ``size`` (Black and Rogaway 2002):
    a bijection of ``range(size)`` for every key.

    Args:
        index: integers in [0, size).
        size: the sizes, at least 1; shape like ``index``.
        keys: what names the permutation; scalars or arrays like ``index``.

    Returns:
        int64, shape of ``index``, values in [0, size).
    """
    index = np.asarray(index, np.uint64)
    size = np.broadcast_to(np.asarray(size, np.uint64), index.shape)
    key = np.broadcast_to(bits(*keys), index.shape)
    half = np.maximum((np.ceil(np.log2(np.maximum(size, 2).astype(np.float64))).astype(np.uint64) + 1) // 2, 1)
    half = half.astype(np.uint64)
    value = _feistel(index, half, key)
    outside = value >= size
    while outside.any():
        value[outside] = _feistel(value[outside], half[outside], key[outside])
        outside = value >= size
    return value.astype(np.int64)


def _feistel(value: np.ndarray, half: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Four rounds on two halves of ``half`` bits each: a bijection of the integers below 4**half."""
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = value >> half, value & mask
    for number in range(4):
        left, right = right, left ^ (bits(key, number, right) & mask)
    return (left << half) | right
