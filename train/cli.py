"""``langsamp prepare``, ``extend-vocab`` and ``train`` on the command line: arguments in, one documented function called."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

# -- extend-vocab -----------------------------------------------------------------------------------------------------


def add_extend_vocab(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``langsamp extend-vocab``."""
    parser.add_argument("--base", required=True, metavar="MODEL", help="XLM-R, Glot500-m or a LangSAMP: folder or Hub id")
    parser.add_argument("--corpus", required=True, metavar="SRC", help="folder, Hub data set or cldr, as for prepare")
    parser.add_argument("--size", required=True, type=int, metavar="N", help="new pieces wanted")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the model with the larger vocabulary")
    parser.add_argument("--languages", nargs="+", metavar="LANG", help="only these languages of the corpus")
    parser.add_argument("--alpha", type=float, default=0.3, help="share of a language in the learning text ~ size^alpha")
    parser.add_argument("--max-characters", type=int, default=50_000_000, metavar="N", help="learning text in all")
    parser.add_argument("--new-rows", choices=["mean", "random"], default="mean", help="how the new pieces' rows start")


def run_extend_vocab(arguments: argparse.Namespace) -> int:
    """Run :func:`langsamp.train.vocab.extend_vocab` and print fertility before and after."""
    from .vocab import extend_vocab, show_fertility

    _log_to_console()
    report = extend_vocab(
        arguments.base,
        arguments.corpus,
        arguments.size,
        arguments.output,
        languages=arguments.languages,
        alpha=arguments.alpha,
        max_characters=arguments.max_characters,
        new_rows=arguments.new_rows,
    )
    print(show_fertility(report))
    print(f"wrote {arguments.output}; next: langsamp prepare --tokenizer {arguments.output} ...")
    return 0


# -- train ------------------------------------------------------------------------------------------------------------


def add_train(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``langsamp train``; the options, most of them TrainingArguments, are added when they are needed.

    Building them imports torch and transformers, which would make every other command wait.
    """
    parser.add_argument("recipe", nargs="?", help="YAML file of settings, like recipes/tiny.yaml; options override it")
    parse: Callable[..., Any] = parser.parse_known_args

    def parse_known_args(*args: Any, **kwargs: Any) -> Any:
        if not parser.get_default("with_options"):
            parser.set_defaults(with_options=True)
            _add_options(parser)
        return parse(*args, **kwargs)

    parser.parse_known_args = parse_known_args  # type: ignore[method-assign]


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Every field of PretrainSettings and TrainingArguments as an option; only those given end up in the namespace."""
    from transformers import HfArgumentParser, TrainingArguments

    from .settings import PretrainSettings

    for title, fields in (("settings of the run", PretrainSettings), ("transformers.TrainingArguments", TrainingArguments)):
        options = HfArgumentParser(fields, add_help=False)
        options._optionals.title = title
        for action in options._actions:
            action.default, action.required = argparse.SUPPRESS, False
            if "--output_dir" in action.option_strings:
                action.help = argparse.SUPPRESS  # --output
        parser._add_container_actions(options)  # what argparse's own parents= does


def run_train(
    arguments: argparse.Namespace,
    publish: Callable[[Path, int], None] | None = None,
    fetch: Callable[[str], Path] | None = None,
) -> int:
    """Run :func:`langsamp.train.pretrain.pretrain`.

    Args:
        arguments: what was given on the command line.
        publish: sends a checkpoint folder to the Hub; the root command line gives it if ``--push_to_hub`` is on.
        fetch: brings a checkpoint from the Hub for ``--resume REPO@REVISION``.
    """
    from .pretrain import pretrain
    from .settings import split

    settings, training = split(*train_values(arguments))
    _log_to_console()
    result = pretrain(settings, training, publish=publish, fetch=fetch)
    if result.losses and result.first_process:
        (first, before), (last, after) = result.losses[0], result.losses[-1]
        print(f"wrote {result.folder}: loss {before:.4f} (step {first}) -> {after:.4f} (step {last})")
        print(f"next: langsamp eval --model {result.folder} --tasks lm,sr-tatoeba --output results")
    return 0


def train_values(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The settings that a command line gives, over those of its recipe, and what to call their source in errors."""
    from .settings import known_settings, read_recipe

    given = {name: value for name, value in vars(arguments).items() if name in known_settings()}
    if not arguments.recipe:
        return given, "the command line"
    return {**read_recipe(arguments.recipe), **given}, f"recipe {arguments.recipe}"


def _log_to_console() -> None:
    """Show what our modules report, one short line each."""
    logger = logging.getLogger("langsamp")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


COMMANDS: dict[
    str, tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]
] = {
    "extend-vocab": ("add pieces learnt from a corpus to a model's vocabulary", add_extend_vocab, run_extend_vocab),
    "train": ("continual pretraining with language and script embeddings", add_train, run_train),
}
