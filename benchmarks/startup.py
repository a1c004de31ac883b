"""From `python` to the first step of a ten-picture job whose pictures and captions are encoded already: CPU seconds and private memory by part.

    python benchmarks/startup.py [--scratch /tmp/hfdk-bench]

SD1.5, LoRA rank 16, 256 pixels, bfloat16, one thread. The job runs three times: the first fills the cache, the better of the others is told. Beside
it what a bare `import torch` and the import of diffusers' own pipeline class take, which no trainer of diffusers' models can do without.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import real_size
from meter import Meter

BARE = ("torch", "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion")


def job(base: Path, pictures: Path) -> list[dict[str, object]]:
    meter = Meter().watch()
    import torch

    torch.set_num_threads(1)
    meter.mark("import torch")
    from hf_diffusion_kit.data import load_captioned

    meter.mark("import data")
    from hf_diffusion_kit.families import detect

    meter.mark("import families (diffusers, transformers)")
    from hf_diffusion_kit.methods import Lora
    from hf_diffusion_kit.training.settings import TrainSettings
    from hf_diffusion_kit.training.trainer import Trainer

    meter.mark("import methods, training (peft, accelerate)")
    rows = load_captioned(pictures)
    meter.mark("find pictures")
    family = detect(base).open(base, dtype=torch.bfloat16)
    meter.mark("open the base")
    told = TrainSettings(steps=1, resolution=(256,), mixed_precision="bf16", checkpointing_steps=0)
    identity = {"base": "0" * 64}
    trainer = Trainer(family, Lora(rank=16), told, rows, identity=identity, progress=False, say=lambda _: None)
    meter.mark("adapters, optimizer, layout")
    trainer.fill()
    meter.mark("encode, or read what is encoded")
    trainer.step()
    meter.mark("first step")
    made, modules = trainer.loader.cache.made, len(sys.modules)
    before, parts = 0.0, []
    for mark in meter.marks:
        parts.append({"part": mark.name, "cpu_s": round(mark.cpu_s - before, 2), "peak_private_mb": round(mark.peak_mb)})
        before = mark.cpu_s
    return [*parts, {"part": "whole", "cpu_s": round(before, 2), "encoded_anew": made, "modules": modules}]


def run(words: list[str], scratch: Path) -> str:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(scratch / "training-cache")}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-3000:]}")
    return done.stdout.splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/hfdk-bench"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/startup.json"))
    parser.add_argument("--child", action="store_true")
    told = parser.parse_args()
    base, pictures = real_size.folder("sd15", told.scratch), real_size.pictures(told.scratch, 10, 256)
    if told.child:
        print(json.dumps(job(base, pictures)))
        return
    runs = [json.loads(run([__file__, "--child", "--scratch", str(told.scratch)], told.scratch)) for _ in range(3)]
    best = min(runs[1:], key=lambda parts: parts[-1]["cpu_s"])
    bare = {}
    for name in BARE:
        code = f"import time, {name}; print(time.process_time())"
        bare[name] = round(min(float(run(["-c", code], told.scratch)) for _ in range(3)), 2)
    answer = {"parts": best, "bare imports, CPU seconds": bare}
    told.out.write_text(json.dumps(answer, indent=1) + "\n")
    print(json.dumps(answer, indent=1))


if __name__ == "__main__":
    main()
