"""Equal to the official code: its checkpoint, converted, gives its hidden states, logits, loss and gradients."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from langsamp import LangSAMPForMaskedLM
from langsamp.checkpoints.convert import convert

GOLDEN = Path(__file__).parent / "golden" / "parity"
TABLES = {
    "roberta.embeddings.lang_type_embeddings.weight": "lang_embeddings.weight",
    "roberta.embeddings.script_type_embeddings.weight": "script_embeddings.weight",
}


@pytest.fixture(scope="module", params=["golden", "shared"])
def reference(request, tmp_path_factory):
    """The converted model, the inputs with our numbering, and the official outputs."""
    folder = GOLDEN if request.param == "golden" else request.getfixturevalue("shared") / "parity" / "both"
    output = tmp_path_factory.mktemp("parity") / "converted"
    convert(str(folder), output)
    tensors = load_file(folder / "io.safetensors")
    inputs = {
        "input_ids": tensors["in.input_ids"],
        "attention_mask": tensors["in.attention_mask"],
        "lang_ids": tensors["in.token_lang_ids"] + 1,  # row 0 is "unknown", the official order follows
        "script_ids": tensors["in.token_script_ids"] + 1,
    }
    return LangSAMPForMaskedLM.from_pretrained(output).eval(), inputs, tensors


def test_the_tables_have_the_official_rows_after_row_zero(reference):
    config = reference[0].config
    assert (len(config.languages), len(config.scripts)) == (611, 31)
    assert config.languages[:4] == ["und", "aak", "aba", "abk"]
    assert config.languages[609:] == ["zsm", "zul"]
    assert (config.scripts[1], config.scripts[30]) == ("Arab", "Tibt")


def test_hidden_states_and_logits(reference):
    model, inputs, official = reference
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    for layer, hidden in enumerate(output.hidden_states):
        torch.testing.assert_close(hidden, official[f"out.hidden_states.{layer}"], rtol=0, atol=2e-5)
    labelled = output.logits[official["in.labels"] != -100]
    torch.testing.assert_close(labelled, official["out.mlm_logits_at_labels"], rtol=0, atol=2e-5)
    if "out.mlm_logits" in official:
        torch.testing.assert_close(output.logits, official["out.mlm_logits"], rtol=0, atol=2e-5)


def test_ids_per_sequence_where_a_row_is_of_one_language(reference):
    """Rows 0, 1, 2 and 4 have one language each: (batch,) ids must give what per-token ids give."""
    model, inputs, official = reference
    rows = torch.tensor([0, 1, 2, 4])
    one = {k: v[rows] if k in ("input_ids", "attention_mask") else v[rows, 0] for k, v in inputs.items()}
    with torch.no_grad():
        logits = model(**one).logits
    where = official["in.labels"] != -100
    mixed = where.clone()
    mixed[rows] = False
    expected = official["out.mlm_logits_at_labels"][~mixed[where]]
    torch.testing.assert_close(logits[where[rows]], expected, rtol=0, atol=2e-5)


def test_loss_and_every_gradient(reference):
    model, inputs, official = reference
    model.zero_grad()
    loss = model(**inputs, labels=official["in.labels"]).loss
    torch.testing.assert_close(loss, official["out.mlm_loss"].squeeze(), rtol=1e-5, atol=0)
    loss.backward()
    ours = dict(model.named_parameters(remove_duplicate=False))  # a tied matrix has two names
    checked = set()
    for name, expected in official.items():
        if not name.startswith("grad."):
            continue
        key = name.removeprefix("grad.")
        gradient = ours[TABLES.get(key, key)].grad
        if key in TABLES:
            assert not gradient[0].any(), "no token is of an unknown language here"
            gradient = gradient[1:]
        atol = 1e-6 if key.endswith("key.bias") else 1e-5 * float(expected.abs().max())
        torch.testing.assert_close(gradient, expected, rtol=0, atol=atol, msg=lambda text, key=key: f"{key}: {text}")
        checked.add(ours[TABLES.get(key, key)])
    unchecked = {name for name, parameter in model.named_parameters() if parameter not in checked}
    assert unchecked == {"roberta.embeddings.token_type_embeddings.weight"}  # the official code has none
    norm = torch.sqrt(sum(parameter.grad.pow(2).sum() for parameter in checked))
    torch.testing.assert_close(norm, official["out.grad_norm"].squeeze(), rtol=1e-5, atol=0)
