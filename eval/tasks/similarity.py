"""Measures between the languages of parallel sentence vectors: the mathematics behind eval/tasks/neutrality.py.

Everywhere: `vectors` (languages, sentences, hidden), zero where a language lacks a sentence, and `mask` (languages,
sentences) telling which exist. All results in float64 but the margins, whose large product is float32.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]


def unit_rows(vectors: NDArray[np.floating]) -> Matrix:
    """Vectors along the last axis at length 1, in float64; zero vectors stay zero."""
    exact = vectors.astype(np.float64)
    return exact / np.maximum(np.linalg.norm(exact, axis=-1, keepdims=True), 1e-30)


def cosine(left: NDArray[np.floating], right: NDArray[np.floating]) -> Matrix:
    """Cosines of all rows of `left` (n, d) with all rows of `right` (m, d); a zero vector has cosine 0 with all."""
    return unit_rows(left) @ unit_rows(right).T


def pair_matrices(vectors: Matrix, mask: Mask) -> dict[str, Matrix]:
    """The paired measures, each (languages, languages); NaN on the diagonal and where a pair has no common sentence.

    `margin[a, b]` has the sentences of a as queries; the other matrices are symmetric.
    """
    units = unit_rows(vectors) * mask[..., None]
    means = vectors.sum(axis=1) / mask.sum(axis=1)[:, None]
    centred = unit_rows(vectors - means[:, None]) * mask[..., None]
    common = mask.astype(float) @ mask.T.astype(float)
    sums = units.sum(axis=1)
    sizes = mask.sum(axis=1).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        matched = _flat_products(units)
        found = {
            "cosine": matched / common,
            "cosine_centred": _flat_products(centred) / common,
            "cosine_control": (sums @ sums.T - matched) / (np.outer(sizes, sizes) - common),
            "margin": margins(units, mask),
        }
    for matrix in found.values():
        np.fill_diagonal(matrix, np.nan)
        matrix[common == 0] = np.nan
    return found


def margins(units: Matrix, mask: Mask) -> Matrix:
    """(a, b): mean over common i of u_ai . u_bi - max over j != i of u_ai . u_bj; NaN where there is no j."""
    languages, sentences, _ = units.shape
    found = np.full((languages, languages), np.nan)
    candidates = units.reshape(languages * sentences, -1).T.astype(np.float32)
    for a in range(languages):
        similarity = (units[a].astype(np.float32) @ candidates).reshape(sentences, languages, sentences)
        similarity[:, ~mask] = -np.inf
        own = np.einsum("ibi->ib", similarity).copy()
        similarity[np.arange(sentences), :, np.arange(sentences)] = -np.inf
        with np.errstate(invalid="ignore", divide="ignore"):
            margin = own - similarity.max(axis=2)
            usable = np.isfinite(margin) & mask[a][:, None]
            found[a] = np.where(usable, margin, 0.0).sum(axis=0) / usable.sum(axis=0)
    return found


def probe_languages(vectors: Matrix, mask: Mask) -> list[NDArray[np.bool_]]:
    """For each language, which of its sentences a linear classifier places in the right language.

    Logistic regression on standardised vectors in two folds: trained on the even sentences, asked for the odd ones,
    and the other way round, so that no translation of a test sentence was in training.
    """
    right = np.zeros(mask.shape, dtype=bool)
    fold = np.broadcast_to(np.arange(mask.shape[1]) % 2, mask.shape)
    language = np.broadcast_to(np.arange(mask.shape[0])[:, None], mask.shape)
    for test in (0, 1):
        train, held = mask & (fold != test), mask & (fold == test)
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=100, tol=1e-3))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a probe stopped early is still a probe, and the same
            model.fit(vectors[train].astype(np.float32), language[train])
        right[held] = model.predict(vectors[held].astype(np.float32)) == language[held]
    return [row[known] for row, known in zip(right, mask)]


def _flat_products(units: Matrix) -> Matrix:
    """(a, b): sum over sentences of the products of unit vectors; sentences that one side lacks are zero."""
    flat = units.reshape(len(units), -1)
    return flat @ flat.T
