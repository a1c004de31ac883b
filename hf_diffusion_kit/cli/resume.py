import argparse
from collections.abc import Callable
from typing import Any

HELP = """Go on with a run that was stopped, from its newest valid checkpoint. The result is byte for byte that of a run that was
never stopped. Settings, base and data must be what they were; what may differ is named with --allow-change.

  hfdk resume runs/cat                 go on to the last step
  hfdk resume runs/cat --more 200      a finished run: train 200 more steps"""

INTERMIXED = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN", help="folder of the run")
    parser.add_argument("words", nargs="*", metavar="key=value", help="settings to change, each also named by --allow-change")
    parser.add_argument(
        "--allow-change", action="append", default=[], metavar="SETTING", help="e.g. training.steps; again for more"
    )
    parser.add_argument("--more", type=int, metavar="STEPS", help="train so many steps more than the run was meant to have")
    parser.add_argument("--processes", type=int, default=1, help="share each step among so many processes on this machine")


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from dataclasses import replace
    from pathlib import Path

    from ..errors import ConfigError
    from ..job import train
    from ..launch import rank, started_by_another
    from ..recipe import Recipe
    from ..run import SETTINGS
    from ..training.checkpoint import steps_in
    from .train import launched, report, silent

    if args.processes != 1 and not started_by_another():
        return launched(args)
    folder = Path(args.folder)
    if not (folder / SETTINGS).is_file():
        raise ConfigError("holds no run: there is no run.toml", where=folder, fix="name the folder of a run", case=1)
    recipe = Recipe.read(folder / SETTINGS, args.words, {})
    allowed = list(args.allow_change)
    if args.more is not None:
        if args.more < 1:
            raise ConfigError(f"must be 1 or more, got {args.more}", where="--more", case=1)
        done = max(steps_in(folder), default=0)
        steps = max(done, recipe.training.steps) + args.more
        recipe = replace(recipe, training=replace(recipe.training, steps=steps))
        allowed.append("training.steps")
        say(f"{args.more} steps more: from {done} to {steps}")
        if recipe.training.lr_scheduler != "constant":
            say(f"the rate ({recipe.training.lr_scheduler}) is that of a run of {steps} steps from here on")
    return report(train(recipe, folder, resume=True, allow_change=allowed, say=say), say if rank() == 0 else silent)
