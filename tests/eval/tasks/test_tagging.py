"""ner and pos: every word has a tag, and the numbers are seqeval's and a plain loop's."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from seqeval.metrics import f1_score

from langsamp.core.runtime import resolve_model
from langsamp.eval.data.columns import DataError
from langsamp.eval.data.sets import EvalData
from langsamp.eval.engines.encoder import load_backend
from langsamp.eval.engines.recipe import Recipe
from langsamp.eval.metrics import compute
from langsamp.eval.results import records
from langsamp.eval.run import run
from langsamp.eval.task import Context
from langsamp.eval.tasks.tagging import NER, NER_LABELS, POS, POS_LABELS, Tagger, WordTokenizer
from langsamp.modeling_langsamp import LangSAMPForTokenClassification

NER_ROWS = [
    (["Anna", "lives", "in", "New", "York"], ["B-PER", "O", "O", "B-LOC", "I-LOC"]),
    (["ACME", "Inc", "."], ["B-ORG", "I-ORG", "O"]),
    (["birds", "and", "books"], ["O", "O", "O"]),
]
POS_ROWS = [(["She", "reads", "a", "book"], ["PRON", "VERB", "DET", "NOUN"]), (["The", "river"], ["DET", "NOUN"])]


def write(folder: Path, tag: str, column: str, parts: dict[str, list]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(words, tags, split) for split, part in parts.items() for words, tags in part]
    words, tags, splits = zip(*rows)
    table = pa.table({"tokens": pa.array(words, pa.list_(pa.string())), column: list(tags), "split": splits})
    pq.write_table(table, folder / f"{tag}.parquet")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    write(root / "ner/wikiann", "eng_Latn", "ner_tags", {"train": NER_ROWS * 4, "dev": NER_ROWS, "test": NER_ROWS})
    write(root / "ner/wikiann", "deu_Latn", "ner_tags", {"test": NER_ROWS[:2]})
    write(root / "ner/uner", "deu_Latn", "ner_tags", {"test": NER_ROWS})
    write(root / "ner/uner", "eng_Latn", "ner_tags", {"train": NER_ROWS[:1], "test": NER_ROWS})
    write(root / "pos", "eng_Latn", "upos", {"train": POS_ROWS * 4, "dev": POS_ROWS, "test": POS_ROWS})
    write(root / "pos", "rus_Cyrl", "upos", {"test": POS_ROWS})
    return root


def context(model: Path, data: Path, output: Path, **fields) -> Context:
    fields.setdefault("options", {"max_steps": 2})
    return Context(resolve_model(model), EvalData(data), output, progress=False, **fields)


def words_of(folder: Path, max_length: int = 20) -> WordTokenizer:
    return WordTokenizer(load_backend(folder, max_length), max_length)


def test_pieces_are_those_of_the_stock_tokenizer(tiny_xlmr_dir):
    from transformers import PreTrainedTokenizerFast

    stock = PreTrainedTokenizerFast.from_pretrained(tiny_xlmr_dir)
    words = ["The", "house", "стоит", "книгу", "家は", "house", "x1!"]
    (chunk,) = words_of(tiny_xlmr_dir, 512).chunks([(words, ["X"] * len(words))])
    encoding = stock(words, is_split_into_words=True)
    assert chunk.ids == encoding["input_ids"]
    assert chunk.starts == [encoding.word_to_tokens(i).start for i in range(len(words))]


def test_words_without_pieces_still_have_a_tag(tiny_xlmr_dir):
    tokens = words_of(tiny_xlmr_dir)
    unknown = 3
    nothing = ""  # the tiny tokenizer keeps U+200B, XLM-R's own drops it; an empty word is nothing for both
    (chunk,) = tokens.chunks([([nothing, nothing], ["X", "X"])])
    assert chunk.ids == [0, unknown, unknown, 2]
    assert chunk.starts == [1, 2]
    assert tokens.chunks([([], [])]) == []
    first, second = tokens.chunks([([], []), (["house", nothing], ["X", "X"])]), tokens.pieces(["a\ud83db"])
    assert first[0].sentence == 1
    assert len(first[0].starts) == 2
    assert second[0]  # a lone surrogate is a piece, not a crash


def test_long_sentences_are_cut_between_words(tiny_xlmr_dir):
    tokens = words_of(tiny_xlmr_dir, 12)
    words = ["house", "x" * 300, "river", "stands", "birds", "books", "January"]
    chunks = tokens.chunks([(words, ["X"] * 7)])
    assert [word for chunk in chunks for word in chunk.words] == list(range(7))
    assert all(len(chunk.ids) <= 12 and chunk.ids[0] == 0 and chunk.ids[-1] == 2 for chunk in chunks)
    assert max(len(pieces) for pieces in tokens.pieces(words)) <= 10  # the giant is cut, but has its first piece


def test_records_are_seqevals_numbers(tiny_model_dir, data, tmp_path):
    here = context(tiny_model_dir, data, tmp_path / "run", seeds=(3,))
    (coverage,) = run(here, ["ner"])
    assert coverage.line() == "ner: 2 of 2 languages"
    found = {(r.task, r.code, r.metric): r for r in records.read(tmp_path / "run")}
    assert set(found) == {
        ("ner-2steps", "eng_Latn", "dev_f1"),
        ("ner-wikiann-2steps", "eng_Latn", "f1"),
        ("ner-wikiann-2steps", "deu_Latn", "f1"),
        ("ner-uner-2steps", "eng_Latn", "f1"),
        ("ner-uner-2steps", "deu_Latn", "f1"),
    }
    assert found["ner-uner-2steps", "deu_Latn", "f1"].n == 3  # true entities

    (folder,) = (tmp_path / "run" / "finetuned").iterdir()
    assert json.loads((folder / "finetune.json").read_text())["language"] == "eng_Latn"
    assert naive_f1(folder, tiny_model_dir, NER_ROWS) == pytest.approx(found["ner-uner-2steps", "deu_Latn", "f1"].value)


def naive_f1(folder: Path, tokenizer_dir: Path, rows) -> float:
    """One sentence at a time, the stock way."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_dir)
    model = LangSAMPForTokenClassification.from_pretrained(folder).eval()
    predicted = []
    for words, _ in rows:
        encoding = tokenizer(words, is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            best = model(encoding["input_ids"]).logits[0].argmax(-1).tolist()
        predicted.append([model.config.id2label[best[encoding.word_to_tokens(i).start]] for i in range(len(words))])
    return f1_score([tags for _, tags in rows], predicted, zero_division=0)


def test_pos_has_two_metrics_and_they_differ(tiny_model_dir, data, tmp_path, monkeypatch):
    guesses = [["NOUN", "VERB", "VERB", "DET"], ["DET", "NOUN"]]
    truth = [(["a", "b", "c", "d"], ["NOUN", "NOUN", "VERB", "DET"]), (["e", "f"], ["DET", "NOUN"])]
    write(data / "pos", "rus_Cyrl", "upos", {"test": truth[:1]})
    monkeypatch.setattr(Tagger, "tag", lambda self, sentences: guesses[: len(sentences)])
    run(context(tiny_model_dir, data, tmp_path / "run"), ["pos"], ["rus"])
    found = {r.metric: r for r in records.read(tmp_path / "run") if r.language == "rus"}
    assert found["accuracy"].value == 0.75  # the example of notes/paper.md, 3.4
    assert found["accuracy"].n == 4
    assert found["f1"].value == pytest.approx(1 / 3)
    assert found["f1"].seed == 1  # the protocol's one seed
    assert found["f1"].task == "pos-2steps"


def test_i_without_b_starts_a_span():
    assert compute("span_f1", references=[["I-PER", "O"]], predictions=[["B-PER", "O"]])["f1"] == 1.0
    assert f1_score([["I-PER", "O"]], [["B-PER", "O"]]) == 1.0
    assert compute("span_f1", references=[["B-PER", "I-LOC"]], predictions=[["B-PER", "I-PER"]])["f1"] == 0


def test_unknown_labels_have_a_defined_tag(data, tmp_path, tiny_model_dir, caplog):
    write(data / "ner/uner", "pol_Latn", "ner_tags", {"test": [(["a", "b"], ["B-MISC", "B-PER"])]})
    write(data / "pos", "pol_Latn", "upos", {"test": [(["a", "b"], ["_", "NOUN"])]})
    here = context(tiny_model_dir, data, tmp_path / "run")
    assert NER.read(here, "ner/uner", "pol_Latn", "test") == [(["a", "b"], ["O", "B-PER"])]
    assert POS.read(here, "pos", "pol_Latn", "test") == [(["a", "b"], ["X", "NOUN"])]
    assert "unknown labels count as O: B-MISC (1)" in caplog.text
    assert NER.source_folder(here) == "ner/wikiann"  # the most training sentences, not the first name
    assert NER.settings(here)["trained on"] == "ner/wikiann"  # so a larger one that is added later is noticed


def test_data_that_cannot_be_used_is_named(data, tmp_path, tiny_model_dir):
    write(data / "pos", "ell_Grek", "upos", {"test": [(["a", "b"], ["NOUN"])]})
    write(data / "pos", "hin_Deva", "upos", {"test": [([], []), ([], [])]})
    write(data / "pos", "jpn_Jpan", "upos", {"test": [(["", "\u200b"], ["NOUN", "X"]), ([], [])]})  # no piece at all
    (coverage,) = run(context(tiny_model_dir, data, tmp_path / "run"), ["pos"])
    assert set(coverage.missing) == {"ell_Grek", "hin_Deva"}
    assert "pos/ell_Grek, test sentence 0: 2 words but 1 tags" in coverage.missing["ell_Grek"]
    assert "no test sentences with words" in coverage.missing["hin_Deva"]
    assert next(r.n for r in records.read(tmp_path / "run") if r.language == "jpn" and r.metric == "accuracy") == 2
    write(data / "pos", "tur_Latn", "upos", {"test": [(["a", "b"], [3, 1]), (["c"], [0])]})  # numbers, not names
    with pytest.raises(DataError, match=r"pos/tur_Latn: no test label is one of ADJ, .*; found 3 \(1\)"):
        POS.read(context(tiny_model_dir, data, tmp_path / "run"), "pos", "tur_Latn", "test")
    with pytest.raises(DataError, match="pos has no train sentences in rus_Cyrl"):
        run(context(tiny_model_dir, data, tmp_path / "other", train_language="rus_Cyrl"), ["pos"])


def test_features_label_first_pieces_only(tiny_model_dir, data, tmp_path):
    tagger = Tagger(context(tiny_model_dir, data, tmp_path / "run"), NER, NER.recipe, 1)
    (feature,) = tagger.features([(["Anna", "Januarys"], ["B-PER", "O"])])
    labelled = [label for label in feature["labels"] if label != -100]
    assert labelled == [NER_LABELS.index("B-PER"), NER_LABELS.index("O")]
    assert len(feature["labels"]) == len(feature["input_ids"]) > 4
    assert feature["labels"][0] == feature["labels"][-1] == -100


def test_the_protocol():
    """Settings of the paper (notes/paper.md, 3.4)."""
    expected = Recipe(2e-5, epochs=10, batch_size=8, accumulation=4, max_length=256, eval_steps=1000)
    assert NER.recipe == POS.recipe == expected
    assert NER.seeds == POS.seeds == (1,)
    assert len(NER_LABELS) == 7
    assert len(POS_LABELS) == 17
