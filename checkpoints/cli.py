"""The commands that make another checkpoint of one: each reads its options and calls one documented function."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable


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
    from langsamp.checkpoints.convert import convert

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
    from langsamp.checkpoints.export import export_encoder, export_monolingual

    if args.to == "encoder":
        done = export_encoder(args.model, args.output, args.layer)
    else:
        if not args.language:
            raise ValueError("--to monolingual needs --language, like deu_Latn.")
        from langsamp.core.language.languages import normalize_tag
        from langsamp.train.text.open import read_texts

        texts = read_texts(args.trim_vocab, normalize_tag(args.language)) if args.trim_vocab else None
        done = export_monolingual(args.model, args.output, args.language, texts)
    print(
        f"{done.path}: {done.parameters[1]:,} of {done.parameters[0]:,} parameters, "
        f"{done.vocabulary[1]:,} of {done.vocabulary[0]:,} pieces"
    )
    return 0


def _run_onnx(args: Namespace) -> int:
    from langsamp.checkpoints.export_onnx import export_onnx

    done = export_onnx(args.model, args.output)
    for graph in done.graphs:
        print(f"{done.path}/onnx/{graph.name}.onnx: inputs {', '.join(graph.inputs)}")
        print(f"  fp32: {graph.sizes[0]:,} bytes, differs from the model by at most {graph.difference:.1e}")
        best = "" if graph.int8_top1 is None else f", same best piece at {graph.int8_top1:.1%} of the masks"
        print(f"  int8 (_quantized): {graph.sizes[1]:,} bytes, by at most {graph.int8_difference:.1e}{best}")
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
    from langsamp.checkpoints.add_language import Fit, add_language, read_blocks, same_script
    from langsamp.core.language.languages import normalize_tag

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


def add_average(parser: ArgumentParser) -> None:
    """Options of `langsamp average`."""
    parser.add_argument("models", metavar="MODEL", nargs="+", help="two or more folders or Hub ids (repo@revision)")
    parser.add_argument("output", metavar="OUT", help="a folder that does not exist yet")
    parser.add_argument(
        "--weights", type=float, nargs="+", default=[], metavar="W", help="how much each counts (default: all the same)"
    )


def run_average(args: Namespace) -> int:
    """Average checkpoints."""
    from langsamp.checkpoints.average import average

    done = average(args.models, args.output, args.weights)
    shares = ", ".join(f"{share:.3g} {model}" for share, model in zip(done.shares, args.models))
    print(f"{done.path}: {shares}; {done.languages} language rows, {done.scripts} script rows")
    if done.left_out:
        print(f"{done.left_out} pieces that {args.models[0]} does not have are left out")
    return 0


COMMANDS: dict[str, tuple[str, Callable[[ArgumentParser], None], Callable[[Namespace], int]]] = {
    "export": ("write a checkpoint that needs no code of ours: encoder, one language, or ONNX", add_export, run_export),
    "convert": (
        "turn an official LangSAMP, a stock XLM-R, or ours without its code into a whole one of ours",
        add_convert,
        run_convert,
    ),
    "average": ("the mean of checkpoints' weights, rows matched by name and piece", add_average, run_average),
    "add-language": ("add a row for a language; nothing else changes", add_add_language, run_add_language),
}
