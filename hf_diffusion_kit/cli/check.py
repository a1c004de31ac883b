import argparse
from collections.abc import Callable, Iterable
from typing import Any

HELP = """Look at every picture and caption of a folder before it costs GPU time: one's own pictures, a list of concepts, a COCO folder,
a saved subset, Parquet.

  hfdk check my_pictures --resolution 512 --base digits
  hfdk check train2017 --against val2017

Changes nothing there; what was looked at is drawn on a page beside you, DIR-check.png, and pictures that look the same side by side
on another, DIR-check-alike.png."""
EPILOG = """Exit code 0: it can be trained on; 3: a picture or a file of captions cannot be used, or nothing is there; with --strict also when
a caption is missing or cut by the tokenizer, a picture is smaller than the resolution, two pictures are or look the same, a picture is in
two splits, a caption is a file's name or that of very many; 2: a flag is wrong; 5: the page cannot be written."""
USAGE = "hfdk check DIR [--resolution PIXELS] [--base BASE] [--against OTHER] [...]"

SHOWN = 24
ELSEWHERE = "name another --sheet"
NAMED = 10
"""Names printed of each kind of finding; --json has all of them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage, parser.epilog = USAGE, EPILOG
    parser.add_argument("folder", metavar="DIR", help="the folder, or a concepts_list.json")
    read = parser.add_argument_group("how it is read (as `hfdk subset folder` and `hfdk train` are told)")
    read.add_argument("--split", help="of a folder with train/, val/ ...: this one alone (default: each, and what they share)")
    read.add_argument("--prompt", metavar="TEXT", help="the pictures have no captions of their own and all get this one")
    read.add_argument("--ignore-captions", action="store_true", help="go on although captions exist that are not used")
    read.add_argument("--caption-column", metavar="NAME", help="the column of the captions, where several could be meant")
    read.add_argument(
        "--repair", action="store_true", help="leave out a last line of metadata that is cut short; no file is changed"
    )
    asked = parser.add_argument_group("what is looked for (broken files, missing captions, what is there twice: always)")
    asked.add_argument(
        "--resolution",
        type=int,
        metavar="PIXELS",
        help="side in training; pictures with a shorter side are named (default: none is)",
    )
    asked.add_argument(
        "--base",
        help="Hub id, folder, or digits / digits-seven: captions that its tokenizer cuts are named (default: tokens are not counted)",
    )
    asked.add_argument("--against", metavar="OTHER", help="another folder, of tests say; pictures that are in both are named")
    asked.add_argument(
        "--near",
        type=int,
        default=24,
        metavar="BITS",
        help="how many bits of a picture's 256 may differ in one that looks the same, 1 to 64: 24 finds other sizes, formats and "
        "compressions, 48 what is cropped a little too (default: 24)",
    )
    asked.add_argument("--strict", action="store_true", help="whatever of this is found is a failure: exit code 3")
    parser.add_argument("--sheet", metavar="PNG", help="where the page of pictures goes (default: ./DIR-check.png)")


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from dataclasses import asdict

    from ..data.captions import tidy
    from ..data.check import check
    from ..data.pictures import open_rgb
    from ..data.where import expanded
    from ..errors import ConfigError
    from ..sheet import Cell

    if blank := next((name for name, value in vars(args).items() if value == ""), None):
        where = "DIR" if blank == "folder" else f"--{blank.replace('_', '-')}"
        raise ConfigError("is empty", where=where, fix="give it a value, or leave it out", case=1)
    folder = expanded(args.folder)
    sheet = place(args.sheet, folder)
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
    save(contact_sheet(report, folder, seen), sheet)
    say(f"pictures: {sheet}")
    twins = beside_it(sheet) if alike else None
    if twins:
        save(side_by_side(report, alike), twins)
        say(f"side by side: {twins}")
    for advice in report.advice:
        say(f"to do: {advice}")
    code = report.exit_code or (3 if args.strict and not report.flawless else 0)
    say(verdict(report, code))
    more = {"advice": list(report.advice), "sheet": str(sheet), "alike_sheet": str(twins) if twins else None}
    return {**asdict(report), **more, "flawless": report.flawless, "exit_code": code}


def place(told: str | None, folder: Any) -> Any:
    """Where the page of pictures goes. Raises ConfigError or StorageError before the work: not over a file that is none, nor into the
    folder, of which it would be a picture the next time."""
    from pathlib import Path

    from ..data.place import check_writable, real
    from ..data.where import expanded
    from ..errors import ConfigError, StorageError

    here, home = real(folder), Path.cwd()
    above = here.parent if here.is_dir() and home.is_relative_to(here) else Path()
    sheet = expanded(told) if told else above / f"{here.stem or 'root'}-check.png"
    if sheet.suffix.lower() != ".png":
        raise ConfigError("is written as PNG", where=f"--sheet {sheet}", fix="name a file that ends in .png", case=1)
    for page in (sheet, beside_it(sheet)):
        check_writable(page, ELSEWHERE)
        if page.is_dir() or not page.parent.is_dir():
            what = "is a folder" if page.is_dir() else f"cannot be written: there is no folder {page.parent}"
            raise StorageError(what, where=page, fix=ELSEWHERE, case=3)
        if real(page).is_relative_to(here):
            what = "lies in the folder that is looked at, and would be one of its pictures the next time"
            raise ConfigError(what, where=f"--sheet {page}", fix="name one outside it", case=1)
    return sheet


def beside_it(sheet: Any) -> Any:
    return sheet.with_name(f"{sheet.stem}-alike.png")


def verdict(report: Any, code: int) -> str:
    """The last line, which says what the exit code says."""
    if report.flawless:
        return "flawless"
    if report.exit_code:
        return "cannot be trained on as it is"
    return "not flawless, which --strict asks for (it can be trained on)" if code else "can be trained on"


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
        say(f"{things(report.pictures, 'picture')} ({sizes}) with {things(report.captions, 'caption')}, read as {report.source}")
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


def things(number: int, name: str) -> str:
    return f"{number} {name}{'s' * (number != 1)}"


def counted(numbers: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in numbers.items())


def how(pair: Any) -> str:
    return f"{pair.distance} of 256 bits differ" if hasattr(pair, "distance") else pair.how


def contact_sheet(report: Any, folder: Any, seen: list[Any]) -> Any:
    """What is broken first, as crossed frames with their reason, then pictures as they are found."""
    from PIL import Image, ImageDraw

    from ..sheet import Cell, grid

    frame = Image.new("RGB", (200, 130), "#f6dcd8")
    for line in ((0, 0, 199, 129), (0, 129, 199, 0)):
        ImageDraw.Draw(frame).line(line, "#e0b4ad", 2)
    bad = [Cell(frame, f"{fault.name}: {fault.what}", lines=8) for fault in report.broken[: SHOWN // 2]]
    cells = [*bad, *seen[: SHOWN - len(bad)]]
    shown = f", {len(cells)} are shown" if len(cells) < report.pictures + len(report.broken) else ""
    title = f"{folder.resolve().name}: {things(report.pictures, 'picture')}, {len(report.broken) or 'none'} broken{shown}"
    return grid(cells or [Cell(Image.new("RGB", (200, 130), "white"), "no picture")], title=title, cell=200)


def side_by_side(report: Any, alike: list[tuple[str, Any, Any]]) -> Any:
    """Pictures that look the same, two a frame, with what speaks for it."""
    from PIL import Image, ImageOps

    from ..sheet import Cell, grid

    cells = []
    for why, *pair in alike:
        halves = [ImageOps.contain(one.picture, (205, 200)) for one in pair]
        both = Image.new("RGB", (420, max(half.height for half in halves)), "white")
        for place, half in enumerate(halves):
            both.paste(half, (215 * place, both.height - half.height))
        cells.append(Cell(both, f"{pair[0].caption} ~ {pair[1].caption}: {why}"))
    number = len(report.twins) + len(report.leaks)
    title = f"{things(number, 'pair')} of pictures that look the same"
    return grid(
        cells,
        columns=min(3, len(cells)),
        title=title + (f", the first {len(cells)} are shown" if number > len(cells) else ""),
        cell=420,
    )


def save(page: Any, path: Any) -> None:
    """Whole or not at all."""
    import os

    from ..errors import StorageError

    half = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        page.save(half, "PNG")
        half.replace(path)
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}"
        raise StorageError(what, where=path, fix=ELSEWHERE, case=3) from error
    finally:
        half.unlink(missing_ok=True)
