"""A subset of more pictures than one machine reads: many nodes, each with its own shards, each row exactly once.

Why: a billion pictures are Parquet shards somewhere, and no list of them fits in memory. `datasets` streams them and gives each node
its share (whole shards when their number is a multiple of the nodes; else every node reads all and keeps its rows). A node's part is
written whole or not at all: a job that was cut off is started again as it was, and makes what is missing. Memory: captions alone.

    # once, while the pictures are still addresses: img2dataset writes Parquet that has them inside
    img2dataset --url_list urls.parquet --input_format parquet --url_col url --caption_col caption --output_format parquet \\
        --output_folder raw
    # on every node; torchrun, accelerate and SLURM say which one it is
    srun --ntasks 64 python dataset_scripts/at_scale.py "raw/*.parquet" --out subset --match "dog|puppy" --min-words 4
    # anywhere, without this package
    datasets.load_dataset("parquet", data_files="subset/part-*/data/*.parquet", split="train", streaming=True)
"""

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import datasets
from datasets.distributed import split_dataset_by_node

from hf_diffusion_kit import load_captioned
from hf_diffusion_kit.errors import KitError, SourceError, StorageError


def node() -> tuple[int, int]:
    """(which node this is, how many there are): torchrun's words, then SLURM's."""
    rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or "0"
    return int(rank), int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or "1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", help="Parquet shards with pictures and captions: a pattern, on disk or hf://datasets/...")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--match", help="regular expression that one of the captions must match")
    parser.add_argument("--min-words", type=int)
    parser.add_argument("--caption-column")
    args = parser.parse_args()
    rank, nodes = node()
    part = args.out / f"part-{rank:05d}-of-{nodes:05d}"
    choice = {name: told for name in ("match", "min_words") if (told := getattr(args, name)) is not None}
    made_of = f"the shards are {'/'.join(Path(args.files).parts[-2:])}, their captions {args.caption_column or 'known by name'}"
    if other := [path for path in sorted(args.out.glob("part-*")) if not path.name.endswith(f"-of-{nodes:05d}")]:
        raise StorageError(f"is a part of another number of nodes than {nodes}", where=other[0], fix="name another --out", case=3)
    if (part / "facts.json").is_file():
        try:
            facts = json.loads((part / "facts.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StorageError("cannot be read", where=part, fix="remove it", case=3) from error
        if facts.get("choice") != choice or made_of not in facts.get("notes", ()):
            raise StorageError("was made of other shards, or by another choice", where=part, fix="name another --out", case=3)
    else:
        try:
            stream = datasets.load_dataset("parquet", data_files=args.files, split="train", streaming=True)
            mine = split_dataset_by_node(stream, rank=rank, world_size=nodes)
            data = load_captioned(mine, on_bad_image="skip", caption_column=args.caption_column, **choice)
        except KitError as error:
            if error.case != 10:
                raise
            print(f"node {rank} of {nodes}: 0 pictures: {error.message}")  # nothing of its share is wanted: no part, no fault
            return
        except (OSError, ValueError) as error:  # no file has such a name, or the first cannot be opened
            raise SourceError(f"no shards: {str(error)[:200]}", where=args.files, fix="name Parquet files", case=9) from error
        replace(data, record=replace(data.record, notes=(*data.notes, made_of))).save(part)
        facts = {"rows": len(data), "left_out": data.left_out}
    print(f"node {rank} of {nodes}: {facts['rows']} pictures, left out: {facts['left_out'] or 'none'}")


if __name__ == "__main__":
    try:
        main()
    except KitError as error:  # one line that says what is wrong and what to do
        print(error.line(), file=sys.stderr)
        sys.exit(error.exit_code)
