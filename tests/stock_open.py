"""What stock `datasets` makes of a saved subset, as one JSON object. Run where this package was never installed:

python tests/stock_open.py FOLDER [IMAGE_ID]
"""

import json
import sys
from typing import Any

import datasets
from datasets import load_dataset, load_dataset_builder


def told(row: dict[str, Any]) -> dict[str, Any]:
    """A row with what can be said of its picture in JSON."""
    return {name: [value.mode, *value.size] if name == "image" else value for name, value in row.items()}


def main(folder: str, image_id: str | None = None) -> dict[str, Any]:
    rows = load_dataset(folder, split="train")
    stream = load_dataset(folder, split="train", streaming=True)
    first = image_id or rows[0]["image_id"]
    only = load_dataset(folder, split="train", columns=["image_id", "captions"])
    wanted = {"filters": [("image_id", "==", first)]}
    # The card says how many rows there are, so a missing file is noticed, and a part is asked for with `no_checks`.
    found = load_dataset(folder, split="train", verification_mode="no_checks", **wanted)
    passing = load_dataset(folder, split="train", streaming=True, **wanted)
    return {
        "datasets": datasets.__version__,
        "examples": load_dataset_builder(folder).info.splits["train"].num_examples,
        "features": str(rows.features),
        "rows": [told(row) for row in rows],
        "stream": [
            told(row) for row in stream.take(2)
        ],  # `take` ends by itself: half a stream of Parquet may hang (datasets#7467)
        "part": load_dataset(folder, split="train[1:3]")["image_id"][:],
        "columns": {name: only[name][:] for name in only.column_names},
        "filtered": [told(row) for row in found],
        "filtered_stream": [row["image_id"] for row in passing.take(1)],
        "names": sorted(load_dataset(folder)),
        "ours": [name for name in sys.modules if name.startswith("hf_diffusion_kit")],
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
