"""A LoRA named by its id on the Hub: its own files alone, at one commit, and from the cache where there is no network."""

from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import save_file

from hf_diffusion_kit import lora_files
from hf_diffusion_kit.errors import HubError, ModelError
from hf_diffusion_kit.hub.loras import chosen, fetch
from hf_diffusion_kit.methods import Lora

BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
TENSORS = {f"unet.{BLOCK}.lora.{side}.weight": torch.ones(2, 2) for side in ("down", "up")}


@pytest.fixture
def only_hub(hub: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("huggingface_hub.constants.ENDPOINT", "huggingface_hub.hf_api.api.endpoint"):
        monkeypatch.setattr(name, hub.endpoint)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setenv("HF_TOKEN", hub.token)
    return hub


def pushed(hub: Any, repo: str, folder: Path, *names: str) -> str:
    """The commit at which a repository has these files of weights, beside a large one of another kind."""
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    api.create_repo(repo, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save_file(TENSORS, folder / name)
        api.upload_file(repo_id=repo, path_in_repo=name, path_or_fileobj=str(folder / name))
    return str(api.upload_file(repo_id=repo, path_in_repo="unet/model.bin", path_or_fileobj=b"not fetched").oid)


def test_an_id_is_pinned_and_only_the_lora_is_fetched(only_hub: Any, tmp_path: Path) -> None:
    commit = pushed(only_hub, "you/one", tmp_path, "pytorch_lora_weights.safetensors", "other.safetensors")
    found = fetch("you/one")
    assert found.id == f"you/one@{commit}" and found.place.name == commit
    assert [path.name for path in found.place.rglob("*") if path.is_file()] == ["pytorch_lora_weights.safetensors"]
    assert list(lora_files.opened("you/one").layers) == [f"unet.{BLOCK}"]
    named = fetch(f"you/one/other.safetensors@{commit[:40]}")
    assert named.place.name == "other.safetensors" and named.id == f"you/one/other.safetensors@{commit}"


def test_a_run_writes_down_the_commit(only_hub: Any, tmp_path: Path) -> None:
    commit = pushed(only_hub, "you/two", tmp_path, "pytorch_lora_weights.safetensors")
    begun = lora_files.begun(Lora(init_from="you/two"))
    assert begun.told == Lora(init_from=f"you/two@{commit}") and Path(begun.here.init_from).is_dir()  # type: ignore[attr-defined]
    assert f"began from the LoRA you/two@{commit}" in begun.notes[0] and begun.identity["init_from"] in {
        lora_files.opened("you/two").sha256
    }


def test_it_is_had_from_the_cache_where_there_is_no_network(
    only_hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed(only_hub, "you/three", tmp_path, "pytorch_lora_weights.safetensors")
    online = fetch("you/three")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert fetch("you/three") == online
    with pytest.raises(HubError, match="cannot be reached and is not in the cache"):
        fetch("you/never")


def test_what_is_not_there_is_one_line(only_hub: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file, model or revision") as error:
        fetch("you/nothing")
    assert "\n" not in error.value.line()
    pushed(only_hub, "you/four", tmp_path, "a.safetensors", "b.safetensors")
    with pytest.raises(ModelError, match=r"2 files of weights: a\.safetensors, b\.safetensors.*name the file: you/four/NAME"):
        fetch("you/four")
    with pytest.raises(ModelError, match=r"holds no c\.safetensors"):
        fetch("you/four/c.safetensors")


def test_which_files_are_the_lora() -> None:
    assert chosen("r", ["x.safetensors", "pytorch_lora_weights.safetensors"]) == ["pytorch_lora_weights.safetensors"]
    assert chosen("r", ["unet/adapter_config.json", "unet/adapter_model.safetensors", "a.txt"]) == [
        "unet/adapter_config.json",
        "unet/adapter_model.safetensors",
    ]
    assert chosen("r", ["only.safetensors", "unet/big.safetensors"]) == ["only.safetensors"]
    with pytest.raises(ModelError, match="holds no LoRA"):
        chosen("r", ["model.bin"])
