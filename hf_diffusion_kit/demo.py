"""The main job on embedded data, told as a story: teach a small Stable Diffusion a digit that it has never seen, publish what it
learnt to a Hub on this machine, and load it back as a stranger would."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import digits
from .data import Captioned, load_captioned
from .digits import captions
from .digits.coco import write_coco
from .digits.handwriting import WORDS, as_images
from .digits.handwriting import load as load_handwriting
from .digits.judge import Judge, nn_ratio
from .errors import ConfigError, HubError, ModelError
from .evaluation import Shot, draw, pixels
from .families import FAMILIES
from .formats import FORMATS
from .hub.local import LocalHub
from .run import RECORD, Run
from .sheet import Cell, sheet
from .trainers import DreamBoothTrainer
from .training.checkpoint import steps_in

BASE = "digits-seven"
GUIDANCE, SOLVER_STEPS, SIZE = 2.0, 10, (32, 32)
SEED_UNSEEN, SEED_OTHERS = 50_000, 60_000
"""First seeds of the pictures that are judged; no seed of training or gallery lies there."""

SETTINGS: dict[str, Any] = {
    "rank": 16,
    "steps": 400,
    "batch_size": 10,
    "learning_rate": 3e-3,
    "lr_scheduler": "linear",
    "class_count": 105,
    "caption_dropout": 0.1,
    "checkpointing_steps": 200,
}
"""Chosen by benchmarks/digits.py over three digits and three seeds."""

FRESH_PROCESS = """
import json, sys
import numpy, torch
from diffusers import StableDiffusionPipeline
told = json.loads(sys.argv[1])
pipe = StableDiffusionPipeline.from_pretrained(told["base"])
pipe.load_lora_weights(told["repo"])
pipe.set_progress_bar_config(disable=True)
torch.set_num_threads(told["threads"])
picture = pipe(told["caption"], height=told["size"][0], width=told["size"][1], num_inference_steps=told["steps"],
               guidance_scale=told["guidance"], generator=[torch.Generator().manual_seed(told["seed"])], output_type="np").images[0]
