"""What a pretraining run is told: its own settings, the Trainer's, and recipes that hold both (``recipes/*.yaml``).

Read by :mod:`langsamp.train.pretrain`; the command line is one more way to fill the same two dataclasses.
"""

from __future__ import annotations

import argparse
import copy
import os
import re
import reprlib
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments

from langsamp.core.language.languages import parse_same_as
from langsamp.core.model.masking import SHARE
from langsamp.core.plain import one_line
from langsamp.language_codes import nearest
from langsamp.train import processes
from langsamp.train.batches.sampling import Sampling, glot500
from langsamp.train.saves.resume import IDENTITY

# The unknown rows after training: with language dropout they were trained and stay; without it they are still what they
# started as, so they are fitted to text, beginning with the mean of the rows, weighted by the tokens of each language.
UNKNOWN = ("zero", "mean", "fitted", "keep")
UNKNOWN_WITHOUT_DROPOUT, UNKNOWN_WITH_DROPOUT = "fitted", "keep"


@dataclass
class PretrainSettings:
    """A continual pretraining run; everything else is in ``transformers.TrainingArguments``."""

    output: str = field(metadata={"help": "folder for checkpoints, logs and the final model"})
    base: str | None = field(default=None, metadata={"help": "model to start from: folder or Hub id (repo@revision)"})
    store: str | None = field(default=None, metadata={"help": "folder made by langsamp prepare"})
    tokenizer: str | None = field(default=None, metadata={"help": "another vocabulary than the base's own"})
    alpha: float = field(default=0.3, metadata={"help": "languages are drawn with p ~ blocks^alpha"})
    alpha_schedule: list[str] = field(
        default_factory=list, metadata={"help": "later values of alpha as STEP:ALPHA, like 10000:0.5 20000:0.3"}
    )
    glot500_sampling: bool = field(
        default=False,
        metadata={"help": "languages XLM-R knows get the weight of the smallest other (Glot500's sample)"},
    )
    min_share: float = field(default=0.0, metadata={"help": "lower bound of every language's share"})
    max_share: float = field(default=1.0, metadata={"help": "upper bound of every language's share"})
    max_epochs: float | None = field(
        default=None, metadata={"help": "upper bound on how many times a language's blocks come in the whole run"}
    )
    lang: bool = field(default=True, metadata={"help": "a table of language embeddings"})
    script: bool = field(default=True, metadata={"help": "a table of script embeddings"})
    same_as: list[str] = field(
        default_factory=list,
        metadata={"help": "train the row of another code for a language of the store, like swh=swa"},
    )
    mlm_probability: float = field(default=SHARE, metadata={"help": "share of tokens to predict"})
    lang_dropout: float = field(
        default=0.0,
        metadata={"help": "share of blocks trained as language and script unknown; trains the unknown rows"},
    )
    lang_dropout_from: float = field(
        default=0.0,
        metadata={"help": "language dropout only after this share of the steps, like 0.8; the table learns first"},
    )
    table_lr: float | None = field(default=None, metadata={"help": "learning rate of the two tables; default the same"})
    table_init: float = field(
        default=0.0,
        metadata={"help": "standard deviation of new table rows (paper 0.02; 0 starts at the base's logits)"},
    )
    new_rows: str = field(
        default="mean",
        metadata={"help": "new pieces start as the mean of their old pieces or random", "choices": ["mean", "random"]},
    )
    unknown: str | None = field(
        default=None,
        metadata={
            "help": "the unknown rows after training: zero, token-weighted mean of the rows, fitted to text with "
            f"everything else frozen, or keep as trained (default {UNKNOWN_WITHOUT_DROPOUT}, with language dropout "
            f"{UNKNOWN_WITH_DROPOUT})",
            "choices": list(UNKNOWN),
        },
    )
    heldout_blocks: int = field(default=4, metadata={"help": "held-out blocks a language in each evaluation"})
    resume: str = field(
        default="auto",
        metadata={
            "help": "auto (last good checkpoint of the output folder, if any), never, a folder, or repo@revision"
        },
    )
    allow_changed: list[str] = field(
        default_factory=list,
        metadata={"help": f"resume although these differ: {' '.join(IDENTITY)}"},
    )
    hub_every: int = field(
        default=1, metadata={"help": "push every N-th save (with --push_to_hub --hub_model_id REPO)"}
    )
    fast: bool = field(
        default=True,
        metadata={"help": "the fastest step that equals the stock one up to rounding, on a CPU or a GPU"},
    )

    def __post_init__(self) -> None:
        """Check what the type cannot say.

        Raises:
            ValueError: a value that makes no sense; its setting is named.
        """
        for name in ("mlm_probability", "lang_dropout", "lang_dropout_from"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, not {getattr(self, name)}.")
        parse_same_as(self.same_as)
        if self.new_rows not in ("mean", "random"):
            raise ValueError(f"new_rows must be 'mean' or 'random', not {self.new_rows!r}.")
        if self.unknown not in (None, *UNKNOWN):
            raise ValueError(f"unknown must be {', '.join(UNKNOWN[:-1])} or {UNKNOWN[-1]}, not {self.unknown!r}.")
        if self.hub_every < 1:
            raise ValueError(f"hub_every must be 1 or more, not {self.hub_every}.")
        self.allow_changed = [name.replace("-", "_") for name in self.allow_changed or []]
        unknown = sorted(set(self.allow_changed) - set(IDENTITY))
        if unknown:
            raise ValueError(f"allow_changed knows {', '.join(IDENTITY)}, not {unknown[0]!r}.")

    def sampling(self, languages: list[str], batch: int, steps: int) -> Sampling:
        """How languages share the draws of a run of ``steps`` steps with ``batch`` blocks each.

        Raises:
            ValueError: a malformed ``alpha_schedule``, or bounds that make no sense.
        """
        schedule = []
        for entry in self.alpha_schedule or []:
            step, _, alpha = str(entry).partition(":")
            if not (step.isdigit() and re.fullmatch(r"\d+(\.\d+)?", alpha)):
                raise ValueError(f"alpha_schedule has {entry!r}; write STEP:ALPHA, like 10000:0.5.")
            schedule.append((int(step) * batch, float(alpha)))
        flat = glot500(languages).flat if self.glot500_sampling else ()
        total = None if self.max_epochs is None else steps * batch
        return Sampling(self.alpha, tuple(schedule), self.min_share, self.max_share, flat, self.max_epochs, total)

    @property
    def unknown_policy(self) -> str:
        """What to do with the unknown rows at the end."""
        return self.unknown or (UNKNOWN_WITH_DROPOUT if self.lang_dropout > 0 else UNKNOWN_WITHOUT_DROPOUT)


# What a run needs from the Trainer whatever the user says; each would break the stream or the checkpoints.
FIXED: dict[str, Any] = {
    "remove_unused_columns": False,  # the collator reads index and language
    "logging_nan_inf_filter": False,  # a non-finite loss stops the run, it is not papered over
    "ddp_find_unused_parameters": False,
    "dataloader_drop_last": False,
}
DEFAULTS: dict[str, Any] = {
    "report_to": "none",
    "save_steps": 500,
    "logging_steps": 10,
    "dataloader_pin_memory": torch.cuda.is_available(),
    **({"accelerator_config": {"non_blocking": True}} if torch.cuda.is_available() else {}),  # batches are pinned
}


def training_arguments(
    output: str | os.PathLike[str], given: Mapping[str, Any] | TrainingArguments
) -> TrainingArguments:
    """TrainingArguments for a run: what is given, our defaults for the rest, and what the stream needs.

    Raises:
        ValueError: an unknown name (the nearest one is named), or a launcher whose processes would not train as one.
    """
    if isinstance(given, TrainingArguments):
        args = copy.copy(given)  # a run changes some of them; the caller may use the object again
        for name, value in FIXED.items():
            setattr(args, name, value)
        args.output_dir = os.fspath(output)
    else:
        check_names(given, [f.name for f in fields(TrainingArguments)], "TrainingArguments")
        own = {**DEFAULTS, "per_device_eval_batch_size": given.get("per_device_train_batch_size", 8)}
        if processes.launched() > 1 and not torch.accelerator.is_available():
            own["use_cpu"] = True  # else accelerate leaves the processes alone, each with a run of its own
        processes.meet(given.get("ddp_timeout", 1800))
        args = TrainingArguments(**{**own, **given, **FIXED, "output_dir": os.fspath(output)})
    sharding: Any = args.fsdp_config or {}
    if args.fsdp and "version" in sharding:
        os.environ["FSDP_VERSION"] = str(sharding["version"])  # transformers 4 does not tell accelerate
    processes.check(args)
    return args


def known_settings() -> set[str]:
    """The names of all settings, ours and the Trainer's."""
    return {f.name for f in fields(PretrainSettings)} | {f.name for f in fields(TrainingArguments)}


def check_names(given: Mapping[str, Any], known: list[str], where: str) -> None:
    """Refuse unknown names.

    Raises:
        ValueError: the first unknown name and the nearest known ones.
    """
    for name in given:
        if name not in known:
            raise ValueError(f"{where}: there is no setting {name!r}; nearest: {', '.join(nearest(str(name), known))}.")


def split(values: Mapping[str, Any], where: str) -> tuple[PretrainSettings, dict[str, Any]]:
    """Settings of both kinds, as a recipe or the command line mixes them, apart.

    Returns:
        Our settings, and a mapping for :func:`training_arguments`.

    Raises:
        ValueError: an unknown name, or no ``output``.
    """
    own = [f.name for f in fields(PretrainSettings)]
    values = {name.replace("-", "_"): value for name, value in values.items()}
    if "output_dir" in values:
        values.setdefault("output", values.pop("output_dir"))
    check_names(values, sorted(known_settings()), where)
    if values.get("resume_from_checkpoint"):
        raise ValueError(
            f"{where} gives resume_from_checkpoint; here it is --resume (auto, never, a folder or REPO@REV)."
        )
    if not values.get("output"):
        raise ValueError(f"{where} names no output folder; give --output DIR.")
    mine = {name: value for name, value in values.items() if name in own}
    return PretrainSettings(**mine), {name: value for name, value in values.items() if name not in own}


class _Loader(yaml.SafeLoader):
    """YAML in which 5e-5 is a number (YAML 1.1 reads it as text), keys are plain names and none comes twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value if isinstance(key, yaml.ScalarNode) else None for key, _ in node.value]
        for i, (name, (key, _)) in enumerate(zip(names, node.value)):
            if name is None or key.tag == "tag:yaml.org,2002:merge":  # built naively, nested ones take for ever
                raise ValueError(f"a key is not a plain name{key.start_mark}")
            if name in names[:i]:
                raise ValueError(f"{name!r} is given twice{key.start_mark}")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"), list("-+.0123456789")
)


def read_recipe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A recipe: a flat YAML mapping of settings, names and values as on the command line.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a mapping, a name twice, a name that is no setting (the nearest are named), or a value of the
            wrong kind.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no recipe {str(file)!r}; a recipe is a YAML file like recipes/tiny.yaml.")
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except Exception as error:  # the parser has many ways to fail on a wrong tag, a date, a depth
        raise ValueError(f"recipe {file}: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise ValueError(f"recipe {file} must be a mapping of settings, not a {type(values).__name__}.")
    values = {str(name).replace("-", "_"): value for name, value in values.items()}
    check_names(values, sorted(known_settings()), f"recipe {file}")
    return _typed(values, f"recipe {file}")


def option_groups() -> list[HfArgumentParser]:
    """All settings as command-line options, ours and the Trainer's; only those given end up in the namespace."""
    groups = []
    kinds = {"settings of the run": PretrainSettings, "transformers.TrainingArguments": TrainingArguments}
    for title, settings in kinds.items():
        options = HfArgumentParser([settings], add_help=False, exit_on_error=False)  # type: ignore[list-item]
        options._optionals.title = title
        for action in options._actions:
            action.default, action.required = argparse.SUPPRESS, False
            if "--output_dir" in action.option_strings:
                action.help = argparse.SUPPRESS  # --output
            if isinstance(action, argparse._StoreFalseAction):
                action.help = f"not: {action.help}"
        groups.append(options)
    return groups


def _typed(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of a recipe as the command line reads them, so that both accept the same.

    Raises:
        ValueError: a value of the wrong kind, with its name.
    """
    typed: dict[str, Any] = {}
    for options, kind in zip(option_groups(), (PretrainSettings, TrainingArguments)):
        for setting in fields(kind):  # type: ignore[arg-type]
            if setting.name in values:
                typed[setting.name] = _read(options, setting, values[setting.name], where)
    return {name: typed.get(name, value) for name, value in values.items()}


def _read(options: argparse.ArgumentParser, setting: Field, value: Any, where: str) -> Any:
    """One value of a recipe through its option."""
    if value is None and setting.default is None:
        return None
    if isinstance(value, dict) and setting.name in TrainingArguments._VALID_DICT_FIELDS:
        return value
    option = f"--{setting.name}"
    many = isinstance(value, list) and options._option_string_actions[option].nargs == "+"
    if many and not value:
        return []
    words = value if many else [value]
    if value is None or any(isinstance(word, list | dict) for word in words):
        raise ValueError(f"{where}: {setting.name} is {reprlib.repr(value)}; it needs a plain value.")
    # 1e4 is a float in YAML, and fine as a number of steps
    words = [int(word) if isinstance(word, float) and word.is_integer() else word for word in words]
    try:
        read = options.parse_known_args([option, *map(str, words)] if many else [f"{option}={words[0]}"])[0]
    except argparse.ArgumentError as error:
        raise ValueError(f"{where}: {setting.name} is {reprlib.repr(value)}: {error.message}") from None
    return getattr(read, setting.name)
