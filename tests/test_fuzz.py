"""Whatever is read may be anything: it is understood, or refused in one sentence of ours; no library's error shows.

Each target takes content that is right and tears it, or changes entries of it. The default run has the same examples
every time, fewer where one takes long; `make fuzz` makes 10,000 new ones a target.
"""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from langsamp.core.record import FIELDS, Record

ASKED = int(os.environ.get("LANGSAMP_FUZZ", "0"))
REFUSALS = (ValueError, FileNotFoundError, NotADirectoryError)


def examples(default=200):
    """So many examples a run, or as many as are asked for; a fault is shown as found: shrinking is slow."""
    return settings(
        max_examples=ASKED or default, derandomize=not ASKED, deadline=None, database=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip


@contextmanager
def refused_in_words():
    """Errors of our kinds in one line pass; an error of a kind that only a library raises is a fault."""
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        ours = type(error) in REFUSALS or type(error).__module__.startswith("langsamp.")
        if not ours or not str(error).strip() or "\n" in str(error).strip():
            raise AssertionError(f"not a refusal in one sentence: {error!r}") from error


TEXTS = st.text(max_size=30) | st.sampled_from(
    [
        "",
        "\x00",
        "../../x",
        "/etc/passwd",
        "C:\\x",
        "<script>x</script>",
        "a|b",
        "=1+1",
        "\u202e",
        "\ud800",
        "1e999",
        "0",
    ]
)
NUMBERS = st.integers() | st.floats() | st.sampled_from([10**400, -(10**30), 2**53, 2**63])
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=5
)


@st.composite
def changed(draw, document):
    """A document of lists and dicts with one or two entries replaced, removed or added."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 2))):
        place, steps = document, draw(st.integers(0, 4))
        while steps and place:
            entries = list(place.values() if isinstance(place, dict) else place)
            deeper = [entry for entry in entries if isinstance(entry, dict | list) and entry]
            if not deeper:
                break
            place, steps = draw(st.sampled_from(deeper)), steps - 1
        key = draw(
            st.sampled_from(sorted(place, key=str) if isinstance(place, dict) else range(len(place)))
            if place
            else TEXTS
        )
        action = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if action == "add" and isinstance(place, dict):
            place[draw(TEXTS)] = draw(JSON)
        elif action == "add":
            place.append(draw(JSON))
        elif action == "remove" and place:
            del place[key]
        elif place:
            place[key] = draw(JSON)
    return document


@st.composite
def torn(draw, data):
    """Bytes that were cut off, overwritten or added to at some place."""
    start = draw(st.integers(0, len(data)))
    end = draw(st.just(len(data)) | st.integers(start, len(data)))
    return data[:start] + draw(st.binary(max_size=12)) + data[end:]


def file_of(document):
    """A JSON file of nearly this content."""
    whole = json.dumps(document).encode()
    return (
        changed(document).map(lambda found: json.dumps(found).encode())
        | torn(whole)
        | JSON.map(json.dumps).map(str.encode)
    )


# -- names and texts --------------------------------------------------------------------------------------------------

TAGS = TEXTS | st.from_regex(r"[A-Za-z]{2,3}([-_][A-Za-z]{4})?([-_][A-Z]{2})?", fullmatch=True) | st.none()


@examples(150)
@given(TAGS, st.lists(TAGS.filter(bool), max_size=3))
def test_codes(tag, known):
    from langsamp.core.language.languages import check_tag, normalize_tag
    from langsamp.core.language.names import find_language
    from langsamp.language_codes import match_language, match_script, parse_tag, suggest

    with refused_in_words():
        language, script = parse_tag(tag)
        assert re.fullmatch("[a-z]{3}", language)
        assert script is None or re.fullmatch("[A-Z][a-z]{3}", script)
        suggest(language, known), match_language(language, known), match_script(script, known)
    with refused_in_words():
        check_tag(tag)
        full = normalize_tag(tag)
        assert normalize_tag(full) == full
    with refused_in_words():
        find_language([name for name in known if name])


@examples()
@given(st.lists(TEXTS, min_size=1, max_size=3), st.lists(TAGS, max_size=3) | TAGS)
def test_tokenizer(tiny_tokenizer, texts, lang):
    with refused_in_words():
        found = tiny_tokenizer(texts, lang=lang)
        assert all(0 <= i < len(tiny_tokenizer) for ids in found["input_ids"] for i in ids)
        assert [len(ids) for ids in found["input_ids"]] == [len(mask) for mask in found["attention_mask"]]
        if lang is not None:
            assert len(found["lang_ids"]) == len(texts)
        tiny_tokenizer.batch_decode(found["input_ids"])


# -- text and stores --------------------------------------------------------------------------------------------------

ROWS = [{"text": "Das Haus", "split": "train", "label": "a", "tokens": ["a", "b"], "ner_tags": ["O", "B-PER"]}] * 3
TABLE = b"id\ttext\tlabel\n1\tDas Haus\ta\n2\tein Buch\tb\n"
CONLLU = b"# sent_id = 1\n1\tDas\t_\tDET\t_\n2\tHaus\t_\tNOUN\t_\n\n1-2\tam\t_\t_\n"


def parquet(rows):
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), stream)
    return stream.getvalue().to_pybytes()


def packed(suffix, data):
    import bz2
    import gzip
    import lzma

    import zstandard

    pack = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": zstandard.compress}
    return pack[suffix](data)


LINES = b"Das Haus\nein Buch\r\n\nnoch eines\n"
CONTENTS = {
    ".txt": LINES,
    ".jsonl": "\n".join(map(json.dumps, ROWS)).encode(),
    ".json": json.dumps(ROWS).encode(),
    ".tsv": TABLE,
    ".csv": TABLE.replace(b"\t", b","),
    ".parquet": parquet(ROWS),
    ".conllu": CONLLU,
    ".txt.gz": packed(".gz", LINES),
    ".txt.xz": packed(".xz", LINES),
    ".txt.bz2": packed(".bz2", LINES),
    ".jsonl.zst": packed(".zst", json.dumps(ROWS[0]).encode()),
}
FILES = st.sampled_from(sorted(CONTENTS)).flatmap(
    lambda suffix: st.tuples(st.just(suffix), torn(CONTENTS[suffix]) | st.binary(max_size=60))
)
JSON_FILES = st.tuples(st.sampled_from([".json", ".jsonl"]), file_of(ROWS) | file_of(ROWS[0]))


def only_file(folder, name, content):
    """The folder with this file and no other."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)
    return folder


