"""Each family's toy, from a TOML file to a published folder, by the words that a user types."""

import json
from pathlib import Path

import pytest

import tiny
import toyset
from hf_diffusion_kit.cli import main
from hf_diffusion_kit.families import FAMILIES

OFTEN = ("sd3", "qwen-image")
CELLS = [pytest.param(name, marks=[] if name in OFTEN else [pytest.mark.slow]) for name in FAMILIES]
TOML = """
[base]
id = "base"
license = "mit"
[data]
path = "mine"
[method]
rank = 2
alpha = 4
[training]
steps = 2
batch_size = 2
resolution = [{height}, {width}]
caption_dropout = 0.3
validation_share = 0.3
[gallery]
pictures = 1
steps = 2
"""


@pytest.mark.parametrize("name", CELLS)
def test_from_toml_to_a_published_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], online: None
) -> None:
    monkeypatch.chdir(tmp_path)
    pipe = tiny.pipeline(name)
    pipe.save_pretrained(tmp_path / "base")
    height, width = tiny.size(pipe)
    toyset.folder(tmp_path / "mine", count=4)
    (tmp_path / "run.toml").write_text(TOML.format(height=height, width=width))
    assert main(["train", "run.toml", "--out", "run", "--repo", f"you/{name}", "--hub", "local", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["steps"] == 2 and told["difference"] == 0 and told["published"].startswith("http://127.0.0.1")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["family"] == name and record["guidance_argument"] == FAMILIES[name].guidance_argument
    assert (tmp_path / "run" / "pytorch_lora_weights.safetensors").is_file()
    assert main(["evaluate", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["largest"] == 0
