"""A small model, batches for it and its gradients: what the tests of the fast steps compare."""

from __future__ import annotations

import torch
from torch import nn
from transformers import ModernBertConfig

from langsamp import LangSAMPConfig, LangSAMPForMaskedLM

VOCAB, BATCH, LENGTH = 5000, 3, 24  # more than one block of the vocabulary


def make(dropout=0.0, attention="sdpa", **kwargs):
    torch.manual_seed(0)
    shape = {
        "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "max_position_embeddings": 64, "type_vocab_size": 1, "pad_token_id": 1,
        "layer_norm_eps": 1e-5, "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout,
        "languages": ["deu", "rus"], "scripts": ["Latn", "Cyrl"], "table_initializer_range": 0.5,
    }  # fmt: skip
    config = LangSAMPConfig(**shape | kwargs)
    model = LangSAMPForMaskedLM._from_config(config, attn_implementation=attention).train()
    for name, parameter in model.named_parameters():
        if "norm" not in name.lower():  # biases that would show if they were lost, attention that is not uniform
            nn.init.normal_(parameter, std=0.1 if parameter.dim() == 1 else 0.2)
    return model


def make_modernbert(**kwargs):
    """As :func:`make`, with a window that cuts the batches' rows in its two local layers."""
    torch.manual_seed(0)
    shape = {
        "vocab_size": VOCAB, "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": 64, "pad_token_id": 1, "local_attention": 8,
    }  # fmt: skip
    tables = {"languages": ["deu", "rus"], "scripts": ["Latn", "Cyrl"], "table_initializer_range": 0.5}
    config = LangSAMPConfig.from_backbone(ModernBertConfig(**shape | kwargs), **tables)
    return LangSAMPForMaskedLM._from_config(config, attn_implementation="sdpa").train()


def make_eurobert(**kwargs):
    """As :func:`make`, with one head of key and value for two of the query."""
    from transformers import EuroBertConfig

    torch.manual_seed(0)
    shape = {
        "vocab_size": VOCAB, "num_hidden_layers": 2, "num_key_value_heads": 1, "intermediate_size": 64,
        "max_position_embeddings": 64, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "mask_token_id": 3,
    }  # fmt: skip
    tables = {"languages": ["deu", "rus"], "scripts": ["Latn", "Cyrl"], "table_initializer_range": 0.5}
    config = LangSAMPConfig.from_backbone(EuroBertConfig(**shape | kwargs), **tables)
    return LangSAMPForMaskedLM._from_config(config, attn_implementation="sdpa").train()


def make_batch(seed=0, padding=True):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, VOCAB, (BATCH, LENGTH), generator=generator)
    attention = torch.ones_like(ids)
    labels = torch.full_like(ids, -100)
    where = torch.rand(ids.shape, generator=generator) < 0.3
    if padding:
        attention[0, 15:] = attention[1, 20:] = 0
        ids[attention == 0] = 1
    where &= attention == 1
    labels[where] = ids[where]
    return {"input_ids": ids, "attention_mask": attention, "labels": labels,
            "lang_ids": torch.tensor([1, 2, 0]), "script_ids": torch.tensor([1, 2, 0])}  # fmt: skip


def gradients(model, *batches, scale=1.0, **kwargs):
    model.zero_grad()
    losses = []
    for batch in batches:
        loss = model(**batch, **kwargs).loss
        (loss * scale).backward()
        losses.append(loss.item())
    return losses, {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same(stock, quick, tolerance=1e-5):
    """Gradients within the tolerance of each tensor's maximum (a key bias has none but rounding noise: its query's)."""
    assert stock.keys() == quick.keys()
    for name, expected in stock.items():
        largest = stock[name.replace("self.key.bias", "self.query.bias")].abs().max()
        assert (expected - quick[name]).abs().max() <= tolerance * largest, name
