import argparse
from collections.abc import Callable
from typing import Any

HELP = """Read and edit the captions of a folder of pictures in a browser, on this machine alone. They go back to where they came from:
metadata.jsonl, metadata.csv or the files beside the pictures; metadata.jsonl where there are none yet.

  hfdk captions my_pictures --base digits

The first state of every file that is changed is kept in .captions-before/ in the folder. Ctrl-C ends it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="one's own pictures")
    parser.add_argument("--split", help="of a folder with train/, val/ ...: this one")
    parser.add_argument("--caption-column", metavar="NAME", help="the column of the captions, where several could be meant")
    parser.add_argument(
        "--base", help="Hub id, folder, or digits / digits-seven: its tokenizer counts (default: nothing is counted)"
    )
    parser.add_argument("--port", type=int, default=0, help="default: any free one")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from ..data.where import expanded
    from ..studio.captions import Shelf
    from ..studio.captions_page import CaptionsPage
    from ..studio.site import serve
    from .check import counter

    count, most = counter(args.base)
    shelf = Shelf(expanded(args.folder), args.split, args.caption_column)
    state = shelf.read()
    for note in state.notes:
        say(f"note: {note}")
    page = CaptionsPage(shelf, count, most if count else 0)
    address = serve(page.site(), args.port, say, what="captions", browser=not args.no_browser)
    return {"folder": str(shelf.folder), "pictures": len(state.captions), "address": address, "changed": page.saved}
