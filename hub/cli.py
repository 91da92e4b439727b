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
    from langsamp.hub.push import push
    from langsamp.hub.staging import left_out

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
    from langsamp.hub.pull import pull

    result = pull(args.repo, args.folder, revision=args.revision, strict=args.strict, last_good=args.last_good)
    checked = "manifest and hashes verified" if result.verified else "hashes verified, no manifest"
    print(f"{result.folder} is {result.repo}@{result.commit}: {len(result.fetched)} files fetched, {checked}")
    if result.refused:
        print(f"not downloaded (such files can run code): {', '.join(result.refused)}")
    if result.kept:
        print(f"kept as edited here: {', '.join(result.kept)}")
    return 0


COMMANDS: dict[str, tuple[str, Callable[[ArgumentParser], None], Callable[[Namespace], int]]] = {
    "push": ("push a checkpoint folder to the Hub as one verified commit", add_push, run_push),
    "pull": ("make a folder equal to a Hub repository at one commit, every file verified", add_pull, run_pull),
}
