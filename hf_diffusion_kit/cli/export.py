import argparse
from collections.abc import Callable
from typing import Any

HELP = """Write a finished run in another format and load it back.

  merged             the whole pipeline, with the adapter and the new words folded in: `DiffusionPipeline.from_pretrained` opens it (default)
  pipeline           the same; it is what a full fine-tune is written as
  single-file        one checkpoint in the original layout (SD 1.x and SDXL), for ComfyUI, the WebUIs and `from_single_file`
  diffusers-lora     the LoRA alone, for `load_lora_weights`
  kohya              the LoRA alone (or LoHa, LoKr), for ComfyUI, the WebUIs and sd-scripts; diffusers reads the LoRA too
  peft               the adapter alone (LoRA, LoHa, LoKr or OFT), for peft
  textual-inversion  the new words alone, for `load_textual_inversion`

What is folded together is written in float32; the pipeline of a full fine-tune is copied as it is."""

FORMATS = ("merged", "pipeline", "single-file", "diffusers-lora", "kohya", "peft", "textual-inversion")
"""All that there are (a test holds them against the room that has them); named here, for help must not load torch."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN", help="folder of a finished run")
    parser.add_argument("--format", default="merged", help=f"{', '.join(FORMATS)} (default: merged)")
    parser.add_argument("--out", required=True, help="empty folder to write to")


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from pathlib import Path

    from ..run import Run

    files = Run.open(args.folder).export(args.format, Path(args.out), say=say)
    total = sum(path.stat().st_size for path in files)
    say(f"written:  {args.out} ({len(files)} files, {total:,} bytes)")
    return {"folder": args.out, "format": args.format, "files": [str(path) for path in files], "bytes": total}
