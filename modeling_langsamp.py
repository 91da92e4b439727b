"""LangSAMP as the delta to an encoder: two tables beside it, added to its output just before the masked-LM head.

    H      = encoder(input_ids)                  XLM-R, ModernBERT, ...: it never sees a language or a script
    o_i    = h_i + E_lang[l] + E_script[s]
    logits = head(o_i)

Source: LangSAMP (Liu et al., ACL 2025), section 3. The tables live on the masked-LM class only, so every other key of a
checkpoint is a stock key and the encoder loads anywhere. What is added stands once, in ``LangSAMPMixin``; a family of
encoders is a line of ``FAMILIES`` that says where its parts are, and its classes are the stock ones with that mixed in.
"""

import copy
import functools
import inspect
from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, PreTrainedModel, XLMRobertaForMaskedLM, XLMRobertaModel
from transformers.modeling_outputs import MaskedLMOutput

from .configuration_langsamp import FAMILIES, TASKS, LangSAMPConfig, as_langsamp, config_class
from .language_codes import parse_tag
from .linear_cross_entropy import linear_cross_entropy, token_losses
from .safe_files import PLACE, check_names

_Stock: Any = object  # a stock class stands behind each of our mix-ins; to mypy it has whatever they ask of it


class _Family(_Stock):
    """What all classes share: one of the checkpoint's family is made, from safetensors (other formats can run code)."""

    _keys_to_ignore_on_load_unexpected: Any = [r"pooler", r"^cls\.seq_relationship"]

    def __new__(cls, config: Any = None, *args: Any, **kwargs: Any) -> Any:
        """A model of the configuration's own family, whichever family's class is called."""
        family = cls if config is None else cls._of(as_langsamp(config))
        return super().__new__(cls) if family is cls else family(config, *args, **kwargs)

    def __init__(self, config: Any, *args: Any, **kwargs: Any):
        super().__init__(as_langsamp(config), *args, **kwargs)

    @classmethod
    def _of(cls, config: Any) -> Any:
        """The same class in the configuration's family."""
        own, family = cls.config_class.family, config.family
        if family == own:
            return cls
        if cls.__module__ != __name__:
            raise ValueError(f"{cls.__name__} is derived from a class for {own.stock}; it cannot be a {family.stock}.")
        return _made(family.ours + cls.__name__.removeprefix(own.ours))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: "str | PathLike | None", *args: Any, **kwargs: Any) -> Any:
        """As in transformers, for a checkpoint of any family.

        Raises:
            FileNotFoundError: a local folder holds no safetensors weights.
            ValueError: a file of the checkpoint names weights that are no plain safetensors beside it, or code; or the
                class is one that somebody derived from another family's.
        """
        if pretrained_model_name_or_path is not None and kwargs.get("state_dict") is None:
            check_names(pretrained_model_name_or_path, **kwargs)
        kwargs["use_safetensors"] = True
        config = kwargs.get("config") or pretrained_model_name_or_path
        if isinstance(config, str | PathLike):
            config = LangSAMPConfig.from_pretrained(config, **{key: kwargs[key] for key in PLACE if key in kwargs})
        else:
            kwargs["config"] = config = as_langsamp(config)
        family: Any = super(_Family, cls._of(config))
        return family.from_pretrained(pretrained_model_name_or_path, *args, **kwargs)


class _Downstream(_Family):
    """What LangSAMP does downstream: exactly what the encoder does. The ids are accepted and ignored."""

    accepts_loss_kwargs = False  # else Trainer takes **kwargs for handling num_items_in_batch and scales a mean loss
    _keys_to_ignore_on_load_unexpected: Any = [r"pooler", r"^(lm_head|cls|head|decoder|(lang|script)_embeddings)\."]

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if cls.__module__ == __name__ and issubclass(cls, PreTrainedModel):  # not what others derive from it
            cls.forward = _ignoring_ids(super().forward)


