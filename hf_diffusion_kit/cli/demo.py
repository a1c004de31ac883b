import argparse
from collections.abc import Callable
from typing import Any

HELP = """The main job in about two minutes on a laptop: teach a small Stable Diffusion a digit that it has never seen, from ten captioned
pictures; publish the adapter to a Hub on this machine; load it back with stock diffusers. Nothing is downloaded."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="demo-out", help="folder for everything (default: demo-out)")
    parser.add_argument("--digit", type=int, default=4, help="3, 4 or 7: the digits that the base has never seen (default: 4)")
    parser.add_argument("--seed", type=int, default=0, help="picks the ten pictures and decides all chance (default: 0)")
    parser.add_argument("--steps", type=int, help="training steps (default: 400)")


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    import os
    from pathlib import Path

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # half a megabyte to this machine wants no four bars
    os.environ["HF_HUB_OFFLINE"] = "0"  # else clients would not even talk to the Hub on this machine, the only one asked here
    from ..demo import demo

    settings = {"steps": args.steps} if args.steps is not None else {}
    return demo(Path(args.out), digit=args.digit, seed=args.seed, say=say, **settings)
