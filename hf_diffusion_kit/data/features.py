"""The columns of every captioned dataset that this package makes."""

import datasets
import pyarrow as pa

FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "text": datasets.Value("string"),
        "captions": datasets.List(datasets.Value("string")),
        "image_id": datasets.Value("string"),
        "file_name": datasets.Value("string"),
        "width": datasets.Value("int32"),
        "height": datasets.Value("int32"),
        "categories": datasets.List(datasets.Value("string")),
        "license": datasets.Value("string"),
        "license_url": datasets.Value("string"),
        "flickr_url": datasets.Value("string"),
        "coco_url": datasets.Value("string"),
        "sha256": datasets.Value("string"),
    }
)
"""`text` is one tidy caption and works in every diffusers script (`--caption_column text`, the default); `captions` are all of
them as they were written. `sha256` is that of the picture's bytes in this dataset; null where `image` is only an address."""
SCHEMA: pa.Schema = FEATURES.arrow_schema
"""The same for Arrow and Parquet; it carries the type Image."""

CARD = """\
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
dataset_info:
  features:
  - {name: image, dtype: image}
  - {name: text, dtype: string}
  - {name: captions, list: string}
  - {name: image_id, dtype: string}
  - {name: file_name, dtype: string}
  - {name: width, dtype: int32}
  - {name: height, dtype: int32}
  - {name: categories, list: string}
  - {name: license, dtype: string}
  - {name: license_url, dtype: string}
  - {name: flickr_url, dtype: string}
  - {name: coco_url, dtype: string}
  - {name: sha256, dtype: string}
"""
"""The same for README.md. `configs` is not optional: without it stock `datasets` guesses from whatever files lie about."""
