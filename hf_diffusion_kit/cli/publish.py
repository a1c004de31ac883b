import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

HELP = """Put a finished run on the Hub (weights, run.json, pictures and card), or a subset that `hfdk subset` wrote (shards, facts.json,
attribution, contact sheet and card): in one commit, read back afterwards. A new repository is private unless --public is said.
Secrets, paths of this machine and pickles are refused."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="of a finished run, or of a subset")
    parser.add_argument("--repo", required=True, help="user/name")
    parser.add_argument("--hub", help="`local` for the embedded one, or an address (default: huggingface.co)")
    parser.add_argument("--public", action="store_true", help="make a new repository public")
    parser.add_argument("--dry-run", action="store_true", help="show what would be sent, and send nothing")
    parser.add_argument("--license", help="licence of the base, or of the pictures, where none is named")
    parser.add_argument("--message", help="title of the commit")


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    options: dict[str, Any] = {"hub": args.hub, "private": not args.public, "dry_run": args.dry_run}
    options |= {"license": args.license, "commit_message": args.message, "say": say}
    if (Path(args.folder) / "facts.json").is_file():
        from ..data.push import push_folder

        pushed = push_folder(Path(args.folder), args.repo, **options)
    else:
        from ..run import Run

        pushed = Run.open(args.folder).publish(args.repo, **options)
    say(place(pushed, args.hub, dry_run=args.dry_run))
    told = {"url": str(pushed), "oid": pushed.oid, "files": pushed.files, "bytes_sent": pushed.bytes_sent}
    return {**told, "verified": pushed.verified, "changed": pushed.changed}


def place(pushed: Any, hub: str | None, *, dry_run: bool = False) -> str:
    """Where it is now; the embedded Hub's own address ends with the command."""
    done = "would publish" if dry_run else "published" if pushed.changed else "already published"
    if hub == "local":
        return (
            f"{done}: {pushed.repo_id} on the embedded Hub, commit {pushed.oid[:12] or 'none yet'}; to look at it: hfdk hub serve"
        )
    return f"{done}: {pushed}"
