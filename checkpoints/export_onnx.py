"""A checkpoint as ONNX graphs with free batch size and length: fp32, and int8 for CPUs; both checked with onnxruntime.

File names are those of transformers.js: ``onnx/model.onnx`` and ``onnx/model_quantized.onnx``.
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
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    XLMRobertaForSequenceClassification,
    XLMRobertaForTokenClassification,
    XLMRobertaModel,
)

from langsamp.checkpoints.plain import read_config, save_tokenizer, stock_tokenizer
from langsamp.core.outputs import new_folder
from langsamp.core.runtime import atomic_write, resolve_model
from langsamp.eval.results.card.metadata import EXAMPLES
from langsamp.modeling_langsamp import LangSAMPForMaskedLM

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FP32, INT8 = "onnx/model.onnx", "onnx/model_quantized.onnx"
TOLERANCE = 1e-5  # times the largest output, at least absolute


@dataclass(frozen=True)
class OnnxExport:
    """What was made and how far it is from the model it was made of."""

    path: Path
    inputs: list[str]
    difference: float  # largest |onnx - torch| over the check batches, fp32
    int8_difference: float
    int8_top1: float | None  # share of masked tokens with the same best piece as fp32; None for an encoder
    sizes: tuple[int, int]  # bytes, fp32 and int8


_CLASSES: dict[str, type[PreTrainedModel]] = {
    "ForMaskedLM": LangSAMPForMaskedLM,
    "ForSequenceClassification": XLMRobertaForSequenceClassification,
    "ForTokenClassification": XLMRobertaForTokenClassification,
}


class _Graph(nn.Module):
    """The forward pass with tensors in and one tensor out: logits, or the last hidden state of an encoder."""

    def __init__(self, model: PreTrainedModel, inputs: list[str]) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs

    def forward(self, *values: Tensor) -> Tensor:
        return self.model(**dict(zip(self.inputs, values)), return_dict=True)[0]


def export_onnx(model: str, output: str | Path) -> OnnxExport:
    """Write and check fp32 and int8 graphs of a masked LM (with its ids, if it has any), a classifier or an encoder.

    A masked LM with tables takes ``lang_ids`` and ``script_ids`` (batch,), 0 for unknown, besides ``input_ids`` and
    ``attention_mask`` (batch, length).

    Raises:
        ImportError: the extra packages are missing.
        RuntimeError: the fp32 graph computes something else than the model.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ImportError(f"export to ONNX needs {', '.join(missing)}; install them with: pip install 'langsamp[onnx]'")
    source = resolve_model(model)
    loaded, inputs = _model(source.path)
    batches = _check_batches(source.path, loaded, inputs)
    with new_folder(output) as folder:
        (folder / "onnx").mkdir()
        _write_fp32(loaded, inputs, batches[0], folder / FP32)
        _write_int8(folder / FP32, folder / INT8)
        config = {key: value for key, value in read_config(source.path).items() if key != "auto_map"}
        atomic_write(folder / "config.json", json.dumps(config, indent=2) + "\n")
        save_tokenizer(stock_tokenizer(source.path), folder)
        result = _compare(loaded, inputs, batches, folder)
        sizes = tuple(sum(f.stat().st_size for f in folder.glob(f"{name}*")) for name in (FP32, INT8))
    return OnnxExport(Path(output), inputs, *result, sizes)  # type: ignore[arg-type]


def _model(folder: Path) -> tuple[PreTrainedModel, list[str]]:
    """The model in fp32, with the head that its config names, and the names of its inputs in order."""
    names = read_config(folder).get("architectures") or [""]
    kind = next((kind for kind in _CLASSES if names[0].endswith(kind)), None)
    inputs = ["input_ids", "attention_mask"]
    if kind is None:
        return XLMRobertaModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32).eval(), inputs
    model = _CLASSES[kind].from_pretrained(folder, dtype=torch.float32).eval()
    for name in ("lang", "script"):
        if getattr(model, f"{name}_embeddings", None) is not None:
            inputs.append(f"{name}_ids")
    return model, inputs


def _check_batches(folder: Path, model: PreTrainedModel, inputs: list[str]) -> list[dict[str, Tensor]]:
    """Sentences in fifteen scripts, every token masked in turn: a batch a sentence, and one padded batch."""
    tokenizer = stock_tokenizer(folder)
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
    output = "last_hidden_state" if isinstance(model, XLMRobertaModel) else "logits"
    with _quiet():
        torch.onnx.export(
            _Graph(model, inputs).eval(),
            tuple(example[name] for name in inputs),
            path,
            input_names=inputs,
            output_names=[output],
            dynamic_shapes=(tuple(shapes),),
            dynamo=True,
            external_data=_large(model),
            verbose=False,
        )


def _large(model: nn.Module) -> bool:
    """One ONNX file holds less than 2 GiB; the weights of a larger model go beside it."""
    return sum(p.numel() * p.element_size() for p in model.parameters()) > 1 << 30


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
    model: PreTrainedModel, inputs: list[str], batches: list[dict[str, Tensor]], folder: Path
) -> tuple[float, float, float | None]:
    """Largest differences of both graphs to the model, and how often int8 has the same best piece at a mask."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    fp32, int8 = (onnxruntime.InferenceSession(folder / name, options, providers=providers) for name in (FP32, INT8))
    far, far8, largest = 0.0, 0.0, 0.0
    same: list[bool] = []
    for batch in batches:
        with torch.no_grad():
            reference = model(**batch)[0].numpy()
        exact, small = _run(fp32, batch, inputs), _run(int8, batch, inputs)
        real = batch["attention_mask"].bool().numpy() if reference.ndim == 3 else slice(None)
        far = max(far, float(np.abs(exact - reference)[real].max()))
        far8 = max(far8, float(np.abs(small - reference)[real].max()))
        largest = max(largest, float(np.abs(reference[real]).max()))
        if isinstance(model, LangSAMPForMaskedLM) and batch is not batches[-1]:
            at = np.arange(len(exact)), np.arange(1, len(exact) + 1)
            same += (exact[at].argmax(-1) == small[at].argmax(-1)).tolist()
    if far > TOLERANCE * max(1.0, largest):
        raise RuntimeError(f"the ONNX graph differs from the model by {far:.1e}; report this with your versions.")
    return far, far8, float(np.mean(same)) if same else None


def _run(session: InferenceSession, batch: dict[str, Tensor], inputs: list[str]) -> Any:
    return session.run(None, {name: batch[name].numpy() for name in inputs})[0]
