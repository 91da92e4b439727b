"""Evaluation sets as they are handed out: miniatures with the file names and shapes of the releases."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from langsamp.eval.data.columns import DataError
from langsamp.eval.data.sets import EvalData
from langsamp.eval.tasks.retrieval import SR_BIBLE, SR_TATOEBA


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def words(*sentences, cell="{word}\t{tag}"):
    return "".join("".join(cell.format(word=w, tag=t) + "\n" for w, t in sentence) + "\n" for sentence in sentences)


BERLIN = (("Berlin", "B-LOC"), ("ist", "O"), ("groß", "O"))
RIVER = (("Am", "O"), ("Fluss", "O"))


@pytest.mark.parametrize(
    ("names", "tag"),
    [
        (("de/train", "de/dev", "de/test", "de/extra"), "deu_Latn"),  # unpacked WikiANN
        (("de-train", "de-dev", "de-test", "de-extra"), "deu_Latn"),  # as XTREME keeps it
        (("als/train", "als/dev", "als/test"), "gsw_Latn"),  # Wikipedia's code
    ],
)
def test_wikiann(tmp_path, names, tag):
    for name in names:
        write(tmp_path / "ner/wikiann" / name, words(BERLIN, RIVER, cell="de:{word}\t{tag}"))
    data = EvalData(tmp_path)
    assert data.folders("ner") == ["ner/wikiann"]
    assert data.languages("ner/wikiann") == [tag]
    for split in ("train", "dev", "test"):
        rows = data.rows("ner/wikiann", tag, ["tokens", "ner_tags"], split)
        assert rows == {
            "tokens": [["Berlin", "ist", "groß"], ["Am", "Fluss"]],
            "ner_tags": [["B-LOC", "O", "O"], ["O", "O"]],
        }


@pytest.mark.parametrize(
    "cell", ["{word}\t{tag}", "{word} {tag}", "{word} NNP I-NP {tag}"], ids=["tab", "space", "2003"]
)
@pytest.mark.parametrize(
    "name", ["deu_Latn.tsv", "de.conll", "deu.txt", "test-deu_Latn.tsv", "deu_Latn-test.bio", "de/test.txt"]
)
def test_words_and_tags_in_columns(tmp_path, cell, name):
    """CoNLL with two columns or four; Glot500's and XTREME's file names; MasakhaNER's folders."""
    write(tmp_path / "ner" / name, "-DOCSTART- -X- -X- O\n\n" + words(BERLIN, RIVER, cell=cell).replace("\n", "\r\n"))
    data = EvalData(tmp_path)
    assert data.languages("ner") == ["deu_Latn"]
    rows = data.rows("ner", "deu_Latn", ["tokens", "ner_tags"], "test")
    assert rows == {
        "tokens": [["Berlin", "ist", "groß"], ["Am", "Fluss"]],
        "ner_tags": [["B-LOC", "O", "O"], ["O", "O"]],
    }


def test_masakhaner(tmp_path):
    for split in ("train", "dev", "test"):
        write(
            tmp_path / f"ner/MasakhaNER2.0/data/swa/{split}.txt",
            words((("Nairobi", "B-LOC"), ("leo", "O")), cell="{word} {tag}"),
        )
    write(tmp_path / "ner/MasakhaNER2.0/README.txt", "about\n")
    data = EvalData(tmp_path)
    assert data.folders("ner") == ["ner/MasakhaNER2.0"]
    rows = data.rows("ner/MasakhaNER2.0", "swa_Latn", ["tokens", "ner_tags"], "dev")
    assert rows == {"tokens": [["Nairobi", "leo"]], "ner_tags": [["B-LOC", "O"]]}


def test_uner(tmp_path):
    text = "# sent_id = a-1\n# text = Berlin ist\n1\tBerlin\tB-LOC\t-\t-\n2\tist\tO\t-\t-\n\n"
    text += "# sent_id = a-2\n1\t#\tO\t-\t-\n\n"
    for split in ("train", "dev", "test"):
        write(tmp_path / f"ner/UNER_German-PUD/de_pud-ud-{split}.iob2", text)
        write(tmp_path / f"ner/UNER_German-PUD/de_pud-ud-{split}.stats", "x")
    data = EvalData(tmp_path)
    assert data.folders("ner") == ["ner"]
    rows = data.rows("ner", "deu_Latn", ["id", "tokens", "ner_tags"], "test")
    assert rows == {"id": ["a-1", "a-2"], "tokens": [["Berlin", "ist"], ["#"]], "ner_tags": [["B-LOC", "O"], ["O"]]}


