import argparse
from collections.abc import Callable
from typing import Any

HELP = """Pick captioned pictures into one folder of Parquet that stock `load_dataset` opens.

  hfdk subset coco --annotations annotations --images val2014 --category dog frisbee --count 100 --out out/dogs
  hfdk subset coco --split val2017 --any-category cat dog --license commercial --count 50 --out out/pets     (fetches what it needs)
  hfdk subset folder my_pictures --out out/mine
  hfdk subset hub user/name --caption-column text --count 500 --out out/theirs

Every picture is decoded in full, every caption kept; what is left out is counted and shown. The same words give the same pictures,
whatever the order of the files."""

NAMES = {
    "category": "all of them are in the picture",
    "any-category": "at least one of them is",
    "not-category": "none of them is",
    "supercategory": "something of each is in the picture: animal, food ...",
    "license": "licence numbers or names, or the words commercial, modifiable, redistributable",
}
NUMBERS: dict[str, tuple[type, str]] = {
    "min-area": (float, "least share of the picture that one object of each wanted category covers, 0 to 1"),
    "min-side": (int, "pixels of the shorter side"),
    "min-aspect": (float, "width divided by height: 1 is a square, below 1 upright"),
    "max-aspect": (float, "the most of it"),
    "min-words": (int, "captions with fewer words do not count"),
    "max-words": (int, "captions with more words do not count"),
    "count": (int, "how many pictures, drawn by --seed (default: all)"),
    "seed": (int, "decides which ones (default: 0)"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        choices=("coco", "folder", "hub"),
        help="COCO annotations, a folder of your own (or one that was saved), a captioned dataset of the Hub",
    )
    parser.add_argument("path", nargs="?", metavar="DIR", help="folder: the pictures and their captions; hub: the dataset's id")
    parser.add_argument("--out", required=True, help="folder to write; it must be new, empty or the same subset")
    parser.add_argument("--overwrite", action="store_true", help="replace another subset that is there")
    source = parser.add_argument_group("where from")
    source.add_argument(
        "--annotations",
        help="coco: folder of captions_*.json (and instances_*.json), or one file (default: fetch the official ones)",
    )
    source.add_argument(
        "--images",
        help="coco: folder of one split's pictures, or of all splits' folders, or `https` (the default): fetch the chosen ones",
    )
    source.add_argument("--split", help="coco: val2014, train2017 ... (default: all whose pictures are there); hub: train")
    source.add_argument("--prompt", help="folder, hub: one caption for all")
    source.add_argument("--ignore-captions", action="store_true", help="go on although captions exist that are not used")
    source.add_argument("--caption-column", help="the column of the captions, where several could be meant")
    source.add_argument("--image-column", help="hub: the column of the pictures, where several could be meant")
    source.add_argument("--config", help="hub: which of its configurations")
    source.add_argument("--revision", help="hub: branch, tag or commit (default: main)")
    source.add_argument("--streaming", action="store_true", help="hub: read as a stream; nothing but what is chosen is kept")
    source.add_argument("--repair", action="store_true", help="folder: drop a last line of metadata that is cut short")
    chosen = parser.add_argument_group("which pictures")
    for name, text in NAMES.items():
        chosen.add_argument(f"--{name}", nargs="+", action="extend", help=text)
    for name, (kind, text) in NUMBERS.items():
        chosen.add_argument(f"--{name}", type=kind, help=text)
    chosen.add_argument("--no-crowd", dest="crowd", action="store_const", const=False, help="crowds do not count as objects")
    chosen.add_argument("--match", metavar="REGEX", help="must be found in one of the captions, whatever the case")
    out = parser.add_argument_group("what is written")
    out.add_argument(
        "--caption",
        help="what stands in `text`: first (default), random, longest, shortest, nth:2, all; `captions` has all of them",
    )
    out.add_argument(
        "--pixels", choices=("embedded", "none"), help="none: addresses, captions and licences alone (default: embedded)"
    )
    out.add_argument("--strict", action="store_true", help="a picture without caption, a caption without picture is an error")
    out.add_argument(
        "--on-bad-image", choices=("error", "skip"), default="error", help="missing or broken pictures (default: error)"
    )


PASSED = (
    *("annotations", "images", "split", "prompt", "ignore_captions", "caption_column"),
    *("image_column", "config", "revision", "streaming", "repair", "pixels"),
)
"""Handed on as they are when they are said."""


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from pathlib import Path

    from ..data import load_captioned, saved
    from ..data.subset import Subset
    from ..errors import ConfigError

    if args.source != "coco" and not args.path:
        raise ConfigError(
            "which one?", where=f"hfdk subset {args.source}", fix=f"hfdk subset {args.source} DIR --out DIR", case=1
        )
    if args.source == "coco" and args.path:
        raise ConfigError(f"what is {args.path!r}?", where="hfdk subset coco", fix="say --annotations and --images", case=1)
    names = [name.replace("-", "_") for name in (*NAMES, *NUMBERS)]
    subset = Subset.of(**{name: getattr(args, name) for name in (*names, "crowd", "match", "caption")})
    told = {name: value for name in PASSED if (value := getattr(args, name)) not in (None, False)}
    out = Path(args.out)
    if not saved.taken(out):  # one that is there may be the same, which only the rows can tell
        saved.check_place(out)
    data = load_captioned(
        args.path or "coco", subset=subset, strict=args.strict, on_bad_image=args.on_bad_image, progress=True, **told
    )
    folder = data.save(out, overwrite=args.overwrite)
    return report(data, folder, say)


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
