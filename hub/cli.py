"""The Hub commands of `langsamp`: each reads its options and calls one documented function of `langsamp.hub`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable


def add_push(parser: ArgumentParser) -> None:
    """Options of `langsamp push`."""
    parser.add_argument("folder", metavar="DIR", help="the checkpoint folder")
    parser.add_argument("repo", metavar="REPO", help="user/name on the Hub; created when it does not exist")
    parser.add_argument("--private", action="store_true", help="create the repository as a private one")
    parser.add_argument("--pr", action="store_true", help="open a pull request instead of committing to the branch")
    parser.add_argument("--revision", metavar="BRANCH", help="the branch, created when missing (default: main)")
    parser.add_argument("--tag", help="name the commit with a tag")
    parser.add_argument("--message", default="Push with langsamp", help="the title of the commit")
    parser.add_argument(
        "--with-trainer-state", action="store_true", help="also push the newest checkpoint-N, so that others can resume"
    )
    parser.add_argument("--results", metavar="RUN_DIR", help="an --output of langsamp eval to put into the checkpoint")
    parser.add_argument("--no-card", action="store_true", help="push README.md as it is, or none")
    parser.add_argument("--dry-run", action="store_true", help="list files and sizes, and push nothing")
    parser.add_argument(
        "--parent-commit", metavar="SHA", help="push only if the branch is at this commit (default: the last one known)"
    )


def run_push(args: Namespace) -> int:
    """Push a folder."""
    from langsamp.hub.documents import complete
    from langsamp.hub.staging import left_out
    from langsamp.hub.sync import push

    if not args.dry_run and not args.no_card:
        complete(args.folder, args.repo, args.results)
    result = push(
        args.folder, args.repo, private=args.private, revision=args.revision, create_pr=args.pr, tag=args.tag,
        with_trainer_state=args.with_trainer_state, dry_run=args.dry_run, parent_commit=args.parent_commit,
        message=args.message,
    )  # fmt: skip
    if args.dry_run:
        for name, size in result.files.items():
            print(f"{size:>14,}  {name}")
        print(f"{sum(result.files.values()):>14,}  bytes in {len(result.files)} files would be pushed to {result.repo}")
        left = left_out(args.folder, result.files)
        if left:
            print(f"left out: {', '.join(left)}")
    elif result.created:
        sent = sum(result.files[name] for name in result.uploaded)
        removed = f", {len(result.deleted)} removed" if result.deleted else ""
        print(f"pushed {len(result.uploaded)} of {len(result.files)} files ({sent:,} bytes{removed}): {result.url}")
    else:
        print(f"nothing to push: {result.repo} is at {result.commit} and holds these files already")
    return 0


def add_pull(parser: ArgumentParser) -> None:
    """Options of `langsamp pull`."""
    parser.add_argument("repo", metavar="REPO", help="user/name or user/name@revision")
    parser.add_argument("folder", metavar="DIR", help="the folder to make equal to the repository")
    parser.add_argument("--revision", help="branch, tag or commit (default: main)")
    parser.add_argument("--strict", action="store_true", help="refuse a repository without a manifest")
    parser.add_argument(
        "--last-good", action="store_true", help="if the revision is not a finished push, take the newest one that is"
    )


def run_pull(args: Namespace) -> int:
    """Pull a repository."""
    from langsamp.hub.sync import pull

    result = pull(args.repo, args.folder, revision=args.revision, strict=args.strict, last_good=args.last_good)
    checked = "manifest and hashes verified" if result.verified else "hashes verified, no manifest"
    print(f"{result.folder} is {result.repo}@{result.commit}: {len(result.fetched)} files fetched, {checked}")
    if result.refused:
        print(f"not downloaded (such files can run code): {', '.join(result.refused)}")
    if result.kept:
        print(f"kept as edited here: {', '.join(result.kept)}")
    return 0


def add_convert(parser: ArgumentParser) -> None:
    """Options of `langsamp convert`."""
    parser.add_argument("checkpoint", metavar="OFFICIAL_CHECKPOINT", help="folder or Hub id (repo@revision)")
    parser.add_argument("output", metavar="OUT", help="a folder that does not exist yet")
    parser.add_argument("--tokenizer", metavar="TOK", help="folder or Hub id, if the checkpoint has no tokenizer")
    parser.add_argument(
        "--ids",
        metavar="FILE",
        help='the code of every row, if not the official 610 and 30: {"languages": [..], "scripts": [..]}',
    )
    parser.add_argument(
        "--unknown", choices=("zero", "mean"), default="zero", help="what an unknown language adds (default: nothing)"
    )


def run_convert(args: Namespace) -> int:
    """Convert a checkpoint."""
    from langsamp.hub.convert import convert

    done = convert(args.checkpoint, args.output, ids=args.ids, tokenizer=args.tokenizer, unknown=args.unknown)
    print(f"{done.path}: {done.kind}, {done.languages} language rows, {done.scripts} script rows, all tensors in place")
    if done.dropped:
        print(f"left out, for they have no use there: {', '.join(done.dropped)}")
    if done.untrained:
        print(f"{len(done.untrained)} rows look untrained (as long as a random start): {', '.join(done.untrained)}")
    if not done.tokenizer:
        print("without a tokenizer: give the model's with --tokenizer")
    return 0


def add_export(parser: ArgumentParser) -> None:
    """Options of `langsamp export`."""
    parser.add_argument("model", metavar="MODEL", help="folder or Hub id (repo@revision)")
    parser.add_argument("output", metavar="OUT", help="a folder that does not exist yet")
    parser.add_argument(
        "--to", required=True, choices=("encoder", "monolingual", "onnx"),
        help="a plain encoder for sentence vectors, a plain masked LM for one language, or ONNX graphs",
    )  # fmt: skip
    parser.add_argument(
        "--layer", type=int, metavar="K", help="encoder: keep the first K blocks (paper: 8; default: all)"
    )
    parser.add_argument("--language", help="monolingual: which, like deu_Latn")
    parser.add_argument(
        "--trim-vocab", metavar="CORPUS", help="monolingual: keep only the pieces this file, folder or data set uses"
    )


def run_export(args: Namespace) -> int:
    """Export a model."""
    given = {"layer": args.layer, "language": args.language, "trim-vocab": args.trim_vocab}
    allowed = {"encoder": {"layer"}, "monolingual": {"language", "trim-vocab"}, "onnx": set()}[args.to]
    wrong = [f"--{name}" for name, value in given.items() if value is not None and name not in allowed]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} has no meaning with --to {args.to}.")
    if args.to == "onnx":
        return _run_onnx(args)
    from langsamp.hub.export import export_encoder, export_monolingual

    if args.to == "encoder":
        done = export_encoder(args.model, args.output, args.layer)
    else:
        if not args.language:
            raise ValueError("--to monolingual needs --language, like deu_Latn.")
        from langsamp.hub.texts import read_texts
        from langsamp.language_codes import normalize_tag

        texts = read_texts(args.trim_vocab, normalize_tag(args.language)) if args.trim_vocab else None
        done = export_monolingual(args.model, args.output, args.language, texts)
    print(
        f"{done.path}: {done.parameters[1]:,} of {done.parameters[0]:,} parameters, "
        f"{done.vocabulary[1]:,} of {done.vocabulary[0]:,} pieces"
    )
    return 0


def _run_onnx(args: Namespace) -> int:
    from langsamp.hub.export_onnx import FP32, INT8, export_onnx

    graph = export_onnx(args.model, args.output)
    print(f"{graph.path}: inputs {', '.join(graph.inputs)}")
    print(f"{FP32}: {graph.sizes[0]:,} bytes, differs from the model by at most {graph.difference:.1e}")
    best = "" if graph.int8_top1 is None else f", same best piece at {graph.int8_top1:.1%} of the masks"
    print(f"{INT8}: {graph.sizes[1]:,} bytes, differs by at most {graph.int8_difference:.1e}{best}")
    return 0


def add_add_language(parser: ArgumentParser) -> None:
    """Options of `langsamp add-language`."""
    parser.add_argument("model", metavar="MODEL", help="folder or Hub id (repo@revision)")
    parser.add_argument("output", metavar="OUT", help="a folder that does not exist yet")
    parser.add_argument("--language", required=True, help="the new language, like xyz_Latn")
    parser.add_argument(
        "--like", help="start from this relative's row (default: the mean of the languages of its script)"
    )
    parser.add_argument(
        "--store", metavar="STORE", help="fit the row to the language's blocks in a store of `langsamp prepare`"
    )
    parser.add_argument("--steps", type=int, default=200, help="steps of the fit (default: 200)")


def run_add_language(args: Namespace) -> int:
    """Add a language."""
    from langsamp.hub.add_language import Fit, add_language, read_blocks, same_script
    from langsamp.language_codes import normalize_tag

    blocks = read_blocks(args.store, normalize_tag(args.language)) if args.store else None
    mean = [] if args.like else same_script(args.model, args.language)
    done = add_language(
        args.model, args.output, args.language, like=args.like, script_mean=mean, blocks=blocks, fit=Fit(args.steps)
    )
    print(f"{done.path}: {done.language} is row {done.lang_id}, started {done.start}")
    if done.loss_fitted is not None:
        print(
            f"loss on held-out blocks: {done.loss_unknown:.4f} as unknown, {done.loss_start:.4f} at the start, "
            f"{done.loss_fitted:.4f} fitted"
        )
    return 0


COMMANDS: dict[str, tuple[str, Callable[[ArgumentParser], None], Callable[[Namespace], int]]] = {
    "push": ("push a checkpoint folder to the Hub as one verified commit", add_push, run_push),
    "pull": ("make a folder equal to a Hub repository at one commit, every file verified", add_pull, run_pull),
    "export": ("write a checkpoint that needs no code of ours: encoder, one language, or ONNX", add_export, run_export),
    "convert": ("turn an official LangSAMP or a stock XLM-R checkpoint into one of ours", add_convert, run_convert),
    "add-language": ("add a row for a language; nothing else changes", add_add_language, run_add_language),
}
