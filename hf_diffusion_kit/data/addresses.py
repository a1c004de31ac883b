"""Addresses of COCO's pictures, as they can be fetched."""

import re
from urllib.parse import urlsplit

PRINTED = "images.cocodataset.org"
"""What the annotations say; it has no valid certificate."""
SECURE = "https://s3.amazonaws.com/images.cocodataset.org"
"""The same files."""
SPLITS = ("train2014", "val2014", "test2014", "test2015", "train2017", "val2017", "test2017")
NAME = re.compile(r"(?:COCO_(\w+)_)?\d{12}\.jpg")
"""An official picture; those of 2014 and 2015 have their split in the name."""


def official(split: str, name: str) -> str | None:
    """The address that COCO's annotations print for a picture of its own; None for anybody else's."""
    found = NAME.fullmatch(name)
    home = (found[1] or split) if found else ""
    return f"http://{PRINTED}/{home}/{name}" if home in SPLITS else None


def secure(address: str) -> str | None:
    """The address over https; None for what is none. This machine's own (a test's server) stays as it is."""
    try:
        told = urlsplit(address.strip())
    except ValueError:
        return None
    if told.scheme not in ("http", "https") or not told.hostname:
        return None
    if told.hostname == PRINTED:
        return f"{SECURE}{told.path}"
    if told.scheme == "http" and told.hostname not in ("127.0.0.1", "localhost", "::1"):
        return told._replace(scheme="https").geturl()
    return told.geturl()
