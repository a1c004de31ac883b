"""Thousands of damaged files, of the kinds that disks, editors and people make: each is read, or is one line that names a file."""

import csv
import io
import json
import random
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from hf_diffusion_kit.data.base import Source
from hf_diffusion_kit.data.captions import tidy
from hf_diffusion_kit.data.coco import Coco
from hf_diffusion_kit.data.concepts import Concepts
from hf_diffusion_kit.data.folder import Folder
from hf_diffusion_kit.data.pictures import open_rgb
from hf_diffusion_kit.data.subset import Subset
from hf_diffusion_kit.data.twins import mark_of
from hf_diffusion_kit.errors import KitError
from pictured import coco, encoded, fill, picture


def mutated(content: bytes, draw: random.Random) -> bytes:
    """One to three changes of a kind that disks, editors and people make."""
    for _ in range(draw.randint(1, 3)):
        content = CHANGES[draw.randrange(len(CHANGES))](content, draw)
    return content


def at(content: bytes, draw: random.Random) -> int:
    return draw.randrange(len(content) + 1)


def swapped(content: bytes, draw: random.Random) -> bytes:
    rows = content.split(b"\n")
    one, two = draw.randrange(len(rows)), draw.randrange(len(rows))
    rows[one], rows[two] = rows[two], rows[one]
    return b"\n".join(rows)


def flipped(content: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(max(1, len(content)))
    return content[:place] + bytes(byte ^ (1 << draw.randrange(8)) for byte in content[place : place + 1]) + content[place + 1 :]


def wild(content: bytes, draw: random.Random) -> bytes:
    """A value becomes another kind of value."""
    places = [found.span() for found in re.finditer(rb'"[^"\n]*"|\b\d+\b', content)]
    start, end = draw.choice(places) if places else (0, 0)
    return content[:start] + draw.choice(WILD) + content[end:]


def pasted(content: bytes, draw: random.Random) -> bytes:
    start, end = sorted((at(content, draw), at(content, draw)))
    place = at(content, draw)
    return content[:place] + content[start:end][:500] + content[place:]


def inserted(content: bytes, draw: random.Random) -> bytes:
    place = at(content, draw)
    return content[:place] + draw.choice(PIECES) + content[place:]


WILD = (
    b"null",
    b"NaN",
    b"-1",
    b"1e400",
    b"[]",
    b"{}",
    b"true",
    b'"\\ud800"',
    b'"' + b"x" * 3000 + b'"',
    b"9" * 400,
    b'"../../etc/passwd"',
    b'["a",["b"]]',
    b'"\\u0000"',
    b'"file:///a"',
    b"",
)
PIECES = (
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b",",
    b":",
    b"\\",
    b"\0",
    b"\n",
    b"\r",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"[" * 3000,
    b'{"a":' * 1500,
    b"  ",
    b";",
    b"\t",
    b"'",
)
CHANGES: list[Callable[[bytes, random.Random], bytes]] = [
    flipped,
    lambda content, draw: content[: at(content, draw)],
    lambda content, draw: content[at(content, draw) :],
    inserted,
    inserted,
    swapped,
    wild,
    wild,
    pasted,
]


def quoted(rows: list[tuple[str, str]]) -> bytes:
    told = io.StringIO()
    csv.writer(told).writerows(rows)
    return told.getvalue().encode()


TABLE = [("a.jpg", 'a dog, "Rex"'), ("b.jpg", "zwei Hunde"), ("sub/ü.jpg", "二"), ("a.jpg", "again")]
SOUND: dict[str, bytes] = {
    "metadata.jsonl": b"".join(json.dumps({"file_name": name, "text": text}).encode() + b"\n" for name, text in TABLE),
    "metadata.csv": quoted([("file_name", "text"), *TABLE]),
    "concepts_list.json": json.dumps(
        [{"instance_prompt": "sks dog", "class_prompt": "dog", "instance_data_dir": "sub", "class_data_dir": "class", "steps": 3}]
        * 2
    ).encode(),
    "a.txt": "a dog\nein Hund é\n".encode(),
}


def attempt(read: Callable[[], object], where: Path) -> bool:
    """Whether it can be read; if not, it is one line about a file, and soon."""
    start = time.perf_counter()
    try:
        read()
        return True
    except KitError as error:
        line = error.line()
        assert "\n" not in line and error.exit_code == 3 and len(line) < 3000, line[:300]
        assert str(where) in line or where.name in line, line[:300]
        return False
    finally:
        assert time.perf_counter() - start < 5


def all_rows(source: Source, subset: Subset) -> None:
    for row in source.rows(subset):
        assert any(tidy(text) for text in row.captions)


@pytest.mark.parametrize("name", SOUND)
def test_mutated_files_of_captions(name: str, tmp_path: Path) -> None:
    draw = random.Random(name)
    fill(tmp_path, ["a.jpg", "b.jpg", "sub/ü.jpg", "class/c.jpg"])
    source = (
        (lambda: Concepts(tmp_path)) if name == "concepts_list.json" else lambda: Folder(tmp_path, repair=draw.random() < 0.5)
    )
    read = 0
    for _ in range(600):
        (tmp_path / name).write_bytes(mutated(SOUND[name], draw))
        read += attempt(partial(all_rows, source(), Subset()), tmp_path)
    assert 20 < read < 590  # neither all refused nor all let through


MUTATED_COCO = 300


def test_mutated_coco_annotations(tmp_path: Path) -> None:
    draw = random.Random(0)
    coco(tmp_path, 2)
    sound = {kind: (tmp_path / f"annotations/{kind}_val2014.json").read_bytes() for kind in ("captions", "instances")}
    read = 0
    for turn in range(MUTATED_COCO):
        for number, (kind, content) in enumerate(sound.items()):
            file = tmp_path / f"annotations/{kind}_val2014.json"
            file.write_bytes(mutated(content, draw) if (turn + number) % 2 or turn % 5 == 0 else content)
        subset = Subset() if turn % 3 else Subset(category=("person",))
        source = Coco(tmp_path / "annotations", tmp_path / "val2014")
        read += attempt(partial(all_rows, source, subset), tmp_path)
    assert 5 < read < MUTATED_COCO


def test_mutated_pictures_have_marks_or_one_line(tmp_path: Path) -> None:
    draw = random.Random(0)
    sound = [encoded(picture(7), form) for form in ("JPEG", "PNG", "WEBP", "BMP")]
    read = 0
    for _ in range(300):
        content = mutated(draw.choice(sound), draw)

        def look(content: bytes = content) -> None:
            open_rgb(content)
            mark_of(content)

        read += attempt(look, Path("picture"))
    assert 5 < read < 290
