import argparse
from collections.abc import Callable
from typing import Any

HELP = """Pick captioned pictures into one folder of Parquet that stock `load_dataset` opens.

  hfdk subset coco --annotations annotations --images val2014 --category cat --count 100 --out out/cats
  hfdk subset folder my_pictures --out out/mine

Every picture is decoded in full, every caption kept; what is left out is counted and shown. The same words give the same pictures,
whatever the order of the files."""

SHOWN = 24
"""Pictures of the contact sheet."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", choices=("coco", "folder"), help="COCO annotations, or a folder of your own (or a Hub dataset's id)"
    )
    parser.add_argument(
        "path", nargs="?", metavar="DIR", help="folder: the pictures, with metadata.jsonl, metadata.csv or .txt files"
    )
    parser.add_argument("--out", required=True, help="folder to write; it must be new, empty or the same subset")
    parser.add_argument("--overwrite", action="store_true", help="replace another subset that is there")
    parser.add_argument("--annotations", help="coco: folder of captions_*.json (and instances_*.json), or one file")
    parser.add_argument("--images", help="coco: folder of one split's pictures, or of all splits' folders")
    parser.add_argument("--split", help="coco: val2014, train2017 ... (default: all whose pictures are there); Hub: train")
    parser.add_argument("--category", nargs="+", action="extend", help="coco: all of them must be in the picture")
    parser.add_argument("--count", type=int, help="how many pictures, drawn by --seed (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prompt", help="folder: one caption for all")
    parser.add_argument("--ignore-captions", action="store_true", help="folder: go on although captions exist that are not used")
    parser.add_argument("--caption-column", help="folder: the column of the captions, where several could be meant")
    parser.add_argument("--strict", action="store_true", help="a picture without caption, a caption without picture is an error")
    parser.add_argument(
        "--on-bad-image", choices=("error", "skip"), default="error", help="missing or broken pictures (default: error)"
    )


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from pathlib import Path

    from ..data import load_captioned
    from ..errors import ConfigError

    if args.source == "folder" and not args.path:
        raise ConfigError("which folder?", where="hfdk subset folder", fix="hfdk subset folder DIR --out DIR", case=1)
    if args.source == "coco" and args.path:
        raise ConfigError(f"what is {args.path!r}?", where="hfdk subset coco", fix="say --annotations and --images", case=1)
    data = load_captioned(
        args.path or "coco",
        annotations=args.annotations,
        images=args.images,
        split=args.split,
        category=args.category,
        count=args.count,
        seed=args.seed,
        prompt=args.prompt,
        ignore_captions=args.ignore_captions,
        caption_column=args.caption_column,
        strict=args.strict,
        on_bad_image=args.on_bad_image,
        progress=True,
    )
    folder = data.save(Path(args.out), overwrite=args.overwrite)
    captions = sum(map(len, data.dataset["captions"]))
    title = f"{folder.name}: {len(data)} pictures, {captions} captions"
    page = contact_sheet(data, f"{title}, the first {SHOWN} are shown" if len(data) > SHOWN else title)
    page.save(folder / "sheet.png")
    say(f"{len(data)} pictures with {captions} captions")
    for reason, number in data.left_out.items():
        say(f"left out: {reason}: {number}")
    for note in data.notes:
        say(f"note: {note}")
    for name, number in data.licenses.items():
        say(f"licence: {name}: {number}")
    say(f'written: {folder} (load_dataset({str(folder)!r}, split="train"))')
    say(f"pictures: {folder / 'sheet.png'}")
    return {
        "folder": str(folder),
        "sheet": str(folder / "sheet.png"),
        "rows": len(data),
        "captions": captions,
        "image_ids": list(data.dataset["image_id"]),
        "left_out": data.left_out,
        "licenses": data.licenses,
        "notes": list(data.notes),
        "recipe": data.recipe,
        "fingerprint": data.fingerprint,
    }


def contact_sheet(data: Any, title: str) -> Any:
    from ..sheet import Cell, grid

    examples = [data.example(number) for number in range(min(len(data), SHOWN))]
    texts = data.dataset["text"][: len(examples)]
    return grid([Cell(example.image, text) for example, text in zip(examples, texts, strict=True)], title=title, cell=200)
