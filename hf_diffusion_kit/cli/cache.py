import argparse
from collections.abc import Callable
from typing import Any

HELP = """What is kept on this machine of what VAE and text encoders said, for the next run on the same pictures: how much there is, and less of it.

  hfdk cache                                  how much there is
  hfdk cache --prune --older-than 30          remove what no run has asked for in 30 days
  hfdk cache --prune --max-size 10GB          remove what was not asked for the longest, until 10 GB are left

What is removed is made again when it is asked for. What a run works with just now is left alone. Without --prune nothing is removed:
it says what would be."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prune", action="store_true", help="remove, by --older-than or --max-size or both")
    parser.add_argument("--older-than", type=float, metavar="DAYS", help="what no run has asked for in so many days")
    parser.add_argument("--max-size", metavar="SIZE", help="the least lately used, until so much is left, e.g. 10GB; 0 for all")


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from ..errors import ConfigError
    from ..training import cache_disk

    asked = args.older_than is not None or args.max_size is not None
    if args.prune and not asked:
        fix = "say --older-than DAYS, --max-size SIZE or both; --max-size 0 removes all"
        raise ConfigError("what is to go?", where="hfdk cache --prune", fix=fix, case=1)
    if args.older_than is not None and not args.older_than >= 0:
        raise ConfigError(f"must be 0 or more, got {args.older_than}", where="--older-than", case=1)
    size = cache_disk.size_of(args.max_size) if args.max_size is not None else None
    found = cache_disk.kept()
    gone = cache_disk.chosen(found, older_than=args.older_than, max_size=size) if asked else []
    told: dict[str, Any] = {"folder": str(cache_disk.encoded()), **listed(found, say)}
    if args.prune:
        removed = cache_disk.prune(found, gone)
        say(f"removed: {counted(removed.entries, removed.bytes)}")
        for folder in removed.busy:
            say(f"left alone: {folder.name}, for a run works with it now (or its disk knows no locks)")
        busy = [folder.name for folder in removed.busy]
        told["removed"] = {"entries": removed.entries, "bytes": removed.bytes, "left_alone": busy}
    elif asked:
        size_gone = sum(entry.bytes for entry in gone)
        say(f"would remove: {counted(len(gone), size_gone)} (with --prune)")
        told["would_remove"] = {"entries": len(gone), "bytes": size_gone}
    return told


def listed(found: list[Any], say: Callable[[str], None]) -> dict[str, Any]:
    """A line a base, and the whole."""
    from ..training.cache_disk import encoded

    bases = []
    for one in found:
        oldest, newest = day(one.entries[0].used), day(one.entries[-1].used)
        using = f", in use by {one.users} process{'es' if one.users > 1 else ''}" if one.users else ""
        say(f"  {one.folder.name}  {counted(len(one.entries), one.bytes)}, last used {oldest} to {newest}{using}")
        bases.append(
            {
                "base": one.folder.name,
                "entries": len(one.entries),
                "bytes": one.bytes,
                "oldest": oldest,
                "newest": newest,
                "users": one.users,
            }
        )
    entries, size = sum(one["entries"] for one in bases), sum(one["bytes"] for one in bases)
    say(f"{counted(entries, size)} of {len(bases)} base{'' if len(bases) == 1 else 's'} in {encoded()}")
    return {"entries": entries, "bytes": size, "bases": bases}


def counted(entries: int, size: float) -> str:
    unit, name = next(
        (unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "bytes")) if size >= unit or unit == 1
    )
    number = f"{size / unit:.1f}" if unit > 1 else f"{size:.0f}"
    return f"{entries:,} encoded picture{'' if entries == 1 else 's'} or caption{'' if entries == 1 else 's'}, {number} {name}"


def day(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
