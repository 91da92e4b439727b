"""A checkpoint as ONNX graphs with free batch size and length: fp32, and int8 for CPUs; both checked with onnxruntime.

Names and inputs are those of transformers.js and optimum: ``onnx/model.onnx`` and ``onnx/model_quantized.onnx`` take
``input_ids`` and ``attention_mask``, and no more.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from langsamp.checkpoints.plain import save_tokenizer, stock_tokenizer
from langsamp.core.files import atomic_write
from langsamp.core.model.config import read_config
from langsamp.core.outputs import new_folder
from langsamp.core.runtime import resolve_model
from langsamp.eval.results.card.metadata import EXAMPLES
from langsamp.modeling_langsamp import (
    LangSAMPForMaskedLM,
    LangSAMPForSequenceClassification,
    LangSAMPForTokenClassification,
    LangSAMPMixin,
    LangSAMPModel,
)
from langsamp.safe_files import read_json

STOCK, WITH_IDS = "model", "model_with_language_ids"  # the first is what every client looks for
TOLERANCE = 1e-5  # times the largest output, at least absolute


@dataclass(frozen=True)
class Graph:
    """One graph in two files, and how far they are from the model they were made of."""

    name: str  # onnx/<name>.onnx, and onnx/<name>_quantized.onnx in int8
    inputs: list[str]
    difference: float  # largest |onnx - torch| over the check batches, fp32
    int8_difference: float
    int8_top1: float | None  # share of masked tokens with the same best piece as fp32; None for an encoder
    sizes: tuple[int, int]  # bytes, fp32 and int8


@dataclass(frozen=True)
class OnnxExport:
    """What was made: the folder and its graphs, that of the stock model first."""

    path: Path
    graphs: list[Graph]


_HEADS = {
    "ForSequenceClassification": LangSAMPForSequenceClassification,
    "ForTokenClassification": LangSAMPForTokenClassification,
}


class _Forward(nn.Module):
    """The forward pass with tensors in and tensors out; a masked LM also gives the hidden states its logits are of."""

    def __init__(self, model: PreTrainedModel, inputs: list[str]) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs
        self.outputs = ["last_hidden_state" if model.base_model is model else "logits"]
        if isinstance(model, LangSAMPMixin):
            self.outputs.append("last_hidden_state")

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        model, given = self.model, dict(zip(self.inputs, values))
        if not isinstance(model, LangSAMPMixin):
            return (model(**given, return_dict=True)[0],)
        ids = given.pop("lang_ids", None), given.pop("script_ids", None)
        hidden = model.base_model(**given, return_dict=True)[0]
        return model.get_output_embeddings()(model.head_transform(model._add_rows(hidden, *ids))), hidden


def export_onnx(model: str, output: str | Path) -> OnnxExport:
    """Write and check fp32 and int8 graphs of a masked LM, a classifier or an encoder, as ONNX clients expect them.

    ``onnx/model.onnx`` takes ``input_ids`` and ``attention_mask`` (batch, length) and computes what the checkpoint does
    without remote code; a masked LM gives ``logits`` and ``last_hidden_state``. One with tables gets a second graph,
    ``onnx/model_with_language_ids.onnx``, that takes ``lang_ids`` and ``script_ids`` (batch,) too, 0 for unknown.

    Raises:
        ImportError: the extra packages are missing.
        RuntimeError: an fp32 graph computes something else than the model.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ImportError(f"export to ONNX needs {', '.join(missing)}; install them with: pip install 'langsamp[onnx]'")
    source = resolve_model(model)
    config, tokenizer = read_json(source.path / "config.json"), stock_tokenizer(source.path)
    with new_folder(output) as folder:
        (folder / "onnx").mkdir()
        graphs = [
            _write(name, loaded, inputs, tokenizer, folder / "onnx") for name, loaded, inputs in _models(source.path)
        ]
        stock = {key: value for key, value in config.items() if key != "auto_map"}  # the tables name the ids
        atomic_write(folder / "config.json", json.dumps(stock, indent=2) + "\n")
        save_tokenizer(tokenizer, folder)
    return OnnxExport(Path(output), graphs)


def _models(folder: Path) -> Iterator[tuple[str, PreTrainedModel, list[str]]]:
    """Name, model in fp32 with the head that its config names, and inputs of each graph."""
    tables = read_config(folder)
    head = (tables.architectures or [""])[0]
    inputs = ["input_ids", "attention_mask"]
    if not head.endswith("ForMaskedLM"):
        kind = next((ours for name, ours in _HEADS.items() if head.endswith(name)), LangSAMPModel)
        yield STOCK, kind.from_pretrained(folder, dtype=torch.float32).eval(), inputs
        return
    with _quiet():  # of the tables, which it leaves out
        stock = LangSAMPForMaskedLM.from_pretrained(folder, languages=[], scripts=[], dtype=torch.float32)
    yield STOCK, stock.eval(), inputs
    if ids := [f"{name}_ids" for name, rows in (("lang", tables.languages), ("script", tables.scripts)) if rows]:
        yield WITH_IDS, LangSAMPForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval(), inputs + ids


