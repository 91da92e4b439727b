"""LangSAMP as the delta to XLM-R: two tables beside the encoder, added to its output just before the masked-LM head.

    H      = XLM-R(input_ids)                    the encoder never sees a language or a script
    o_i    = h_i + E_lang[l] + E_script[s]
    logits = lm_head(o_i)

Source: LangSAMP (Liu et al., ACL 2025), section 3. The tables live on the masked-LM class only, so every other key of a
checkpoint is a stock XLM-R key and the encoder loads anywhere.
"""

import copy
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
    XLMRobertaForSequenceClassification,
    XLMRobertaForTokenClassification,
    XLMRobertaModel,
)
from transformers.modeling_outputs import MaskedLMOutput

from .configuration_langsamp import LangSAMPConfig
from .language_codes import nearest, parse_tag

LOGITS_AT_ONCE = 2**26  # elements of the one logits buffer of the loss: 256 MiB in fp32, whatever batch and vocabulary


class LinearCrossEntropy(torch.autograd.Function):
    """Summed cross entropy of ``features @ weight.T + bias``, a slice of rows at a time.

    All logits at a large vocabulary need gigabytes, several times over; here one slice exists at once and turns in
    place from logits into probabilities into their gradient. Gradients are made in the forward pass, nothing twice.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, rows: int, with_grad: bool
    ) -> Tensor:
        """Features (N, hidden), weight (vocab, hidden), bias (vocab), targets (N,) -> the summed loss, a scalar."""
        device_type = features.device.type
        dtype = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else weight.dtype
        with torch.autocast(device_type, enabled=False):
            total, grads = _slices(features.to(dtype), weight.to(dtype), bias, targets, rows, with_grad)
        if with_grad:
            ctx.save_for_backward(grads[0].to(features.dtype), grads[1].to(weight.dtype), grads[2].to(bias.dtype))
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        """Scale what the forward pass has made."""
        features, weight, bias = ctx.saved_tensors
        return features * grad_output, weight.mul_(grad_output), bias * grad_output, None, None, None


def _slices(features, weight, bias, targets, rows, with_grad):
    """The loss over all slices and, if asked for, the gradients of features, weight (fp32) and bias (fp32)."""
    total = torch.zeros((), dtype=torch.float32, device=features.device)
    if with_grad:
        d_features = torch.empty_like(features)
        d_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
        d_bias = torch.zeros(bias.shape, dtype=torch.float32, device=bias.device)
    for start in range(0, len(targets), rows):
        x, y = features[start : start + rows], targets[start : start + rows]
        logits = torch.mm(x, weight.t()).float().add_(bias)
        logits.sub_(logits.amax(dim=1, keepdim=True))
        at_target = logits.gather(1, y[:, None])
        norm = logits.exp_().sum(dim=1, keepdim=True)
        total += (norm.log() - at_target).sum()
        if with_grad:
            d_logits = logits.div_(norm).scatter_add_(1, y[:, None], torch.full_like(at_target, -1.0))
            d_bias += d_logits.sum(dim=0)
            d_logits = d_logits.to(x.dtype)
            torch.mm(d_logits, weight, out=d_features[start : start + rows])
            if x.dtype == torch.float32:
                d_weight.addmm_(d_logits.t(), x)
            else:
                d_weight += torch.mm(d_logits.t(), x)
    return total, (d_features, d_weight, d_bias) if with_grad else None


def linear_cross_entropy(features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, rows: int = 0) -> Tensor:
    """Summed cross entropy of a linear layer, never holding more than ``rows`` rows of logits.

    Args:
        features: (N, hidden). N may be 0: the loss is 0 and has zero gradients.
        weight: (vocab, hidden); bias: (vocab); targets: (N,) int64, every one a valid class.
        rows: rows of logits at once; 0 chooses ``LOGITS_AT_ONCE`` elements.

    Returns:
        The sum over the N rows in nats, fp32; value and gradients equal those of ``F.cross_entropy``.
    """
    with_grad = torch.is_grad_enabled() and any(t.requires_grad for t in (features, weight, bias))
    rows = rows or max(1, LOGITS_AT_ONCE // weight.shape[0])
    return LinearCrossEntropy.apply(features, weight, bias, targets, rows, with_grad)


class _FromSafetensors:
    """Load from safetensors only: other formats can run code."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: "str | PathLike | None", *args: Any, **kwargs: Any) -> Any:
        """As in transformers.

        Raises:
            FileNotFoundError: a local folder holds no safetensors weights.
        """
        folder = Path(str(pretrained_model_name_or_path or ""), kwargs.get("subfolder") or "")
        if folder.is_dir() and not kwargs.get("state_dict") and not any(folder.glob("*.safetensors")):
            others = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in folder.glob(pattern))
            found = f"only {', '.join(others)}, which can run code when loaded" if others else "no weights at all"
            raise FileNotFoundError(f"{folder} holds {found}; a model.safetensors is needed.")
        kwargs.setdefault("use_safetensors", True)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)  # type: ignore[misc]


