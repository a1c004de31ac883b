"""The local Hub answers stock clients as the Hub does. Nothing here is mocked: huggingface_hub over loopback HTTP."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, close_session
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import get_session

from hf_diffusion_kit.cli import main
from hf_diffusion_kit.errors import ConfigError, HubError, StorageError
from hf_diffusion_kit.hub.local import LocalHub, default_folder, local_door
from hf_diffusion_kit.hub.preflight import preflight
from hf_diffusion_kit.testing import Fault, once

CARD = b"---\nlicense: mit\n---\n# A card\n"


def client(hub: LocalHub, token: str | bool | None = None) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.token if token is None else token)


def add(path: str, content: bytes | Path) -> CommitOperationAdd:
    return CommitOperationAdd(path, content if isinstance(content, bytes) else str(content))


def commit(api: HfApi, *files: Any, parent: str | None = None, repo: str = "you/x", **more: Any) -> str:
    return api.create_commit(repo, list(files), commit_message="one", parent_commit=parent, **more).oid


def tricky_bytes() -> bytes:
    """Parts that repeat: Xet stores them once, and a file then names the same chunks in several overlapping runs."""
    random = np.random.RandomState(0).bytes(200_000)
    return b"abc" * 400_000 + random + b"\0" * 300_000 + random


def read(hub: LocalHub, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    """(status, body, headers) of a GET as a browser makes it: without a token."""
    connection = http.client.HTTPConnection(hub.endpoint.removeprefix("http://"))
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(errors="replace"), {name.lower(): value for name, value in answer.getheaders()}
    connection.close()
    return found


def test_a_commit_is_whole_and_a_stale_one_is_refused(hub: LocalHub) -> None:
    api = client(hub)
    api.create_repo("you/x", private=True)
    first = api.repo_info("you/x").sha
    second = commit(api, add("README.md", CARD), add("a/b.txt", b"text"), parent=first)
    assert api.repo_info("you/x").sha == second
    with pytest.raises(HfHubHTTPError) as stale:
        commit(api, add("a/b.txt", b"other"), parent=first)
    assert stale.value.response.status_code == 412
    assert [c.commit_id for c in api.list_repo_commits("you/x")] == [second, first]
    with pytest.raises(HfHubHTTPError):  # one part cannot be, so none is
        commit(api, add("c.txt", b"new"), CommitOperationDelete("not-there.txt", is_folder=False))
    assert api.list_repo_files("you/x") == [".gitattributes", "README.md", "a/b.txt"]


@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # huggingface_hub's own, on its LFS way
@pytest.mark.parametrize("way", ["lfs", "xet"])
def test_large_files_go_up_and_come_back(way: str, hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", way == "lfs")
    api, data = client(hub), tricky_bytes() + way.encode()
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(data)
    api.create_repo("you/x")
    oid = commit(api, add("model.safetensors", weights), add("README.md", CARD))
    assert any(line.startswith("PUT /lfs/" if way == "lfs" else "POST /xet/") for line in hub.requests)
    (entry,) = [item for item in api.list_repo_tree("you/x") if item.path == "model.safetensors"]
    assert entry.size == len(data)
    assert (entry.xet_hash is not None) == (way == "xet")
    assert Path(api.hf_hub_download("you/x", "model.safetensors", cache_dir=tmp_path / "one")).read_bytes() == data
    folder = api.snapshot_download("you/x", cache_dir=tmp_path / "two")
    assert not api.verify_repo_checksums("you/x", local_dir=folder).mismatches
    part = get_session().get(f"{hub.endpoint}/you/x/resolve/main/model.safetensors", headers={"Range": "bytes=1199990-1400009"})
    assert (part.status_code, part.content) == (206, data[1199990:1400010])
    hub.requests.clear()
    assert commit(api, add("model.safetensors", weights)) == oid  # nothing new, so no commit
    assert not any("/commit/" in line for line in hub.requests)


def test_private_repositories_and_tokens(hub: LocalHub) -> None:
    owner, stranger, reader = client(hub), client(hub, token=False), client(hub, token=hub.read_token)
    owner.create_repo("you/x", private=True)
    commit(owner, add("README.md", CARD))
    with pytest.raises(RepositoryNotFoundError):
        stranger.repo_info("you/x")
    assert read(hub, "/you/x")[0] == 401
    assert reader.repo_info("you/x").private
    assert reader.whoami()["auth"]["accessToken"]["role"] == "read"
    for forbidden in (
        lambda: commit(reader, add("a.txt", b"a")),
        lambda: reader.create_repo("you/y"),
        lambda: owner.create_repo("me/y"),
    ):
        with pytest.raises(HfHubHTTPError) as refused:
            forbidden()
        assert refused.value.response.status_code == 403
    with pytest.raises(HfHubHTTPError) as wrong:
        client(hub, token="hf_" + "x" * 34).whoami()
    assert wrong.value.response.status_code == 401
    assert not list(stranger.list_models())
    owner.update_repo_settings("you/x", visibility="public")
    assert stranger.repo_info("you/x").card_data.license == "mit"
    owner.update_repo_settings("you/x", gated="auto")
    with pytest.raises(GatedRepoError):
        stranger.hf_hub_download("you/x", "README.md")


def test_branches_tags_datasets_and_deletion(hub: LocalHub, tmp_path: Path) -> None:
    api = client(hub)
    api.create_repo("you/x", repo_type="dataset")
    commit(api, add("rows.csv", b"a\n1\n"), repo_type="dataset")
    api.create_tag("you/x", tag="v1", repo_type="dataset")
    api.create_branch("you/x", branch="try/1", repo_type="dataset")
    commit(api, add("rows.csv", b"a\n2\n"), repo_type="dataset", revision="try/1")
    told = {"repo_type": "dataset", "cache_dir": tmp_path}
    assert Path(api.hf_hub_download("you/x", "rows.csv", revision="try/1", **told)).read_bytes() == b"a\n2\n"
    assert Path(api.hf_hub_download("you/x", "rows.csv", revision="v1", **told)).read_bytes() == b"a\n1\n"
    refs = api.list_repo_refs("you/x", repo_type="dataset")
    assert ([b.name for b in refs.branches], [t.name for t in refs.tags]) == (["main", "try/1"], ["v1"])
    api.delete_tag("you/x", tag="v1", repo_type="dataset")
    with pytest.raises(RevisionNotFoundError):
        api.repo_info("you/x", repo_type="dataset", revision="v1")
    assert [d.id for d in api.list_datasets(author="you")] == ["you/x"]
    api.delete_repo("you/x", repo_type="dataset")
    assert not api.repo_exists("you/x", repo_type="dataset")


def test_pushes_at_once_become_first_and_second(hub: LocalHub) -> None:
    api = client(hub)
    api.create_repo("you/x")
    done: list[int] = []

    def work(name: int) -> None:
        for n in range(3):
            head = api.repo_info("you/x").sha
            try:
                commit(api, add(f"{name}/{n}.txt", b"x"), parent=head)
                done.append(200)
            except HfHubHTTPError as error:
                done.append(error.response.status_code)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(done) <= {200, 412}
    assert len(api.list_repo_commits("you/x")) == 1 + done.count(200)
    assert len(api.list_repo_files("you/x")) == 1 + done.count(200)


def test_a_card_that_the_hub_would_refuse_is_refused(hub: LocalHub) -> None:
    api = client(hub)
    api.create_repo("you/x")
    with pytest.raises((HfHubHTTPError, ValueError), match="base_model"):
        commit(api, add("README.md", b"---\nbase_model: ./runs/my-model\n---\n"))
    assert api.list_repo_files("you/x") == [".gitattributes"]


@pytest.mark.parametrize("path", ["../out.txt", "/etc/x", "a/../../x", ".git/config", "a//b", "a\\b", ""])
def test_a_path_stays_inside_its_repository(path: str, hub: LocalHub) -> None:
    client(hub).create_repo("you/x")
    line = json.dumps({"key": "file", "value": {"path": path, "content": "x"}})
    answer = get_session().post(
        f"{hub.endpoint}/api/models/you/x/commit/main", content=line.encode(), headers={"Authorization": f"Bearer {hub.token}"}
    )
    assert answer.status_code == 400
    assert client(hub).list_repo_files("you/x") == [".gitattributes"]


def test_the_folder_keeps_its_repositories_and_has_one_server(tmp_path: Path, online: None) -> None:
    folder = tmp_path / "hub"
    with LocalHub(folder) as hub:
        client(hub).create_repo("you/x", private=True)
        token = hub.token
        with pytest.raises(StorageError, match=f"another process serves this local Hub at {hub.endpoint}"), LocalHub(folder):
            pass
        with local_door(folder) as door:  # a second one finds the first
            assert (door.endpoint, door.token) == (hub.endpoint, token)
            assert [m.id for m in door.api.list_models(author="you")] == ["you/x"]
        with pytest.raises(StorageError, match="port"), LocalHub(tmp_path / "other", port=int(hub.endpoint.rsplit(":", 1)[1])):
            pass
    with local_door(folder) as door:
        assert (door.token, door.api.repo_info("you/x").private) == (token, True)
    assert (folder / "token").stat().st_mode & 0o077 == 0
    assert not (folder / "address").exists()


def test_the_local_door_takes_repositories_under_any_name(tmp_path: Path, online: None) -> None:
    """`--hub local` before the real Hub: whoever says `--repo me/x` there need not learn that here one is called `you`."""
    with LocalHub(tmp_path / "one") as hub, pytest.raises(HubError, match="you may not write under 'me'"):
        preflight(hub.door, "me/x")  # a stand-in of the real Hub is as strict as that
    with local_door(tmp_path / "hub") as door, local_door(tmp_path / "hub") as second:
        for name, each in (("me/x", door), ("you/x", second)):
            assert preflight(each, name).user == "you"
            each.api.create_repo(name, private=True)
            commit(each.api, add("README.md", CARD), repo=name)
        assert {model.id for model in door.api.list_models()} == {"me/x", "you/x"}
        assert door.api.whoami()["name"] == "you"
        for name in ("datasets/x", "api/x"):
            with pytest.raises(HfHubHTTPError, match="not a valid repository name"):
                door.api.create_repo(name)


def test_a_door_leads_past_a_proxy(tmp_path: Path, online: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "example.org")
    close_session()  # as if no client were open yet
    with local_door(tmp_path / "hub") as door:
        assert door.api.whoami()["name"] == "you"
    assert (os.environ["NO_PROXY"], os.environ.get("no_proxy")) == ("example.org", None)


def test_folders_and_names_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "hub.sqlite").write_text("this is no database, however long one looks at it" * 100)
    for folder in ("file", "broken"):
        with pytest.raises(StorageError, match=folder), LocalHub(tmp_path / folder):
            pass
    for user in ("datasets", "a/b", ""):
        with pytest.raises(ConfigError):
            LocalHub(tmp_path / "hub", user=user)


def test_default_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somebody")
    monkeypatch.setenv("HFDK_HUB_DIR", "~/here")
    assert default_folder() == Path("/somebody/here")
    monkeypatch.setenv("HFDK_HUB_DIR", "~nobody-of-this-name/hub")
    with pytest.raises(ConfigError, match=r"~nobody-of-this-name/hub: nobody has that home folder\. Fix: set HFDK_HUB_DIR"):
        default_folder()
    monkeypatch.delenv("HFDK_HUB_DIR")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_folder() == Path("/data/hfdk/hub")
    monkeypatch.delenv("XDG_DATA_HOME")
    assert default_folder() == Path("/somebody/.local/share/hfdk/hub")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)  # a number without a name, as containers have them
    with pytest.raises(ConfigError, match="nobody has that home folder"):
        default_folder()


def test_faults_strike_where_they_are_asked_for(hub: LocalHub) -> None:
    api = client(hub)
    api.create_repo("you/x")
    hub.set_faults(once("POST", "/commit/", Fault(503)))
    with pytest.raises(HfHubHTTPError, match="503"):
        commit(api, add("a.txt", b"a"))
    assert len(api.list_repo_commits("you/x")) == 1
    hub.set_faults(once("POST", "/commit/", Fault(504, after=True)))
    with pytest.raises(HfHubHTTPError, match="504"):
        commit(api, add("a.txt", b"a"))
    assert len(api.list_repo_commits("you/x")) == 2  # it arrived, and only its answer was lost


NASTY = """---
license: mit
tags: ["<script>alert(1)</script>"]
widget:
- text: '"><script>alert(2)</script>'
  output: {url: images/a.png}
