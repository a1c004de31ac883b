"""Tokens, keys, and the names and paths of this machine are found wherever they hide, and are never shown whole."""

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from hf_diffusion_kit.hub.secrets import COMMON_NAMES, Finding, machine_names, scan_file

TOKEN = "hf_" + "Zq8x" * 9
NAMES = frozenset({"marie-curie", "radium-7"})


def scan(path: Path) -> list[Finding]:
    return scan_file(path, names=NAMES)


def found(path: Path) -> set[str]:
    return {finding.kind for finding in scan(path)}


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.md", f"my token {TOKEN}.", "Hugging Face token"),
        ("a.py", f'login("{TOKEN}")', "Hugging Face token"),
        ("a.ipynb", json.dumps({"source": [f"!hf auth login --token {TOKEN}\n"]}), "Hugging Face token"),
        ("a.ipynb", json.dumps({"outputs": [{"text": ["line\n" + TOKEN]}]}), "Hugging Face token"),
        ("a.log", f"Authorization: Bearer {TOKEN}", "Hugging Face token"),
        (".env", f"HF_TOKEN={TOKEN}", "Hugging Face token"),
        ("a.json", '{"t": "api_org_' + "aB3" * 12 + '"}', "Hugging Face token"),
        ("a.yaml", "t: hf_oauth_" + "a.b-c" * 6, "Hugging Face OAuth token"),
        ("a.txt", "ghp_" + "aB3x" * 9, "GitHub token"),
        ("a.txt", "github_pat_" + "aB3x_" * 12, "GitHub token"),
        ("a.toml", "key = 'AKIA" + "ABCD2345" * 2 + "'", "AWS key"),
        ("a.txt", "sk-proj-" + "a_B-3" * 8, "OpenAI or Anthropic key"),
        ("a.txt", "sk-ant-" + "a_B-3" * 8, "OpenAI or Anthropic key"),
        ("a.txt", "xoxb-123456-abcdef", "Slack token"),
        ("a.txt", "AIza" + "aB3_-" * 7, "Google key"),
        ("a.env", "WANDB_API_KEY=" + "0f" * 20, "Weights & Biases key"),
        ("a.txt", "-----BEGIN OPENSSH PRIVATE KEY-----", "private key"),
        ("a.json", '{"from": "/home/ada/models/sd15"}', "local path"),
        ("a.md", "see /Users/ada/runs/1", "local path"),
        ("a.json", json.dumps({"from": "C:\\Users\\ada\\runs"}), "local Windows path"),
        ("a.txt", "trained by marie-curie on", "name of this user or machine"),
        ("a.txt", "trained on radium-7", "name of this user or machine"),
    ],
)
def test_texts(name: str, text: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / name
    for encoding in ("utf-8", "utf-16"):
        path.write_bytes(text.encode(encoding))
        assert kind in found(path), encoding
        for finding in scan(path):
            assert TOKEN[4:9] not in str(finding) and "marie" not in str(finding)


@pytest.mark.parametrize(
    "text",
    [
        "hf_hub_download hf_transfer hf_short sk-learn AKIA",
        "sha256 " + "0123456789abcdef" * 4,
        "/home/user/data /home/you/x /Users/username/x https://example.org/home/ada/x ./home/ada/x",
        "marie-curies Marie",
        "a photo of sks dog",
    ],
)
def test_harmless_texts(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(text)
    assert not scan(tmp_path / "a.md")


def test_the_users_own_home_is_found_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/data/people/ada")
    (tmp_path / "a.json").write_text('"/data/people/ada/runs"')
    assert found(tmp_path / "a.json") == {"path of this user"}


def test_a_finding_tells_where_and_four_letters(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"12345 {TOKEN}")
    (finding,) = scan(tmp_path / "a.txt")
    assert (finding.file, finding.offset, finding.prefix) == ("a.txt", 6, "hf_Z…")
    assert str(finding) == "a.txt: Hugging Face token (hf_Z…) at byte 6"


def safetensors(path: Path) -> None:
    header = json.dumps({"__metadata__": {"note": TOKEN}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def png_text(path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", f"token {TOKEN}")
    Image.new("RGB", (2, 2)).save(path, pnginfo=info)


def png_packed_text(path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", f"token {TOKEN}", zip=True)
    Image.new("RGB", (2, 2)).save(path, pnginfo=info)


def png_packed_unicode(path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("parameters", f"token {TOKEN}", "en", "p", zip=True)
    Image.new("RGB", (2, 2)).save(path, pnginfo=info)


def png_tail(path: Path) -> None:
    Image.new("RGB", (2, 2)).save(path)
    path.write_bytes(path.read_bytes() + TOKEN.encode())


def jpeg_comment(path: Path) -> None:
    Image.new("RGB", (2, 2)).save(path, "jpeg", comment=TOKEN)


def parquet_metadata(path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"path": ["/home/ada/1.jpg"]}).replace_schema_metadata({"token": TOKEN})
    pyarrow.parquet.write_table(table, path, compression="none")


HIDDEN: dict[str, Callable[[Path], None]] = {
    "a.safetensors": safetensors,
    "text.png": png_text,
    "packed.png": png_packed_text,
    "unicode.png": png_packed_unicode,
    "tail.png": png_tail,
    "comment.jpg": jpeg_comment,
    "a.parquet": parquet_metadata,
}


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_places(name: str, tmp_path: Path) -> None:
    HIDDEN[name](tmp_path / name)
    assert "Hugging Face token" in found(tmp_path / name)
    if name.endswith("parquet"):
        assert "local path" in found(tmp_path / name)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_places_and_people_in_pictures(suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x013B] = "Ada"
    exif.get_ifd(0x8825)[1] = "N"
    exif[0x0112] = 6  # how the camera was held says nothing of anybody
    Image.new("RGB", (2, 2)).save(tmp_path / f"told.{suffix}", exif=exif)
    Image.new("RGB", (2, 2)).save(tmp_path / f"clean.{suffix}")
    assert {"EXIF author", "EXIF GPS position"} == found(tmp_path / f"told.{suffix}")
    assert not found(tmp_path / f"clean.{suffix}")
    (tmp_path / f"broken.{suffix}").write_bytes(b"<html>")
    assert found(tmp_path / f"broken.{suffix}") == {"not a picture that can be read"}


def test_pixels_are_not_read_as_text(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    pixels = zlib.compress(b"\0" + TOKEN.encode(), 0)
    header = struct.pack(">IIBBBBB", len(TOKEN), 1, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(data)
    assert TOKEN.encode() in data
    assert not scan(tmp_path / "a.png")


@pytest.mark.parametrize("data", [b"", b"\x01", b"\xff" * 7, struct.pack("<Q", 2**62) + b"{}", zlib.compress(b"x" * 100)])
def test_broken_files_are_looked_at_all_the_same(data: bytes, tmp_path: Path) -> None:
    for name in ("a.safetensors", "a.txt", "a.parquet", "a.json"):
        (tmp_path / name).write_bytes(data)
        assert not scan(tmp_path / name)


def test_a_text_too_long_to_check_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_diffusion_kit.hub.secrets.MOST", 100)
    (tmp_path / "a.txt").write_text("x" * 101)
    assert found(tmp_path / "a.txt") == {"text too long to check"}


def test_names_that_everybody_has_are_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("root", "ubuntu", "al"):
        monkeypatch.setattr("getpass.getuser", lambda name=name: name)
        monkeypatch.setattr("socket.gethostname", lambda: "localhost.local")
        assert not machine_names()
    monkeypatch.setattr("getpass.getuser", lambda: "marie-curie")
    monkeypatch.setattr("socket.gethostname", lambda: "radium-7.lab.example")
    assert machine_names() == NAMES
    assert all(name == name.lower() for name in COMMON_NAMES)