class _Downstream(_FromSafetensors):
    """What LangSAMP does downstream: exactly what XLM-R does. The ids are accepted and ignored."""

    accepts_loss_kwargs = False  # else Trainer takes **kwargs for handling num_items_in_batch and scales a mean loss
    _keys_to_ignore_on_load_unexpected: Any = [r"lm_head", r"pooler", r"lang_embeddings", r"script_embeddings"]

    def forward(
        self,
        input_ids: "Tensor | None" = None,
        attention_mask: "Tensor | None" = None,
        lang_ids: "Tensor | None" = None,
        script_ids: "Tensor | None" = None,
        **kwargs: Any,
    ) -> Any:
        """As in XLM-R; ``lang_ids`` and ``script_ids`` change nothing (paper: the encoder is used without them)."""
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)  # type: ignore[misc]


class LangSAMPModel(_Downstream, XLMRobertaModel):
    """The encoder: XLM-R, without the pooler that no masked-LM checkpoint has trained. Pool the hidden states."""

    config_class = LangSAMPConfig

    def __init__(self, config: LangSAMPConfig, add_pooling_layer: bool = False):
        super().__init__(config, add_pooling_layer=add_pooling_layer)


class LangSAMPForSequenceClassification(_Downstream, XLMRobertaForSequenceClassification):
    """Sentence classification on the encoder; needs no ids."""

    config_class = LangSAMPConfig


class LangSAMPForTokenClassification(_Downstream, XLMRobertaForTokenClassification):
    """Tagging on the encoder; needs no ids."""

    config_class = LangSAMPConfig


