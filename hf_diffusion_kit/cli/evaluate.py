import argparse
from collections.abc import Callable
from typing import Any

HELP = """Draw a run's gallery again from its files and say how far the pictures are from the ones in its folder: 0 on the same kind of
machine. Scores of subject, words, drift and memory come with a later version."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN", help="folder of a finished run")


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from ..run import Run

    apart = Run.open(args.folder).evaluate()
    for name, value in apart.items():
        say(f"{name}: largest pixel difference {value:.4f}")
    return {"pictures": apart, "largest": max(apart.values())}