def test_a_tag_for_every_word_or_the_shape_that_is_wanted(tmp_path):
    write(tmp_path / "ner/deu_Latn.tsv", "Berlin\nist\n")
    write(tmp_path / "pos/deu_Latn.jsonl", '{"text": "Berlin ist"}\n')
    write(tmp_path / "sib200/deu_Latn.txt", "Berlin ist\n")
    write(tmp_path / "sib200/fra_Latn.tsv", "Berlin\tist\n")
    write(tmp_path / "tatoeba/deu_Latn.txt", "Berlin ist\n")
    data = EvalData(tmp_path)
    with pytest.raises(
        DataError, match=r"deu_Latn.tsv, line 1: 'Berlin' is no word with its tag; wanted: lines word<TAB>tag"
    ):
        data.rows("ner", "deu_Latn", ["tokens", "ner_tags"], "test")
    with pytest.raises(DataError, match=r"no column tokens or words; .*; wanted: .* or columns tokens and upos"):
        data.rows("pos", "deu_Latn", ["tokens", "upos"], "test")
    with pytest.raises(DataError, match=r"holds lines of text without label; wanted: columns text and label"):
        data.rows("sib200", "deu_Latn", ["text", "label"], "test")
    with pytest.raises(
        DataError, match=r"names no column that is known \(Berlin, ist\); wanted: columns text and label"
    ):
        data.rows("sib200", "fra_Latn", ["text", "label"], "test")
    with pytest.raises(DataError, match=r"without english; wanted: columns text and english"):
        data.rows("tatoeba", "deu_Latn", ["text", "english"])
    with pytest.raises(DataError, match=r"no evaluation data in .*; wanted: columns text and label"):
        EvalData(tmp_path / "ner").languages("sib200")


def test_sib_200(tmp_path):
    head = "index_id\tcategory\ttext\n"
    for split, n in (("train", 2), ("dev", 1), ("test", 1)):
        lines = "".join(f'{i}\tscience/technology\tDas "Haus {split} {i}\n' for i in range(n))
        write(tmp_path / f"sib200/data/annotated/deu_Latn/{split}.tsv", head + lines)
    data = EvalData(tmp_path)
    assert data.languages("sib200") == ["deu_Latn"]
    rows = data.rows("sib200", "deu_Latn", ["id", "text", "label"], "train")
    assert rows["text"] == ['Das "Haus train 0', 'Das "Haus train 1']
    assert set(rows["label"]) == {"science/technology"}
    assert data.rows("sib200", "deu_Latn", ["text"], "dev")["text"] == ['Das "Haus dev 0']


@pytest.mark.parametrize("head", ["", "id\tlabel\tverse\n"])
def test_taxi1500(tmp_path, head):
    for split in ("train", "dev", "test"):
        write(tmp_path / f"taxi1500/eng_{split}.tsv", head + f"55002024\tRecommendation\tFor a slave, {split}\n")
    write(tmp_path / "taxi1500/test/aai.tsv", head + "55002024\tRecommendation\tNaatu\n60003012\tSin\tbowabow\n")
    data = EvalData(tmp_path)
    assert data.languages("taxi1500") == ["aai_Latn", "eng_Latn"]
    rows = data.rows("taxi1500", "aai_Latn", ["id", "text", "label"], "test")
    assert rows == {"id": ["55002024", "60003012"], "text": ["Naatu", "bowabow"], "label": ["Recommendation", "Sin"]}
    assert data.rows("taxi1500", "eng_Latn", ["text"], "dev") == {"text": ["For a slave, dev"]}


@pytest.mark.parametrize(
    "names", [("ara-eng", "ara", "eng"), ("ara_Arab-eng_Latn", "ara_Arab", "eng_Latn")], ids=["LASER", "Glot500"]
)
def test_tatoeba_pairs(tmp_path, names):
    pair, own, english = names
    write(tmp_path / f"tatoeba/tatoeba.{pair}.{own}", "كلب\nقط\n")
    write(tmp_path / f"tatoeba/tatoeba.{pair}.{english}", "dog\ncat\n")
    data = EvalData(tmp_path)
    assert data.languages("tatoeba") == ["ara_Arab"]
    assert SR_TATOEBA.pairs(data, "ara_Arab") == (["كلب", "قط"], ["dog", "cat"])
    write(tmp_path / f"tatoeba/tatoeba.{pair}.{english}", "dog\n")
    with pytest.raises(DataError, match=r"2 lines, tatoeba\..* 1: they are not parallel"):
        SR_TATOEBA.pairs(EvalData(tmp_path), "ara_Arab")