@examples()
@given(FILES | JSON_FILES)
def test_corpora(tmp_path, file):
    from langsamp.train.text.open import open_corpus

    with refused_in_words():
        corpus = open_corpus(only_file(tmp_path / "corpus", f"deu_Latn{file[0]}", file[1]))
        for part in (part for parts in corpus.parts.values() for part in parts):
            for text in corpus.documents(part):
                assert text.strip()
                text.encode()
        corpus.report.lines()


@examples()
@given(
    FILES | JSON_FILES, st.sampled_from([["id", "text"], ["text", "label"], ["tokens", "ner_tags"], ["tokens", "upos"]])
)
def test_evaluation_data(tmp_path, file, columns):
    from langsamp.eval.data.sets import EvalData

    with refused_in_words():
        only_file(tmp_path / "data" / "set", f"deu_Latn{file[0]}", file[1])
        data = EvalData(tmp_path / "data")
        for tag in data.languages("set"):
            found = data.rows("set", tag, columns, "test")
            assert len({len(found[column]) for column in columns}) == 1


@examples(100)
@given(st.data())
def test_stores(small_store_dir, tmp_path, data):
    from langsamp.train.batches.sampling import Plan, Sampling
    from langsamp.train.blocks.ledger import Ledger
    from langsamp.train.blocks.store import BlockStore

    folder = tmp_path / "store"
    if not folder.exists():
        shutil.copytree(small_store_dir, folder)
    name = data.draw(st.sampled_from(["store.json", "deu_Latn.json"]))
    (folder / name).write_bytes(data.draw(file_of(json.loads((small_store_dir / name).read_text()))))
    with refused_in_words():
        Ledger.load(folder / "deu_Latn.json")
    with refused_in_words():
        store = BlockStore(folder)
        assert len(store.fingerprint) == 64
        for language in store.languages:
            assert len(store.blocks(language)) == store.counts[language]
            store.heldout(language)
        if store.counts:
            Plan(store.counts, Sampling(), 0).draws(range(4))
    shutil.copy(small_store_dir / name, folder)


# -- settings and facts -----------------------------------------------------------------------------------------------

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "tiny.yaml"


