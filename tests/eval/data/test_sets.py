"""Evaluation data from folders, CoNLL-U and Hub-like data sets; what is wrong with a file is said in one sentence."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from langsamp.eval.data import hub as hub_data
from langsamp.eval.data.columns import DataError
from langsamp.eval.data.formats import read_conllu
from langsamp.eval.data.hub import HubSet
from langsamp.eval.data.sets import EvalData

CONLLU = """\
# sent_id = first
# text = I'm here.
1-2\tI'm\t_\t_\t_\t_\t_\t_\t_\t_
1\tI\tI\tPRON\t_\t_\t3\tnsubj\t_\t_
2\t'm\tbe\tAUX\t_\t_\t3\tcop\t_\t_
3\there\there\tADV\t_\t_\t0\troot\t_\t_
3.1\tghost\tghost\tNOUN\t_\t_\t_\t_\t_\t_
4\t.\t.\tPUNCT\t_\t_\t3\tpunct\t_\t_


1\tno\tno\tINTJ\t_\t_\t0\troot\t_\t_
2\ttag\t_\t_\t_\t_\t1\tdep\t_\t_
"""


def save(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def test_parquet_and_jsonl_with_other_column_names(tmp_path):
    save(
        tmp_path / "sib200/deu_Latn.parquet",
        index_id=[5, 6],
        sentence=["a", None],
        category=["x", "y"],
        split=["validation", "test"],
    )
    (tmp_path / "sib200/fra_Latn.jsonl").write_text(
        '\ufeff{"text": "b", "label": "x"}\n\n{"text": "c", "label": "y"}\n'
    )
    (tmp_path / "sib200/README.md").write_text("not data")
    (tmp_path / "sib200/.cache.parquet").write_text("nor this")
    data = EvalData(tmp_path)
    assert data.languages("sib200") == ["deu_Latn", "fra_Latn"]
    assert data.rows("sib200", "deu_Latn", ["id", "text", "label"], "dev") == {"id": [5], "text": ["a"], "label": ["x"]}
    assert data.rows("sib200", "deu_Latn", ["text"]) == {"text": ["a", ""]}
    assert data.rows("sib200", "fra_Latn", ["id", "label"], "test") == {"id": [0, 1], "label": ["x", "y"]}
    assert data.rows("sib200", "fra_Latn", ["label"], "train") == {"label": []}


def jsonl(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))


def test_every_object_of_a_jsonl_file_counts_not_only_the_first(tmp_path):
    """A first line without a field must not hide the field: without the split all rows would count as test."""
    jsonl(tmp_path / "sib200/deu_Latn.jsonl", {"text": "a"}, {"text": "b", "label": "x", "split": "train"})
    jsonl(tmp_path / "sib200/fra_Latn.jsonl", {"text": "a"}, {"text": "b", "label": "x"}, '{"text": "c\u2028d\x85"}\r')
    data = EvalData(tmp_path)
    with pytest.raises(DataError, match=r"deu_Latn has rows without a split"):
        data.rows("sib200", "deu_Latn", ["text"], "test")
    rows = data.rows("sib200", "fra_Latn", ["text", "label"], "test")
    assert rows == {"text": ["a", "b", "c\u2028d\x85"], "label": [None, "x", None]}


def test_values_of_another_kind_are_named(tmp_path):
    jsonl(tmp_path / "lm/deu_Latn.jsonl", {"text": "a"}, {"text": 3})
    jsonl(tmp_path / "lm/fra_Latn.jsonl", {"text": "a"}, '["b"]')
    jsonl(tmp_path / "ner/deu_Latn.jsonl", {"tokens": "a b", "tags": ["O", "O"]})
    jsonl(tmp_path / "ner/fra_Latn.jsonl", {"tokens": None, "tags": None}, {"tokens": ["a"], "tags": ["O"]})
    data = EvalData(tmp_path)
    with pytest.raises(DataError, match=r"lm/deu_Latn: column text must hold texts, not int"):
        data.rows("lm", "deu_Latn", ["text"])
    with pytest.raises(DataError, match=r"fra_Latn.jsonl, line 2: a list, not an object"):
        data.rows("lm", "fra_Latn", ["text"])
    with pytest.raises(DataError, match=r"column tokens must hold lists .* not str"):
        data.rows("ner", "deu_Latn", ["tokens"])
    assert data.rows("ner", "fra_Latn", ["tokens", "ner_tags"]) == {"tokens": [[], ["a"]], "ner_tags": [[], ["O"]]}


def test_files_that_name_no_language_are_told_and_a_language_twice_is_an_error(tmp_path, caplog):
    for name in ("deu_Latn.jsonl", "deu_latn.jsonl", "german.parquet", ".fra_Latn.parquet", "README.md"):
        jsonl(tmp_path / "lm" / name, {"text": "a"})
    jsonl(tmp_path / "pos/UD_Nowhere-X/zzz_x-ud-test.conllu", "1\ta\t_\tNOUN", "")
    data = EvalData(tmp_path)
    assert data.languages("lm") == ["deu_Latn"]
    assert "lm: left out, the name tells no language: german.parquet" in caplog.text
    assert "lm: left out, deu_Latn.jsonl is read for deu_Latn: deu_latn.jsonl" in caplog.text
    with pytest.raises(DataError, match="no evaluation data"):
        data.languages("pos")
    assert "zzz_x-ud-test.conllu" in caplog.text
    save(tmp_path / "lm/deu_Latn.parquet", text=["a"])
    with pytest.raises(DataError, match=r"lm has several files for deu_Latn, deu_Latn.jsonl, deu_Latn.parquet"):
        EvalData(tmp_path).languages("lm")


def test_what_is_missing_is_named(tmp_path):
    save(tmp_path / "sib200/deu_Latn.parquet", text=["a"])
    (tmp_path / "sib200/fra_Latn.parquet").write_bytes(b"PAR1 broken")
    data = EvalData(tmp_path)
    with pytest.raises(
        DataError, match=r"sib200/deu_Latn has no column label or .*; its columns are text; wanted: columns label"
    ):
        data.rows("sib200", "deu_Latn", ["label"])
    with pytest.raises(DataError, match=r"fra_Latn\.parquet cannot be read"):
        data.rows("sib200", "fra_Latn", ["text"])
    with pytest.raises(DataError, match="no data for xyz_Latn"):
        data.rows("sib200", "xyz_Latn", ["text"])
    with pytest.raises(DataError, match=r"no evaluation data in .*ner"):
        data.languages("ner")
    with pytest.raises(FileNotFoundError, match="no data folder"):
        EvalData(tmp_path / "nowhere")


def test_sub_folders_are_data_sets_of_one_task(tmp_path):
    for name in ("wikiann", "hiner"):
        save(tmp_path / f"ner/{name}/deu_Latn.parquet", tokens=[["a"]], tags=[["O"]])
    (tmp_path / "ner/empty").mkdir()
    data = EvalData(tmp_path)
    assert data.folders("ner") == ["ner/hiner", "ner/wikiann"]
    assert data.folders("pos") == []
    assert data.rows("ner/hiner", "deu_Latn", ["tokens", "ner_tags"]) == {"tokens": [["a"]], "ner_tags": [["O"]]}
    save(tmp_path / "sib200/deu_Latn.parquet", text=["a"])
    assert data.folders("sib200") == ["sib200"]


def test_conllu_keeps_the_words_and_drops_ranges_empty_nodes_and_missing_tags(tmp_path):
    path = tmp_path / "x.conllu"
    path.write_bytes(("\ufeff" + CONLLU.replace("\n", "\r\n")).encode())
    assert read_conllu(path) == {
        "id": ["first", "1"],
        "tokens": [["I", "'m", "here", "."], ["no"]],
        "upos": [["PRON", "AUX", "ADV", "PUNCT"], ["INTJ"]],
    }
    path.write_text("1 spaces instead of tabs\n")
    with pytest.raises(DataError, match=r"x\.conllu, line 1: not CoNLL-U"):
        read_conllu(path)
    path.write_text("")
    assert read_conllu(path) == {"id": [], "tokens": [], "upos": []}


def test_a_release_of_universal_dependencies(tmp_path):
    for bank, code in (("UD_German-GSD", "de_gsd"), ("UD_German-PUD", "de_pud"), ("UD_Xyz-X", "xq_x")):
        folder = tmp_path / "pos" / bank
        folder.mkdir(parents=True)
        (folder / f"{code}-ud-test.conllu").write_text(CONLLU)
    (tmp_path / "pos/UD_German-GSD/de_gsd-ud-train.conllu").write_text(CONLLU)
    data = EvalData(tmp_path)
    assert data.languages("pos") == ["deu_Latn"]
    assert len(data.rows("pos", "deu_Latn", ["upos"], "test")["upos"]) == 4
    assert len(data.rows("pos", "deu_Latn", ["upos"], "train")["upos"]) == 2
    (tmp_path / "pos/fra_Latn-dev.conllu").write_text(CONLLU)
    assert len(EvalData(tmp_path).rows("pos", "fra_Latn", ["tokens"], "dev")["tokens"]) == 2


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A data set in the form of the Hub's, as a local folder: configs named by language, class labels as numbers."""
    from datasets import ClassLabel, Dataset, Features, Sequence, Value

    repo = tmp_path / "repo"
    configs = []
    for config, label in (("de", 0), ("simple", 1), ("als", 1), ("zz", 1)):
        features = Features(
            {"tokens": Sequence(Value("string")), "ner_tags": Sequence(ClassLabel(names=["O", "B-PER"]))}
        )
        rows = Dataset.from_dict({"tokens": [["a", "b"]], "ner_tags": [[0, label]]}, features=features)
        for split in ("validation", "test"):
            (repo / config).mkdir(parents=True, exist_ok=True)
            rows.to_parquet(repo / config / f"{split}.parquet")
        files = [{"split": split, "path": f"{config}/{split}.parquet"} for split in ("validation", "test")]
        configs.append({"config_name": config, "data_files": files})
    (repo / "README.md").write_text("---\nconfigs: " + json.dumps(configs) + "\n---\n")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(hub_data.HUB_SETS, "ner", HubSet(str(repo)))
    return EvalData("hub")


