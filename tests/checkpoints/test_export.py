"""What is exported needs no code of ours and computes the same."""

from __future__ import annotations

import gzip
import json
import shutil
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, pipeline

from langsamp import LangSAMPForMaskedLM, LangSAMPTokenizer
from langsamp.checkpoints.export import export_encoder, export_monolingual
from langsamp.core.manifest import verify_manifest
from langsamp.train.text.open import read_texts
from langsamp.unicode_scripts import script_of

SENTENCES = ["Das Haus steht am Fluss.", "В январе дни короткие.", "家は川のそばにあります。", "x"]


@pytest.fixture(scope="module")
def langsamp_model(tiny_model_dir):
    return LangSAMPForMaskedLM.from_pretrained(tiny_model_dir).eval(), LangSAMPTokenizer.from_pretrained(tiny_model_dir)


@pytest.fixture(scope="module")
def batch(langsamp_model):
    return langsamp_model[1](SENTENCES, padding=True, return_tensors="pt")


@pytest.mark.parametrize("layer", [1, 2, 3, None])
def test_encoder_equals_the_hidden_states_bit_for_bit(tiny_model_dir, langsamp_model, batch, tmp_path, layer):
    done = export_encoder(str(tiny_model_dir), tmp_path / "out", layer)
    encoder = AutoModel.from_pretrained(tmp_path / "out", add_pooling_layer=False).eval()
    plain = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    with torch.no_grad():
        states = langsamp_model[0](**batch, output_hidden_states=True).hidden_states
        assert torch.equal(encoder(**plain).last_hidden_state, states[layer or 3])
    assert encoder.config.num_hidden_layers == (layer or 3)
    assert done.parameters[1] == encoder.num_parameters()
    assert (done.parameters[1] < done.parameters[0]) == (layer != 3 and layer is not None)
    assert verify_manifest(tmp_path / "out") == []


def test_encoder_has_no_code_and_no_tables(tiny_model_dir, tmp_path, run_fresh):
    export_encoder(str(tiny_model_dir), tmp_path / "out", 2)
    assert not list((tmp_path / "out").glob("*.py"))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    tokenizer = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert not {"auto_map", "languages", "scripts"} & (set(config) | set(tokenizer))
    printed = run_fresh(
        "from transformers import AutoModel, AutoTokenizer\n"
        f"t = AutoTokenizer.from_pretrained({str(tmp_path / 'out')!r})\n"
        f"m = AutoModel.from_pretrained({str(tmp_path / 'out')!r})\n"
        "print(type(m).__name__, sorted(t('Das Haus')), t.model_max_length)"
    )
    assert printed.strip() == "XLMRobertaModel ['attention_mask', 'input_ids'] 512"


def test_encoder_from_stock_and_half_precision(tiny_xlmr_dir, tmp_path):
    stock = AutoModelForMaskedLM.from_pretrained(tiny_xlmr_dir).half()
    stock.save_pretrained(tmp_path / "half")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "half" / name).write_bytes((tiny_xlmr_dir / name).read_bytes())
    export_encoder(str(tmp_path / "half"), tmp_path / "out", 1)
    encoder = AutoModel.from_pretrained(tmp_path / "out", dtype="auto")
    assert encoder.dtype == torch.float16
    theirs = stock.roberta.encoder.layer[0].output.dense.weight
    assert torch.equal(encoder.encoder.layer[0].output.dense.weight, theirs)


@pytest.mark.parametrize("layer", [0, 4, -1])
def test_a_layer_that_does_not_exist(tiny_model_dir, tmp_path, layer):
    with pytest.raises(ValueError, match="has blocks 1 to 3"):
        export_encoder(str(tiny_model_dir), tmp_path / "out", layer)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(find_spec("sentence_transformers") is None, reason="sentence-transformers is not installed")
def test_encoder_is_a_sentence_transformer(tiny_model_dir, langsamp_model, batch, tmp_path):
    from sentence_transformers import SentenceTransformer

    export_encoder(str(tiny_model_dir), tmp_path / "out", 2)
    vectors = SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(SENTENCES)
    with torch.no_grad():
        states = langsamp_model[0](**batch, output_hidden_states=True).hidden_states[2]
    mask = batch["attention_mask"][..., None]
    np.testing.assert_allclose(vectors, ((states * mask).sum(1) / mask.sum(1)).numpy(), atol=1e-6)


