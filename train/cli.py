"""Commands of the training side. Thin: arguments in, one call of a documented function, a summary out."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langsamp.core.loading import loading
from langsamp.language_codes import nearest

if TYPE_CHECKING:
    from langsamp.train.blocks.index import StoreIndex


def _add_prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``langsamp prepare``."""
    parser.add_argument(
        "--corpus",
        required=True,
        help="'cldr', a folder of files by language (deu_Latn.txt, sw.jsonl.gz, ...), or a Hub data set",
    )
    parser.add_argument("--tokenizer", required=True, help="folder or Hub id (user/name@revision)")
    parser.add_argument("--output", required=True, help="folder of the store; what is in it already is added to")
    parser.add_argument("--languages", nargs="+", help="only these (deu_Latn, de, ...)")
    parser.add_argument("--block-size", type=int, default=512, help="tokens a block (default: 512)")
    parser.add_argument("--num-proc", type=int, help="worker processes (default: one a core)")
    parser.add_argument("--heldout", type=int, default=0, help="blocks a language to set aside for the LM loss, about")
    parser.add_argument(
        "--column", help="column or JSON field with the text (default: text, content, ..., as there is)"
    )
    parser.add_argument(
        "--split",
        default="train",
        help="splits and marked subsets to read, as train+dev or train+noisy (default: train)",
    )
    parser.add_argument(
        "--names", nargs="+", metavar="NAME=LANG", default=[], help="what names that are no codes stand for, or a file"
    )
    parser.add_argument(
        "--on-invalid", choices=["replace", "skip"], default="replace", help="texts that are not valid UTF-8"
    )
    parser.add_argument(
        "--ray",
        nargs="?",
        const="auto",
        metavar="ADDRESS",
        help="share the work among the nodes of a Ray cluster: auto (default), local, or ray://host:port",
    )
    parser.add_argument("--push-to-hub", metavar="REPO", help="upload the store as a Hub data set when it is done")
    parser.add_argument("--private", action="store_true", help="make the Hub data set private")


def _run_prepare(arguments: argparse.Namespace) -> int:
    """Run ``langsamp prepare``."""
    with loading():
        from langsamp.train.blocks.prepare import prepare
        from langsamp.train.blocks.store import push_store
        from langsamp.train.text.open import open_corpus, read_names

    corpus = open_corpus(
        arguments.corpus,
        arguments.languages,
        arguments.column,
        arguments.on_invalid,
        arguments.split,
        read_names(arguments.names),
    )
    store = prepare(
        corpus,
        arguments.tokenizer,
        arguments.output,
        block_size=arguments.block_size,
        num_proc=arguments.num_proc,
        heldout=arguments.heldout,
        ray=arguments.ray,
    )
    print("\n".join([_summary(store.index), *corpus.report.lines()]))
    if arguments.push_to_hub:
        print(f"pushed: {push_store(store.path, arguments.push_to_hub, arguments.private)}")
    return 0


def _summary(index: StoreIndex) -> str:
    """What is in a store, in a few lines."""
    rows = index.languages

    def total(name: str) -> int:
        return sum(getattr(row, name) for row in rows.values())

    tokens = total("tokens")
    lines = [
        f"{_languages(rows)}, {total('documents'):,} documents, {total('bytes') / 1e6:,.1f} MB of text",
        f"{tokens:,} tokens in {total('blocks'):,} blocks of {index.block_size}, "
        f"{total('heldout_blocks'):,} blocks held out",
        f"{total('unknown') / max(tokens, 1):.2%} of the tokens are unknown to {index.tokenizer.name}",
    ]
    if not total("heldout_blocks"):
        lines.append("nothing is held out: training will show no held-out loss (prepare with --heldout 4 for one)")
    foreign = {name: row.unknown / max(row.tokens, 1) for name, row in rows.items()}
    worst = sorted((name for name in foreign if foreign[name] > 0.05), key=lambda name: -foreign[name])
    if worst:
        named = ", ".join(f"{name} ({foreign[name]:.0%})" for name in worst[:8])
        lines.append(f"over 5 % unknown in {_languages(worst)}: {named}; langsamp extend-vocab would help")
    return "\n".join(lines)


