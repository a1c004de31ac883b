"""A step of LoRA training, ours beside the loop that diffusers' `train_text_to_image_lora.py` runs, on the real SD1.5 or SDXL configuration.

    python benchmarks/training.py [--model sd15] [--resolution 256] [--precision bf16] [--pairs 5] [--scratch /tmp/hfdk-bench]

The baseline asks VAE and text encoder in every step and keeps nothing. Each arm is a process of its own; two step counts give the cost of
a step (slope) and of getting started (intercept); arms alternate (ABBA). CPU seconds of one thread, memory as its own pages (RssAnon).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import real_size

COUNTS = (2, 8)


def own_pages() -> float:
    """MB of memory that no other process shares and no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def baseline(base: Path, data: Path, told: argparse.Namespace, steps: int) -> list[float]:
    """The loop as diffusers' script has it: everything that is asked of the frozen parts is asked in every step."""
    import numpy as np
    import torch
    from diffusers import DDPMScheduler, DiffusionPipeline
    from peft import LoraConfig
    from PIL import Image

    half = {"bf16": torch.bfloat16, "no": torch.float32}[told.precision]
    more = {"safety_checker": None} if told.model == "sd15" else {}
    pipe: Any = DiffusionPipeline.from_pretrained(base, **more)  # the script casts what it has opened
    unet, vae, scheduler = pipe.unet, pipe.vae, DDPMScheduler.from_config(pipe.scheduler.config)
    for part in (unet, vae, pipe.text_encoder, getattr(pipe, "text_encoder_2", None)):
        if part is not None:
            part.requires_grad_(False)
            part.to(dtype=torch.float32 if part is vae and told.model == "sdxl" else half)
    torch.manual_seed(0)
    unet.add_adapter(
        LoraConfig(r=16, lora_alpha=16, init_lora_weights="gaussian", target_modules=["to_k", "to_q", "to_v", "to_out.0"])
    )
    trained = [p for p in unet.parameters() if p.requires_grad]
    if told.checkpointing:
        unet.enable_gradient_checkpointing()
    unet.train()
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=1e-2)
    rows = [json.loads(line) for line in (data / "metadata.jsonl").read_text().splitlines()]
    losses = []
    for step in range(steps):
        row, side = rows[step % len(rows)], told.resolution
        image = Image.open(data / row["file_name"]).convert("RGB")
        scale = side / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        pixels = torch.from_numpy(np.asarray(image.crop((left, top, left + side, top + side)), np.float32) / 127.5 - 1)
        with torch.no_grad():
            latents = vae.encode(pixels.permute(2, 0, 1)[None].to(vae.dtype)).latent_dist.sample()
            latents = (latents * vae.config.scaling_factor).to(half)
            if told.model == "sd15":
                text, added = pipe.encode_prompt([row["text"]], "cpu", 1, False)[0], None
            else:
                text, _, pooled, _ = pipe.encode_prompt([row["text"]], device="cpu", do_classifier_free_guidance=False)
                times = torch.tensor([[image.height, image.width, top, left, side, side]])
                added = {"text_embeds": pooled, "time_ids": times}
        noise = torch.randn_like(latents)
        at = torch.randint(0, scheduler.config.num_train_timesteps, (1,))
        noisy = scheduler.add_noise(latents, noise, at)
        with torch.autocast("cpu", torch.bfloat16, enabled=told.precision == "bf16"):
            answer = unet(noisy, at, text, added_cond_kwargs=added).sample
        loss = torch.nn.functional.mse_loss(answer.float(), noise.float())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def kit(base: Path, data: Path, told: argparse.Namespace, steps: int) -> list[float]:
    import torch

    from hf_diffusion_kit.data import load_captioned
    from hf_diffusion_kit.families import detect
    from hf_diffusion_kit.methods import Lora
    from hf_diffusion_kit.training.settings import TrainSettings
    from hf_diffusion_kit.training.trainer import Trainer

    settings = TrainSettings(
        steps=steps,
        resolution=(told.resolution,),
        mixed_precision=told.precision,
        gradient_checkpointing=told.checkpointing,
        checkpointing_steps=0,
        disk_cache=False,
    )
    dtype = {"bf16": torch.bfloat16, "no": torch.float32}[told.precision]
    family = detect(base).open(base, dtype=dtype)
    return Trainer(family, Lora(rank=16), settings, load_captioned(data), progress=False, say=lambda _: None).fit()