def test_flores_200(tmp_path):
    for split in ("dev", "devtest"):
        for tag, line in (("deu_Latn", "Satz"), ("eng_Latn", "sentence")):
            write(tmp_path / f"bible_retrieval/{split}/{tag}.{split}", f"{line} 1 {split}\n{line} 2 {split}\n")
    write(tmp_path / "bible_retrieval/metadata_dev.tsv", "URL\tdomain\n")
    data = EvalData(tmp_path)
    assert data.languages("bible_retrieval") == ["deu_Latn", "eng_Latn"]
    texts, english = SR_BIBLE.pairs(data, "deu_Latn")
    assert next(zip(texts, english)) == ("Satz 1 dev", "sentence 1 dev")
    assert (len(texts), texts[-1], english[-1]) == (4, "Satz 2 devtest", "sentence 2 devtest")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_flores_plus(tmp_path, kind):
    for name, line in (
        ("deu_Latn", "Satz"),
        ("eng_Latn", "sentence"),
        ("cat_Latn", "frase"),
        ("cat_Latn_vale1252", "altra"),
    ):
        rows = [
            {"id": i, "iso_639_3": name[:3], "iso_15924": "Latn", "glottocode": "x", "text": f"{line} {i}"}
            for i in range(3)
        ]
        path = tmp_path / f"bible_retrieval/devtest/{name}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "jsonl":
            write(path, "".join(json.dumps(row) + "\n" for row in rows))
        else:
            pq.write_table(pa.Table.from_pylist(rows), path)
    data = EvalData(tmp_path)
    assert data.languages("bible_retrieval") == ["cat_Latn", "deu_Latn", "eng_Latn"]
    assert SR_BIBLE.pairs(data, "cat_Latn")[0] == ["frase 0", "frase 1", "frase 2"]


def test_ntrex(tmp_path, caplog):
    for name, line in (
        ("ref.deu", "Satz"), ("src.eng", "sentence"), ("ref.eng-GB", "colour"), ("ref.spa", "frase"),
        ("ref-2.spa", "otra"), ("ref.zho-TW", "句子"), ("ref.srp-Cyrl", "реченица"), ("ref.cat", "oració"),
    ):  # fmt: skip
        write(tmp_path / f"bible_retrieval/NTREX-128/newstest2019-{name}.txt", f"{line} 1\n{line} 2\n")
    data = EvalData(tmp_path)
    assert data.languages("bible_retrieval") == ["cat_Latn", "deu_Latn", "eng_Latn", "spa_Latn", "srp_Cyrl", "zho_Hant"]
    assert SR_BIBLE.pairs(data, "spa_Latn") == (["frase 1", "frase 2"], ["sentence 1", "sentence 2"])
    assert "newstest2019-src.eng.txt is read for eng_Latn: newstest2019-ref.eng-GB.txt" in caplog.text


def test_universal_dependencies_without_their_words(tmp_path, caplog):
    """The licence of some treebanks keeps the text: every word is _."""

    def bank(name, blank):
        lines = "".join(f"{i}\t{'_' if blank else w}\t_\t{t}\t_\t_\t0\troot\t_\t_\n" for i, (w, t) in
                        enumerate((("the", "DET"), ("house", "NOUN")), 1))  # fmt: skip
        write(tmp_path / f"pos/{name}-ud-test.conllu", f"# sent_id = 1\n{lines}\n")

    bank("UD_English-EWT/en_ewt", False)
    bank("UD_English-GUMReddit/en_gumreddit", True)
    bank("ud-treebanks-v2.16/UD_Serbian-SET/sr_set", False)
    data = EvalData(tmp_path)
    assert data.languages("pos") == ["eng_Latn", "srp_Latn"]  # the Serbian treebank is in Latin letters
    assert data.rows("pos", "eng_Latn", ["tokens"], "test") == {"tokens": [["the", "house"]]}
    assert "en_gumreddit-ud-test.conllu: 1 sentences are left out" in caplog.text