@pytest.mark.parametrize("language", ["deu_Latn", "deu", "de"])
def test_monolingual_equals_langsamp_told_the_language(tiny_model_dir, langsamp_model, tmp_path, language):
    source = shutil.copytree(tiny_model_dir, tmp_path / "source")
    (source / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    export_monolingual(str(source), tmp_path / "out", language)
    stock = AutoModelForMaskedLM.from_pretrained(tmp_path / "out").eval()
    model, tokenizer = langsamp_model
    batch = tokenizer(SENTENCES, lang="deu_Latn", padding=True, return_tensors="pt")
    plain = AutoTokenizer.from_pretrained(tmp_path / "out")(SENTENCES, padding=True, return_tensors="pt")
    assert torch.equal(plain["input_ids"], batch["input_ids"])
    with torch.no_grad():
        torch.testing.assert_close(stock(**plain).logits, model(**batch).logits, atol=1e-6, rtol=0)
        assert not torch.allclose(model(**batch).logits, model(**{**batch, "lang_ids": None}).logits, atol=1e-2)
    assert not list((tmp_path / "out").glob("*.py"))
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert (card.data.language, card.data.pipeline_tag, card.data.license) == (["de"], "fill-mask", "cc-by-4.0")
    assert pipeline("fill-mask", model=str(tmp_path / "out"))("Das <mask>")


def test_monolingual_finds_the_row_of_the_same_writing(tiny_model_dir, tmp_path):
    with pytest.raises(ValueError, match="nearest"):
        export_monolingual(str(tiny_model_dir), tmp_path / "out", "fra_Latn")
    with pytest.raises(ValueError, match="nearest"):
        export_monolingual(str(tiny_model_dir), tmp_path / "out", "deu_Arab")
    export_monolingual(str(tiny_model_dir), tmp_path / "out", "jpn_Hrkt")  # the table has Jpan


def test_trimmed_vocabulary_keeps_the_texts_it_was_made_for(tiny_model_dir, langsamp_model, texts, tmp_path):
    german = texts["deu_Latn"]
    done = export_monolingual(str(tiny_model_dir), tmp_path / "out", "deu_Latn", german)
    model, tokenizer = langsamp_model
    stock = AutoModelForMaskedLM.from_pretrained(tmp_path / "out").eval()
    small = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert done.vocabulary == (len(tokenizer), len(small))
    assert len(small) < len(tokenizer)
    assert stock.config.vocab_size == len(small)
    masked = [text.replace("Haus", "<mask>") for text in german]
    ours, theirs = (
        tokenizer(masked, lang="deu_Latn", padding=True, return_tensors="pt"),
        small(masked, padding=True, return_tensors="pt"),
    )
    names = [small.convert_ids_to_tokens(ids) for ids in theirs["input_ids"].tolist()]
    assert names == [tokenizer.convert_ids_to_tokens(ids) for ids in ours["input_ids"].tolist()]
    kept = torch.tensor(tokenizer.convert_tokens_to_ids(small.convert_ids_to_tokens(list(range(len(small))))))
    with torch.no_grad():
        torch.testing.assert_close(stock(**theirs).logits, model(**ours).logits[..., kept], atol=1e-6, rtol=0)
    assert small.unk_token_id not in small("Die Vögel sitzen im Haus")["input_ids"]  # letters of the script stay
    assert small.unk_token_id in small("птица")["input_ids"]
    signs = {piece for piece in tokenizer.get_vocab() if len(piece) == 1 and script_of(piece) == "Zyyy"}
    assert {"।", "。"} <= signs <= set(small.get_vocab())  # and so do digits and the signs of any script


def test_nothing_to_trim_to(tiny_model_dir, tiny_xlmr_dir, tmp_path):
    with pytest.raises(ValueError, match="holds no text"):
        export_monolingual(str(tiny_model_dir), tmp_path / "out", "deu_Latn", [])
    with pytest.raises(ValueError, match="no language or script rows"):
        export_monolingual(str(tiny_xlmr_dir), tmp_path / "out", "deu_Latn")
    assert not list(tmp_path.iterdir())


def test_a_folder_without_tokenizer_or_of_another_kind(tiny_model_dir, tmp_path):
    bare = tmp_path / "bare"
    LangSAMPForMaskedLM.from_pretrained(tiny_model_dir).save_pretrained(bare)
    with pytest.raises(FileNotFoundError, match="holds no tokenizer"):
        export_encoder(str(bare), tmp_path / "out")
    (bare / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="no encoder of type 'gpt2'"):
        export_encoder(str(bare), tmp_path / "out")
    (bare / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        export_encoder(str(bare), tmp_path / "out")


def test_texts_to_trim_to(tmp_path):
    with gzip.open(tmp_path / "deu_Latn.txt.gz", "wt", encoding="utf-8") as file:
        file.write("eins\n\nzwei\n")
    (tmp_path / "fra_Latn.jsonl").write_text('{"text": "un"}\n{"text": "deux"}\n')
    assert list(read_texts(str(tmp_path), "deu_Latn")) == ["eins", "zwei"]
    assert list(read_texts(str(tmp_path / "fra_Latn.jsonl"), "deu_Latn")) == ["un", "deux"]
    with pytest.raises(ValueError, match="no text in rus_Cyrl; it has deu_Latn, fra_Latn"):
        read_texts(str(tmp_path), "rus_Cyrl")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        read_texts(str(tmp_path / "gone"), "rus_Cyrl")
    (tmp_path / "x.doc").write_text("a")
    with pytest.raises(ValueError, match="is none of"):
        read_texts(str(tmp_path / "x.doc"), "rus_Cyrl")


needs_onnx = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")), reason="the extra onnx is missing"
)


@needs_onnx
@pytest.mark.slow
def test_onnx_of_a_masked_lm(tiny_model_dir, langsamp_model, tmp_path):
    import onnxruntime

    from langsamp.checkpoints.export_onnx import export_onnx

    done = export_onnx(str(tiny_model_dir), tmp_path / "out")
    assert [graph.name for graph in done.graphs] == ["model", "model_with_language_ids"]
    for graph in done.graphs:
        assert graph.difference <= 1e-5
        assert graph.int8_top1 is not None
        assert graph.int8_top1 > 0.8
        assert graph.sizes[1] < graph.sizes[0]
    session = onnxruntime.InferenceSession(tmp_path / "out" / "onnx" / "model_with_language_ids.onnx")
    model, tokenizer = langsamp_model
    for texts in (SENTENCES, SENTENCES[:1], ["a"] * 7):  # shapes other than the one that was traced
        batch = tokenizer(texts, lang="rus", padding=True, return_tensors="pt")
        (logits,) = session.run(["logits"], {name: value.numpy() for name, value in batch.items()})
        with torch.no_grad():
            reference = model(**batch).logits.numpy()
        real = batch["attention_mask"].bool().numpy()
        np.testing.assert_allclose(logits[real], reference[real], atol=1e-5)
    assert _inputs(session) == ["input_ids", "attention_mask", "lang_ids", "script_ids"]
    assert "auto_map" not in json.loads((tmp_path / "out" / "config.json").read_text())


def _inputs(session):
    return [given.name for given in session.get_inputs()]


@needs_onnx
@pytest.mark.slow
def test_the_graph_that_clients_look_for_is_the_second_door(tiny_model_dir, tmp_path):
    """transformers.js, optimum and servers feed two inputs and expect what the folder says without remote code."""
    import onnxruntime
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    from langsamp.checkpoints.export_onnx import export_onnx

    export_onnx(str(tiny_model_dir), tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    stock = AutoModelForMaskedLM.from_pretrained(tiny_model_dir)
    with torch.no_grad():
        reference = stock(**batch, output_hidden_states=True)
    real = batch["attention_mask"].bool().numpy()
    for name, within in (("model", 1e-5), ("model_quantized", 1.0)):
        session = onnxruntime.InferenceSession(tmp_path / "out" / "onnx" / f"{name}.onnx")
        assert _inputs(session) == ["input_ids", "attention_mask"]
        logits, hidden = session.run(None, {key: value.numpy() for key, value in batch.items()})
        np.testing.assert_allclose(logits[real], reference.logits.numpy()[real], atol=within)
        np.testing.assert_allclose(hidden[real], reference.hidden_states[-1].numpy()[real], atol=within)


@needs_onnx
@pytest.mark.slow
def test_onnx_of_an_exported_encoder(tiny_model_dir, tmp_path):
    from langsamp.checkpoints.export_onnx import export_onnx

    export_encoder(str(tiny_model_dir), tmp_path / "encoder", 2)
    (graph,) = export_onnx(str(tmp_path / "encoder"), tmp_path / "out").graphs
    assert graph.inputs == ["input_ids", "attention_mask"]
    assert graph.difference <= 1e-5
    assert graph.int8_top1 is None


@needs_onnx
@pytest.mark.slow
def test_onnx_of_a_classifier(tiny_xlmr_dir, tmp_path):
    from transformers import XLMRobertaForSequenceClassification

    from langsamp.checkpoints.export_onnx import export_onnx

    XLMRobertaForSequenceClassification.from_pretrained(tiny_xlmr_dir, num_labels=3).save_pretrained(tmp_path / "in")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "in" / name).write_bytes((tiny_xlmr_dir / name).read_bytes())
    (graph,) = export_onnx(str(tmp_path / "in"), tmp_path / "out").graphs
    assert graph.difference <= 1e-5
    assert graph.int8_top1 is None


def test_onnx_says_which_extra_is_missing(tiny_model_dir, tmp_path, monkeypatch):
    from langsamp.checkpoints import export_onnx

    monkeypatch.setattr(export_onnx, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'langsamp\[onnx\]'"):
        export_onnx.export_onnx(str(tiny_model_dir), tmp_path / "out")
