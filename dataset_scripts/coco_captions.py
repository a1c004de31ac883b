"""COCO's captions -> a small captioned dataset of your own choice, on disk and (if you like) on the Hub.

Why: the whole of COCO is 20 GB, and a stock image folder made from it loses its captions. This picks what you name, decodes every
picture once, keeps all captions of each, and writes Parquet that `datasets.load_dataset(FOLDER)` opens without this package.

    python dataset_scripts/coco_captions.py --coco COCO --category cat --count 100 --out out/cats
    python dataset_scripts/coco_captions.py --coco COCO --category dog frisbee --license commercial --out out/dogs --push you/dogs

COCO is a folder in the official layout: annotations/captions_val2017.json (and instances_val2017.json, for categories), val2017/*.jpg.
"""

import argparse
import sys
from pathlib import Path

from hf_diffusion_kit import load_captioned
from hf_diffusion_kit.errors import KitError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coco", type=Path, required=True, help="folder that holds annotations/ and the folders of pictures")
    parser.add_argument("--split", help="val2014, train2017 ... (default: all whose pictures are there)")
    parser.add_argument("--category", nargs="+", default=[], help="all of these are in the picture: cat, `dining table`, ...")
    parser.add_argument("--license", nargs="+", default=[], help="`commercial`, `modifiable`, or numbers of COCO's licences")
    parser.add_argument("--count", type=int, help="how many pictures, drawn by --seed (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; new, empty, or holding the same")
    parser.add_argument("--push", metavar="USER/NAME", help="publish it as this dataset, private unless --public")
    parser.add_argument("--hub", help="`local` for the embedded Hub, or an address (default: huggingface.co)")
    parser.add_argument("--public", action="store_true")
    args = parser.parse_args()

    # 1. Choose. The draw depends on the seed and on the pictures' numbers alone: the same words give the same pictures everywhere.
    data = load_captioned(
        "coco",
        annotations=args.coco / "annotations",
        images=args.coco,
        split=args.split,
        category=args.category,
        license=args.license,
        count=args.count,
        seed=args.seed,
        progress=True,
    )
    print(f"{len(data)} pictures with {data.record.captions} captions")
    for reason, number in data.left_out.items():
        print(f"  left out: {reason}: {number}")
    for name, number in data.licenses.items():  # COCO's annotations are CC BY 4.0; its pictures are not
        print(f"  licence: {name}: {number}")

    # 2. Keep. The folder explains itself: README.md is its card, images/sheet.png shows it, attribution.csv names every source.
    folder = data.save(args.out)
    print(f"written: {folder}; look at {folder / 'README.md'}")

    # 3. Publish: one commit, read back afterwards.
    if args.push:
        pushed = data.push_to_hub(args.push, hub=args.hub, private=not args.public)
        print(f"published: {pushed.repo_id}, commit {pushed.oid}")


if __name__ == "__main__":
    try:
        main()
    except KitError as error:  # one line that says what is wrong and what to do
        print(error.line(), file=sys.stderr)
        sys.exit(error.exit_code)
