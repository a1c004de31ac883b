import argparse
from collections.abc import Callable
from typing import Any

HELP = """Train an adapter and load it back.

  hfdk train --base digits-seven --data out/four --out runs/four rank=4 steps=600
  hfdk train run.toml learning_rate=5e-4
  hfdk train --preset fast-dreambooth --base user/model --data photos --prompt "photo of sks dog"

Settings come from the preset, then from the TOML file, then from key=value words (`gallery.steps=30` where a bare key means another
section's), then from flags; the later ones win. The resolved settings are written to run.toml in the run's folder."""

INTERMIXED = True
"""key=value words may stand before, between and behind flags."""

FLAGS = {
    "base": ("base", "id"),
    "data": ("data", "path"),
    "annotations": ("data", "annotations"),
    "images": ("data", "images"),
    "category": ("data", "category"),
    "count": ("data", "count"),
    "prompt": ("data", "prompt"),
    "method": ("method", "name"),
    "rank": ("method", "rank"),
    "class_prompt": ("method", "class_prompts"),
    "token": ("method", "tokens"),
    "initializer": ("method", "initializer"),
    "steps": ("training", "steps"),
    "learning_rate": ("training", "learning_rate"),
    "batch_size": ("training", "batch_size"),
    "resolution": ("training", "resolution"),
    "mixed_precision": ("training", "mixed_precision"),
    "seed": ("training", "seed"),
    "device": ("base", "device"),
    "license": ("base", "license"),
    "repo": ("publish", "repo"),
    "hub": ("publish", "hub"),
}
"""Flag -> the setting it stands for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="RUN.toml | key=value", help="at most one TOML file, and settings")
    parser.add_argument("--out", required=False, help="folder of the run (default: runs/<base>-<method>)")
    parser.add_argument("--base", help="Hub id, folder, or digits / digits-seven")
    parser.add_argument("--data", help="folder: a saved subset, or pictures with captions")
    parser.add_argument("--annotations", help="COCO annotations, folder or file")
    parser.add_argument("--images", help="COCO pictures, folder")
    parser.add_argument("--category", action="append", help="COCO category that must be in the picture; again for one more")
    parser.add_argument("--count", type=int, help="how many COCO pictures")
    parser.add_argument("--prompt", help="one caption for all pictures of a folder without captions")
    parser.add_argument("--method", help="lora (default), dreambooth, full, dreambooth-full, textual-inversion or pivotal")
    parser.add_argument("--preset", help="fast-dreambooth, fast-dreambooth-text-first or fast-dreambooth-lora")
    parser.add_argument(
        "--token", action="append", help="textual-inversion, pivotal: the new word, e.g. <my-cat>; again for one more"
    )
    parser.add_argument("--initializer", action="append", help="the known word that a new one starts from; one for each --token")
    parser.add_argument("--rank", type=int)
    parser.add_argument("--class-prompt", action="append", help="dreambooth: what the class pictures show; again for one more")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--resolution", type=int, nargs="+", help="pixels: one number, or height and width")
    parser.add_argument("--mixed-precision", choices=("no", "bf16", "fp16"))
    parser.add_argument("--seed", type=int)
    parser.add_argument("--processes", type=int, default=1, help="share each step among so many processes on this machine")
    parser.add_argument("--device", help="cuda, mps or cpu")
    parser.add_argument("--license", help="licence of a base whose card names none")
    parser.add_argument("--repo", help="publish to this repository at the end; checked before the first step")
    parser.add_argument("--hub", help="`local`, or the address of a Hub (default: huggingface.co)")
    parser.add_argument("--public", action="store_true", help="make a new repository public")


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from pathlib import Path

    from ..config import read
    from ..errors import ConfigError, unknown
    from ..launch import rank, started_by_another
    from ..presets import PRESETS

    files = [word for word in args.words if "=" not in word]
    if len(files) > 1:
        raise ConfigError(f"takes one TOML file, got {len(files)}", where="hfdk train", case=1)
    if args.processes != 1 and not started_by_another():
        return launched(args)
    from ..job import train
    from ..recipe import Recipe, merged, sections_of, word_sections

    if args.preset and args.preset not in PRESETS:
        raise unknown("preset", args.preset, PRESETS, where="--preset")
    told = sections_of(read(Path(files[0])), files[0]) if files else {}
    told = merged(PRESETS.get(args.preset, {}), told)
    flags: dict[str, dict[str, Any]] = {}
    for flag, (section, key) in FLAGS.items():
        if (value := getattr(args, flag)) is not None:
            flags.setdefault(section, {})[key] = value
    if args.public:
        flags.setdefault("publish", {})["private"] = False
    words = word_sections([word for word in args.words if "=" in word], merged(told, flags))
    recipe = Recipe.of(merged(told, words, flags), where=files[0] if files else "hfdk train")
    name = recipe.base.id.rstrip("/").rsplit("/", 1)[-1]
    out = Path(args.out) if args.out else Path("runs") / f"{name}-{recipe.method.name}"
    return report(train(recipe, out, say=say), say if rank() == 0 else silent)


def silent(text: str) -> None:
    """What rank 0 says is enough."""


def launched(args: argparse.Namespace) -> dict[str, Any]:
    """This very command again, as several processes; the first of them tells what came of it."""
    from ..launch import launch

    return {"exit_code": launch(args.command_line, args.processes), "told_by_another": True}


def report(run: Any, say: Callable[[str], None]) -> dict[str, Any]:
    """What a finished run tells, and its publication when one was asked for."""
    from ..launch import rank

    record = run.record
    seen = sum(use.times for use in record.captions)
    for note in record.notes:
        say(f"note: {note}")
    say(f"captions: {len(record.captions)} different texts given {seen} times (run.json lists each)")
    for weights in record.weights:
        say(f"weights:  {run.folder / weights.file} ({weights.bytes:,} bytes)")
    for verified in record.verified:
        say(f"verified: reopened by stock diffusers, largest pixel difference {verified.max_difference:g}")
    say(f"pictures: {run.sheet}")
    result: dict[str, Any] = {
        "folder": str(run.folder),
        "steps": record.steps,
        "loss": record.losses[-1] if record.losses else None,
        "seconds": record.seconds,
        "weights": [str(run.folder / weights.file) for weights in record.weights],
        "difference": max(verified.max_difference for verified in record.verified),
        "sheet": str(run.sheet),
        "notes": record.notes,
    }
    if rank():
        return {"told_by_another": True}
    publish = record.settings["publish"]
    if publish["repo"]:
        from ..config import read
        from .publish import place

        hub = read(run.folder / "run.toml").get("publish", {}).get("hub")
        pushed = run.publish(publish["repo"], hub=hub, private=publish["private"], say=say)
        say(place(pushed, hub))
        result["published"] = str(pushed)
    return result
