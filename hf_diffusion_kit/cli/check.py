import argparse
from collections.abc import Callable, Iterable
from typing import Any

HELP = """Look at every picture and caption of a folder before it costs GPU time: one's own pictures, a list of concepts, a COCO folder,
a saved subset, Parquet.

  hfdk check my_pictures --resolution 512 --base digits
  hfdk check train2017 --against val2017

Changes nothing there. Exit code 3 when a picture or a file of captions cannot be used; with --strict also when anything else is
found: a caption is missing or longer than the tokenizer takes, a picture is smaller than the resolution, two pictures look the same,
a picture is in two splits."""

SHOWN = 24
NAMED = 10
"""Names printed of each kind of finding; --json has all of them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="the folder, or a concepts_list.json")
    parser.add_argument("--resolution", type=int, help="pixels of the training; smaller pictures are named")
    parser.add_argument("--base", help="Hub id, folder, or digits / digits-seven: captions that its tokenizer cuts are named")
    parser.add_argument("--against", metavar="OTHER", help="another folder; pictures that are in both are named")
    parser.add_argument("--split", help="of a folder with train/, val/ ...: this one alone (default: each, and what they share)")
    parser.add_argument("--prompt", help="the pictures have no captions of their own and all get this one")
    parser.add_argument("--ignore-captions", action="store_true", help="go on although captions exist that are not used")
    parser.add_argument("--caption-column", help="the column of the captions, where several could be meant")
    parser.add_argument(
        "--repair", action="store_true", help="leave out a last line of metadata that is cut short; no file is changed"
    )
    parser.add_argument("--near", type=int, default=24, help="bits of 256 that may differ between near-duplicates (default: 24)")
    parser.add_argument("--strict", action="store_true", help="whatever is found is a failure")
    parser.add_argument("--sheet", metavar="PNG", help="where the contact sheet goes (default: ./DIR-check.png)")


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from dataclasses import asdict
    from pathlib import Path

    from ..data.captions import tidy
    from ..data.check import check
    from ..data.pictures import open_rgb
    from ..data.where import expanded
    from ..sheet import Cell

    folder = expanded(args.folder)
    seen: list[Cell] = []
    alike: list[tuple[str, Cell, Cell]] = []

    def cell(content: bytes, text: str) -> Cell:
        image = open_rgb(content)
        image.thumbnail((400, 400))
        return Cell(image, text)

    def watch(row: Any, picture: Any) -> None:
        if len(seen) < SHOWN:
            seen.append(cell(picture.content, tidy(row.captions[0]) if row.captions else "(no caption)"))

    def beside(pair: Any, first: bytes, second: bytes) -> None:
        alike.append((how(pair), cell(first, pair.first), cell(second, pair.second)))

    count, tokens = counter(args.base)
    told_by = ("split", "prompt", "ignore_captions", "caption_column", "repair")
    report = check(
        folder,
        resolution=args.resolution,
        against=args.against,
        near=args.near,
        count_tokens=count,
        tokens=tokens,
        progress=True,
        watch=watch,
        beside=beside,
        **{name: getattr(args, name) for name in told_by},
    )
    told(report, say)
    sheet = Path(args.sheet or f"{folder.resolve().stem}-check.png")
    save(contact_sheet(report, folder, seen), sheet)
    say(f"pictures: {sheet}")
    twins = sheet.with_name(f"{sheet.stem}-alike.png") if alike else None
    if twins:
        save(side_by_side(report, alike), twins)
        say(f"side by side: {twins}")
    for advice in report.advice:
        say(f"to do: {advice}")
    code = report.exit_code or (3 if args.strict and not report.flawless else 0)
    say("flawless" if report.flawless else "cannot be trained on as it is" if report.exit_code else "can be trained on")
    more = {"advice": list(report.advice), "sheet": str(sheet), "alike_sheet": str(twins) if twins else None}
    return {**asdict(report), **more, "flawless": report.flawless, "exit_code": code}


def counter(base: str | None) -> tuple[Callable[[str], int] | None, int]:
    """The tokenizer of a base, and how many tokens it takes."""
    if base is None:
        return None, 77
    from ..bases import resolve
    from ..families.tokens import token_counter

    there = resolve(base)
    return token_counter(there.location, revision=there.revision)


def told(report: Any, say: Callable[[str], None]) -> None:
    if report.pictures:
        sizes = " to ".join(dict.fromkeys(f"{width}x{height}" for width, height in (report.smallest, report.largest)))
        say(f"{report.pictures} pictures ({sizes}) with {report.captions} captions, read as {report.source}")
        say(f"modes: {counted(report.modes)}")
    if report.sets:
        say(f"splits: {counted(report.sets)}")
    for fault in report.broken[:NAMED]:
        say(f"broken: {fault.name}: {fault.what}" + (f" (fix: {fault.fix})" if fault.fix else ""))
    if len(report.broken) > NAMED:
        say(f"broken: {len(report.broken) - NAMED} more (--json names them)")
    found = {
        **report.faults,
        f"smaller than {report.resolution}, would be enlarged": report.small,
        "the same, byte for byte": [" = ".join(names) for names in report.same],
        f"look the same ({report.near} of 256 bits or fewer differ)": [
            f"{twin.first} ~ {twin.second}: {twin.distance}" for twin in report.twins
        ],
        f"in two sets{f' (against {report.against})' if report.against else ''}": [
            f"{leak.first} = {leak.second}: {leak.how}" for leak in report.leaks
        ],
        "one caption for many pictures": [f"{text[:60]!r}: {number}" for text, number in report.shared.items()],
        "the caption is the file's name": report.like_names,
        f"captions of more than {report.tokens} tokens, which are cut": [f"{cut.name}: {cut.tokens}" for cut in report.cut],
        "named like another format": report.misnamed,
    }
    for reason, names in found.items():
        if names:
            say(f"{reason}: {listed(names)}")
    for remark, number in report.remarks.items():
        say(f"{remark}: {number}")
    for note in report.notes:
        say(f"note: {note}")
    if report.tokens is None:
        say("note: the captions' tokens were not counted; name the --base that will be trained")


def listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} ({', '.join(names[:NAMED])}{more})"


def counted(numbers: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in numbers.items())


def how(pair: Any) -> str:
    return f"{pair.distance} of 256 bits differ" if hasattr(pair, "distance") else pair.how


def contact_sheet(report: Any, folder: Any, seen: list[Any]) -> Any:
    """What is broken first, as empty frames with their reason, then pictures as they are found."""
    from PIL import Image

    from ..sheet import Cell, grid

    bad = [Cell(Image.new("RGB", (200, 130), "#f6dcd8"), f"{fault.name}: {fault.what}") for fault in report.broken[: SHOWN // 2]]
    cells = [*bad, *seen[: SHOWN - len(bad)]]
    title = f"{folder.resolve().name}: {report.pictures} pictures, {len(report.broken)} broken"
    return grid(cells or [Cell(Image.new("RGB", (200, 130), "white"), "no picture")], title=title, cell=200)


def side_by_side(report: Any, alike: list[tuple[str, Any, Any]]) -> Any:
    """Pictures that look the same, two a frame, with what speaks for it."""
    from PIL import Image, ImageOps

    from ..sheet import Cell, grid

    cells = []
    for why, *pair in alike:
        both = Image.new("RGB", (420, 200), "white")
        for place, one in enumerate(pair):
            both.paste(ImageOps.pad(one.picture, (205, 200), color="white"), (215 * place, 0))
        cells.append(Cell(both, f"{pair[0].caption} ~ {pair[1].caption}: {why}"))
    number = len(report.twins) + len(report.leaks)
    title = f"{number} pair{'s' * (number != 1)} of pictures look the same"
    return grid(
        cells,
        columns=min(3, len(cells)),
        title=title + (f", the first {len(cells)} are shown" if number > len(cells) else ""),
        cell=420,
    )


def save(page: Any, path: Any) -> None:
    from ..errors import StorageError

    try:
        page.save(path, "PNG")
    except OSError as error:
        raise StorageError(f"cannot be written: {error.strerror}", where=path, fix="name another --sheet", case=3) from error
