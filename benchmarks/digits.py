"""The goal of the demo, over three digits and three seeds and not only the lucky one: learnt, nothing forgotten, nothing copied.

    python benchmarks/digits.py [--seeds 0 1 2] [--digits 3 4 7] [--out benchmarks/results/digits.json]

Each run is a whole `hfdk demo`: ten pictures, training, scores, publication to a Hub on this machine, reload by a stock process.
Runs that are in the file already are not repeated.
"""

import argparse
import json
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from hf_diffusion_kit.bases import resolve
from hf_diffusion_kit.demo import BASE, SETTINGS, demo
from hf_diffusion_kit.hardware import versions

KEPT = (
    "unseen_before",
    "unseen_after",
    "others_before",
    "others_after",
    "nearest_training_ratio",
    "reload_difference",
    "seconds",
)


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| new digit | seed | drawn rightly before | after | the seven others before | after | distance ratio | seconds |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for row in rows:
        shares = [f"{row[key]:.0%}" for key in KEPT[:2]] + [f"{row[key]:.1%}" for key in KEPT[2:4]]
        lines.append(
            f"| {row['digit']} | {row['seed']} | {' | '.join(shares)} | {row['nearest_training_ratio']:.2f} | {row['seconds']:.0f} |"
        )
    before, after = mean(row["unseen_before"] for row in rows), mean(row["unseen_after"] for row in rows)
    others = [mean(row[key] for row in rows) for key in KEPT[2:4]]
    ratio = mean(row["nearest_training_ratio"] for row in rows)
    return "\n".join(
        [
            *lines,
            f"| **mean** | | **{before:.0%}** | **{after:.0%}** | **{others[0]:.1%}** | **{others[1]:.1%}** | **{ratio:.2f}** | |",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=int, nargs="+", default=[3, 4, 7])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/digits.json"))
    args = parser.parse_args()
    now = {"settings": SETTINGS, "base": resolve(BASE).identity}
    told = json.loads(args.out.read_text()) if args.out.is_file() else {**now, "versions": versions(), "rows": []}
    if {key: told[key] for key in now} != now:
        raise SystemExit(f"{args.out} holds runs with other settings or another base; remove it to start anew")
    done = {(row["number"], row["seed"]) for row in told["rows"]}
    for number in args.digits:
        for seed in args.seeds:
            if (number, seed) in done:
                continue
            with tempfile.TemporaryDirectory() as folder:
                result = demo(Path(folder), digit=number, seed=seed, say=lambda _: None)
            told["rows"].append({"number": number, "digit": result["digit"], "seed": seed, **{key: result[key] for key in KEPT}})
            told["rows"].sort(key=lambda row: (row["number"], row["seed"]))
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(told, indent=1) + "\n")
            print(table(told["rows"]), flush=True)


if __name__ == "__main__":
    main()
