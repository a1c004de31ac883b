"""A run may start from a checkpoint of one file, as model sites give them out."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tiny
import toyset
from hf_diffusion_kit import LoraTrainer, bases
from hf_diffusion_kit.errors import ModelError
from hf_diffusion_kit.families import FAMILIES, detect
from hf_diffusion_kit.formats import FORMATS
from hf_diffusion_kit.run import Run
from test_single_file import toy


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """(family, the file, a folder of the same base)."""
    place = tmp_path_factory.mktemp(request.param)
    toy(request.param).save_pretrained(place / "base")
    (place / "file").mkdir()
    written = FORMATS["single-file"].write(FAMILIES[request.param].open(place / "base"), place / "file")
    return request.param, written.files[0], place / "base"


def test_it_is_unpacked_once_and_is_the_same_model(checkpoint: tuple[str, Path, Path]) -> None:
    name, file, config = checkpoint
    base = bases.resolve(str(file), config=str(config))
    assert detect(base.location).name == name and base.pinned.id == file.name and not base.pinned.on_hub
    ours, theirs = FAMILIES[name].open(base.location), FAMILIES[name].open(config)
    for part in ("unet", "vae", *ours.text_encoders):
        before, after = theirs.part(part).state_dict(), ours.part(part).state_dict()
        assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    times = {path: path.stat().st_mtime_ns for path in Path(base.location).rglob("*")}
    again = bases.resolve(str(file), config=str(config))
    assert again.identity == base.identity and {p: p.stat().st_mtime_ns for p in Path(again.location).rglob("*")} == times


def test_a_run_on_it_is_reopened_and_names_no_place(checkpoint: tuple[str, Path, Path], tmp_path: Path) -> None:
    _, file, config = checkpoint
    data = toyset.folder(tmp_path / "data")
    told = {"config": str(config), "license": "mit", "rank": 2, "steps": 2, "resolution": [tiny.HEIGHT, tiny.WIDTH]}
    run = LoraTrainer(str(file), out=tmp_path / "run", **told).fit(data)
    assert run.record.verified[0].max_difference == 0
    record = (run.folder / "run.json").read_text()
    assert json.loads(record)["base_model"]["id"] == "model.safetensors" and str(tmp_path) not in record
    assert set(Run.open(run.folder).evaluate().values()) == {0.0}


def test_what_is_no_checkpoint_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"\x80")
    with pytest.raises(ModelError, match=r"model.ckpt: is a pickle"):
        bases.resolve(str(tmp_path / "model.ckpt"))
    tiny.pipeline("sana").save_pretrained(tmp_path / "sana")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=r"other.safetensors: is one file, and diffusers opens none of a sana"):
        bases.resolve(str(tmp_path / "other.safetensors"), config=str(tmp_path / "sana"))
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    with pytest.raises(ModelError, match=r"cut.safetensors: cannot be opened"):
        bases.resolve(str(tmp_path / "cut.safetensors"), config=str(tmp_path))
