"""Which pictures and captions a checkpoint has learnt from, in some 12 bytes each, so that a resume can name those that are others now."""

import json
import zlib
from collections.abc import Mapping, Sequence
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from ..data.captioned import Captioned

NAMED = 3
"""So many pictures are called by name; the rest are counted."""
PICTURE, CAPTIONS = 4, 4
"""Bytes of a digest: enough to name what changed, for that something did the whole fingerprint has said."""


def pictured(data: Captioned, role: str) -> dict[str, Tensor]:
    """`role.names` (packed) and `role.digests`, a row a picture."""
    rows = data.dataset.select_columns(["file_name", "sha256", "captions"])[:]
    names = zlib.compress(json.dumps(list(rows["file_name"])).encode())
    digests = b"".join(map(digest, rows["sha256"], rows["captions"]))
    table = torch.from_numpy(np.frombuffer(digests, np.uint8).copy()).view(-1, PICTURE + CAPTIONS)
    return {f"{role}.names": torch.from_numpy(np.frombuffer(names, np.uint8).copy()), f"{role}.digests": table}


def digest(sha256: str, captions: Sequence[str]) -> bytes:
    told = json.dumps(list(captions)).encode()
    return blake2b(sha256.encode(), digest_size=PICTURE).digest() + blake2b(told, digest_size=CAPTIONS).digest()


def differences(kept: Mapping[str, Tensor], present: Mapping[str, Tensor], role: str) -> str | None:
    """What differs between the pictures of a checkpoint and those of now, in words; None where the checkpoint does not know."""
    if f"{role}.names" not in kept:
        return None
    before, now = rows_of(kept, role), rows_of(present, role)
    both = [name for name in now if name in before]
    told = {
        "changed": [name for name in both if now[name][:PICTURE] != before[name][:PICTURE]],
        "with other captions": [name for name in both if now[name][PICTURE:] != before[name][PICTURE:]],
        "added": [name for name in now if name not in before],
        "gone": [name for name in before if name not in now],
    }
    parts = [f"{len(names)} {what} ({listed(names)})" for what, names in told.items() if names]
    return f"of {len(before)} pictures {', '.join(parts)}" if parts else f"the {len(before)} pictures are in another order"


def rows_of(kept: Mapping[str, Tensor], role: str) -> dict[str, bytes]:
    """Name -> digest. Of several pictures with one name each but the first is told apart by its turn."""
    names: list[str] = json.loads(zlib.decompress(kept[f"{role}.names"].numpy().tobytes()))
    told: dict[str, bytes] = {}
    for name, row in zip(names, kept[f"{role}.digests"].numpy(), strict=True):
        turn, called = 1, name
        while called in told:
            turn += 1
            called = f"{name} ({turn})"
        told[called] = row.tobytes()
    return told


def listed(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join([*names[:NAMED], *([f"and {more} more"] if more > 0 else [])])
