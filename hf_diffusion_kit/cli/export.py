import argparse
from collections.abc import Callable
from typing import Any

HELP = """Write a finished run in another format and load it back: `merged` is the whole pipeline with the adapter folded in, which
`DiffusionPipeline.from_pretrained` opens; `diffusers-lora` is the adapter alone. Other formats come with a later version."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN", help="folder of a finished run")
    parser.add_argument("--format", default="merged", help="merged (default) or diffusers-lora")
    parser.add_argument("--out", required=True, help="empty folder to write to")


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from pathlib import Path

    from ..run import Run

    files = Run.open(args.folder).export(args.format, Path(args.out), say=say)
    total = sum(path.stat().st_size for path in files)
    say(f"written:  {args.out} ({len(files)} files, {total:,} bytes)")
    return {"folder": args.out, "format": args.format, "files": [str(path) for path in files], "bytes": total}