def _write(
    name: str, model: PreTrainedModel, inputs: list[str], tokenizer: PreTrainedTokenizerFast, folder: Path
) -> Graph:
    """Both files of a graph, written and checked."""
    batches = _check_batches(tokenizer, model, inputs)
    fp32, int8 = folder / f"{name}.onnx", folder / f"{name}_quantized.onnx"
    _write_fp32(model, inputs, batches[0], fp32)
    _write_int8(fp32, int8)
    sizes = [sum(file.stat().st_size for file in folder.glob(f"{path.name}*")) for path in (fp32, int8)]
    return Graph(name, inputs, *_compare(model, inputs, batches, fp32, int8), (sizes[0], sizes[1]))


def _check_batches(
    tokenizer: PreTrainedTokenizerFast, model: PreTrainedModel, inputs: list[str]
) -> list[dict[str, Tensor]]:
    """Sentences in fifteen scripts, every token masked in turn: a batch a sentence, and one padded batch."""
    generator = torch.Generator().manual_seed(0)
    sentences = [sentence.format("").strip() for _, sentence in EXAMPLES.values()]
    encoded = [tokenizer(sentence)["input_ids"] for sentence in sentences]
    masked = []
    for ids in encoded:
        rows = torch.tensor([ids] * (len(ids) - 2))
        rows[torch.arange(len(rows)), torch.arange(1, len(ids) - 1)] = tokenizer.mask_token_id
        masked.append({"input_ids": rows, "attention_mask": torch.ones_like(rows)})
    padded = tokenizer.pad({"input_ids": encoded}, return_tensors="pt")
    masked.append({name: padded[name] for name in ("input_ids", "attention_mask")})
    for batch in masked:
        for name in inputs[2:]:
            table = getattr(model, name.replace("_ids", "_embeddings"))
            batch[name] = torch.randint(len(table.weight), (len(batch["input_ids"]),), generator=generator)
    return masked


def _write_fp32(model: PreTrainedModel, inputs: list[str], example: dict[str, Tensor], path: Path) -> None:
    batch, length = torch.export.Dim("batch", min=1), torch.export.Dim("length", min=1)
    shapes = [{0: batch, 1: length} if name in ("input_ids", "attention_mask") else {0: batch} for name in inputs]
    forward = _Forward(model, inputs).eval()
    with _quiet():
        torch.onnx.export(
            forward,
            tuple(example[name] for name in inputs),
            path,
            input_names=inputs,
            output_names=forward.outputs,
            dynamic_shapes=(tuple(shapes),),
            dynamo=True,
            # one ONNX file holds less than 2 GiB; the weights of a larger model go beside it
            external_data=sum(p.numel() * p.element_size() for p in model.parameters()) > 1 << 30,
            verbose=False,
        )


def _write_int8(fp32: Path, int8: Path) -> None:
    """Weights as int8, activations quantised on the fly."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    large = fp32.with_name(fp32.name + ".data").is_file()
    with _quiet():
        quantize_dynamic(fp32, int8, weight_type=QuantType.QInt8, per_channel=True, use_external_data_format=large)


@contextmanager
def _quiet() -> Iterator[None]:
    """Both tools warn of matters that a user of this command can do nothing about."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _compare(
    model: PreTrainedModel, inputs: list[str], batches: list[dict[str, Tensor]], fp32: Path, int8: Path
) -> tuple[float, float, float | None]:
    """Largest differences of both graphs to the model, and how often int8 has the same best piece at a mask."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    whole, small = (
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]) for path in (fp32, int8)
    )
    forward = _Forward(model, inputs).eval()
    far, far8, largest = 0.0, 0.0, 0.0
    same: list[bool] = []
    for batch in batches:
        with torch.no_grad():
            references = [output.numpy() for output in forward(*(batch[name] for name in inputs))]
        given = {name: batch[name].numpy() for name in inputs}
        exact, rough = whole.run(None, given), small.run(None, given)
        for reference, one, other in zip(references, exact, rough):
            real = batch["attention_mask"].bool().numpy() if reference.ndim == 3 else slice(None)
            far = max(far, float(np.abs(one - reference)[real].max()))
            far8 = max(far8, float(np.abs(other - reference)[real].max()))
            largest = max(largest, float(np.abs(reference[real]).max()))
        if isinstance(model, LangSAMPMixin) and batch is not batches[-1]:
            at = np.arange(len(exact[0])), np.arange(1, len(exact[0]) + 1)
            same += (exact[0][at].argmax(-1) == rough[0][at].argmax(-1)).tolist()
    if far > TOLERANCE * max(1.0, largest):
        raise RuntimeError(f"the ONNX graph differs from the model by {far:.1e}; report this with your versions.")
    return far, far8, float(np.mean(same)) if same else None