class LangSAMPForMaskedLM(_FromSafetensors, XLMRobertaForMaskedLM):
    """XLM-R's masked LM with a language and a script embedding added to the encoder's output.

    ``lang_embeddings`` and ``script_embeddings`` have one row for each entry of ``config.languages`` and
    ``config.scripts``; row 0 is "unknown". A table whose list is empty is None (the paper's ablations).
    """

    config_class = LangSAMPConfig
    accepts_loss_kwargs = True  # the loss is a sum divided by num_items_in_batch: accumulation and ranks change nothing
    summed_loss = staticmethod(linear_cross_entropy)  # training may put a faster equal one here (train/fast/cpu.py)
    _keys_to_ignore_on_load_unexpected = [r"pooler"]

    def __init__(self, config: LangSAMPConfig):
        super().__init__(config)
        self.lang_embeddings = _table(config.languages, config.hidden_size)
        self.script_embeddings = _table(config.scripts, config.hidden_size)
        self.post_init()

    def _init_weights(self, module):
        tables = [getattr(self, name, None) for name in ("lang_embeddings", "script_embeddings")]
        if module is not None and module in tables:
            nn.init.normal_(module.weight, std=self.config.table_initializer_range)  # torch.nn.init: see transformers 5
        else:
            super()._init_weights(module)

    def forward(
        self,
        input_ids: "Tensor | None" = None,
        attention_mask: "Tensor | None" = None,
        token_type_ids: "Tensor | None" = None,
        position_ids: "Tensor | None" = None,
        inputs_embeds: "Tensor | None" = None,
        labels: "Tensor | None" = None,
        lang_ids: "Tensor | None" = None,
        script_ids: "Tensor | None" = None,
        num_items_in_batch: "Tensor | int | None" = None,
        return_dict: "bool | None" = None,
        **kwargs: Any,
    ) -> "MaskedLMOutput | tuple":
        """Masked-LM logits, or with ``labels`` the loss.

        Args:
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds: as in XLM-R.
            labels: (batch, length) int64, -100 where nothing is predicted. The head then runs on the labelled positions
                only and no logits are returned.
            lang_ids, script_ids: (batch,) one id a sequence, or (batch, length) one a token for code-switched text;
                None is "unknown" (row 0).
            num_items_in_batch: labelled tokens over all accumulated batches and ranks (Trainer gives it); the summed
                loss is divided by it. None: by the labelled tokens of this batch.

        Returns:
            ``MaskedLMOutput`` (a tuple if ``return_dict=False``) with ``logits`` (batch, length, vocab) or with
            ``loss`` (0, with a gradient, where no position is labelled).

        Raises:
            ValueError: ids of another shape or type. IndexError: an id outside the table.
        """
        outputs = self.roberta(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            return_dict=True,
            **kwargs,
        )
        hidden = outputs.last_hidden_state  # (batch, length, hidden)
        loss = logits = None
        if labels is None:
            logits = self.lm_head(self._add_rows(hidden, lang_ids, script_ids))
        else:
            loss = self._loss(hidden, labels.to(hidden.device), lang_ids, script_ids, num_items_in_batch)
        output = MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
        return_dict = getattr(self.config, "return_dict", True) if return_dict is None else return_dict
        return output if return_dict else output.to_tuple()

    def _add_rows(self, hidden, lang_ids, script_ids, where=None):
        """Add the rows of the two tables: to all of hidden, or to its positions ``where`` (a mask) only."""
        out = hidden if where is None else hidden[where]
        for name, ids in (("lang", lang_ids), ("script", script_ids)):
            table = getattr(self, f"{name}_embeddings")
            if table is not None:
                ids = _checked_ids(ids, hidden, len(table.weight), f"{name}_ids")
                out = out + table(ids if where is None else ids.expand(hidden.shape[:2])[where])
        return out

    def _loss(self, hidden, labels, lang_ids, script_ids, num_items):
        """Mean cross entropy over the labelled positions, the head run on those only."""
        where = labels != -100
        head = self.lm_head
        features = self._add_rows(hidden, lang_ids, script_ids, where)  # (labelled, hidden)
        features = head.layer_norm(nn.functional.gelu(head.dense(features)))
        total = self.summed_loss(features, head.decoder.weight, head.decoder.bias, labels[where])
        if num_items is None:
            return total / max(1, len(features))
        return total / torch.as_tensor(num_items, device=total.device).reshape(-1)[0].clamp(min=1)

    @torch.no_grad()
    def fold_unknown(self) -> None:
        """Move the unknown rows into the head: same function, but now the stock XLM-R head IS "language unknown".

        ``dense(h + e) = dense(h) + W e``, so the bias takes ``W e`` and every row gives ``e`` away; row 0 becomes zero.
        """
        dense = self.lm_head.dense
        for table in filter(None, (self.lang_embeddings, self.script_embeddings)):
            dense.bias += dense.weight @ table.weight[0]
            table.weight -= table.weight[0].clone()

    @torch.no_grad()
    def set_unknown(self, policy: "str | Mapping[str, float]") -> None:
        """Decide what "unknown" adds: nothing, or the mean of the known rows.

        Args:
            policy: ``"zero"``; ``"mean"`` of all rows; or the mean weighted by tokens, ``{"deu_Latn": 1200, ...}``.

        Raises:
            ValueError: another policy, a language without a row, or weights that do not sum to a positive number.
        """
        if isinstance(policy, str) and policy not in ("zero", "mean"):
            raise ValueError(f"the unknown rows can be 'zero', 'mean' or weights by language, not {policy!r}.")
        pairs = [] if isinstance(policy, str) else [(parse_tag(tag), float(w)) for tag, w in policy.items()]
        rows = []
        for part, table, names in self._tables():
            weights = torch.zeros(len(names), device=table.weight.device)  # fp32: token counts overflow fp16
            weights[1:] = float(policy == "mean")
            for pair, weight in pairs:
                weights[_row(pair[part], names)] += weight
            if not isinstance(policy, str) and not weights.sum() > 0:
                raise ValueError("the weights of the unknown rows must sum to a positive number.")
            rows.append(weights @ table.weight.float() / weights.sum().clamp(min=1e-12))
        for (_, table, _), row in zip(self._tables(), rows):  # only now: an error leaves both tables as they were
            table.weight[0] = row

    @torch.no_grad()
    def specialize(self, language: str, script: "str | None" = None) -> XLMRobertaForMaskedLM:
        """A stock XLM-R masked LM that predicts as LangSAMP does for one language: its rows are folded into the head.

        Args:
            language: ``"deu_Latn"``, or ``"deu"`` with ``script="Latn"``; a script that is not given is unknown.

        Raises:
            ValueError: no row for the language or the script; the nearest are named.
        """
        code, tag_script = parse_tag(language)
        pair = (code, script or tag_script)
        folded = copy.deepcopy(self)
        for part, table, names in folded._tables():
            row = table.weight[_row(pair[part], names) if pair[part] else 0]
            folded.lm_head.dense.bias += folded.lm_head.dense.weight @ row
        stock = self.config.to_dict()
        for key in ("auto_map", "languages", "scripts", "table_initializer_range", "architectures"):
            stock.pop(key, None)
        model = XLMRobertaForMaskedLM(XLMRobertaConfig(**stock))
        state = {k: v for k, v in folded.state_dict().items() if not k.startswith(("lang_", "script_"))}
        model.load_state_dict(state)
        torch.nn.Module.to(model, dtype=self.dtype, device=self.device)
        return model.eval()

    @torch.no_grad()
    def add_language(self, code: str, like: "str | None" = None) -> int:
        """Add a row for a language; every old row stays as it is, bit for bit.

        Args:
            code: ``"xyz"`` or ``"xyz_Latn"``; a script without a row gets one too (a copy of the unknown row).
            like: the language to start from; None starts as "unknown". Tell the tokenizer too: ``tok.languages =
                model.config.languages``.

        Returns:
            The id of the new row.

        Raises:
            ValueError: the language has a row already, ``like`` has none, or the model has no language table.
        """
        language, script = parse_tag(code)
        if self.lang_embeddings is None:
            raise ValueError(f"{code!r} cannot be added: this model has no language table.")
        if language in self.config.languages:
            raise ValueError(f"{language!r} has row {self.config.languages.index(language)} already.")
        source = _row(parse_tag(like)[0], self.config.languages) if like else 0
        self.lang_embeddings = _grown(self.lang_embeddings, source)
        self.config.languages = [*self.config.languages, language]
        if script and self.script_embeddings is not None and script not in self.config.scripts:
            self.script_embeddings = _grown(self.script_embeddings, 0)
            self.config.scripts = [*self.config.scripts, script]
        return len(self.config.languages) - 1

    def _tables(self):
        """The tables there are: (0 for languages or 1 for scripts, the table, the names of its rows)."""
        both = ((0, self.lang_embeddings, self.config.languages), (1, self.script_embeddings, self.config.scripts))
        return [entry for entry in both if entry[1] is not None]