def test_hub_data_sets_look_like_folders(hub):
    assert hub.folders("ner") == ["ner"]
    assert hub.languages("ner") == ["deu_Latn", "gsw_Latn"]  # "als" is Alemannic on Wikipedia, "simple" no language
    rows = hub.rows("ner", "gsw_Latn", ["tokens", "ner_tags"], "dev")
    assert rows == {"tokens": [["a", "b"]], "ner_tags": [["O", "B-PER"]]}
    with pytest.raises(DataError, match="has no data for fra_Latn"):
        hub.rows("ner", "fra_Latn", ["tokens"])
    with pytest.raises(DataError, match="no Hub data set for 'bible_retrieval'"):
        hub.languages("bible_retrieval")


def test_hub_config_names():
    assert hub_data.HUB_SETS["tatoeba"]._tag("deu-eng") == "deu_Latn"
    assert hub_data.HUB_SETS["pos"]._tag("en_ewt") == "eng_Latn"
    assert hub_data.HUB_SETS["sib200"]._tag("eng_Latn") == "eng_Latn"
    assert hub_data.HUB_SETS["ner"]._tag("qq") is None


def test_converted_hub_data_are_read_as_parquet(tmp_path, monkeypatch):
    """Universal Dependencies is a script on the Hub; its conversion has a folder a treebank."""
    for name in ("de_gsd/test/0000", "de_pud/test/0000", "de_gsd/validation/0000"):
        save(tmp_path / f"{name}.parquet", tokens=[["a"]], upos=[["NOUN"]])
    names = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.parquet")]
    monkeypatch.setattr(hub_data.HfApi, "list_repo_files", lambda self, repo, **rest: [*names, "README.md"])
    monkeypatch.setattr(hub_data, "hf_hub_download", lambda repo, name, **rest: str(tmp_path / name))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    found = HubSet("x/y", code=lambda config: config.split("_")[0], converted=True)
    monkeypatch.setitem(hub_data.HUB_SETS, "pos", found)
    data = EvalData()
    assert data.languages("pos") == ["deu_Latn"]
    assert data.rows("pos", "deu_Latn", ["upos"], "test") == {"upos": [["NOUN"], ["NOUN"]]}
    assert data.rows("pos", "deu_Latn", ["upos"], "dev") == {"upos": [["NOUN"]]}


