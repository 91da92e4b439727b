"""Another vocabulary for a model: what stood for a piece, or for a role, stands for it still."""

from __future__ import annotations

import torch
from transformers import XLMRobertaForMaskedLM

from langsamp.core.model.tokenizer import load_tokenizer
from langsamp.core.model.vocabulary import carry_rows, extend, trim


def test_rows_and_biases_follow_their_piece_and_specials_their_role(tiny_xlmr_dir, tiny_tokenizer_dir, tmp_path):
    renamed = {"[MASK]": "<mask>", "[SEP]": "</s>"}
    for file in tiny_tokenizer_dir.iterdir():
        text = file.read_text(encoding="utf-8")
        for name, before in renamed.items():
            text = text.replace(before, name)
        (tmp_path / file.name).write_text(text, encoding="utf-8")
    old = load_tokenizer(tiny_tokenizer_dir)
    new = extend(load_tokenizer(tmp_path), ["▁Hausfluss"], [-9.0])
    model = XLMRobertaForMaskedLM.from_pretrained(tiny_xlmr_dir)
    torch.nn.init.normal_(model.lm_head.bias)
    words, bias = model.get_input_embeddings().weight.clone(), model.lm_head.bias.clone()
    carry_rows(model, old, new)
    found, biases = model.get_input_embeddings().weight, model.get_output_embeddings().bias
    pieces, before = new.get_vocab(), old.get_vocab()
    assert len(found) == len(biases) == len(pieces) == len(before) + 1
    for piece, i in pieces.items():
        source = before.get(renamed.get(piece, piece))
        if source is not None:
            assert torch.equal(found[i], words[source]), piece
            assert biases[i] == bias[source], piece
    parts = [token.id for token in old.backend_tokenizer.model.tokenize("▁Hausfluss") if token.id != old.unk_token_id]
    assert len(parts) > 1
    torch.testing.assert_close(found[pieces["▁Hausfluss"]], words[parts].mean(0))
    torch.testing.assert_close(biases[pieces["▁Hausfluss"]], bias[parts].mean())


def test_trim_keeps_every_segmentation_of_its_corpus(tiny_tokenizer_dir, texts):
    tokenizer = load_tokenizer(tiny_tokenizer_dir)
    german = texts["deu_Latn"]
    small = trim(tokenizer, [i for ids in tokenizer(german)["input_ids"] for i in ids])
    assert len(small) < len(tokenizer) / 2
    for text in german:
        assert small.tokenize(text) == tokenizer.tokenize(text)
        ids = small(text)["input_ids"]
        assert (ids[0], ids[-1]) == (small.bos_token_id, small.eos_token_id)
    masked = small("Das <mask>")["input_ids"]
    assert small.mask_token_id in masked
    assert small.unk_token_id not in masked
    assert small("家")["input_ids"][1:-1][-1] == small.unk_token_id