def test_words_that_a_licence_keeps_are_left_out_of_every_format(tmp_path, caplog):
    """UNER and Parquet conversions of such treebanks, and treebanks that keep their punctuation."""
    rows = [{"tokens": words, "upos": ["X"] * 3} for words in (["_", "_", "."], ["the", "_", "house"])]
    write(tmp_path / "pos/eng_Latn.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert EvalData(tmp_path).rows("pos", "eng_Latn", ["tokens"]) == {"tokens": [["the", "_", "house"]]}
    lines = "1\t_\tB-LOC\t-\t-\n2\t_\tO\t-\t-\n\n1\tUlm\tB-LOC\t-\t-\n\n"
    write(tmp_path / "ner/de_x-ud-test.iob2", lines)
    assert EvalData(tmp_path).rows("ner", "deu_Latn", ["tokens"], "test") == {"tokens": [["Ulm"]]}
    assert caplog.text.count("1 sentences are left out") == 2


def test_comments_of_universal_dependencies_without_a_value_or_with_a_tab(tmp_path):
    row = "1\tUlm\t_\tPROPN\t_\t_\t0\troot\t_\t_\n\n"
    write(tmp_path / "pos/UD_German-X/de_x-ud-test.conllu", f"# newdoc\n# newpar\n# text = Ulm\t!\n#done\n{row}")
    assert EvalData(tmp_path).rows("pos", "deu_Latn", ["tokens"]) == {"tokens": [["Ulm"]]}
    write(tmp_path / "ner/de_x-ud-test.iob2", "# newdoc\n# a remark\n1\tUlm\tB-LOC\t-\t-\n\n")
    assert EvalData(tmp_path).rows("ner", "deu_Latn", ["tokens"]) == {"tokens": [["Ulm"]]}


def test_words_that_are_numbers_signs_or_hold_a_space_are_words(tmp_path):
    text = "1 CD I-NP O\nMay NNP I-NP B-DATE\n\n# NN I-NP O\n10\u00a0000 CD I-NP O\n\u00a0 SP I-NP O\n\n"
    write(tmp_path / "ner/eng_Latn/test.txt", text)
    assert EvalData(tmp_path).rows("ner", "eng_Latn", ["tokens", "ner_tags"], "test") == {
        "tokens": [["1", "May"], ["#", "10\u00a0000", "\u00a0"]],
        "ner_tags": [["O", "B-DATE"], ["O", "O", "O"]],
    }


def test_scripts_come_from_the_text_and_contradictions_are_told(tmp_path, caplog):
    write(tmp_path / "lm/sr.txt", "Danas u Beogradu pada kiša\n")
    write(tmp_path / "lm/ber.txt.gz", gzip.compress(b"azul fellawen\n"))
    write(tmp_path / "lm/deu_Cyrl.jsonl", '{"text": "Das Haus"}\n')
    data = EvalData(tmp_path)
    assert data.languages("lm") == ["ber_Latn", "deu_Cyrl", "srp_Latn"]
    data.rows("lm", "deu_Cyrl", ["text"])
    data.rows("lm", "deu_Cyrl", ["text"])
    assert caplog.text.count("lm/deu_Cyrl: the text is in Latn, not in Cyrl; is the tag right?") == 1


@pytest.mark.parametrize(
    "name", ["sib200/deu_Latn.tsv", "ner/deu_Latn.tsv", "pos/deu_Latn.conllu", "lm/deu_Latn.txt", "lm/deu_Latn.jsonl"]
)
@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_other_encodings_are_refused_by_name(tmp_path, name, encoding):
    line = "1\tgroß\t_\tADJ\t_\t_\n" * 20 if name.startswith("pos") else "text\tlabel\n" + "groß\tB-LOC\n" * 20
    write(tmp_path / name, line.encode(encoding))
    column = {"sib200": "label", "ner": "ner_tags", "pos": "upos", "lm": "text"}[name.partition("/")[0]]
    first = "tokens" if column in ("ner_tags", "upos") else "text"
    with pytest.raises(DataError, match=r"deu_Latn\.\w+ ?.*UTF-8.*iconv"):
        EvalData(tmp_path).rows(name.partition("/")[0], "deu_Latn", [first, column])


def test_a_language_without_data_is_counted_as_missing(tmp_path, tiny_xlmr_dir):
    from langsamp.core.runtime import resolve_model
    from langsamp.eval.run import run
    from langsamp.eval.task import Context, TaskOptions

    for code, blank in (("en", False), ("de", False), ("fr", True)):
        for split in ("train", "dev", "test"):
            lines = "".join(f"{i}\t{'_' if blank else 'house'}\t_\tNOUN\t_\t_\t0\troot\t_\t_\n" for i in (1, 2))
            write(tmp_path / f"data/pos/UD_X-{code}/{code}_x-ud-{split}.conllu", f"{lines}\n" * 3)
    context = Context(
        resolve_model(tiny_xlmr_dir),
        EvalData(tmp_path / "data"),
        tmp_path / "out",
        progress=False,
        options=TaskOptions(max_steps=1),
    )
    (coverage,) = run(context, ["pos"])
    assert coverage.line().startswith("pos: 2 of 3 languages; missing: fra_Latn (")