def test_a_hub_that_cannot_be_reached_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot be read from the Hub .*--data DIR"):
        HubSet(str(tmp_path / "nowhere")).languages()


def test_shared_data_is_read(shared):
    data = EvalData(shared / "data")
    assert len(data.languages("bible_retrieval")) == 97
    assert "ner/wikiann" in data.folders("ner")
    rows = data.rows("tatoeba", "fra_Latn", ["id", "text", "english"])
    assert len(rows["text"]) == len(rows["english"]) == 1000


def test_a_run_goes_on_with_the_hub_data_it_began_with(tmp_path, monkeypatch):
    """Whatever is pushed later; data sets that were not read before are read as they are now."""
    asked = []
    monkeypatch.setattr(hub_data.HfApi, "dataset_info", lambda *_, **rest: SimpleNamespace(sha="a" * 40))
    monkeypatch.setattr(hub_data, "get_dataset_config_names", lambda repo, revision: ["deu_Latn"])
    monkeypatch.setattr(hub_data, "load_dataset", lambda repo, config, revision: asked.append(revision) or {})
    data = EvalData()
    data.languages("sib200")
    known = {"sib200/deu_Latn": data.fingerprint("sib200/deu_Latn")}
    assert known == {"sib200/deu_Latn": "a" * 40}
    monkeypatch.setattr(hub_data.HfApi, "dataset_info", lambda *_, **rest: SimpleNamespace(sha="b" * 40))
    later = EvalData()
    later.pin(known)
    for found in (data, later, later.elsewhere()):
        with pytest.raises(DataError):  # there are no rows
            found.rows("sib200", "deu_Latn", ["text"])
        assert found.fingerprint("sib200/deu_Latn") == "a" * 40
    later.languages("tatoeba")
    assert later.fingerprint("tatoeba/deu_Latn") == "b" * 40
    assert asked == ["a" * 40] * 3


def test_a_broken_connection_to_the_hub_is_one_sentence(monkeypatch):
    """Also where the client's error is no OSError."""

    class ConnectError(Exception):
        __module__ = "httpx"

    def broken(*_, **rest):
        raise ConnectError("[Errno -2] Name or service not known")

    monkeypatch.setattr(hub_data.HfApi, "dataset_info", broken)
    monkeypatch.setattr(hub_data.HfApi, "list_repo_files", broken)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(FileNotFoundError, match=r"cannot be read from the Hub \(.*not known.*--data DIR"):
        EvalData().languages("pos")
