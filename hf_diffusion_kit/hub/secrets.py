"""Looks for what must not be published: tokens, private keys, paths and names of this machine. Nothing found is ever shown whole.

Byte patterns over text files, notebooks with their outputs, headers of safetensors, and the text and EXIF parts of pictures.
It knows the Hugging Face tokens; general scanners miss them in notebooks, logs, safetensors and PNG text.
"""

import getpass
import re
import socket
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOST = 20 * 2**20
"""Bytes of a text file that are read; larger text is read this far and the rest is reported as not looked at."""
START = rb"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))"
"""A word may begin after anything but a letter or digit, or after the `\\n` of a JSON text."""

SECRETS = {
    "Hugging Face token": START + rb"(?:hf_|api_org_)[A-Za-z0-9]{30,}",
    "Hugging Face OAuth token": START + rb"hf_(?:oauth|jwt)_[\w.-]{20,}",
    "GitHub token": START + rb"(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{50,})",
    "AWS key": START + rb"(?:AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Za-z])",
    "OpenAI or Anthropic key": START + rb"sk-(?:(?:proj|ant|svcacct|or)-[\w-]{20,}|[A-Za-z0-9]{40,})",
    "Slack token": START + rb"xox[abeoprs]-[\w-]{10,}",
    "Google key": START + rb"AIza[\w-]{35}",
    "Weights & Biases key": rb"(?i:wandb_api_key)[\"' ]*[:=][\"' ]*[0-9a-f]{40}",
    "private key": rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
}
PATHS = {
    "local path": rb"(?<![\w.:/])/(?:home|Users)/(?!(?:user|username|you|name|USER|me)\b)[\w.-]+/",
    "local Windows path": rb"(?<![A-Za-z])[A-Za-z]:\\{1,2}Users\\{1,2}(?!(?:user|username|you|name|USER|me)\b)[^\\\"\s]+",
}
NAME, HOME = "name of this user or machine", "path of this user"
ANCHORS: dict[str, tuple[bytes, ...]] = {
    "Hugging Face token": (b"hf_", b"api_org_"),
    "Hugging Face OAuth token": (b"hf_oauth_", b"hf_jwt_"),
    "GitHub token": (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_"),
    "AWS key": (b"AKIA", b"ASIA"),
    "OpenAI or Anthropic key": (b"sk-",),
    "Slack token": (b"xox",),
    "Google key": (b"AIza",),
    "private key": (b"PRIVATE KEY-----",),
    "local path": (b"/home/", b"/Users/"),
    "local Windows path": (b"\\Users\\",),
}
"""Kind -> what each of its patterns holds to the letter: found in a hundredth of the time, which counts in gigabytes of pictures."""
AROUND = 4096
"""Bytes on either side of an anchor in which the pattern is looked for."""
COMMON_NAMES = {
    "root",
    "user",
    "admin",
    "ubuntu",
    "runner",
    "jovyan",
    "localhost",
    "docker",
    "colab",
    "kaggle",
    "model",
    "data",
    "test",
}
"""Names of users and machines that say nothing about anybody."""
TEXT = {
    ".md",
    ".txt",
    ".json",
    ".jsonl",
    ".yaml",
    ".yml",
    ".toml",
    ".py",
    ".ipynb",
    ".csv",
    ".cfg",
    ".ini",
    ".env",
    ".log",
    ".sh",
    ".html",
    ".svg",
    "",
}
LINES = {".csv", ".jsonl"}
"""Text that may be long, for a dataset has a line a picture; it is read to the end."""
VOCABULARY = {"vocab.json", "merges.txt", "tokenizer.json"}
"""A tokenizer's words: CLIP's are 49,408, and whoever is called like one of them may publish a pipeline all the same."""
PICTURES = {".png", ".jpg", ".jpeg", ".webp"}
PRIVATE_EXIF = {
    0x013B: "author",
    0x8298: "copyright owner",
    0x010F: "camera",
    0x0110: "camera",
    0x8825: "GPS position",
    0xA431: "serial number",
}
"""EXIF tags that tell of a person, a place or a device."""


@dataclass(frozen=True)
class Finding:
    file: str
    """The path as it was given."""
    kind: str
    offset: int
    """Byte where it begins in the file, or in its header, text part or unpacked text."""
    prefix: str
    """At most its first four characters, then dots: enough to recognise, too little to use."""

    def __str__(self) -> str:
        return f"{self.file}: {self.kind} ({self.prefix}) at byte {self.offset}"


def machine_names() -> frozenset[str]:
    """The names of this user and this machine, unless they are names that everybody has."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container may run as a number without a name
        user = ""
    names = {user, socket.gethostname().split(".")[0]}
    return frozenset(name for name in names if len(name) >= 4 and name.lower() not in COMMON_NAMES)


def patterns(names: frozenset[str], home: Path) -> dict[str, re.Pattern[bytes]]:
    """Everything looked for. `names` are words that must not appear; `home` is a folder whose paths must not."""
    found = {kind: re.compile(pattern) for kind, pattern in (SECRETS | PATHS).items()}
    if len(home.parts) > 1:
        found[HOME] = re.compile(rb"(?<![\w.:/])" + re.escape(str(home).encode()) + rb"[/\\]")
    if names:
        either = b"|".join(re.escape(name.encode()) for name in sorted(names))
        found[NAME] = re.compile(rb"(?<![A-Za-z0-9])(?:" + either + rb")(?![A-Za-z0-9])")
    return found


def scan_file(path: Path, *, shown: str | None = None, names: frozenset[str] | None = None) -> list[Finding]:
    """What must not be published in one file, at most one finding a kind. `names` are words to look for besides (default:
    this user's and this machine's); `shown` is how to call the file. Raises OSError when it cannot be read."""
    wanted = patterns(machine_names() if names is None else names, Path.home())
    shown = shown or path.name
    findings: dict[str, Finding] = {}
    packed = path.suffix.lower() == ".parquet"
    # In the raw bytes of pictures a short name turns up by chance; what is written there was read as text before.
    unnamed = {kind: pattern for kind, pattern in wanted.items() if kind != NAME}
    told = unnamed if path.name in VOCABULARY else wanted
    parts = [(readable_parts(path), told), *([(windows(path), unnamed)] if packed else [])]
    for base, data, kinds in ((base, data, kinds) for pieces, kinds in parts for base, data in pieces):
        for kind, pattern in kinds.items():
            if kind not in findings and (match := first(kind, pattern, data)):
                findings[kind] = Finding(shown, kind, base + match.start(), masked(kind, match[0]))
    if path.suffix.lower() in PICTURES:
        findings |= {f.kind: f for f in scan_exif(path, shown)}
    if path.suffix.lower() in TEXT - LINES and path.stat().st_size > MOST:
        findings["text too long to check"] = Finding(shown, "text too long to check", MOST, "…")
    return list(findings.values())


def first(kind: str, pattern: re.Pattern[bytes], data: bytes) -> re.Match[bytes] | None:
    """`pattern.search(data)`, in much less time where the pattern has anchors."""
    anchors = (str(Path.home()).encode(),) if kind == HOME else ANCHORS.get(kind)
    if anchors is None:
        return pattern.search(data) if "Biases" not in kind or b"wandb_api_key" in data.lower() else None
    found = []
    for anchor in anchors:
        place = data.find(anchor)
        while place >= 0:
            if match := pattern.search(data, max(0, place - AROUND), place + AROUND):
                found.append(match)
                break
            place = data.find(anchor, place + 1)
    return min(found, key=lambda match: match.start(), default=None)


def masked(kind: str, value: bytes) -> str:
    return (value[:4] if "name" not in kind else b"").decode("ascii", "replace") + "…"


def readable_parts(path: Path) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of the parts of a file in which a person could read something."""
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        if suffix == ".safetensors":
            size = min(struct.unpack("<Q", file.read(8).ljust(8, b"\0"))[0], MOST)
            yield 8, file.read(size)
        elif suffix == ".png":
            yield from png_text(file.read(MOST))
        elif suffix in PICTURES:
            yield 0, file.read(MOST)
        elif suffix == ".parquet":
            from .parquet_text import parquet_text

            yield from ((0, text) for text in parquet_text(path))
        elif suffix in LINES and path.stat().st_size > MOST:
            yield from windows(path)
        elif suffix in TEXT or path.name.startswith("."):
            data = file.read(MOST)
            wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
            yield 0, data.decode("utf-16", "replace").encode() if wide else data


def windows(path: Path, step: int = 1 << 22, overlap: int = 512) -> Iterator[tuple[int, bytes]]:
    """A whole file in overlapping pieces."""
    with path.open("rb") as file:
        base, kept = 0, b""
        while piece := file.read(step):
            yield base - len(kept), kept + piece
            base, kept = base + len(piece), (kept + piece)[-overlap:]


def png_text(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Texts and EXIF of a PNG, unpacked; the picture's own bytes are left out."""
    place = 8
    while place + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        body = data[place + 8 : place + 8 + size]
        if kind in (b"tEXt", b"eXIf"):
            yield place + 8, body
        elif kind in (b"zTXt", b"iTXt"):
            yield place + 8, body
            yield place + 8, unpacked(kind, body)
        place += 12 + size
        if kind == b"IEND":
            break
    if place < len(data):
        yield place, data[place:]  # what somebody glued on behind the end


def unpacked(kind: bytes, body: bytes) -> bytes:
    _, _, rest = body.partition(b"\0")
    # iTXt: flag, method, language, translated keyword, text; zTXt: method, text
    rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2] if kind == b"iTXt" else rest[1:]
    try:
        return zlib.decompressobj().decompress(rest, MOST)
    except zlib.error:
        return rest


def scan_exif(path: Path, shown: str) -> list[Finding]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as picture:
            exif = picture.getexif()
            tags = set(exif) | set(exif.get_ifd(0x8769)) | ({0x8825} if exif.get_ifd(0x8825) else set())
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return [Finding(shown, "not a picture that can be read", 0, "…")]
    return [Finding(shown, f"EXIF {PRIVATE_EXIF[tag]}", 0, "…") for tag in sorted(tags & set(PRIVATE_EXIF))]