---
<!-- hfdk:begin -->
# A card

<Gallery />

| a | b |
|---|---|
| `x` | ![](images/a.png) |

<script>alert(3)</script> [link](javascript:alert(4)) <img src=x onerror=alert(5)>

<!-- a --><script>alert(6)</script>
"""


def test_the_page_shows_card_and_gallery_and_runs_nothing(hub: LocalHub) -> None:
    api = client(hub)
    api.create_repo("you/x")
    commit(api, add("README.md", NASTY.encode()), add("images/a.png", b"\x89PNG"))
    status, page, headers = read(hub, "/you/x")
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "<script" not in page and "<img src=x" not in page and 'href="javascript' not in page
    assert page.count("&lt;script&gt;") == 4
    assert '<section class="gallery"><figure><img src="images/a.png"' in page
    assert "<td><code>x</code></td>" in page and "hfdk:begin" not in page
    oid = api.repo_info("you/x").sha
    assert f'<base href="/you/x/resolve/{oid}/">' in page
    assert read(hub, f"/you/x/resolve/{oid}/images/a.png")[2]["content-type"] == "image/png"
    assert read(hub, f"/you/x/resolve/{oid}/README.md")[2]["content-type"].startswith("text/plain")


def test_a_page_of_another_name_gets_nothing(hub: LocalHub) -> None:
    assert read(hub, "/", Host="evil.example")[0] == 403
    assert read(hub, "/")[0] == 200


def test_the_command_serves_until_ctrl_c_and_lists(tmp_path: Path, online: None, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "hub"
    words = ["hub", "list", "--dir", str(folder), "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["repositories"] == []
    assert not folder.exists()
    serve = [sys.executable, "-m", "hf_diffusion_kit", "hub", "serve", "--port", "0", "--dir", str(folder)]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        with local_door(folder) as door:
            assert f"Local Hub at {door.endpoint} (folder {folder}), user you" in first
            door.api.create_repo("you/x", private=True)
        assert main(words) == 0
        process.send_signal(signal.SIGINT)
        assert process.stdout.read().splitlines()[-1] == "stopped"
    assert process.returncode == 0
    (told,) = json.loads(capsys.readouterr().out)["repositories"]
    assert (told["id"], told["kind"], told["private"], told["files"]) == ("you/x", "model", True, 1)


STRANGER = """
import sys
import numpy as np, torch
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained("you/x")
pipe.load_lora_weights("you/x-lora", weight_name="pytorch_lora_weights.safetensors")
pipe.set_progress_bar_config(disable=True)
picture = pipe("a b", num_inference_steps=2, height=16, width=16, generator=torch.Generator().manual_seed(0), output_type="np")
np.save("picture.npy", picture.images[0])
assert not [name for name in sys.modules if name.startswith("hf_diffusion_kit")]
"""


def test_a_fresh_process_opens_pipeline_and_lora(hub: LocalHub, tmp_path: Path) -> None:
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    import tiny

    pipe, api = tiny.pipeline(), client(hub)
    pipe.save_pretrained(tmp_path / "x")
    pipe.unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    pipe.save_lora_weights(tmp_path / "lora", unet_lora_layers=get_peft_model_state_dict(pipe.unet))
    for repo, folder in (("you/x", tmp_path / "x"), ("you/x-lora", tmp_path / "lora")):
        api.create_repo(repo, private=True)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        commit(api, *(add(path.relative_to(folder).as_posix(), path) for path in files), repo=repo)
    told = {"height": 16, "width": 16, "generator": torch.Generator().manual_seed(0), "output_type": "np"}
    expected = pipe("a b", num_inference_steps=2, **told).images[0]
    environment = {**os.environ, **hub.environment(), "HF_HOME": str(tmp_path / "home")}
    hub.requests.clear()
    done = subprocess.run([sys.executable, "-c", STRANGER], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "picture.npy"), expected)
    assert any("/v1/reconstructions/" in line for line in hub.requests)  # the weights really came by Xet
    assert not [line for line in hub.requests if line.endswith(("-> 401", "-> 403", "-> 500"))]
