import argparse
from collections.abc import Callable
from typing import Any

HELP = """Pick captioned pictures into one folder of Parquet that stock `load_dataset` opens.

  hfdk subset coco --annotations annotations --images val2014 --category dog frisbee --count 100 --out out/dogs
  hfdk subset coco --split val2017 --any-category cat dog --license commercial --count 50 --out out/pets     (fetches what it needs)
  hfdk subset folder my_pictures --out out/mine
  hfdk subset hub user/name --caption-column text --count 500 --out out/theirs

Every picture is decoded in full, every caption kept; what is left out is counted and shown. The same words give the same pictures,
whatever the order of the files. Conditions that are not given leave nothing out; all that are given must hold."""
EPILOG = """A value that begins with - is joined to its flag: --match=-x. Exit code 0: the folder is written, or the same was there; 2: a flag
is wrong; 3: the pictures, captions or annotations are; 5: the folder cannot be written; 6: the network or the Hub."""
USAGE = """hfdk subset coco [--annotations PATH] [--images DIR] [CONDITIONS] --out DIR
       hfdk subset folder DIR [CONDITIONS] --out DIR
       hfdk subset hub USER/NAME [CONDITIONS] --out DIR"""

NAMES = {
    "category": ("NAME", "all of them are in the picture (COCO, or a column `categories`)"),
    "any-category": ("NAME", "at least one of them is"),
    "not-category": ("NAME", "none of them is"),
    "supercategory": ("NAME", "coco: something of each is in the picture: animal, food ..."),
    "license": (
        "LICENCE",
        "its number or name (several: one of them), or commercial, modifiable, redistributable (each must hold)",
    ),
}
NUMBERS: dict[str, tuple[type, str, str]] = {
    "min-area": (
        float,
        "SHARE",
        "coco: of the picture, 0 to 1, that one object of each wanted category covers (of any, if none is named)",
    ),
    "min-side": (int, "PIXELS", "least length of the shorter side"),
    "min-aspect": (float, "RATIO", "least width divided by height: 1 is a square, below 1 upright"),
    "max-aspect": (float, "RATIO", "greatest width divided by height"),
    "min-words": (int, "N", "captions with fewer words do not count; a picture that has no others is left out"),
    "max-words": (int, "N", "captions with more words do not count"),
    "count": (int, "N", "how many pictures, drawn by --seed (default: all, in the order of their numbers or names)"),
    "seed": (int, "N", "decides which ones, and what --caption random takes (default: 0)"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage, parser.epilog = USAGE, EPILOG
    parser.add_argument(
        "source",
        choices=("coco", "folder", "hub"),
        help="COCO annotations, a folder of your own (or one that was saved), a captioned dataset of the Hub",
    )
    parser.add_argument("path", nargs="?", metavar="DIR", help="folder: the pictures and their captions; hub: the dataset's id")
    source = parser.add_argument_group("where from")
    source.add_argument(
        "--annotations",
        metavar="PATH",
        help="coco: folder of captions_*.json (and instances_*.json), or one file (default: fetch the official ones)",
    )
    source.add_argument(
        "--images",
        metavar="DIR",
        help="coco: folder of one split's pictures, or of all splits' folders; or `https`, or the https address of a mirror: fetch "
        "the chosen ones (default: https)",
    )
    source.add_argument(
        "--split", help="coco: val2014, train2017 ... (default: all whose pictures are there); folder, hub: train, test ..."
    )
    source.add_argument("--prompt", metavar="TEXT", help="folder, hub: one caption for all, where there are none")
    source.add_argument(
        "--ignore-captions", action="store_true", help="folder, hub: go on although captions exist that are not used"
    )
    source.add_argument("--caption-column", metavar="NAME", help="folder, hub: of the captions, where several could be meant")
    source.add_argument(
        "--image-column", metavar="NAME", help="folder of Parquet, hub: of the pictures, where several could be meant"
    )
    source.add_argument("--config", metavar="NAME", help="hub: which of its configurations")
    source.add_argument("--revision", metavar="REV", help="hub: branch, tag or commit (default: main)")
    source.add_argument("--streaming", action="store_true", help="hub: read as a stream; nothing but what is chosen is kept")
    source.add_argument("--repair", action="store_true", help="folder: drop a last line of metadata that is cut short")
    chosen = parser.add_argument_group("which pictures")
    for name, (what, text) in NAMES.items():
        chosen.add_argument(f"--{name}", nargs="+", action="extend", metavar=what, help=text)
    for name, (kind, unit, text) in NUMBERS.items():
        chosen.add_argument(f"--{name}", type=kind, metavar=unit, help=text)
    chosen.add_argument(
        "--no-crowd", dest="crowd", action="store_const", const=False, help="coco: crowds do not count as objects"
    )
    chosen.add_argument("--match", metavar="REGEX", help="must be found in one of the captions; upper and lower case are one")
    out = parser.add_argument_group("what is written")
    out.add_argument("--out", required=True, metavar="DIR", help="folder to write; it must be new, empty or hold the same subset")
    out.add_argument("--overwrite", action="store_true", help="replace another subset that is there")
    out.add_argument(
        "--caption",
        metavar="WHICH",
        help="stands in the column `text`: first (default), random, longest, shortest, nth:2 (the second), all; the column `captions` "
        "has all of them",
    )
    out.add_argument(
        "--pixels", choices=("embedded", "none"), help="none: addresses, captions and licences alone (default: embedded)"
    )
    out.add_argument("--strict", action="store_true", help="a picture without caption, a caption without picture is an error")
    out.add_argument(
        "--on-bad-image",
        choices=("error", "skip"),
        default="error",
        help="what a picture that is missing or broken is; skip counts them (default: error)",
    )


PASSED = (
    *("annotations", "images", "split", "prompt", "ignore_captions", "caption_column"),
    *("image_column", "config", "revision", "streaming", "repair", "pixels"),
)
"""Handed on as they are when they are said."""
ANOTHER = "name another --out"


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from pathlib import Path

    from ..data import load_captioned
    from ..data.load import HUB
    from ..data.subset import Subset
    from ..errors import ConfigError

    if args.source != "coco" and not args.path:
        named = "USER/NAME" if args.source == "hub" else "DIR"
        fix = f"hfdk subset {args.source} {named} --out DIR"
        raise ConfigError("which one?", where=f"hfdk subset {args.source}", fix=fix, case=1)
    if args.source == "coco" and args.path:
        raise ConfigError(f"what is {args.path!r}?", where="hfdk subset coco", fix="say --annotations and --images", case=1)
    if blank := next((name for name, value in vars(args).items() if value == ""), None):
        raise ConfigError("is empty", where=f"--{blank.replace('_', '-')}", fix="give it a value, or leave it out", case=1)
    names = [name.replace("-", "_") for name in (*NAMES, *NUMBERS)]
    subset = Subset.of(**{name: getattr(args, name) for name in (*names, "crowd", "match", "caption")})
    told = {name: value for name in PASSED if (value := getattr(args, name)) not in (None, False)}
    out = place(args, subset)
    sources: dict[str, Any] = {"coco": "coco", "hub": HUB + str(args.path).removeprefix(HUB), "folder": Path(args.path or ".")}
    data = load_captioned(
        sources[args.source], subset=subset, strict=args.strict, on_bad_image=args.on_bad_image, progress=True, **told
    )
    folder = data.save(out, overwrite=args.overwrite)
    return report(data, folder, say)


def place(args: argparse.Namespace, subset: Any) -> Any:
    """Where the subset goes. Whatever can be said against it is said before the work: raises StorageError, ConfigError."""
    from ..data import saved
    from ..data.place import check_reachable, check_writable, real
    from ..data.where import expanded
    from ..errors import ConfigError

    out = expanded(args.out)
    check_reachable(out, ANOTHER)
    if args.source == "folder" and real(expanded(args.path)) in real(out).parents:
        what = "lies in the folder that is read, and would be read as part of it the next time"
        raise ConfigError(what, where=f"--out {out}", fix="name one outside it", case=1)
    if saved.taken(out) and not differs(out, args, subset):
        return out  # it may be the same: only the rows can tell
    saved.check_place(out, overwrite=args.overwrite)
    check_writable(out / saved.FACTS if saved.taken(out) else out, ANOTHER)
    return out


def differs(folder: Any, args: argparse.Namespace, subset: Any) -> bool:
    """Whether the subset that is there is surely another than the one that is asked for, as far as its own recipe tells."""
    import shlex
    from pathlib import Path

    from ..data import saved
    from ..data.base import Findings
    from ..data.called import called
    from ..data.place import real
    from ..data.subset import Subset
    from ..data.where import expanded
    from ..errors import KitError
    from . import Parser

    parser = Parser()
    add_arguments(parser)
    try:
        if args.path and subset == Subset() and saved.is_saved(expanded(args.path)):
            return False  # a copy keeps the recipe of what it was copied from
        there = saved.facts(folder)
        words = shlex.split(there.recipe or "")[2:]
        asked = parser.parse_args(words) if words else None
    except KitError:  # a record that is damaged, or of another version: it cannot be the same
        return True
    if there.choice != subset.told() or there.pixels != (args.pixels or "embedded"):
        return True
    if asked is None:
        return False
    folder = expanded(args.path) if args.source == "folder" else None
    if folder and Path(str(asked.path)).name not in (real(folder).name, called(folder, Findings())):
        return True
    same = ["source", "on_bad_image", "prompt", "ignore_captions", "repair", "streaming"]
    told = [name for name in ("caption_column", "image_column", "config", "split") if getattr(args, name)]
    return any(getattr(asked, name) != getattr(args, name) for name in (*same, *told))


def report(data: Any, folder: Any, say: Callable[[str], None]) -> dict[str, Any]:
    record = data.record
    say(f"{record.rows} pictures with {record.captions} captions")
    for reason, number in record.left_out.items():
        say(f"left out: {reason}: {number}")
    for note in record.notes:
        say(f"note: {note}")
    for name, number in record.licenses.items():
        say(f"licence: {name}: {number}")
    say(f'written: {folder} (load_dataset({str(folder)!r}, split="train"))')
    sheet = folder / "images" / "sheet.png"
    shown = str(sheet) if sheet.is_file() else None
    say(f"pictures: {shown or 'no page of them, for there is none that may be shown'}")
    return {
        "folder": str(folder),
        "sheet": shown,
        "rows": record.rows,
        "captions": record.captions,
        "image_ids": list(data.dataset["image_id"]),
        "left_out": record.left_out,
        "licenses": record.licenses,
        "categories": record.categories,
        "notes": list(record.notes),
        "recipe": record.recipe,
        "fingerprint": record.fingerprint,
    }
