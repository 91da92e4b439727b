"""The encoder gives the stock model's numbers, sentence by sentence, whatever the batch."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.engines import HOSTILE, IDS
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import XLMRobertaModel

from langsamp.eval.engines import packed
from langsamp.eval.engines.encoder import Encoder, Pool, parse_layers
from langsamp.eval.engines.packed import Texts, hidden_states, plan_batches, varlen_works


def naive(folder, ids, layer, special=True, prefix_model=None):
    """One sentence at a time through the stock model, a plain loop over its tokens."""
    model = prefix_model or XLMRobertaModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False).eval()
    with torch.no_grad():
        out = model(torch.tensor([ids.tolist()]), attention_mask=torch.ones(1, len(ids)), output_hidden_states=True)
    states = out.hidden_states[layer][0]
    rows = [states[k] for k in range(len(ids))] if special else [states[k] for k in range(1, len(ids) - 1)]
    total = torch.zeros(states.shape[1])
    for row in rows:
        total += row
    return (total / max(1, len(rows))).numpy()


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("kind", ["langsamp", "stock"])
def test_equals_the_stock_model_one_by_one(kind, special, tiny_model_dir, tiny_xlmr_dir):
    folder = tiny_model_dir if kind == "langsamp" else tiny_xlmr_dir
    encoder = Encoder(folder, (0, 1, 3), special_tokens=special, max_tokens=64)
    vectors = encoder.encode(HOSTILE)
    assert vectors.shape == (3, len(HOSTILE), 32)
    assert vectors.dtype == np.float32
    model = XLMRobertaModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False).eval()
    for text, ids in enumerate(encoder.tokenize(HOSTILE)):
        for row, layer in enumerate((0, 1, 3)):
            np.testing.assert_allclose(
                vectors[row, text], naive(folder, ids, layer, special, model), atol=2e-6, err_msg=repr(HOSTILE[text])
            )


def test_specials_that_cannot_be_left_out_are_told(tiny_model_dir, tmp_path):
    """A tokenizer that begins a text and does not end it."""
    shutil.copytree(tiny_model_dir, tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(tmp_path / "model/tokenizer.json"))
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)])
    tokenizer.save(str(tmp_path / "model/tokenizer.json"))
    for manifest in (tmp_path / "model").glob("langsamp_manifest.json"):
        manifest.unlink()
    Encoder(tmp_path / "model")
    with pytest.raises(ValueError, match=r"puts 1 special tokens around a text, .*leave out --no-special-tokens"):
        Encoder(tmp_path / "model", special_tokens=False)


def test_texts_without_tokens_are_finite(tiny_model_dir):
    assert np.isfinite(Encoder(tiny_model_dir, "last").encode(["", ""])).all()
    assert not Encoder(tiny_model_dir, "last", special_tokens=False).encode(["", "x"])[0, 0].any()
    assert Encoder(tiny_model_dir, "last").encode([]).shape == (1, 0, 32)
    none = np.array([], dtype=np.int32)
    assert not Encoder(tiny_model_dir, "last").encode_ids([none, none]).any()


def test_layers_above_are_not_loaded(tiny_model_dir):
    encoder = Encoder(tiny_model_dir, (1,))
    assert len(encoder.model.encoder.layer) == 1
    assert Encoder(tiny_model_dir, "all").layers == (1, 2, 3)
    assert Encoder(tiny_model_dir).layers == (2,), "the paper's layer unless told otherwise: two thirds of the depth"


def test_long_text_is_cut_with_its_specials(tiny_model_dir):
    ids = Encoder(tiny_model_dir, (1,), max_length=10).tokenize(["word " * 700])[0]
    assert len(ids) == 10
    assert (ids[0], ids[-1]) == (0, 2)
    assert len(Encoder(tiny_model_dir, (1,), max_length=9999).tokenize(["word " * 700])[0]) == 512


def test_order_and_company_do_not_change_a_vector(tiny_model_dir):
    texts = [f"{'word ' * (n % 7)}{n}" for n in range(40)]
    encoder = Encoder(tiny_model_dir, (2,), max_tokens=50)
    forward, backward = encoder.encode(texts), encoder.encode(texts[::-1])
    assert (forward == backward[:, ::-1]).all()
    np.testing.assert_allclose(encoder.encode(texts[:1])[0, 0], forward[0, 0], atol=2e-6)
    pool = Pool(encoder, texts)
    assert (pool.vectors(texts[30:]) == forward[:, 30:]).all()
    assert (pool.vectors(texts) == forward).all()


def test_equal_texts_are_encoded_once(tiny_model_dir, monkeypatch):
    encoder, calls = Encoder(tiny_model_dir, (1,)), []
    encode_ids = encoder.encode_ids
    monkeypatch.setattr(encoder, "encode_ids", lambda ids: calls.append(len(ids)) or encode_ids(ids))
    pool = Pool(encoder, ["one", "two", "one"])
    pool.vectors(["one", "two"])
    pool.vectors(["two", "two", "one"])
    assert calls == [2]
    with pytest.raises(KeyError):
        pool.vectors(["three"])


def test_prefix_is_part_of_the_text(tiny_model_dir):
    plain, prefixed = Encoder(tiny_model_dir, (2,)), Encoder(tiny_model_dir, (2,), prefix="query: ")
    assert (prefixed.encode(["house"]) == plain.encode(["query: house"])).all()


def test_first_pooling_and_bfloat16(tiny_model_dir):
    texts = ["The house", "stands by the river"]
    exact = Encoder(tiny_model_dir, (3,), "first")
    for row, ids in enumerate(exact.tokenize(texts)):
        with torch.no_grad():
            model = XLMRobertaModel.from_pretrained(tiny_model_dir, add_pooling_layer=False).eval()
            first = model(torch.tensor([ids.tolist()])).last_hidden_state[0, 0]
        np.testing.assert_allclose(exact.encode(texts)[0, row], first.numpy(), atol=2e-6)
    half = Encoder(tiny_model_dir, (3,), "first", dtype="bfloat16").encode(texts)
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, exact.encode(texts), atol=0.1)


@pytest.mark.parametrize(
    ("spec", "layers"),
    [("last", (12,)), ("8", (8,)), (8, (8,)), ("4,last,4", (4, 12)), ([0, 3], (0, 3)), ("all", tuple(range(1, 13)))],
)
def test_layer_names(spec, layers):
    assert parse_layers(spec, 12) == layers


@pytest.mark.parametrize("spec", ["13", "first", "-1", "4,", [99]])
def test_layers_that_do_not_exist(spec):
    with pytest.raises(ValueError, match="layers 1 to 12"):
        parse_layers(spec, 12)


def test_batches_fill_the_budget_and_groups_are_runs():
    assert plan_batches([2, 2, 3, 9], 7) == [[0, 1, 2], [3]]
    assert plan_batches([], 7) == []
    texts = Texts([np.zeros(length) for length in (2, 2, 3)], torch.device("cpu"))
    assert [(g.start, g.count, g.length) for g in texts.groups] == [(0, 2, 2), (4, 1, 3)]


def copy_of(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "model")


def test_broken_weights_are_named(tiny_xlmr_dir, tmp_path):
    folder = copy_of(tiny_xlmr_dir, tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["roberta.encoder.layer.1.output.dense.bias"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert np.isfinite(Encoder(folder, (1,)).encode(["fine"])).all()
    with pytest.raises(RuntimeError, match=r"NaN.*layer 2"):
        Encoder(folder, "all").encode(["broken"])
    del weights["roberta.encoder.layer.1.output.dense.bias"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RuntimeError, match=r"lack 1 tensors.*layer\.1\.output\.dense\.bias"):
        Encoder(folder, "all")


def test_weights_that_can_run_code_are_refused(tiny_xlmr_dir, tmp_path):
    folder = copy_of(tiny_xlmr_dir, tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="safetensors"):
        Encoder(folder, (1,))


def test_code_in_the_folder_is_never_run(tiny_model_dir, tmp_path):
    folder = copy_of(tiny_model_dir, tmp_path)
    for name in ("modeling_langsamp.py", "configuration_langsamp.py", "tokenization_langsamp.py"):
        (folder / name).write_text("raise SystemExit('the code of the repository was run')")
    assert Encoder(folder, (1,)).encode(["x"]).shape == (1, 1, 32)


def test_other_models_and_folders_are_refused(tiny_xlmr_dir, tiny_tokenizer_dir, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        Encoder(tiny_tokenizer_dir, (1,))
    folder = copy_of(tiny_xlmr_dir, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with pytest.raises(ValueError, match="knows no encoder of type 'gpt2'"):
        Encoder(folder, (1,))
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 100}))
    with pytest.raises((ValueError, RuntimeError)):
        Encoder(folder, (1,))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        Encoder(folder, (1,))
    with pytest.raises(ValueError, match="pooling"):
        Encoder(tiny_xlmr_dir, (1,), "max")
    with pytest.raises(ValueError, match="dtype"):
        Encoder(tiny_xlmr_dir, (1,), dtype="int8")


def test_a_sentencepiece_model_will_do_as_tokenizer(tiny_xlmr_dir, tmp_path):
    """Older checkpoints, like the first XLM-R uploads, have no tokenizer.json."""
    spm = pytest.importorskip("sentencepiece")
    folder = copy_of(tiny_xlmr_dir, tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    lines = [f"the {a} by the {b}" for a in ("house", "dog", "sun") for b in ("river", "tree", "road")]
    prefix = str(folder / "sentencepiece.bpe")
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 5), model_prefix=prefix, vocab_size=60, hard_vocab_limit=False, minloglevel=2
    )
    encoder = Encoder(folder, (1,))
    ids = encoder.tokenize(["the house by the river"])[0]
    assert (ids[0], ids[-1]) == (0, 2)
    assert encoder.tokenizer.decode(ids.tolist()) == "the house by the river"


def test_an_unknown_architecture_takes_its_own_forward_pass(tiny_model_dir, monkeypatch):
    encoder = Encoder(tiny_model_dir, "all", dtype="float32", device="cpu")
    texts = Texts([ids for ids in IDS if 1 not in ids], torch.device("cpu"))
    ours = [states.clone() for states in hidden_states(encoder.model, texts)]
    monkeypatch.setattr(packed, "WALKS", {})
    stock = list(hidden_states(encoder.model, texts))
    assert len(stock) == len(ours) == 4
    for a, b in zip(ours, stock):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=0)


@pytest.mark.parametrize("special", [0, 1])
def test_means_at_once_are_the_means_of_each_length(special):
    texts = Texts(IDS, torch.device("cpu"))
    hidden = torch.randn(len(texts.flat), 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(texts._means_at_once(hidden, special), texts.means(hidden, special))


def test_a_batch_that_does_not_fit_is_halved(tiny_model_dir, monkeypatch):
    encoder = Encoder(tiny_model_dir, (2,))
    texts = ["house " * number for number in range(9)]
    whole = encoder.encode(texts)
    forward, sizes = encoder._forward, []

    def small(ids):
        sizes.append(len(ids))
        if len(ids) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return forward(ids)

    monkeypatch.setattr(encoder, "_forward", small)
    np.testing.assert_allclose(encoder.encode(texts), whole, atol=2e-6)
    assert sizes[0] == 9
    monkeypatch.setattr(encoder, "_forward", lambda ids: small(list(ids) + [None] * 3))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        encoder.encode(["one text that is too large"])


def test_tf32_is_for_cards(tiny_model_dir):
    with pytest.raises(ValueError, match="dtype tf32 is for CUDA cards; this device is cpu"):
        Encoder(tiny_model_dir, device="cpu", dtype="tf32")
    assert not varlen_works(torch.device("cpu"), torch.float32, 8)


def test_it_tells_how_far_it_is(tiny_model_dir):
    told = []
    Encoder(tiny_model_dir, (1,), max_tokens=8, tell=told.append).encode(["one two three", "four five six", "seven"])
    assert told[-1] == f"{len(told)} of {len(told) + 1} batches of texts"
