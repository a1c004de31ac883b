"""The ten-picture job from `import` to the last file, ours against the loop of diffusers' script: SD1.5, rank 16, 256 pixels, bf16, 1,500 steps.

    python benchmarks/job.py [--steps 1500] [--scratch /tmp/hfdk-bench]

Steps are not all taken: a job of three steps is run whole (as `LoraTrainer(...).fit` runs it: doctor, encoding, checkpoint, weights, the adapter
loaded back, record), and the marginal cost of a step from results/training.json does the rest. So with pictures: the cost of a solver step is
measured, and counted for every picture of a run (before, at each checkpoint, after, and the two that are compared). The baseline is start, steps and
end of results/training.json; it draws nothing. CPU seconds of one thread.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import real_size
from meter import Meter

SOLVER_STEPS, PICTURES, EVERY = 25, 4, 500
"""A run's defaults: solver steps a picture, pictures a row, steps between checkpoints."""
SIDE = 256


def ours(base: Path, pictures: Path, scratch: Path, meter: Meter) -> None:
    """A whole run of three steps, one picture of two solver steps wherever pictures are drawn: four in all."""
    from hf_diffusion_kit import LoraTrainer

    meter.mark("imported")
    out = scratch / "job"
    shutil.rmtree(out, ignore_errors=True)
    told: dict[str, Any] = {"rank": 16, "steps": 3, "resolution": (SIDE,), "mixed_precision": "bf16", "disk_cache": False}
    trainer = LoraTrainer(str(base), out=out, **told)
    trainer.recipe = replace(trainer.recipe, gallery=replace(trainer.recipe.gallery, pictures=1, steps=2))
    trainer.fit(str(pictures), progress=False, say=lambda _: None)
    meter.mark("run")


def drawing(base: Path, pictures: Path, scratch: Path, meter: Meter) -> None:
    """Four pictures at once, of one solver step and of three."""
    import torch

    from hf_diffusion_kit.evaluation import Shot, draw
    from hf_diffusion_kit.families import detect

    del pictures, scratch
    pipe = detect(base).open(base, dtype=torch.bfloat16).pipe
    for steps in (1, 1, 3):
        meter.mark("before")
        draw(pipe, [Shot("a picture", seed, steps, 7.5, (SIDE, SIDE)) for seed in range(PICTURES)])
        meter.mark(f"drawn {steps}")


CHILDREN = {"ours": ours, "drawing": drawing}


def run(child: str, told: argparse.Namespace) -> list[dict[str, Any]]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(told.scratch / "training-cache")}
    words = [sys.executable, __file__, "--child", child, "--scratch", str(told.scratch)]
    done = subprocess.run(words, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise SystemExit(f"{child} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/hfdk-bench"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--child", choices=CHILDREN)
    told = parser.parse_args()
    base, pictures = real_size.folder("sd15", told.scratch), real_size.pictures(told.scratch, 10, SIDE)
    if told.child:
        meter = Meter().watch()
        import torch

        torch.set_num_threads(1)
        CHILDREN[told.child](base, pictures, told.scratch, meter)
        print(json.dumps([vars(mark) for mark in meter.marks]))
        return
    measured = json.loads((told.results / "training.json").read_text())["sd15 256 bf16"]
    marks = run("drawing", told)
    costs = [after["cpu_s"] - before["cpu_s"] for before, after in pairwise(marks)]
    one, three = costs[2], costs[4]  # the first drawing fills the memory
    solver = (three - one) / 2 / PICTURES
    picture = (one / PICTURES - solver) + SOLVER_STEPS * solver
    whole = run("ours", told)
    rows = 2 + (told.steps - 1) // EVERY
    drawn = rows * PICTURES + 2
    step, base_step = measured["kit"]["step_cpu_s"], measured["baseline"]["step_cpu_s"]
    fixed = whole[-1]["cpu_s"] - 3 * step - 4 * (one / PICTURES + solver)  # four of two solver steps were drawn
    theirs = measured["baseline"]["start_cpu_s"] + told.steps * base_step + measured["baseline"]["end_cpu_s"]
    without = fixed + told.steps * step
    answer = {
        "steps": told.steps,
        "ours": {
            "all but steps and pictures_cpu_s": round(fixed, 1),
            "step_cpu_s": step,
            "without pictures_cpu_s": round(without),
            "pictures": drawn,
            "picture_cpu_s": round(picture, 1),
            "whole_cpu_s": round(without + drawn * picture),
            "private_mb": round(max(mark["peak_mb"] for mark in whole)),
        },
        "baseline": {"step_cpu_s": base_step, "whole_cpu_s": round(theirs)},
        "times_less": {"without pictures": round(theirs / without, 2), "whole": round(theirs / (without + drawn * picture), 2)},
    }
    (told.results / "job.json").write_text(json.dumps(answer, indent=1) + "\n")
    print(json.dumps(answer, indent=1))


if __name__ == "__main__":
    main()