def _languages(some: Collection[str]) -> str:
    return f"{len(some)} language{'s' * (len(some) != 1)}"


# -- extend-vocab -----------------------------------------------------------------------------------------------------


def add_extend_vocab(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``langsamp extend-vocab``."""
    parser.add_argument(
        "--base", required=True, metavar="MODEL", help="XLM-R, Glot500-m or a LangSAMP: folder or Hub id"
    )
    parser.add_argument("--corpus", required=True, metavar="SRC", help="folder, Hub data set or cldr, as for prepare")
    parser.add_argument("--size", required=True, type=int, metavar="N", help="new pieces wanted")
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="folder for the model with the larger vocabulary"
    )
    parser.add_argument("--languages", nargs="+", metavar="LANG", help="only these languages of the corpus")
    parser.add_argument(
        "--alpha", type=float, default=0.3, help="share of a language in the learning text ~ size^alpha"
    )
    parser.add_argument("--max-characters", type=int, default=50_000_000, metavar="N", help="learning text in all")
    parser.add_argument("--new-rows", choices=["mean", "random"], default="mean", help="how the new pieces' rows start")


def run_extend_vocab(arguments: argparse.Namespace) -> int:
    """Run :func:`langsamp.train.vocab.extend.extend_vocab` and print fertility before and after."""
    from langsamp.train.vocab.extend import extend_vocab, show_fertility

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
    parser.usage = "%(prog)s [RECIPE] [options]"
    parser.add_argument("recipe", nargs="?", help="YAML file of settings, like recipes/tiny.yaml; options override it")
    parse: Callable[..., Any] = parser.parse_known_args

    def parse_known_args(*args: Any, **kwargs: Any) -> Any:
        if not parser.get_default("with_options"):
            with loading():
                from langsamp.train.settings import option_groups

            parser.set_defaults(with_options=True)
            for options in option_groups():
                parser._add_container_actions(options)  # what argparse's own parents= does
        namespace, rest = parse(*args, **kwargs)
        wrong = next((word.partition("=")[0] for word in rest if word.startswith("--")), None)
        if wrong:
            known = [option for action in parser._actions for option in action.option_strings if "_" not in option]
            parser.error(f"there is no option {wrong}; nearest: {', '.join(nearest(wrong, known))}")
        return namespace, rest

    parser.parse_known_args = parse_known_args  # type: ignore[method-assign]


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
    with loading():
        from langsamp.train.pretrain import pretrain
        from langsamp.train.settings import split

    settings, training = split(*train_values(arguments))
    _log_to_console()
    result = pretrain(settings, training, publish=publish, fetch=fetch)
    if result.losses and result.first_process:
        (first, before), (last, after) = result.losses[0], result.losses[-1]
        print(f"wrote {result.folder}: loss {before:.4f} (step {first}) -> {after:.4f} (step {last})")
        print(
            f"next: langsamp eval --model {result.folder} --output results --tasks ... "
            "(docs/tasks.md: which there are, and the data they need)"
        )
    return 0


def train_values(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The settings that a command line gives, over those of its recipe, and what to call their source in errors."""
    from langsamp.train.settings import known_settings, read_recipe

    given = {name: value for name, value in vars(arguments).items() if name in known_settings()}
    if not arguments.recipe:
        return given, "the command line"
    return {**read_recipe(arguments.recipe), **given}, f"recipe {arguments.recipe}"


def _log_to_console() -> None:
    """Show what our modules report, not only what they warn of."""
    first = os.environ.get("RANK", "0") == "0"  # of several processes one tells what all do
    logging.getLogger("langsamp").setLevel(logging.INFO if first else logging.WARNING)


Command = tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]

COMMANDS: dict[str, Command] = {
    "prepare": ("turn a corpus into token blocks, or add what is new in it", _add_prepare, _run_prepare),
    "extend-vocab": ("add pieces learnt from a corpus to a model's vocabulary", add_extend_vocab, run_extend_vocab),
    "train": ("continual pretraining with language and script embeddings", add_train, run_train),
}
