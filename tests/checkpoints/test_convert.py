"""Official checkpoints of every variant become checkpoints that compute the same, and nothing unsafe is ever read."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from support.loopback import Fault
from transformers import (
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
    XLMRobertaForSequenceClassification,
    XLMRobertaForTokenClassification,
    XLMRobertaModel,
)

from langsamp import LangSAMPForMaskedLM, LangSAMPTokenizer
from langsamp.checkpoints.convert import convert, private_codes
from langsamp.checkpoints.official_ids import read_id_lists
from langsamp.core.manifest import verify_manifest

WORDS = "roberta.embeddings.word_embeddings.weight"
TYPES = "roberta.embeddings.token_type_embeddings.weight"
LANG = "roberta.embeddings.lang_type_embeddings.weight"
SCRIPT = "roberta.embeddings.script_type_embeddings.weight"
IDS = torch.tensor([[0, 5, 6, 7, 2], [0, 8, 2, 1, 1]])
MASK = (IDS != 1).long()
LANGS, SCRIPTS = torch.tensor([3, 609]), torch.tensor([19, 29])


def official(folder: Path, *, model_class=XLMRobertaForMaskedLM, lang=610, script=30, fmt="safetensors", **changes):
    """Write what the official code writes, from a stock model; returns that model and the two tables."""
    torch.manual_seed(0)
    settings = {
        "vocab_size": 97, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 40,
        "max_position_embeddings": 40, "layer_norm_eps": 1e-5, "hidden_dropout_prob": 0.1, "type_vocab_size": 1,
    }  # fmt: skip
    dtype = changes.pop("dtype", torch.float32)
    keep_decoder = changes.pop("keep_decoder", False)
    config = XLMRobertaConfig(**{**settings, **changes.pop("config", {})})
    model = model_class(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.state_dict()[TYPES if model_class is not XLMRobertaModel else TYPES.removeprefix("roberta.")].zero_()
    if model_class is XLMRobertaForMaskedLM:  # one parameter in the official code, tied or not
        model.lm_head.decoder.bias = model.lm_head.bias
    model = model.to(dtype)
    state = {k: v.clone() for k, v in model.state_dict().items() if "token_type" not in k and "position_ids" not in k}
    if not keep_decoder and config.tie_word_embeddings:
        state = {k: v for k, v in state.items() if "lm_head.decoder" not in k}
    prefix = "" if model_class is XLMRobertaModel else "roberta."
    tables = []
    for key, rows in ((LANG, lang), (SCRIPT, script)):
        tables.append(torch.randn(rows, config.hidden_size).to(dtype) if rows else None)
        if rows:
            state[prefix + key.removeprefix("roberta.")] = tables[-1]
    for key, value in changes.pop("extra", {}).items():
        state[key] = value
    for key in changes.pop("without", ()):
        del state[key]
    save(folder, state, fmt)
    drop = changes.pop("drop", ())
    given = {
        **json.loads(config.to_json_string(use_diff=False)),
        "architectures": [model_class.__name__.replace("XLMRoberta", "XLMRobertaDecoupled")],
        "lang_size": lang or 610, "script_size": script or 30, "use_lang_embedding": bool(lang),
        "use_script_embedding": bool(script), "decouple_at_input_embeddings": False, "transformers_version": "4.42.4",
        **changes,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({key: value for key, value in given.items() if key not in drop}))
    return model, *tables


def save(folder: Path, state: dict, fmt: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.contiguous() for key, value in state.items()}
    half = sorted(state)[: len(state) // 2]
    parts = {"0": {k: state[k] for k in half}, "1": {k: v for k, v in state.items() if k not in half}}
    if fmt == "safetensors":
        save_file(state, folder / "model.safetensors")
    elif fmt == "sharded":
        names = {k: f"model-{part}-of-2.safetensors" for part, tensors in parts.items() for k in tensors}
        for part, tensors in parts.items():
            save_file(tensors, folder / f"model-{part}-of-2.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    elif fmt == "bin":
        torch.save({f"module.{k}": v for k, v in state.items()}, folder / "pytorch_model.bin")
    elif fmt == "sharded bin":
        names = {k: f"pytorch_model-{part}.bin" for part, tensors in parts.items() for k in tensors}
        for part, tensors in parts.items():
            torch.save(tensors, folder / f"pytorch_model-{part}.bin")
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))


def expected(model, lang, script):
    """The logits of the official forward pass, from the stock model and the tables."""
    with torch.no_grad():
        hidden = model.roberta(IDS, attention_mask=MASK).last_hidden_state
        for table, ids in ((lang, LANGS), (script, SCRIPTS)):
            if table is not None:
                hidden = hidden + table[ids % len(table)][:, None]
        return model.lm_head(hidden)


def ours(folder, **kwargs):
    model = LangSAMPForMaskedLM.from_pretrained(folder, **kwargs).eval()
    rows = [len(model.config.languages) - 1 or 1, len(model.config.scripts) - 1 or 1]
    ids = {"lang_ids": LANGS % max(rows[0], 1) + 1, "script_ids": SCRIPTS % max(rows[1], 1) + 1}
    with torch.no_grad():
        return model, model(IDS, attention_mask=MASK, **ids).logits


@pytest.mark.parametrize("fmt", ["safetensors", "sharded", "bin", "sharded bin"])
def test_every_file_format(tmp_path, fmt):
    model, lang, script = official(tmp_path / "in", fmt=fmt)
    done = convert(str(tmp_path / "in"), tmp_path / "out")
    assert (done.kind, done.languages, done.scripts, done.dropped, done.tokenizer) == ("masked-lm", 610, 30, [], False)
    loaded, logits = ours(tmp_path / "out")
    torch.testing.assert_close(logits, expected(model, lang, script), atol=2e-5, rtol=0)
    assert (loaded.config.languages[1:], loaded.config.scripts[1:]) == read_id_lists()
    assert torch.equal(loaded.lang_embeddings.weight[1:], lang)
    assert torch.equal(loaded.script_embeddings.weight[1:], script)
    assert not loaded.lang_embeddings.weight[0].any()
    assert not loaded.script_embeddings.weight[0].any()
    assert verify_manifest(tmp_path / "out") == []
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("lang", "script"), [(610, 0), (0, 30), (0, 0)])
def test_variants_with_one_table_or_none(tmp_path, lang, script):
    model, *tables = official(tmp_path / "in", lang=lang, script=script)
    convert(str(tmp_path / "in"), tmp_path / "out")
    loaded, logits = ours(tmp_path / "out")
    assert (loaded.lang_embeddings is None, loaded.script_embeddings is None) == (not lang, not script)
    torch.testing.assert_close(logits, expected(model, *tables), atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    "config",
    [
        {"hidden_size": 40, "num_attention_heads": 5, "num_hidden_layers": 1, "vocab_size": 55},
        {"type_vocab_size": 2, "hidden_act": "relu", "layer_norm_eps": 1e-12},
        {"tie_word_embeddings": False},
        {"pad_token_id": 1, "max_position_embeddings": 514},
    ],
)
def test_other_sizes_and_settings(tmp_path, config):
    model, lang, script = official(tmp_path / "in", config=config)
    convert(str(tmp_path / "in"), tmp_path / "out")
    loaded, logits = ours(tmp_path / "out")
    torch.testing.assert_close(logits, expected(model, lang, script), atol=2e-5, rtol=0)
    for key, value in config.items():
        assert getattr(loaded.config, key) == value


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("model_class", [XLMRobertaForMaskedLM, XLMRobertaModel])
def test_wrappers_of_the_model_leave_no_trace_in_any_format(tmp_path, prefix, model_class):
    official(tmp_path / "in", model_class=model_class)
    state = load_file(tmp_path / "in" / "model.safetensors")
    convert(str(tmp_path / "in"), tmp_path / "bare")
    save_file({prefix + key: value for key, value in state.items()}, tmp_path / "in" / "model.safetensors")
    convert(str(tmp_path / "in"), tmp_path / "out")
    bare, wrapped = (load_file(tmp_path / name / "model.safetensors") for name in ("bare", "out"))
    assert wrapped.keys() == bare.keys()
    assert all(torch.equal(wrapped[key], bare[key]) for key in bare)


def test_mixed_precision_keeps_the_widest(tmp_path):
    _, lang, _ = official(tmp_path / "in")
    state = load_file(tmp_path / "in" / "model.safetensors")
    (tmp_path / "in" / "model.safetensors").unlink()
    head_first = sorted(state.items())  # a state dict keeps its order; safetensors put the widest tensors first
    mixed = {key: value.half() if key.startswith("lm_head") else value for key, value in head_first}
    torch.save(mixed, tmp_path / "in" / "pytorch_model.bin")
    convert(str(tmp_path / "in"), tmp_path / "out")
    assert torch.equal(load_file(tmp_path / "out" / "model.safetensors")["lang_embeddings.weight"][1:], lang)


def test_half_precision_stays_half(tmp_path):
    _, lang, _ = official(tmp_path / "in", dtype=torch.float16)
    convert(str(tmp_path / "in"), tmp_path / "out")
    state = load_file(tmp_path / "out" / "model.safetensors")
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert torch.equal(state["lang_embeddings.weight"][1:], lang)


def test_decoder_in_the_file_and_buffers_are_no_leftovers(tmp_path):
    extra = {
        "roberta.embeddings.position_ids": torch.arange(40)[None],
        "roberta.embeddings.token_lang_ids": torch.zeros(1, 40),
    }
    model, lang, script = official(tmp_path / "in", keep_decoder=True, extra=extra)
    convert(str(tmp_path / "in"), tmp_path / "out")
    loaded, logits = ours(tmp_path / "out")
    torch.testing.assert_close(logits, expected(model, lang, script), atol=2e-5, rtol=0)
    assert loaded.lm_head.decoder.weight is loaded.roberta.embeddings.word_embeddings.weight


def test_unknown_as_the_mean_of_the_rows(tmp_path):
    """Known languages compute the same, and stock XLM-R then predicts for a mean language."""
    model, lang, script = official(tmp_path / "in")
    convert(str(tmp_path / "in"), tmp_path / "out", unknown="mean")
    torch.testing.assert_close(ours(tmp_path / "out")[1], expected(model, lang, script), atol=1e-4, rtol=0)
    stock = XLMRobertaForMaskedLM.from_pretrained(tmp_path / "out").eval()
    mean = [table.mean(0, keepdim=True) for table in (lang, script)]
    with torch.no_grad():
        torch.testing.assert_close(stock(IDS, attention_mask=MASK).logits, expected(model, *mean), atol=1e-4, rtol=0)


def test_stock_classes_compute_the_same_encoder(tmp_path):
    """The zero token types are back; without them stock XLM-R would add a random vector to every token."""
    model, *_ = official(tmp_path / "in")
    convert(str(tmp_path / "in"), tmp_path / "out")
    stock = XLMRobertaModel.from_pretrained(tmp_path / "out", add_pooling_layer=False).eval()
    with torch.no_grad():
        hidden = stock(IDS, attention_mask=MASK).last_hidden_state
        assert torch.equal(hidden, model.roberta(IDS, attention_mask=MASK).last_hidden_state)


def test_classifier_whose_unused_tables_were_left_out(tmp_path):
    """The official classes announce them in the config even though nothing downstream looks at them."""
    flags = {"use_lang_embedding": True, "use_script_embedding": True}
    model, *_ = official(tmp_path / "in", model_class=XLMRobertaForSequenceClassification, lang=0, script=0, **flags)
    assert convert(str(tmp_path / "in"), tmp_path / "out").dropped == []
    stock = XLMRobertaForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        assert torch.equal(stock(IDS, attention_mask=MASK).logits, model(IDS, attention_mask=MASK).logits)


@pytest.mark.parametrize("model_class", [XLMRobertaForSequenceClassification, XLMRobertaForTokenClassification])
def test_classifiers(tmp_path, model_class):
    model, *_ = official(tmp_path / "in", model_class=model_class, config={"num_labels": 5})
    done = convert(str(tmp_path / "in"), tmp_path / "out")
    assert done.dropped == ["lang_embeddings.weight", "script_embeddings.weight"]
    stock = model_class.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        assert torch.equal(stock(IDS, attention_mask=MASK).logits, model(IDS, attention_mask=MASK).logits)
    assert not json.loads((tmp_path / "out" / "config.json").read_text()).get("languages")


def test_the_encoder_alone(tmp_path):
    model, *_ = official(tmp_path / "in", model_class=XLMRobertaModel)
    assert convert(str(tmp_path / "in"), tmp_path / "out").kind == "encoder"
    stock = XLMRobertaModel.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        ours_, theirs = (m(IDS, attention_mask=MASK) for m in (stock, model))
    assert torch.equal(ours_.last_hidden_state, theirs.last_hidden_state)
    assert torch.equal(ours_.pooler_output, theirs.pooler_output)


def test_stock_xlmr_as_a_starting_point(tiny_xlmr_dir, tmp_path):
    """Glot500-m and XLM-R: their own token types stay, the tokenizer comes along, there are no rows."""
    done = convert(str(tiny_xlmr_dir), tmp_path / "out")
    assert (done.languages, done.scripts, done.tokenizer) == (0, 0, True)
    stock = XLMRobertaForMaskedLM.from_pretrained(tiny_xlmr_dir).eval()
    loaded, logits = ours(tmp_path / "out")
    with torch.no_grad():
        assert torch.equal(logits, stock(IDS, attention_mask=MASK).logits)
    assert loaded.lang_embeddings is None


def test_tokenizer_gets_the_same_rows(tiny_tokenizer_dir, tmp_path):
    official(tmp_path / "in", config={"vocab_size": 400})
    assert convert(str(tmp_path / "in"), tmp_path / "out", tokenizer=tiny_tokenizer_dir).tokenizer
    tokenizer = LangSAMPTokenizer.from_pretrained(tmp_path / "out")
    batch = tokenizer("Das Haus", lang="zul_Latn")
    assert (batch["lang_ids"], batch["script_ids"]) == (610, 20)  # official 609 and 19
    official(tmp_path / "small", config={"vocab_size": 50})
    with pytest.raises(ValueError, match="not its own"):
        convert(str(tmp_path / "small"), tmp_path / "out2", tokenizer=tiny_tokenizer_dir)
    with pytest.raises(FileNotFoundError, match="holds no tokenizer"):
        convert(str(tmp_path / "in"), tmp_path / "out2", tokenizer=tmp_path / "in")
    assert not (tmp_path / "out2").exists()


def test_untrained_rows_are_named(tmp_path):
    official(tmp_path / "in", config={"hidden_size": 96, "num_attention_heads": 4})
    state = load_file(tmp_path / "in" / "model.safetensors")
    torch.manual_seed(1)
    for row in (0, 7, 609):
        state[LANG][row] = torch.randn(96) * 0.02
    state[SCRIPT][4] = torch.randn(96) * 0.02
    save_file(state, tmp_path / "in" / "model.safetensors")
    codes = read_id_lists()[0]
    assert convert(str(tmp_path / "in"), tmp_path / "out").untrained == [codes[0], codes[7], codes[609], "Copt"]


def test_other_tables_with_their_lists(tmp_path):
    model, lang, script = official(tmp_path / "in", lang=3, script=2)
    lists = tmp_path / "ids.json"
    lists.write_text(json.dumps({"languages": ["zul", "aak", "deu"], "scripts": ["Latn", "Cyrl"]}))
    convert(str(tmp_path / "in"), tmp_path / "out", ids=lists)
    loaded, logits = ours(tmp_path / "out")
    assert loaded.config.languages == ["und", "zul", "aak", "deu"]
    torch.testing.assert_close(logits, expected(model, lang, script), atol=2e-5, rtol=0)
    lists.write_text(json.dumps({"languages": ["zul", "aak"], "scripts": ["Latn", "Cyrl"]}))
    with pytest.raises(ValueError, match=r"3 rows, but .* lists 2 languages"):
        convert(str(tmp_path / "in"), tmp_path / "out2", ids=lists)
    lists.write_text(json.dumps({"languages": ["und", "aak", "deu"], "scripts": ["Latn", "Cyrl"]}))
    with pytest.raises(ValueError, match="lists 'und' among the languages, but that is row 0, which is added"):
        convert(str(tmp_path / "in"), tmp_path / "out2", ids=lists)


def test_other_tables_without_lists_get_private_codes(tmp_path, caplog):
    model, lang, script = official(tmp_path / "in", lang=28, script=27)
    convert(str(tmp_path / "in"), tmp_path / "out")
    loaded, logits = ours(tmp_path / "out")
    assert loaded.config.languages[:3] == ["und", "qaa", "qab"]
    assert loaded.config.languages[-1] == "qbb"
    assert loaded.config.scripts[-1] == "Qaba"
    assert "give their names with --ids" in caplog.text
    torch.testing.assert_close(logits, expected(model, lang, script), atol=2e-5, rtol=0)
    assert (private_codes("languages", 520)[-1], private_codes("scripts", 50)[-1]) == ("qtz", "Qabx")
    for kind, rows in (("languages", 521), ("scripts", 51)):
        with pytest.raises(ValueError, match="not the official number; give the code of every row with --ids"):
            private_codes(kind, rows)


def test_id_pickle_beside_the_checkpoint_is_read_without_running_it(tmp_path):
    model, lang, script = official(tmp_path / "in", lang=2, script=1)
    maps = [{0: "zul", 1: "aak"}, {0: "Latn"}, {"zul": 0, "aak": 1}, {"Latn": 0}]
    (tmp_path / "in" / "full_dicts.pkl").write_bytes(pickle.dumps(maps))
    convert(str(tmp_path / "in"), tmp_path / "out")
    loaded, logits = ours(tmp_path / "out")
    assert loaded.config.languages == ["und", "zul", "aak"]
    torch.testing.assert_close(logits, expected(model, lang, script), atol=2e-5, rtol=0)


class _Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(_Evil()), "posix.system, and code in data is not run"),
        (pickle.dumps([{0: _Evil()}, {}, {}, {}]), "code in data is not run"),
        (b"cos\nsystem\n(S'touch pwned'\ntR.", "code in data is not run"),
        (b"\x80\x04N.", "must hold four dictionaries"),
        (b"\x80\x04garbage", "neither JSON nor"),
        (b"", "neither JSON nor"),
        (pickle.dumps([{1: "deu"}, {}, {"deu": 1}, {}]), "count from 0"),
        (pickle.dumps([{0: "deu"}, {}, {"rus": 0}, {}]), "agree in both directions"),
        (pickle.dumps([{0: "deu", "x": "rus"}, {}, {}, {}]), "count from 0"),
        (b'{"languages": "deu"}', "must hold"),
        (b'{"languages": [1]}', "must hold"),
        (b"{", "is not JSON"),
        (b"\x80\x04" + b"N" * (1 << 20), "far smaller"),
    ],
)
def test_hostile_id_lists(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ids").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_id_lists(tmp_path / "ids")
    assert not (tmp_path / "pwned").exists()


def test_official_lists_are_those_of_the_released_checkpoints():
    languages, scripts = read_id_lists()
    assert (len(languages), len(scripts)) == (610, 30)
    assert languages[:3] == ["aak", "aba", "abk"]
    assert languages[608:] == ["zsm", "zul"]
    assert languages == sorted(set(languages))
    assert scripts == sorted(set(scripts))
    assert (scripts[0], scripts[19], scripts[29]) == ("Arab", "Latn", "Tibt")


def test_official_lists_agree_with_the_shared_table(shared):
    import csv

    languages, scripts = read_id_lists()
    with open(shared / "data" / "languages.csv", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            assert (row["language"] in languages) == (row["language_in_langsamp"] == "1"), row["code"]
            assert (row["script"] in scripts) == (row["script_in_langsamp"] == "1"), row["code"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decouple_at_input_embeddings": True}, "below the encoder"),
        ({"decouple_at_input_embeddings": True, "drop": ("use_lang_embedding", "use_script_embedding")}, "below the"),
        ({"model_type": "bert"}, "'bert' model"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"lang_size": 600}, "610 rows, but .* says 600"),
        ({"vocab_size": 98}, r"wrong shapes: lm_head.bias \(97,\), by config.json \(98,\)"),
        ({"num_hidden_layers": 2}, r"tensors left over: roberta.encoder.layer.2"),
        ({"num_hidden_layers": 4}, r"missing tensors: roberta.encoder.layer.3"),
        ({"without": (LANG,)}, "use_lang_embedding=true, but its weights lack"),
        ({"without": ("lm_head.dense.bias",)}, "missing tensors: lm_head.dense.bias"),
        ({"extra": {"what.is.this": torch.zeros(1)}}, "tensors left over: what.is.this"),
        ({"model_class": XLMRobertaModel, "extra": {"qa_outputs.weight": torch.zeros(1)}}, "no class for .qa_outputs"),
    ],
)
def test_what_cannot_be_converted_is_refused_and_leaves_nothing(tmp_path, changes, message):
    official(tmp_path / "in", **changes)
    with pytest.raises(ValueError, match=message):
        convert(str(tmp_path / "in"), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_input_flag_without_tables_changes_nothing(tmp_path):
    model, *_ = official(tmp_path / "in", lang=0, script=0, decouple_at_input_embeddings=True)
    convert(str(tmp_path / "in"), tmp_path / "out")
    torch.testing.assert_close(ours(tmp_path / "out")[1], expected(model, None, None), atol=2e-5, rtol=0)


def test_pickled_modules_are_refused(tmp_path):
    model, *_ = official(tmp_path / "in")
    (tmp_path / "in" / "model.safetensors").unlink()
    torch.save(model, tmp_path / "in" / "pytorch_model.bin")
    with pytest.raises(ValueError, match="could run code"):
        convert(str(tmp_path / "in"), tmp_path / "out")
    torch.save({"a": 1}, tmp_path / "in" / "pytorch_model.bin")
    with pytest.raises(ValueError, match="not a state dict"):
        convert(str(tmp_path / "in"), tmp_path / "out")
    (tmp_path / "in" / "pytorch_model.bin").unlink()
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        convert(str(tmp_path / "in"), tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "fmt", "content", "message"),
    [
        ("config.json", "safetensors", b"{", "config.json is not readable JSON"),
        ("config.json", "safetensors", b"[]", "config.json must hold a JSON object, not a list"),
        ("model.safetensors.index.json", "sharded", b"{", "index.json is not readable JSON"),
        ("model.safetensors.index.json", "sharded", b"{}", "index.json has no weight_map"),
        ("model.safetensors", "safetensors", b"", "model.safetensors: its 0 bytes are no safetensors"),
        ("model.safetensors", "safetensors", None, "model.safetensors: expected .* bytes, found"),
        ("pytorch_model.bin", "bin", b"", "pytorch_model.bin is damaged"),
        ("pytorch_model.bin", "bin", None, "pytorch_model.bin is damaged"),
        ("model.safetensors", "safetensors", b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        ("pytorch_model.bin", "bin", b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, fmt, content, message):
    official(tmp_path / "in", fmt=fmt)
    path = tmp_path / "in" / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises((ValueError, RuntimeError), match=message) as error:
        convert(str(tmp_path / "in"), tmp_path / "out")
    assert "\n" not in str(error.value)
    assert "manifest" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_what_was_converted_is_not_converted_again(tmp_path):
    official(tmp_path / "in")
    convert(str(tmp_path / "in"), tmp_path / "out")
    with pytest.raises(ValueError, match="is a checkpoint of this package already"):
        convert(str(tmp_path / "out"), tmp_path / "again")


def test_index_must_name_files_beside_it(tmp_path):
    official(tmp_path / "in", fmt="sharded")
    index = tmp_path / "in" / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-1-of-2", "../model-1-of-2"))
    with pytest.raises(ValueError, match=r"no \*\.safetensors file beside it"):
        convert(str(tmp_path / "in"), tmp_path / "out")
    index.write_text(index.read_text().replace("../model-1-of-2", "model-9-of-2"))
    with pytest.raises(FileNotFoundError, match="has no model-9-of-2"):
        convert(str(tmp_path / "in"), tmp_path / "out")


def test_an_existing_result_is_never_overwritten(tmp_path):
    official(tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(FileExistsError, match="exists already"):
        convert(str(tmp_path / "in"), tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "x"
    (tmp_path / "out" / "mine.txt").unlink()
    convert(str(tmp_path / "in"), tmp_path / "out")  # an empty folder is fine
    shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize("part", ["", "seqcls", "tokcls"])
def test_parity_with_the_official_code(shared, tmp_path, part):
    """The reference made with the unchanged official code: hidden states, logits, loss and every gradient."""
    io = load_file(shared / "parity" / "both" / "io.safetensors")
    convert(str(shared / "parity" / "both" / part), tmp_path / "out")
    inputs = {"input_ids": io["in.input_ids"], "attention_mask": io["in.attention_mask"]}
    if part:
        model_class = XLMRobertaForSequenceClassification if part == "seqcls" else XLMRobertaForTokenClassification
        model = model_class.from_pretrained(tmp_path / "out").eval()
        out = model(**inputs, labels=io[f"in.{part}_labels"])
        name, grads = f"out.{part}_loss", f"grad_{part}."
        torch.testing.assert_close(out.logits, io[f"out.{part}_logits"], atol=2e-5, rtol=0)
    else:
        model = LangSAMPForMaskedLM.from_pretrained(tmp_path / "out").eval()
        ids = {"lang_ids": io["in.token_lang_ids"] + 1, "script_ids": io["in.token_script_ids"] + 1}
        with torch.no_grad():
            out = model(**inputs, **ids, output_hidden_states=True)
        for layer in range(3):
            torch.testing.assert_close(out.hidden_states[layer], io[f"out.hidden_states.{layer}"], atol=2e-5, rtol=0)
        torch.testing.assert_close(out.logits, io["out.mlm_logits"], atol=2e-5, rtol=0)
        out = model(**inputs, **ids, labels=io["in.labels"])
        name, grads = "out.mlm_loss", "grad."
    torch.testing.assert_close(out.loss.reshape(1), io[name].reshape(1), atol=0, rtol=1e-5)
    out.loss.backward()
    ours_ = {key: parameter.grad for key, parameter in model.named_parameters(remove_duplicate=False)}
    for key in [key for key in io if key.startswith(grads)]:
        reference = io[key]
        mine = ours_.get(key.removeprefix(grads))
        if key.endswith(("lang_type_embeddings.weight", "script_type_embeddings.weight")):
            if part:
                continue  # dead weights there: they get no gradient
            mine = (model.lang_embeddings if "lang_type" in key else model.script_embeddings).weight.grad[1:]
        assert mine is not None, key
        bound = 1e-6 if "key.bias" in key else 1e-5 * reference.abs().max().item()
        assert (mine - reference).abs().max().item() <= bound, key


def test_from_the_hub_with_torch_weights_only(hub, tmp_path, waits):
    """The usual form of research checkpoints; fetched at the commit, by a second try too; the origin is named."""
    from huggingface_hub import HfApi

    model, lang, script = official(tmp_path / "in", fmt="bin")
    api = HfApi(endpoint=hub.url)
    api.create_repo("jane/official")
    api.upload_folder(repo_id="jane/official", folder_path=tmp_path / "in")
    hub.faults = [Fault(r"/resolve/.*/pytorch_model\.bin", 503)]
    convert("jane/official", tmp_path / "out")
    torch.testing.assert_close(ours(tmp_path / "out")[1], expected(model, lang, script), atol=2e-5, rtol=0)
    assert "base_model: jane/official" in (tmp_path / "out" / "README.md").read_text()
    hub.faults = [Fault(r"/resolve/.*/pytorch_model\.bin", "drop", times=99)]
    shutil.rmtree(constants.HF_HUB_CACHE)
    with pytest.raises(FileNotFoundError, match="cannot be had from the Hub") as told:
        convert("jane/official", tmp_path / "again")
    assert "\n" not in str(told.value)
