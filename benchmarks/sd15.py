"""LoRA on the real Stable Diffusion 1.5 configuration (random weights, 860 M parameters): time a step and memory, on this machine.

    python benchmarks/sd15.py --data FOLDER [--resolution 256] [--steps 4] [--dtype bf16] [--out benchmarks/results/sd15.json]

`FOLDER` is a captioned subset or a folder of pictures. The weights are random, so the pictures are noise; the arithmetic is the real one.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import real_size
import torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--dtype", choices=("no", "bf16"), default="bf16")
    parser.add_argument("--base", help="folder of the random pipeline, kept; made when missing")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/sd15.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(args.base or f"{temporary}/sd15-random")
        if not base.is_dir():
            torch.manual_seed(0)
            real_size.sd15().to(torch.bfloat16).save_pretrained(base)
        from hf_diffusion_kit import LoraTrainer

        trainer = LoraTrainer(
            str(base),
            out=Path(temporary) / "run",
            rank=16,
            steps=args.steps,
            resolution=args.resolution,
            mixed_precision=args.dtype,
            license="creativeml-openrail-m",
            pictures=1,
            gallery_steps=4,
        )
        begun = time.monotonic()
        run = trainer.fit(args.data)
        record = run.record
        told = {
            "resolution": args.resolution,
            "dtype": args.dtype,
            "steps": record.steps,
            "pictures": record.data.rows,
            "seconds_in_all": round(time.monotonic() - begun, 1),
            "seconds_a_step": record.hardware["seconds_a_step"],
            "peak_memory_bytes": record.hardware["peak_memory_bytes"],
            "parameters": record.parameters,
            "difference": record.verified[0].max_difference,
            "captions": [[use.file_name, use.text, use.times] for use in record.captions],
            "hardware": record.hardware,
            "versions": record.versions,
        }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps({key: told[key] for key in ("seconds_a_step", "peak_memory_bytes", "seconds_in_all", "difference")}))


if __name__ == "__main__":
    main()
