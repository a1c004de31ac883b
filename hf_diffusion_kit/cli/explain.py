import argparse
from collections.abc import Callable
from typing import Any

HELP = "Look inside a pipeline: parts, noise schedule, denoising steps, attention per word. Not there yet."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="Hub id or folder")


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from ..errors import ConfigError

    raise ConfigError("is not there yet; it comes with a later version", where="hfdk explain", case=2)