@examples(60)
@given(
    changed(yaml.safe_load(RECIPE.read_text())).map(lambda found: yaml.safe_dump(found, allow_unicode=True).encode())
    | torn(RECIPE.read_bytes())
    | st.binary(max_size=40)
)
def test_recipes(tmp_path, content):
    from langsamp.train.settings import read_recipe, split

    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with refused_in_words():
        split(read_recipe(path), "recipe")


@examples(40)
@given(st.data())
def test_configs(tiny_model_dir, tmp_path, data):
    from langsamp import LangSAMPConfig
    from langsamp.safe_files import check_names

    folder = tmp_path / "model"
    if not folder.exists():
        shutil.copytree(tiny_model_dir, folder)
    for name in data.draw(st.sampled_from([["config.json"], ["tokenizer_config.json"]])):
        (folder / name).write_bytes(data.draw(file_of(json.loads((tiny_model_dir / name).read_text()))))
    with refused_in_words():
        check_names(folder)
        LangSAMPConfig.from_pretrained(folder)
    shutil.copy(tiny_model_dir / "config.json", folder)
    shutil.copy(tiny_model_dir / "tokenizer_config.json", folder)


@examples(100)
@given(st.data())
def test_manifests(tmp_path, data):
    from langsamp.core import manifest

    folder = tmp_path / "checkpoint"
    if not folder.exists():
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"")
    document = json.loads(manifest.write_manifest(folder).read_text())
    (folder / manifest.MANIFEST_NAME).write_bytes(data.draw(file_of(document)))
    with refused_in_words():
        names = manifest.read_manifest(folder)
        assert not any(".." in Path(name).parts or Path(name).is_absolute() for name in names)
    assert all(isinstance(problem, str) for problem in manifest.verify_manifest(folder))
    manifest.damaged(folder)
    with refused_in_words():
        manifest.refused(folder)
    (folder / "model.safetensors").write_bytes(data.draw(torn(b"\x02\0\0\0\0\0\0\0{}") | st.binary(max_size=40)))
    (folder / manifest.MANIFEST_NAME).unlink()
    assert all(isinstance(problem, str) for problem in manifest.damaged(folder).values())
    (folder / "model.safetensors").write_bytes(b"")


ONE = Record(task="sr-tatoeba", language="deu", script="Latn", metric="acc@10", value=0.5, n=9, model="m", layer=8)
ROW = {name: getattr(ONE, name) for name in FIELDS}


@examples(150)
@given(st.lists(file_of(ROW) | st.just(ONE.to_json().encode()), max_size=4), st.booleans())
def test_records(tmp_path, lines, whole):
    from langsamp.eval.results import records

    path = tmp_path / "results.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n" * whole)
    with refused_in_words():
        found = records.read(path)
        assert all(math.isfinite(record.value) for record in found)
        records.append(path, [ONE])
        assert [*found, ONE][-1] in records.read(path)


# -- pages ------------------------------------------------------------------------------------------------------------

NAMES = TEXTS.filter(bool)
MEASURED = st.builds(
    lambda language, script, **rest: Record(language=language, script=script if language else None, **rest),
    task=st.sampled_from(["sr-tatoeba", "sib200", "lm", "neutrality", "pos"]) | NAMES,
    metric=st.sampled_from(["acc@10", "macro_f1", "loss", "cosine", "acc@10_lo"]) | NAMES,
    value=st.floats(0, 1) | st.floats(-1e100, 1e100),
    model=st.sampled_from(["base", "ours"]) | NAMES,
    language=st.sampled_from(["deu", "rus", "tha"]) | st.none() | NAMES.filter(lambda text: "_" not in text),
    script=st.sampled_from(["Latn", "Cyrl"]) | st.none() | NAMES,
    layer=st.integers(0, 12) | st.none(),
    direction=st.sampled_from(["en->x", "x->en", None]) | NAMES,
    source=st.sampled_from(["eng_Latn", None]) | NAMES,
    seed=st.integers(0, 2) | st.none(),
    n=st.integers(0, 2**53) | st.none(),
)
FACTS = {
    "base_model": "user/name", "datasets": ["a/b"], "steps": 3, "tokens": 9, "seconds": 1.5, "started": "2026-01-01",
    "losses": {"first": 9.0, "last": 1.0}, "loss_curve": [[1, 9.0], [2, None]], "settings": {"alpha": 0.3},
    "versions": {"torch": "2"}, "sampling": [{"language": "deu_Latn", "blocks": 3, "probability": 1.0}],
}  # fmt: skip
LIVE = re.compile(r"<(script|img|iframe|svg)[ >/]", re.I)


