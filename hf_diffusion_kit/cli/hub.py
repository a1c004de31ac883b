import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

HELP = """A Hugging Face Hub on this machine, at 127.0.0.1 only: stock clients push to it and pull from it, a browser looks at it.

  hfdk hub serve      serve it until Ctrl-C
  hfdk hub list       what `hfdk publish --hub local` has put there"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parts = parser.add_subparsers(dest="what", required=True, metavar="serve | list")
    serve = parts.add_parser("serve", help="serve it until Ctrl-C")
    serve.add_argument("--port", type=int, default=8800, help="0 takes any free one (default: 8800)")
    serve.add_argument("--user", default="you", help="who whoami says one is (default: you); repositories may be under any name")
    for part in (serve, parts.add_parser("list", help="list its repositories")):
        part.add_argument("--dir", type=Path, help="its folder (default: $HFDK_HUB_DIR, or hfdk/hub in your data folder)")
        # `--json` and `--debug` may stand before or after the word; SUPPRESS keeps the one from undoing the other.
        part.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object on stdout")
        part.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from ..hub.local import default_folder

    folder = args.dir or default_folder()
    return serve(folder, args.port, args.user, say) if args.what == "serve" else listed(folder, say)


def serve(folder: Path, port: int, user: str, say: Callable[[str], None]) -> dict[str, Any]:
    from ..hub.local import serve

    serve(folder, port, user, announce=say)
    return {"folder": str(folder)}


def listed(folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    from ..hub.local import local_door

    if not (folder / "hub.sqlite").is_file():  # looking makes none
        say(f"there is no local Hub at {folder} yet; `hfdk publish RUN --repo you/name --hub local` makes one")
        return {"folder": str(folder), "repositories": []}
    with local_door(folder) as door:
        found = [("model", item) for item in door.api.list_models()] + [("dataset", item) for item in door.api.list_datasets()]
    told = [
        {
            "id": item.id,
            "kind": kind,
            "private": item.private,
            "files": len(item.siblings),
            "bytes": item.used_storage,
            "changed": item.last_modified.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "commit": item.sha,
        }
        for kind, item in found
    ]
    for repo in told:
        seen = "private" if repo["private"] else "public"
        say(f"{repo['id']}  {repo['kind']}, {seen}, {repo['files']} files, {repo['bytes']:,} bytes, changed {repo['changed']}")
    say(f"{len(told)} repositories in {folder}; `hfdk hub serve` shows them in a browser")
    return {"folder": str(folder), "repositories": told}
