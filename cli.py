"""The command line: ``langsamp <command>`` composes what train, eval and hub offer; no logic of its own."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn

from safetensors import SafetensorError

from langsamp import __version__
from langsamp.core.files import DiskFullError, is_disk_full, is_url
from langsamp.core.loading import loading
from langsamp.core.plain import console, printable

_WITHOUT_MODELS = ("compare", "report", "push", "pull")  # these need not wait for transformers
Command = tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]

_MODULES = ("langsamp.train.cli", "langsamp.eval.cli", "langsamp.checkpoints.cli", "langsamp.hub.cli")


def add_quickstart_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``langsamp quickstart``."""
    parser.add_argument(
        "--output", default="quickstart", metavar="DIR", help="folder for everything (default: quickstart)"
    )
    parser.add_argument(
        "--base",
        metavar="MODEL",
        help="start from this encoder and its tokenizer (folder or Hub id) instead of small new ones; it then takes "
        "longer than minutes on a CPU, and says how long",
    )
    parser.add_argument("--push-to-hub", metavar="REPO", help="push the checkpoint to this Hub repository at the end")


def run_quickstart(arguments: argparse.Namespace) -> int:
    """Run ``langsamp quickstart``."""
    from langsamp.quickstart import Size, quickstart

    quickstart(arguments.output, arguments.push_to_hub, Size.from_base(arguments.base) if arguments.base else None)
    return 0


def run_train(arguments: argparse.Namespace) -> int:
    """Run ``langsamp train``, and write the model's card; with ``--push_to_hub`` saves and the model go to the Hub."""
    from langsamp.hub.documents import complete
    from langsamp.hub.push import push
    from langsamp.hub.training import fetch_checkpoint, publisher
    from langsamp.train import cli as train
    from langsamp.train.settings import split

    given, where = train.train_values(arguments)
    repo, private, token = given.get("hub_model_id"), bool(given.get("hub_private_repo")), given.get("hub_token")
    publish = None
    if given.get("push_to_hub"):
        if not repo:
            raise ValueError("--push_to_hub needs --hub_model_id user/name.")
        publish = publisher(repo, private=private, token=token)
    output = split(given, where)[0].output  # which may be given as --output_dir or stand in a recipe
    code = train.run_train(arguments, publish=publish, fetch=fetch_checkpoint)
    if code == 0 and int(os.environ.get("RANK", "0")) == 0:
        complete(output, repo)
        if publish and repo:
            print(f"pushed: {push(output, repo, private=private, token=token).url}")
    return code


def commands() -> dict[str, Command]:
    """Every command: its one-line help, the function that adds its arguments, the function that runs it."""
    summary = "from text to a checkpoint with card and report, on the embedded corpus, in minutes"
    found: dict[str, Command] = {"quickstart": (summary, add_quickstart_arguments, run_quickstart)}
    for module in _MODULES:
        found.update(import_module(module).COMMANDS)
    found["train"] = (*found["train"][:2], run_train)
    return found


class _Parser(argparse.ArgumentParser):
    """Its errors repeat what was typed, names of files that a shell put there among it."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = _Parser(
        prog="langsamp",
        description="LangSAMP: continual pretraining, evaluation and publishing of one encoder for 500+ languages.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (summary, add_arguments, run) in commands().items():
        sub = subparsers.add_parser(name, help=summary, description=summary)
        add_arguments(sub)
        sub.set_defaults(run=run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 done, 1 failed (one sentence on standard error; ``LANGSAMP_DEBUG=1`` shows the traceback), 2 wrong usage.
    """
    arguments = argparse.Namespace()
    try:
        build_parser().parse_args(argv, arguments)
        if arguments.command not in _WITHOUT_MODELS:
            _no_bars_for_loading()
        _check_places(arguments)
        with console():
            return int(arguments.run(arguments))
    except KeyboardInterrupt:
        return _interrupted()
    except (ValueError, OSError, RuntimeError, ImportError, LookupError, SafetensorError) as error:
        if _was_interrupted(error):
            return _interrupted()
        if os.environ.get("LANGSAMP_DEBUG"):
            raise
        print(f"langsamp: error: {printable(_sentence(error, arguments))}", file=sys.stderr)
        return 1


def _check_places(arguments: argparse.Namespace) -> None:
    """Refuse URLs where a folder is meant, which would become one called `s3:`."""
    for name in ("output", "output_dir", "store", "data"):
        if is_url(str(getattr(arguments, name, None))):
            raise ValueError(
                f"{getattr(arguments, name)} is in an object store, where only a corpus is read; give a folder, and "
                "copy it there or from there with `aws s3 sync`, `gcloud storage rsync` or the like."
            )


def _sentence(error: Exception, arguments: argparse.Namespace) -> str:
    """What an error says; of a full disk also where."""
    if is_disk_full(error) and not isinstance(error, DiskFullError):
        place = getattr(error, "filename", None) or getattr(arguments, "output", None) or os.getcwd()
        return str(DiskFullError(place))
    return str(error)


def _no_bars_for_loading() -> None:
    """Transformers 5 shows a bar for every model it loads or saves, which is over at once."""
    with loading():
        from transformers.utils import logging

    logging.disable_progress_bar()


def _interrupted() -> int:
    print("langsamp: interrupted; run the same command again to go on", file=sys.stderr)
    return 130


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: libraries that are interrupted while they are imported raise their own."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


if __name__ == "__main__":
    sys.exit(main())
