from __future__ import annotations

import json
import math

import numpy as np
import pytest

from langsamp.eval import metrics
from langsamp.eval.metrics import compute
from langsamp.eval.metrics.acc_at_k.acc_at_k import ranks


def macro_f1(references, predictions):
    return compute("macro_f1", predictions=predictions, references=references)["macro_f1"]


def span_f1(references, predictions):
    return compute("span_f1", predictions=predictions, references=references)


def ndcg(gains, scores, k=None):
    return compute("ndcg", predictions=[scores], references=[gains], k=k)["ndcg"]


def regret(gains, scores):
    return compute("ndcg", predictions=[scores], references=[gains])["regret"]


def naive_rank(scores, gold):
    """Order all candidates, worst case for the gold one, and count."""
    order = sorted(range(len(scores)), key=lambda j: (-scores[j], j == gold))
    return order.index(gold) + 1


def test_ranks_equal_a_plain_sort_with_ties():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, size=(40, 17)) / 5  # many ties
    gold = rng.integers(0, 17, size=40)
    assert ranks(scores, gold).tolist() == [naive_rank(row, g) for row, g in zip(scores.tolist(), gold)]


def test_a_collapsed_encoder_finds_nothing():
    assert ranks(np.ones((10, 10))).tolist() == [10] * 10
    assert compute("acc_at_k", predictions=np.ones((10, 10)), k=[9, 10]) == {"acc@9": 0, "acc@10": 1}


def test_nan_scores_rank_last_and_leave_the_other_queries_alone():
    scores = np.eye(4)
    scores[1, 2] = np.nan
    scores[3] = np.nan
    assert ranks(scores).tolist() == [1, 4, 1, 4]


def test_scores_that_differ_by_rounding_only_are_a_tie():
    assert ranks(np.array([[0.5, 0.5 - 5e-8, 0.5 - 5e-7]]), [0]).tolist() == [2]