ARMS = {"baseline": baseline, "kit": kit}


def child(told: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(1)
    peak, stop = [own_pages()], threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            peak[0] = max(peak[0], own_pages())

    threading.Thread(target=watch, daemon=True).start()
    began = time.perf_counter()
    losses = ARMS[told.child](*(Path(place) for place in told.places), told, told.steps)
    stop.set()
    told_s = {"cpu_s": time.process_time(), "wall_s": time.perf_counter() - began, "private_mb": peak[0]}
    print(json.dumps({**told_s, "loss": statistics.mean(losses)}))


def run(arm: str, told: argparse.Namespace, steps: int, places: list[Path]) -> dict[str, float]:
    words = [
        sys.executable,
        __file__,
        "--child",
        arm,
        "--steps",
        str(steps),
        "--model",
        told.model,
        "--precision",
        told.precision,
    ]
    words += [
        "--resolution",
        str(told.resolution),
        *(["--checkpointing"] if told.checkpointing else []),
        "--places",
        *map(str, places),
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(told.scratch / "training-cache")}
    done = subprocess.run(words, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise SystemExit(f"{arm} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def pair(told: argparse.Namespace, number: int, places: list[Path]) -> dict[str, dict[str, float]]:
    """Both arms at both counts, in an order that turns round from pair to pair."""
    arms = list(ARMS) if number % 2 == 0 else list(ARMS)[::-1]
    few, many = told.counts
    answers = {}
    for arm in arms:
        short, long = run(arm, told, few, places), run(arm, told, many, places)
        step = (long["cpu_s"] - short["cpu_s"]) / (many - few)
        answers[arm] = {
            "step_cpu_s": round(step, 3),
            "start_cpu_s": round(short["cpu_s"] - few * step, 2),
            "private_mb": round(max(short["private_mb"], long["private_mb"])),
            "wall_over_cpu": round(max(short["wall_s"] / short["cpu_s"], long["wall_s"] / long["cpu_s"]), 2),
            "loss": round(long["loss"], 4),
        }
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("sd15", "sdxl"), default="sd15")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--precision", choices=("bf16", "no"), default="bf16")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--counts", type=int, nargs=2, default=COUNTS)
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/hfdk-bench"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/training.json"))
    parser.add_argument("--child", choices=ARMS)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--places", nargs=2)
    told = parser.parse_args()
    if told.child:
        child(told)
        return
    told.scratch.mkdir(parents=True, exist_ok=True)
    places = [real_size.folder(told.model, told.scratch), real_size.pictures(told.scratch, 10, told.resolution)]
    pairs = []
    for number in range(told.pairs):
        pairs.append(pair(told, number, places))
        print(json.dumps(pairs[-1]))
    ratio = {
        key: round(statistics.median(p["baseline"][key] / p["kit"][key] for p in pairs), 2)
        for key in ("step_cpu_s", "private_mb")
    }
    middle = {arm: {key: statistics.median(p[arm][key] for p in pairs) for key in pairs[0][arm]} for arm in ARMS}
    name = f"{told.model} {told.resolution} {told.precision}{' checkpointing' if told.checkpointing else ''}"
    from hf_diffusion_kit.hardware import hardware, pick_device, versions

    results = json.loads(told.out.read_text()) if told.out.is_file() else {}
    results[name] = {"times_less": ratio, **middle, "pairs": len(pairs)}
    results |= {"versions": versions(), "hardware": hardware(pick_device("cpu"))}
    told.out.write_text(json.dumps(results, indent=1) + "\n")
    print(name, json.dumps(results[name], indent=1))


if __name__ == "__main__":
    main()
