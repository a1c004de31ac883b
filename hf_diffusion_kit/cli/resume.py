import argparse
from collections.abc import Callable
from typing import Any

HELP = """Go on with a run that was stopped, from its newest valid checkpoint. The result is byte for byte that of a run that was
never stopped. Settings, base and data must be what they were; what may differ is named with --allow-change."""

INTERMIXED = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN", help="folder of the run")
    parser.add_argument("words", nargs="*", metavar="key=value", help="settings to change, each also named by --allow-change")
    parser.add_argument(
        "--allow-change", action="append", default=[], metavar="SETTING", help="e.g. training.steps; again for more"
    )


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from pathlib import Path

    from ..errors import ConfigError
    from ..job import train
    from ..recipe import Recipe
    from ..run import SETTINGS
    from .train import report

    folder = Path(args.folder)
    if not (folder / SETTINGS).is_file():
        raise ConfigError("holds no run: there is no run.toml", where=folder, fix="name the folder of a run", case=1)
    recipe = Recipe.read(folder / SETTINGS, args.words, {})
    return report(train(recipe, folder, resume=True, allow_change=args.allow_change, say=say), say)
