import argparse
from collections.abc import Callable, Iterable
from typing import Any

HELP = """Look at every picture and caption of a folder before it costs GPU time: one's own pictures, a COCO folder, a saved subset.

  hfdk check my_pictures --resolution 512

Changes nothing there. Exit code 3 when a picture or a file of captions cannot be used; with --strict also when a caption is missing,
a picture is smaller than the resolution, or two pictures are the same."""

SHOWN = 24
NAMED = 10
"""Names printed of each kind of finding; --json has all of them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--resolution", type=int, help="pixels of the training; smaller pictures are named")
    parser.add_argument("--prompt", help="the pictures have no captions of their own and all get this one")
    parser.add_argument("--caption-column", help="the column of the captions, where several could be meant")
    parser.add_argument("--strict", action="store_true", help="whatever is found is a failure")
    parser.add_argument("--sheet", metavar="PNG", help="where the contact sheet goes (default: ./DIR-check.png)")


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from dataclasses import asdict
    from pathlib import Path

    from ..data.captions import tidy
    from ..data.check import check
    from ..data.pictures import open_rgb
    from ..errors import StorageError
    from ..sheet import Cell

    folder = Path(args.folder).expanduser()
    seen: list[Cell] = []

    def watch(row: Any, picture: Any) -> None:
        if len(seen) < SHOWN:
            image = open_rgb(picture.content)
            image.thumbnail((400, 400))
            seen.append(Cell(image, tidy(row.captions[0]) if row.captions else "(no caption)"))

    options = {"resolution": args.resolution, "prompt": args.prompt, "caption_column": args.caption_column}
    report = check(folder, **options, progress=True, watch=watch)
    told(report, say)
    sheet = Path(args.sheet or f"{folder.resolve().name}-check.png")
    try:
        contact_sheet(report, folder, seen).save(sheet, "PNG")
    except OSError as error:
        raise StorageError(f"cannot be written: {error.strerror}", where=sheet, fix="name another --sheet", case=3) from error
    say(f"pictures: {sheet}")
    code = report.exit_code or (3 if args.strict and not report.flawless else 0)
    say("flawless" if report.flawless else "cannot be trained on as it is" if report.exit_code else "can be trained on")
    return {**asdict(report), "sheet": str(sheet), "flawless": report.flawless, "exit_code": code}


def told(report: Any, say: Callable[[str], None]) -> None:
    if report.pictures:
        sizes = " to ".join(dict.fromkeys(f"{width}x{height}" for width, height in (report.smallest, report.largest)))
        say(f"{report.pictures} pictures ({sizes}) with {report.captions} captions, read as {report.source}")
    for fault in report.broken[:NAMED]:
        say(f"broken: {fault.name}: {fault.what}" + (f" (fix: {fault.fix})" if fault.fix else ""))
    if len(report.broken) > NAMED:
        say(f"broken: {len(report.broken) - NAMED} more (--json names them)")
    for reason, names in report.faults.items():
        say(f"{reason}: {listed(names)}")
    if report.small:
        say(f"smaller than {report.resolution}, would be enlarged: {listed(report.small)}")
    if report.same:
        say(f"the same, byte for byte: {listed(' = '.join(names) for names in report.same)}")
    for remark, number in report.remarks.items():
        say(f"{remark}: {number}")
    for note in report.notes:
        say(f"note: {note}")


def listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} ({', '.join(names[:NAMED])}{more})"


def contact_sheet(report: Any, folder: Any, seen: list[Any]) -> Any:
    """What is broken first, as empty frames with their reason, then pictures as they are found."""
    from PIL import Image

    from ..sheet import Cell, grid

    bad = [Cell(Image.new("RGB", (200, 130), "#f6dcd8"), f"{fault.name}: {fault.what}") for fault in report.broken[: SHOWN // 2]]
    cells = [*bad, *seen[: SHOWN - len(bad)]]
    title = f"{folder.resolve().name}: {report.pictures} pictures, {len(report.broken)} broken"
    return grid(cells or [Cell(Image.new("RGB", (200, 130), "white"), "no picture")], title=title, cell=200)