def test_acc_at_k_by_hand():
    scores = -np.tile(np.arange(12.0), (6, 1))  # candidate j has rank j + 1
    found = compute("acc_at_k", predictions=scores, references=[0, 1, 4, 5, 9, 10])
    assert found == {"acc@1": 1 / 6, "acc@5": 3 / 6, "acc@10": 5 / 6}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compute("acc_at_k", predictions=np.ones((0, 3))), "at least one query"),
        (lambda: compute("acc_at_k", predictions=np.ones((1, 1)), k=[0]), "k must be at least 1"),
        (lambda: ranks(np.ones((2, 3)), [0]), "one right candidate a query"),
        (lambda: ranks(np.ones((2, 3)), [0, 3]), r"0\.\.2"),
        (lambda: ranks(np.ones(3)), "shape"),
        (lambda: macro_f1([], []), "at least one item"),
        (lambda: macro_f1([1, 2], [1]), "2 references but 1 predictions"),
        (lambda: span_f1([["O"]], [["O", "O"]]), "sentence 0: 1 reference tags but 2"),
        (lambda: span_f1([["O"]], [["O"], ["O"]]), "1 references but 2 predictions"),
        (lambda: span_f1([[]], [[]]), "at least one item"),
        (lambda: ndcg([-1, 0], [1, 2]), "not negative"),
        (lambda: ndcg([1, 0], [math.nan, 2]), "finite"),
        (lambda: ndcg([1, 0], [1, 2, 3]), "one length"),
        (lambda: compute("bleu"), "no metric 'bleu'"),
        (lambda: metrics.metric_path("bleu"), "no metric 'bleu'"),
    ],
)
def test_bad_input_is_refused_in_words(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_macro_f1_by_hand():
    # label a: TP 1, FP 0, FN 1 -> 2/3; label b: TP 1, FP 1, FN 0 -> 2/3
    assert macro_f1("aab", "abb") == pytest.approx(2 / 3)
    # c is predicted but never true: a counts 1/(1 + .5), c counts 0
    assert macro_f1("aa", "ac") == pytest.approx((2 / 3 + 0) / 2)
    assert macro_f1("aaa", "aaa") == 1  # a single class
    assert macro_f1("aaa", "bbb") == 0


def naive_macro_f1(true, guess):
    scores = []
    for label in {*true, *guess}:
        hits = sum(a == b == label for a, b in zip(true, guess))
        scores.append(2 * hits / (sum(a == label for a in true) + sum(b == label for b in guess)))
    return sum(scores) / len(scores)


def test_macro_f1_and_accuracy_equal_plain_loops():
    rng = np.random.default_rng(1)
    for labels in (2, 3, 7):
        true, guess = rng.integers(0, labels, 60), rng.integers(0, labels + 1, 60)
        found = compute("macro_f1", predictions=guess, references=true)
        assert found["macro_f1"] == pytest.approx(naive_macro_f1(true.tolist(), guess.tolist()))
        assert found["accuracy"] == pytest.approx(sum(a == b for a, b in zip(true, guess)) / 60)


def naive_spans(tags):
    """CoNLL spans of one sentence: (type, start, end)."""
    spans, start, kind = set(), None, None
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        if start is not None and (prefix in ("B", "O") or name != kind):
            spans.add((kind, start, i))
            start = None
        if start is None and prefix in ("B", "I"):
            start, kind = i, name
    return spans


def test_span_f1_equals_plain_loops():
    rng = np.random.default_rng(2)
    tags = ["O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    true = [[tags[i] for i in rng.integers(0, 6, n)] for n in (1, 5, 9, 14)]
    guess = [[tags[i] for i in rng.integers(0, 6, len(row))] for row in true]
    found = [naive_spans(row) for row in guess]
    gold = [naive_spans(row) for row in true]
    hits = sum(len(a & b) for a, b in zip(gold, found))
    got = span_f1(true, guess)
    assert got["precision"] == pytest.approx(hits / sum(map(len, found)))
    assert got["recall"] == pytest.approx(hits / sum(map(len, gold)))
    assert got["f1"] == pytest.approx(2 * hits / (sum(map(len, found)) + sum(map(len, gold))))
    assert got["n_spans"] == sum(map(len, gold))


def test_span_f1_degenerate_cases(recwarn):
    nothing = {"precision": 0, "recall": 0, "f1": 0, "n_spans": 0, "token_accuracy": 1}
    assert span_f1([["O", "O"]], [["O", "O"]]) == nothing
    assert span_f1([["I-PER", "I-PER"]], [["B-PER", "I-PER"]])["f1"] == 1  # I- without B- starts a span
    assert span_f1([["B-PER", "B-PER"]], [["B-PER", "I-PER"]])["f1"] == 0
    assert span_f1([[], ["B-PER"]], [[], ["B-PER"]])["f1"] == 1  # a sentence without tokens
    assert not recwarn.list


def test_the_two_scores_of_pos_differ_as_the_notes_say():
    true, guess = [["NOUN", "NOUN", "VERB", "DET"]], [["NOUN", "VERB", "VERB", "DET"]]
    assert span_f1(true, guess)["token_accuracy"] == 0.75
    assert span_f1(true, guess)["f1"] == pytest.approx(1 / 3)


def test_ndcg_by_hand():
    # order c, a, b: gains .5, 1, 0
    assert ndcg([1, 0, 0.5], [2, 1, 3]) == pytest.approx((0.5 + 1 / math.log2(3)) / (1 + 0.5 / math.log2(3)))
    assert ndcg([1, 0, 0.5], [2, 1, 3], k=1) == pytest.approx(0.5)
    assert ndcg([1, 0], [7, 7]) == pytest.approx((0.5 + 0.5 / math.log2(3)) / 1)  # a tie shares the gains
    assert ndcg([0, 0], [1, 2]) == 0
    assert ndcg([0.3], [1]) == 1


def naive_ndcg(gains, scores, k):
    """Candidates with equal scores share the mean of their gains."""
    shared = [np.mean(gains[scores == score]) for score in scores]
    order, best = sorted(range(len(gains)), key=lambda i: -scores[i]), sorted(gains, reverse=True)
    places = range(len(gains) if k is None else k)
    dcg = sum(shared[order[r]] / math.log2(r + 2) for r in places)
    return dcg / sum(best[r] / math.log2(r + 2) for r in places)


def test_ndcg_equals_plain_loops_with_ties():
    rng = np.random.default_rng(3)
    for _ in range(20):
        gains, scores = rng.random(12), rng.integers(0, 5, 12).astype(float)
        for k in (None, 1, 5):
            assert ndcg(gains, scores, k) == pytest.approx(naive_ndcg(gains, scores, k))


def test_regret():
    assert regret([0.9, 0.4, 0.6], [1, 2, 3]) == pytest.approx(0.3)
    assert regret([0.9, 0.4, 0.6], [3, 2, 1]) == 0
    assert regret([0.9, 0.5], [1, 1]) == pytest.approx(0.2)  # a tied first place costs the mean


MODULE_CASES = {
    "acc_at_k": (
        {"predictions": [[0.1, 0.7], [0.9, 0.2]], "references": [1, 1], "k": [1, 2]},
        {"acc@1": 0.5, "acc@2": 1.0},
    ),
    "macro_f1": ({"predictions": [0, 1, 1], "references": [0, 0, 1]}, {"macro_f1": 2 / 3, "accuracy": 2 / 3}),
    "span_f1": (
        {"predictions": [["B-PER", "O"]], "references": [["B-PER", "I-LOC"]]},
        {"precision": 1.0, "recall": 0.5, "f1": 2 / 3, "n_spans": 2, "token_accuracy": 0.5},
    ),
    "ndcg": ({"predictions": [[0.9, 0.1]], "references": [[0.0, 1.0]]}, {"ndcg": 1 / math.log2(3), "regret": 1.0}),
}


LOAD_ALL = """
import evaluate, json
from langsamp.eval.metrics import metric_path
results = {}
for name, (given, _) in cases.items():
    results[name] = evaluate.load(metric_path(name)).compute(**given)
batches = evaluate.load(metric_path("macro_f1"))
batches.add_batch(predictions=[0, 1], references=[0, 0])
batches.add_batch(predictions=[1], references=[1])
results["batches"] = batches.compute()
print(json.dumps(results))
"""


def test_evaluate_loads_each_metric_from_its_folder_without_a_network(run_fresh):
    results = json.loads(run_fresh(f"cases = {MODULE_CASES!r}\n{LOAD_ALL}").splitlines()[-1])
    assert set(MODULE_CASES) == set(metrics.MODULES)
    for name, (given, expected) in MODULE_CASES.items():
        assert results[name] == pytest.approx(expected)
        assert results[name] == compute(name, **given)  # what the tasks compute through
    assert results["batches"]["macro_f1"] == pytest.approx(2 / 3)