assert not any(name.startswith("hf_diffusion_kit") for name in sys.modules)
numpy.save(told["out"], picture)
"""
"""Stock diffusers and nothing of ours: what anybody does with the repository."""


@dataclass(frozen=True)
class Scores:
    """Shares of 1, as an independent classifier sees them."""

    unseen: float
    """Pictures of the new digit that show it."""
    others: float
    """Pictures of the seven known digits that show them, the mean over digits."""


def demo(
    out: Path,
    *,
    digit: int = 4,
    seed: int = 0,
    judged: int = 100,
    say: Callable[[str], None] = print,
    progress: bool = True,
    **settings: Any,
) -> dict[str, Any]:
    """Runs the whole job in `out` and returns its figures. `settings` change those of the trainer.

    Raises ConfigError for a digit that the base knows already, and whatever the steps raise.
    """
    begun = time.monotonic()
    known = digits.BASES[BASE]
    if digit in known or not 0 <= digit <= 9:
        raise ConfigError(f"{digit} is not new to {BASE}", where="--digit", fix="take 3, 4 or 7", case=1)
    if (out / "run" / RECORD).exists():
        raise ConfigError("holds a demo already", where=out, fix="name another --out, or remove it", case=1)
    word = WORDS[digit]
    torch_threads(1)

    say(f"1. ten captioned pictures of a {word}, picked from a COCO folder of real handwriting")
    data = pictures(out, digit, seed)
    say(f"   {out / 'subset'}: {len(data)} pictures, e.g. {data.example(0).captions[0]!r}")

    say(f"2. teach it to {BASE!r}, a Stable Diffusion that has never seen a 3, a 4 or a 7")
    trainer = DreamBoothTrainer(
        BASE,
        out=out / "run",
        seed=seed,
        class_prompts=[captions.prompt(other) for other in known],
        captions=[captions.prompt(digit)] * 2 + [captions.prompt(known[3]), captions.prompt(known[5])],
        **{**SETTINGS, **settings},
    )
    stopped = bool(steps_in(out / "run"))
    run = trainer.fit(data, resume=stopped, say=lambda text: say(f"   {text}"), progress=progress)

    say("3. judge it, before and after, same captions and seeds")
    result, drawn = judge(run, data, digit, judged, progress=progress)
    sheet_path = out / "before_after.png"
    draw_sheet(run, data, drawn, word).save(sheet_path)
    record = replace(run.record, scores={**result})
    record.save(run.folder / RECORD)
    run = Run(run.folder, record)

    say("4. publish it to a Hub on this machine, load it back in a fresh process with stock diffusers")
    repo = f"you/digit-{word}-lora"
    with LocalHub(out / "hub") as hub:
        pushed = run.publish(repo, hub=hub.endpoint, token=hub.token, say=lambda text: say(f"   {text}"))
        apart = reload_difference(run, repo, hub.environment())
    say(f"   one commit {pushed.oid[:12]}, read back: {pushed.verified}; picture of the reloaded model differs by {apart:g}")

    seconds = round(time.monotonic() - begun, 1)
    say(table(word, result, apart, seconds))
    say(whats_next(out, run, sheet_path, repo))
    told = {
        **result,
        "reload_difference": apart,
        "seconds": seconds,
        "digit": word,
        "seed": seed,
        "repo": repo,
        "commit": pushed.oid,
    }
    return {**told, "sheet": str(sheet_path), "run": str(run.folder)}


def torch_threads(count: int) -> None:
    """Tensors this small lose time to more threads than one."""
    import torch

    torch.set_num_threads(count)


def pictures(out: Path, digit: int, seed: int) -> Captioned:
    """A COCO folder of real handwriting, and ten pictures of one digit out of it."""
    coco, half = out / "coco", out / ".tmp-coco"
    if not coco.exists():
        shutil.rmtree(half, ignore_errors=True)
        write_coco(half, range(10), limit_per_digit=40).replace(coco)
    data = load_captioned("coco", annotations=coco / "annotations", images=coco, category=WORDS[digit], count=10, seed=seed)
    data.save(out / "subset", overwrite=True)
    return data


def judge(
    run: Run, trained: Captioned, digit: int, judged: int, *, progress: bool
) -> tuple[dict[str, float], dict[str, list[Image.Image]]]:
    """Figures before and after, and the pictures they are of."""
    eye = Judge.fit()
    unseen = [Shot(captions.prompt(digit), SEED_UNSEEN + i, SOLVER_STEPS, GUIDANCE, SIZE) for i in range(judged)]
    each = max(4, judged // 4)
    others = [
        Shot(captions.prompt(other), SEED_OTHERS + i, SOLVER_STEPS, GUIDANCE, SIZE)
        for other in digits.BASES[BASE]
        for i in range(each)
    ]
    drawn: dict[str, list[Image.Image]] = {}
    scores = {}
    for when, pipe in (("before", opened(None)), ("after", opened(run))):
        title = f"judging {when}" if progress else None
        drawn[when], others_drawn = draw(pipe, unseen, title=title), draw(pipe, others, title=title)
        shares = [eye.accuracy(others_drawn[k * each : (k + 1) * each], other) for k, other in enumerate(digits.BASES[BASE])]
        scores[when] = Scores(eye.accuracy(drawn[when], digit), float(np.mean(shares)))
        drawn[f"others {when}"] = others_drawn[::each]
    shown = [trained.example(i).image for i in range(len(trained))]
    held_out = list(as_images(load_handwriting("test").only([digit])))
    return {
        "unseen_before": scores["before"].unseen,
        "unseen_after": scores["after"].unseen,
        "others_before": round(scores["before"].others, 4),
        "others_after": round(scores["after"].others, 4),
        "nearest_training_ratio": round(nn_ratio(drawn["after"], shown, held_out), 3),
        "judge_on_real": round(eye.real_accuracy, 4),
    }, drawn


def opened(run: Run | None) -> Any:
    """The base, or the base with what the run has written, through stock diffusers."""
    import torch

    family, place = FAMILIES["sd1"], digits.path(BASE)
    if run is None:
        return family.open(place).pipe
    return FORMATS["diffusers-lora"].read(family, place, run.folder, revision=None, dtype=torch.float32)


def draw_sheet(run: Run, data: Captioned, drawn: dict[str, list[Image.Image]], word: str) -> Image.Image:
    rows = [
        [Cell(data.example(i).image) for i in range(len(data))],
        *[[Cell(picture) for picture in drawn[when][:10]] for when in ("before", "after")],
        *[[Cell(picture) for picture in drawn[f"others {when}"]] for when in ("before", "after")],
    ]
    labels = ("the ten pictures", f"a handwritten {word}: before", "after", "the others: before", "after")
    title = f"A digit it had never seen: {len(data)} pictures, {run.record.steps} steps, {run.record.weights[0].bytes // 1000} kB"
    return sheet(rows, row_labels=labels, title=title, cell=96)


def reload_difference(run: Run, repo: str, environment: dict[str, str]) -> float:
    """Largest difference of a pixel between the run's own model and the published one, loaded in a process that knows only diffusers."""
    import torch

    told = run.record.verified[0]
    shot = Shot(told.caption, told.seed, SOLVER_STEPS, GUIDANCE, SIZE)
    with tempfile.TemporaryDirectory(prefix="hfdk-reload-") as folder:
        answer = Path(folder) / "picture.npy"
        asked = {
            "base": str(digits.path(BASE)),
            "repo": repo,
            "caption": shot.caption,
            "seed": shot.seed,
            "steps": shot.steps,
            "guidance": shot.guidance,
            "size": shot.size,
            "threads": torch.get_num_threads(),
            "out": str(answer),
        }
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
        done = subprocess.run(
            [sys.executable, "-c", FRESH_PROCESS, json.dumps(asked)],
            env={**clean, **environment, "HF_HOME": folder},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise HubError(f"the published adapter could not be loaded back: {last[0]}", where=repo, case=4)
        there = np.load(answer)
    apart = float(np.abs(there - pixels(opened(run), shot)).max())
    if apart > 1e-3:
        raise ModelError(f"the published adapter draws another picture: pixels differ by {apart:.3f}", where=repo, case=4)
    return apart


def table(word: str, result: dict[str, Any], apart: float, seconds: float) -> str:
    rows: Sequence[tuple[str, str, str]] = (
        ("", "before", "after"),
        (f"a handwritten {word}", f"{result['unseen_before']:.0%}", f"{result['unseen_after']:.0%}"),
        ("the seven others", f"{result['others_before']:.1%}", f"{result['others_after']:.1%}"),
    )
    lines = [f"   {name:24}{before:>8}{after:>8}" for name, before, after in rows]
    return "\n".join(
        [
            "",
            *lines,
            "",
            f"   distance to its ten pictures, over that of real handwriting: {result['nearest_training_ratio']:.2f} (well under 1 = copying)",
            f"   judged by a classifier that names {result['judge_on_real']:.1%} of real held-out digits rightly",
            f"   reloaded from the Hub in a fresh process: difference {apart:g}; {seconds:.0f} s in all",
            "",
        ]
    )


def whats_next(out: Path, run: Run, sheet_path: Path, repo: str) -> str:
    return f"""   pictures   {sheet_path}
   run        {run.folder / RECORD} (settings, losses, every caption that was given)
   repository {repo}: hfdk hub serve --dir {out / "hub"}, then look at it in a browser

The same on Stable Diffusion 1.5 and real COCO (downloads the base; a GPU with 8 GB, or patience):
   hfdk subset coco --annotations annotations/ --images val2017/ --category cat --count 100 --out cats
   hfdk train --base stable-diffusion-v1-5/stable-diffusion-v1-5 --data cats --out runs/cats rank=16 steps=1000 --mixed-precision bf16
   hfdk publish runs/cats --repo YOU/coco-cats-lora"""
