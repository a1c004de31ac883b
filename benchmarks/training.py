"""A step of LoRA training, ours beside the loop that diffusers' scripts run, on the real SD1.5 or SDXL configuration with random weights.

    python benchmarks/training.py [--model sd15] [--resolution 256] [--precision bf16] [--rounds 5] [--scratch /tmp/hfdk-bench]
        [--diffusers-script PATH] [--sd-scripts PATH]

The baseline asks VAE and text encoder in every step and keeps nothing (arms.py); the scripts themselves run beside it where a checkout is at
hand (foreign.py). Each arm is a process of its own, measured from inside (meter.py): CPU seconds of one thread, memory as its own pages
(RssAnon), import to exit. A step is the median of those from the third on. Arms take turns, in an order that turns round from round to round; a
process that had to wait (wall / CPU above 1.1) is void and runs again. The ratios of `kit` to each other arm are taken within a round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import real_size
from arms import ARMS
from foreign import FOREIGN
from meter import Meter

MOST_WAITING = 1.1
TRIES = 4


def child(told: argparse.Namespace) -> None:
    meter = Meter().watch()
    import torch

    torch.set_num_threads(1)
    if told.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    meter.mark_steps(torch.cuda.synchronize if told.device == "cuda" else None)
    losses = {**ARMS, **FOREIGN}[told.child](*(Path(place) for place in told.places), told, meter)
    meter.mark("end")
    phases = {mark.name: [round(mark.cpu_s, 2), round(mark.peak_mb)] for mark in meter.marks if mark.name != "step"}
    gpu = {"gpu_mb": round(torch.cuda.max_memory_allocated() / 2**20)} if told.device == "cuda" else {}
    print(json.dumps({**meter.told(), **gpu, "loss": round(statistics.mean(losses), 4) if losses else None, "phases": phases}))


def run(arm: str, told: argparse.Namespace, places: list[Path]) -> dict[str, Any]:
    """One process, again where it was disturbed."""
    words = ["--child", arm, "--steps", told.steps, "--model", told.model, "--precision", told.precision]
    words += ["--device", told.device, "--compile", told.compile]
    words += ["--resolution", told.resolution, "--scratch", told.scratch, *(["--checkpointing"] if told.checkpointing else [])]
    for name in ("diffusers_script", "sd_scripts"):
        words += [f"--{name.replace('_', '-')}", getattr(told, name)] if getattr(told, name) else []
    words += ["--places", *places]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(told.scratch / "training-cache")}
    if arm == "sd-scripts" and told.sd_deps:
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(told.sd_deps), env.get("PYTHONPATH"))))
    for number in range(TRIES):
        command = [sys.executable, __file__, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        if done.returncode:
            raise SystemExit(f"{arm} failed:\n{done.stderr[-3000:]}")
        answer = json.loads(done.stdout.splitlines()[-1])
        if answer["wall_over_cpu"] <= MOST_WAITING or told.device != "cpu":
            return {**answer, "void_before": number}
        print(f"{arm}: void, wall / CPU {answer['wall_over_cpu']}", flush=True)
    raise SystemExit(f"{arm}: disturbed {TRIES} times; run it where nothing else runs")


def summary(rounds: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Medians over the rounds, and of the ratios within them: how many times as much as ours another arm takes."""
    arms = list(rounds[0])
    keys = [key for key, value in rounds[0]["kit"].items() if isinstance(value, int | float)]
    middle: dict[str, Any] = {
        arm: {key: statistics.median(r[arm][key] for r in rounds) for key in keys if rounds[0][arm][key] is not None}
        for arm in arms
    }
    ratio = {
        arm: {
            key: round(statistics.median(r[arm][key] / r["kit"][key] for r in rounds), 2)
            for key in (("step_wall_s", "gpu_mb") if "gpu_mb" in rounds[0]["kit"] else ("step_cpu_s", "private_mb"))
        }
        for arm in arms
        if arm != "kit"
    }
    for arm in arms:
        middle[arm]["phases"] = rounds[-1][arm]["phases"]
    steps = {arm: [r[arm]["step_cpu_s"] for r in rounds] for arm in arms}
    return {"times_less": ratio, **middle, "rounds": len(rounds), "steps_cpu_s": steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("sd15", "sdxl"), default="sd15")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--precision", choices=("bf16", "no"), default="bf16")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cuda: wall seconds a step, max_memory_allocated"
    )
    parser.add_argument("--compile", choices=("no", "default", "reduce-overhead"), default="no", help="of our denoiser")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--pictures", type=int, default=10, help="fewer make ours start sooner and leave the step as it is")
    parser.add_argument("--arms", nargs="*", help="only these; `kit` is always among them")
    parser.add_argument("--diffusers-script", type=Path)
    parser.add_argument("--sd-scripts", type=Path)
    parser.add_argument("--sd-deps", type=Path, help="where `pip install --target` put the versions that sd-scripts asks for")
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/hfdk-bench"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/training.json"))
    parser.add_argument("--child", choices=(*ARMS, *FOREIGN))
    parser.add_argument("--places", nargs=2)
    told = parser.parse_args()
    if told.child:
        child(told)
        return
    import torch

    if told.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU here that torch can use: run it on the CPU, or install torch for your card")
    told.scratch.mkdir(parents=True, exist_ok=True)
    places = [real_size.folder(told.model, told.scratch), real_size.pictures(told.scratch, told.pictures, told.resolution)]
    there = [*ARMS, *(name for name in FOREIGN if getattr(told, name.replace("-", "_")))]
    arms = [arm for arm in there if told.arms is None or arm in (*told.arms, "kit")]
    rounds: list[dict[str, dict[str, Any]]] = []
    for number in range(told.rounds):
        rounds.append({arm: run(arm, told, places) for arm in (arms if number % 2 == 0 else arms[::-1])})
        print(json.dumps(rounds[-1]), flush=True)
    name = f"{told.model} {told.resolution} {told.precision}{' checkpointing' if told.checkpointing else ''}"
    if told.device == "cuda":
        name += f" {torch.cuda.get_device_name()}{f' compile {told.compile}' if told.compile != 'no' else ''}"
    from hf_diffusion_kit.hardware import hardware, pick_device, versions

    results = json.loads(told.out.read_text()) if told.out.is_file() else {}
    results[name] = {**summary(rounds), "pictures": told.pictures, "steps": told.steps}
    results |= {"versions": versions(), "hardware": hardware(pick_device(told.device))}
    told.out.write_text(json.dumps(results, indent=1) + "\n")
    print(name, json.dumps(results[name], indent=1))


if __name__ == "__main__":
    main()
