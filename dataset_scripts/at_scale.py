"""A subset of more pictures than one machine reads: many nodes, each with its own shards, each row exactly once.

Why: a billion pictures are Parquet shards somewhere, and no list of them fits in memory. `datasets` streams them and gives each node
its share (whole shards when their number is a multiple of the nodes; else every node reads all and keeps its rows). A node's part is
written whole or not at all: a job that was cut off is started again as it was, and parts that are there are not made again. A part
takes memory for its captions, not for its pictures.

    # once, while the pictures are still addresses: img2dataset writes Parquet that has them inside
    img2dataset --url_list urls.parquet --input_format parquet --url_col url --caption_col caption --output_format parquet \\
        --output_folder raw

    # on every node; torchrun, accelerate and SLURM say which one it is
    srun --ntasks 64 python dataset_scripts/at_scale.py "raw/*.parquet" --out subset --match "dog|puppy" --min-words 4

    # anywhere, without this package
    datasets.load_dataset("parquet", data_files="subset/part-*/data/*.parquet", split="train", streaming=True)
"""

import argparse
import os
import sys
from pathlib import Path

import datasets
from datasets.distributed import split_dataset_by_node

from hf_diffusion_kit import Captioned, load_captioned
from hf_diffusion_kit.errors import KitError


def node() -> tuple[int, int]:
    """(which node this is, how many there are): torchrun's words, then SLURM's."""
    rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or "0"
    return int(rank), int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or "1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "files", help="Parquet shards with pictures and captions: a pattern, on disk or hf://datasets/user/name/..."
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--match", help="regular expression that one of the captions must match")
    parser.add_argument("--min-words", type=int)
    parser.add_argument("--caption-column")
    args = parser.parse_args()
    rank, nodes = node()
    part = args.out / f"part-{rank:05d}-of-{nodes:05d}"
    if (part / "facts.json").is_file():
        data = Captioned.open(part)
    else:
        stream = datasets.load_dataset("parquet", data_files=args.files, split="train", streaming=True)
        mine = split_dataset_by_node(stream, rank=rank, world_size=nodes)
        choice = {"match": args.match, "min_words": args.min_words, "caption_column": args.caption_column}
        data = load_captioned(mine, on_bad_image="skip", **choice)
        data.save(part)
    print(f"node {rank} of {nodes}: {len(data)} pictures, left out: {data.left_out or 'none'}")


if __name__ == "__main__":
    try:
        main()
    except KitError as error:  # one line that says what is wrong and what to do
        print(error.line(), file=sys.stderr)
        sys.exit(error.exit_code)