@examples(40)
@given(st.lists(MEASURED, max_size=8), file_of(FACTS), st.data())
def test_cards(tiny_model_dir, tmp_path, measured, facts, data):
    from langsamp.eval.results import records
    from langsamp.eval.results.card.card import write_card

    folder = only_file(tmp_path / "card", "training.json", facts)
    config = json.loads((tiny_model_dir / "config.json").read_text())
    (folder / "config.json").write_bytes(data.draw(st.just(json.dumps(config).encode()) | file_of(config)))
    (folder / "README.md").write_bytes(data.draw(torn(b"---\nlicense: mit\ntags:\n- a\n---\n\nmine\n") | st.just(b"")))
    with refused_in_words():
        records.append(folder, measured)
        text = write_card(folder).read_text(encoding="utf-8")
        assert isinstance(yaml.safe_load(text.split("---\n")[1]), dict)
        write_card(folder)


@examples(25)
@given(st.lists(MEASURED, min_size=1, max_size=12), st.none() | file_of(FACTS))
def test_reports(tmp_path, measured, facts):
    from langsamp.eval.results import records
    from langsamp.eval.results.report.report import write_report

    folder = only_file(tmp_path / "run", "training.json", facts) if facts else only_file(tmp_path / "run", "x", b"")
    with refused_in_words():
        records.append(folder, measured)
        page = write_report(folder, tmp_path / "report.html").read_text(encoding="utf-8")
        assert page.rstrip().endswith("</html>")


# -- models -----------------------------------------------------------------------------------------------------------


@examples(25)
@given(st.lists(st.integers(-2, 400), max_size=40), st.lists(TEXTS, max_size=4), st.lists(st.floats(), max_size=4))
def test_vocabularies(tiny_tokenizer, texts, ids, pieces, scores):
    from langsamp.core.model.vocabulary import extend, trim

    with refused_in_words():
        small = trim(tiny_tokenizer, ids)
        assert small.all_special_tokens == tiny_tokenizer.all_special_tokens
        assert small.convert_ids_to_tokens(small.mask_token_id) == "<mask>"
    with refused_in_words():
        large = extend(tiny_tokenizer, pieces, scores[: len(pieces)] + [-9.0] * (len(pieces) - len(scores)))
        assert all(large.convert_tokens_to_ids(piece) == i for piece, i in tiny_tokenizer.get_vocab().items())
        large(texts["deu_Latn"])


CHECKPOINT = {
    "model_type": "xlm-roberta", "use_lang_embedding": True, "use_script_embedding": True, "lang_size": 3,
    "script_size": 2, "hidden_size": 4, "architectures": ["XLMRobertaDecoupledForMaskedLM"],
}  # fmt: skip
INDEX = {"metadata": {}, "weight_map": {"a": "model-1.safetensors"}}
IDS = [{0: "aak", 1: "zul"}, {0: "Latn"}, {"aak": 0, "zul": 1}, {"Latn": 0}]


@examples(150)
@given(st.data())
def test_official_checkpoints(tmp_path, data):
    from safetensors.numpy import save

    from langsamp.checkpoints.official import read_official
    from langsamp.checkpoints.official_ids import read_id_lists

    tables = {"roberta.embeddings.lang_type_embeddings.weight": (3, 4), "lm_head.bias": (9,)}
    weights = save({name: np.zeros(shape, np.float32) for name, shape in tables.items()})
    name = data.draw(st.sampled_from(["model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"]))
    content = torn(weights) if name != "model.safetensors.index.json" else file_of(INDEX)
    folder = only_file(tmp_path / "official", name, data.draw(content))
    (folder / "config.json").write_bytes(data.draw(st.just(json.dumps(CHECKPOINT).encode()) | file_of(CHECKPOINT)))
    with refused_in_words():
        read_official(folder)
    lists = {"languages": ["aak", "zul"], "scripts": ["Latn"]}
    pickled = changed(IDS).map(pickle.dumps) | torn(pickle.dumps(IDS))
    (folder / "ids").write_bytes(data.draw(file_of(lists) | pickled))
    with refused_in_words():
        languages, scripts = read_id_lists(folder / "ids")
        assert all(isinstance(code, str) for code in [*languages, *scripts])