def _ignoring_ids(stock):
    """The stock forward, and to Trainer, PEFT and pipelines its signature, with two arguments more."""

    @functools.wraps(stock)
    def forward(self, *args, lang_ids=None, script_ids=None, **kwargs):
        """As in the stock class; ``lang_ids`` and ``script_ids`` change nothing (paper: no ids downstream)."""
        return stock(self, *args, **kwargs)

    given = inspect.signature(stock)
    own = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None) for n in ("lang_ids", "script_ids")]
    every = sorted([*given.parameters.values(), *own], key=lambda parameter: parameter.kind)  # **kwargs is the last
    forward.__signature__ = given.replace(parameters=every)  # type: ignore[attr-defined]
    return forward


class _Encoder(_Downstream):
    """An encoder, without the pooler that no masked-LM checkpoint has trained. Pool the hidden states."""

    def __init__(self, config: Any, add_pooling_layer: bool = False):
        pools = "add_pooling_layer" in inspect.signature(super(_Family, self).__init__).parameters
        super().__init__(config, **({"add_pooling_layer": add_pooling_layer} if pools else {}))


class LangSAMPMixin(_Family):
    """A masked LM with a language and a script embedding added to the encoder's output: all that LangSAMP is.

    ``lang_embeddings`` and ``script_embeddings`` have one row for each entry of ``config.languages`` and
    ``config.scripts``; row 0 is "unknown". A table whose list is empty is None (the paper's ablations).

    Its parts have the same names in all families, whose table says where they are: the encoder is ``base_model``, its
    layers are ``encoder_layers``, its word embeddings ``get_input_embeddings()``; the head is ``head_transform``, then
    the decoder, ``get_output_embeddings()``.
    """

    lang_embeddings: Any  # an embedding, or None
    script_embeddings: Any
    accepts_loss_kwargs = True  # the loss is a sum divided by num_items_in_batch: accumulation and ranks change nothing
    summed_loss, row_losses = staticmethod(linear_cross_entropy), staticmethod(token_losses)  # or train/fast's, equal
    check_ids = True  # against the tables; a GPU waits for it, so that a run whose collator has looked switches it off

    def __init__(self, config: Any):
        super().__init__(config)
        for name, rows in (("lang", self.config.languages), ("script", self.config.scripts)):
            setattr(self, f"{name}_embeddings", nn.Embedding(len(rows), config.hidden_size) if rows else None)
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
        masked_positions: "Tensor | None" = None,
        return_dict: "bool | None" = None,
        **kwargs: Any,
    ) -> "MaskedLMOutput | tuple":
        """Masked-LM logits, or with ``labels`` the loss.

        Args:
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds: as in the stock class.
            labels: (batch, length) int64, -100 where nothing is predicted. The head then runs on the labelled positions
                only and no logits are returned.
            lang_ids, script_ids: (batch,) one id a sequence, or (batch, length) one a token for code-switched text;
                None is "unknown" (row 0).
            num_items_in_batch: labelled tokens over all accumulated batches and ranks (Trainer gives it); the summed
                loss is divided by it. None: by the labelled tokens of this batch.
            masked_positions: (N,) int64, where the labelled tokens are, counted through the whole batch (row * length +
                column), in any order, filled up with -1 to whatever N. With it a GPU need not be asked how many there
                are. None: they are looked for in ``labels``.

        Returns:
            ``MaskedLMOutput`` (a tuple if ``return_dict=False``) with ``logits`` (batch, length, vocab) or with
            ``loss`` (0, with a gradient, where no position is labelled).

        Raises:
            ValueError: ids of another shape or type. IndexError: an id outside the table.
        """
        if token_type_ids is not None:
            kwargs["token_type_ids"] = token_type_ids  # not every family has them
        outputs = self.base_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            return_dict=True,
            **kwargs,
        )
        hidden, loss, logits = outputs.last_hidden_state, None, None  # hidden: (batch, length, hidden)
        if labels is None:
            logits = self.get_output_embeddings()(self.head_transform(self._add_rows(hidden, lang_ids, script_ids)))
        else:
            loss = self._loss(hidden, labels, lang_ids, script_ids, num_items_in_batch, masked_positions)
        output = MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
        return_dict = getattr(self.config, "return_dict", True) if return_dict is None else return_dict
        return output if return_dict else output.to_tuple()

    @property
    def encoder_layers(self) -> nn.ModuleList:
        """The encoder's layers."""
        return self.base_model.get_submodule(self.config.family.layers)

    @property
    def head_dense(self) -> nn.Linear:
        """The first linear layer of the head, which sees the rows and can take them into its bias."""
        return self.get_submodule(self.config.family.dense)

    def head_transform(self, features: Tensor) -> Tensor:
        """The head up to its decoder: (*, hidden) -> (*, hidden)."""
        for part in self.config.family.head:
            features = nn.functional.gelu(features) if part == "gelu" else self.get_submodule(part)(features)
        return features

    def token_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Masked-LM losses (N,) in nats of hidden states (N, hidden) with their rows added, for measuring."""
        decoder = self.get_output_embeddings()
        return self.row_losses(self.head_transform(hidden), decoder.weight, decoder.bias, targets)

    def _add_rows(self, hidden, lang_ids, script_ids, where=None):
        """Add the rows of the two tables: to all of hidden, or to the tokens ``where`` (flat positions) only."""
        out = hidden if where is None else hidden.flatten(0, 1).index_select(0, where)
        for name, ids in (("lang", lang_ids), ("script", script_ids)):
            table = getattr(self, f"{name}_embeddings")
            if table is not None:
                ids = _ids(ids, hidden, len(table.weight) if self.check_ids else None, f"{name}_ids")
                ids = ids if where is None else ids.expand(hidden.shape[:2]).flatten()[where]
                out = out + table(ids).to(out.device)
        return out

    def _loss(self, hidden, labels, lang_ids, script_ids, num_items, positions):
        """Mean cross entropy over the labelled positions, the head run on those only."""
        labels = labels.to(hidden.device).flatten()
        given = (labels != -100).nonzero().squeeze(1) if positions is None else positions.to(hidden.device)
        where = given.clamp(min=0)
        targets = labels[where].where(given >= 0, -100)  # what fills up has no label
        features = self.head_transform(self._add_rows(hidden, lang_ids, script_ids, where))  # (labelled, hidden)
        decoder = self.get_output_embeddings()
        linear = isinstance(decoder, nn.Linear) and decoder.weight.is_floating_point()
        if linear and not hasattr(decoder, "_hf_hook"):  # its weight is what it computes with
            bias = decoder.weight.new_zeros(len(decoder.weight)) if decoder.bias is None else decoder.bias
            total = self.summed_loss(features, decoder.weight, bias, targets)
        else:  # quantised, offloaded, or wrapped by an adapter
            logits = decoder(features).float()
            total = nn.functional.cross_entropy(logits, targets.to(logits.device), reduction="sum")
        count = (targets >= 0).sum() if num_items is None else num_items
        return total / torch.as_tensor(count, device=total.device).reshape(-1)[0].clamp(min=1)

    @torch.no_grad()
    def fold_unknown(self) -> None:
        """Move the unknown rows into the head: same function, but now the stock head IS "language unknown".

        ``dense(h + e) = dense(h) + W e``, so the bias takes ``W e`` and every row gives ``e`` away; row 0 becomes zero.
        """
        dense = self.head_dense
        for table in filter(None, (self.lang_embeddings, self.script_embeddings)):
            dense.bias.add_(dense.weight @ table.weight[0].to(dense.weight.device))
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
        for part, table, kind in self._tables():
            weights = torch.zeros(len(table.weight), device=table.weight.device)  # fp32: token counts overflow fp16
            weights[1:] = float(policy == "mean")
            for pair, weight in pairs:
                weights[self.config.row(kind, pair[part])] += weight
            if not isinstance(policy, str) and not weights.sum() > 0:
                raise ValueError("the weights of the unknown rows must sum to a positive number.")
            rows.append(weights @ table.weight.float() / weights.sum().clamp(min=1e-12))
        for (_, table, _), row in zip(self._tables(), rows):  # only now: an error leaves both tables as they were
            table.weight[0] = row

    @torch.no_grad()
    def specialize(self, language: str, script: "str | None" = None) -> PreTrainedModel:
        """A stock masked LM that predicts as LangSAMP does for one language: its rows are folded into the head.

        Args:
            language: ``"deu_Latn"``, or ``"deu"`` with ``script="Latn"``; a script that is not given is unknown.

        Raises:
            ValueError: no row for the language or the script; the nearest are named.
        """
        code, tag_script = parse_tag(language)
        pair = (code, script or tag_script)
        folded = copy.deepcopy(self)
        for part, table, kind in folded._tables():
            row = table.weight[self.config.row(kind, pair[part]) if pair[part] else 0]
            folded.head_dense.bias.add_(folded.head_dense.weight @ row.to(folded.head_dense.weight.device))
        model = AutoModelForMaskedLM.from_config(self.config.stock())
        model.load_state_dict({k: v for k, v in folded.state_dict().items() if not k.startswith(("lang_", "script_"))})
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
        source = self.config.row("languages", parse_tag(like)[0]) if like else 0
        self.lang_embeddings = _grown(self.lang_embeddings, source)
        self.config.languages = [*self.config.languages, language]
        if script and self.script_embeddings is not None and script not in self.config.scripts:
            self.script_embeddings = _grown(self.script_embeddings, 0)
            self.config.scripts = [*self.config.scripts, script]
        return len(self.config.languages) - 1

    def _tables(self):
        """The tables there are: (0 for languages or 1 for scripts, the table, what its rows are)."""
        both = ((0, self.lang_embeddings, "languages"), (1, self.script_embeddings, "scripts"))
        return [entry for entry in both if entry[1] is not None]


def _grown(table, source):
    """A copy of the table with one more row, itself a copy of row ``source``."""
    old = table.weight
    grown = nn.Embedding(len(old) + 1, table.embedding_dim, device=old.device, dtype=old.dtype)
    grown.weight.copy_(torch.cat([old, old[source : source + 1]]))
    grown.weight.requires_grad_(old.requires_grad)
    return grown


def _ids(ids, hidden, rows, name):
    """Ids as (batch, 1) or (batch, length), inside the table of ``rows`` rows if given; None is the unknown row."""
    batch, length = hidden.shape[:2]
    if ids is None:
        return torch.zeros(batch, 1, dtype=torch.long, device=hidden.device)
    if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.dtype == torch.bool:
        raise ValueError(f"{name} must be a tensor of integers.")
    if tuple(ids.shape) not in ((batch,), (batch, 1), (batch, length)):
        raise ValueError(f"{name} has shape {tuple(ids.shape)}; it must be ({batch},) or ({batch}, {length}).")
    ids = ids.to(hidden.device).long()
    ids = ids[:, None] if ids.dim() == 1 else ids
    if rows is not None and ids.numel() and not torch.compiler.is_compiling():  # a lookup would be a device assert
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= rows:
            raise IndexError(f"{name} holds {low if low < 0 else high}, but the table has rows 0 to {rows - 1}.")
    return ids


class LangSAMPModel(_Encoder, XLMRobertaModel):
    """The encoder: XLM-R, without the pooler that no masked-LM checkpoint has trained. Pool the hidden states."""

    config_class = LangSAMPConfig


class LangSAMPForMaskedLM(LangSAMPMixin, XLMRobertaForMaskedLM):
    """LangSAMP on XLM-R; ``from_pretrained`` gives the class of whatever family the checkpoint is of."""

    config_class = LangSAMPConfig


@functools.cache
def _made(name):
    """One of our classes, made when it is first asked for: ``LangSAMPModernBertForMaskedLM`` and its like (PEP 562)."""
    if name in globals():
        return globals()[name]
    for model_type, family in FAMILIES.items():
        task = name.removeprefix(family.ours)
        if task not in ("Model", *(f"For{task}" for task in TASKS)):
            continue
        config, stock = config_class(model_type), getattr(transformers, family.stock + task, None)
        if stock is None:
            raise ValueError(f"transformers {transformers.__version__} has no {family.stock}{task}.")
        ours = {"Model": _Encoder, "ForMaskedLM": LangSAMPMixin}.get(task, _Downstream)
        made: Any = type(name, (ours, stock), {"config_class": config, "__module__": __name__, "__doc__": ours.__doc__})
        made.register_for_auto_class("AutoModel" + task.removeprefix("Model"))
        return made
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__getattr__ = _made
LangSAMPModel.register_for_auto_class("AutoModel")
LangSAMPForMaskedLM.register_for_auto_class("AutoModelForMaskedLM")