def _table(rows, hidden_size):
    """An embedding for the rows, or None without any."""
    return nn.Embedding(len(rows), hidden_size) if rows else None


def _row(name, names):
    """The id of a name, or an error with the nearest ones."""
    if name not in names:
        raise ValueError(f"{name!r} has no row in this model; nearest: {', '.join(nearest(name or '', names))}.")
    return names.index(name)


def _grown(table, source):
    """A copy of the table with one more row, itself a copy of row ``source``."""
    old = table.weight
    grown = nn.Embedding(len(old) + 1, table.embedding_dim, device=old.device, dtype=old.dtype)
    grown.weight.copy_(torch.cat([old, old[source : source + 1]]))
    grown.weight.requires_grad_(old.requires_grad)
    return grown


def _checked_ids(ids, hidden, rows, name):
    """Ids as (batch, 1) or (batch, length), all inside the table; None is the unknown row."""
    batch, length = hidden.shape[:2]
    if ids is None:
        return torch.zeros(batch, 1, dtype=torch.long, device=hidden.device)
    if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.dtype == torch.bool:
        raise ValueError(f"{name} must be a tensor of integers.")
    if tuple(ids.shape) not in ((batch,), (batch, 1), (batch, length)):
        raise ValueError(f"{name} has shape {tuple(ids.shape)}; it must be ({batch},) or ({batch}, {length}).")
    ids = ids.to(hidden.device).long()
    ids = ids[:, None] if ids.dim() == 1 else ids
    if not torch.compiler.is_compiling() and ids.numel():  # before the lookup: on a GPU it would be a device assert
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= rows:
            raise IndexError(f"{name} holds {low if low < 0 else high}, but the table has rows 0 to {rows - 1}.")
    return ids


LangSAMPModel.register_for_auto_class("AutoModel")
LangSAMPForMaskedLM.register_for_auto_class("AutoModelForMaskedLM")
LangSAMPForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
LangSAMPForTokenClassification.register_for_auto_class("AutoModelForTokenClassification")
