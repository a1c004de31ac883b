"""A subset is pushed whole, in one commit, with the truth about it; anybody opens it again, and nothing private goes with it."""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.utils import get_session
from PIL import Image

from hf_diffusion_kit.cards import front_matter
from hf_diffusion_kit.cli import main
from hf_diffusion_kit.data import Captioned, load_captioned, shards
from hf_diffusion_kit.data.push import push_folder, push_to_hub
from hf_diffusion_kit.errors import ConfigError, HubError, SourceError
from hf_diffusion_kit.hub import secrets
from hf_diffusion_kit.hub.publish import Pushed
from hf_diffusion_kit.testing import Fault, LocalHub, once
from pictured import coco, encoded, fill, metadata, picture

REPO = "you/dogs"
FILES = ["README.md", "attribution.csv", "data/train-00000-of-00001.parquet", "facts.json", "images/sheet.png", "manifest.json"]


def quiet(_line: str) -> None:
    pass


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Captioned:
    folder = coco(tmp_path_factory.mktemp("coco") / "set", 12)
    return load_captioned("coco", annotations=folder / "annotations", images=folder / "val2014", category="dog", count=4)


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Captioned:
    return load_captioned(fill(tmp_path_factory.mktemp("own") / "mine", ["a.jpg", "b.jpg"]), prompt="a photo of sks dog")


def push(data: Captioned, hub: LocalHub, /, **more: Any) -> Pushed:
    return data.push_to_hub(more.pop("repo_id", REPO), **{"hub": hub.endpoint, "token": hub.token, "say": quiet, **more})


def commits(hub: LocalHub) -> list[str]:
    return [commit.title for commit in hub.door.api.list_repo_commits(REPO, repo_type="dataset")]


def files(hub: LocalHub) -> list[str]:
    return sorted(set(hub.door.api.list_repo_files(REPO, repo_type="dataset")) - {".gitattributes"})


def card(hub: LocalHub) -> str:
    path = hub.door.api.hf_hub_download(REPO, "README.md", repo_type="dataset")
    return Path(path).read_text(encoding="utf-8")


def write(hub: LocalHub, name: str, text: str) -> None:
    hub.door.api.upload_file(path_or_fileobj=text.encode(), path_in_repo=name, repo_id=REPO, repo_type="dataset")


STOCK = """
import json, re, sys
from pathlib import Path
from huggingface_hub import hf_hub_download
card = Path(hf_hub_download(sys.argv[1], "README.md", repo_type="dataset")).read_text()
(code,) = re.findall(r"^`{3}python\\n(.*?)\\n`{3}$", card, re.M | re.S)
exec(compile(code, "card", "exec"))
stream = list(load_dataset(sys.argv[1], split="train", streaming=True))
assert not [name for name in sys.modules if name.startswith("hf_diffusion_kit")]
told = [[{**row, "image": [row["image"].mode, *row["image"].size]} for row in each] for each in (rows, stream)]
print(json.dumps([*told, str(rows.features)]))
"""


def test_stock_datasets_opens_it_in_a_process_that_never_imported_us(dogs: Captioned, hub: LocalHub, tmp_path: Path) -> None:
    pushed = push(dogs, hub)
    assert pushed.verified and pushed.changed and pushed.files == len(FILES) and files(hub) == FILES
    assert pushed == f"{hub.endpoint}/datasets/{REPO}/commit/{pushed.oid}"
    assert hub.door.api.repo_info(REPO, repo_type="dataset").private
    environment = {**os.environ, **hub.environment(), "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", STOCK, REPO], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    shown, told = done.stdout.splitlines()
    rows, stream, features = json.loads(told)
    expected = [{**row, "image": ["RGB", 48, 32]} for row in dogs.dataset]
    assert rows == stream == expected and features == str(dogs.dataset.features)
    assert shown == f"(48, 32) {expected[0]['text']}"
    ours = (
        "import json, sys\nfrom hf_diffusion_kit import load_captioned\ndata = load_captioned(sys.argv[1])\n"
        "print(json.dumps([data.fingerprint, data.licenses, data.dataset['image_id'][:]]))"
    )
    done = subprocess.run([sys.executable, "-c", ours, REPO], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == [dogs.fingerprint, dogs.licenses, dogs.dataset["image_id"][:]]


def test_one_commit_and_the_same_again_changes_nothing(dogs: Captioned, hub: LocalHub, tmp_path: Path) -> None:
    first = push(dogs, hub, commit_message="Dogs")
    again = push(dogs, hub)
    folder = push_folder(dogs.save(tmp_path / "dogs"), REPO, hub=hub.endpoint, token=hub.token, say=quiet)
    assert commits(hub) == ["Dogs", "initial commit"]
    assert not again.changed and not folder.changed and first.oid == again.oid == folder.oid
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_push_whose_answer_was_lost_is_not_repeated(dogs: Captioned, hub: LocalHub) -> None:
    hub.set_faults(once("POST", "/commit/", Fault(504, after=True)))
    assert push(dogs, hub, commit_message="Dogs").verified and commits(hub) == ["Dogs", "initial commit"]


def test_shards_of_an_earlier_push_are_not_read_as_rows(
    dogs: Captioned, mine: Captioned, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shards, "SHARD_BYTES", 1)
        push(dogs, hub)
    assert "data/train-00003-of-00004.parquet" in files(hub)
    write(hub, "notes.md", "mine")
    assert front_matter.read(card(hub))["license_name"] == "attribution-license"
    push(mine, hub)
    assert files(hub) == sorted([*FILES, "notes.md"]) and len(commits(hub)) == 4
    told = front_matter.read(card(hub))
    assert told["license"] == "unknown" and "license_name" not in told  # what held for other pictures is not said of these


def test_a_card_that_is_not_utf8_is_one_line_and_nothing_is_sent(dogs: Captioned, hub: LocalHub) -> None:
    push(dogs, hub)
    latin = {"content": base64.b64encode(b"# caf\xe9").decode(), "path": "README.md", "encoding": "base64"}
    lines = [{"key": "header", "value": {"summary": "by git", "description": ""}}, {"key": "file", "value": latin}]
    address = f"{hub.endpoint}/api/datasets/{REPO}/commit/main"  # huggingface_hub would not send it; git does
    sent = get_session().post(
        address, headers={"Authorization": f"Bearer {hub.token}"}, content="\n".join(map(json.dumps, lines))
    )
    assert sent.status_code == 200
    before = commits(hub)
    with pytest.raises(
        HubError, match=r"README\.md: the card that is there is not UTF-8 at byte 5, nothing was sent\. Fix: save"
    ):
        push(dogs, hub)
    assert commits(hub) == before


def test_addresses_without_pixels(dogs: Captioned, hub: LocalHub, tmp_path: Path) -> None:
    push(dogs, hub)
    folder = coco(tmp_path / "set", 4)
    push(load_captioned("coco", annotations=folder / "annotations", pixels="none"), hub)
    assert files(hub) == [name for name in FILES if name != "images/sheet.png"]  # nor is the page of the pictures left
    assert "There are no pixels in here" in card(hub)
    rows = pq.read_table(hub.door.api.hf_hub_download(REPO, FILES[2], repo_type="dataset")).to_pylist()
    assert [row["image"]["bytes"] for row in rows] == [None] * 4 and rows[0]["image"]["path"].startswith("http")


def test_what_the_owner_wrote_stays(mine: Captioned, hub: LocalHub) -> None:
    push(mine, hub)
    assert front_matter.read(card(hub))["license"] == "unknown"
    text = card(hub).replace("license: unknown", "license: cc-by-4.0\nannotations_creators: [me]")
    write(hub, "README.md", text + "\n## Thanks\n\nto the dog\n")
    assert push(mine, hub).changed  # now that the owner has stated a licence, the card says whose word it is
    merged = card(hub)
    assert front_matter.read(merged)["license"] == "cc-by-4.0" and front_matter.read(merged)["annotations_creators"] == ["me"]
    assert merged.endswith("\n## Thanks\n\nto the dog\n") and merged.count("# Thanks") == merged.count("hfdk:begin") == 1
    assert "Who published this states the licence of the pictures: `cc-by-4.0`" in merged
    assert not push(mine, hub).changed
    write(hub, "README.md", merged.replace("license: cc-by-4.0", "license: other\nlicense_name: rex\nlicense_link: LICENSE"))
    push(mine, hub)
    told = front_matter.read(card(hub))
    assert [told[f"license{part}"] for part in ("", "_name", "_link")] == ["other", "rex", "LICENSE"]


def test_what_was_written_into_the_folder_goes_with_it(mine: Captioned, hub: LocalHub, tmp_path: Path) -> None:
    folder = mine.save(tmp_path / "mine")
    (folder / "README.md").write_text(f"{(folder / 'README.md').read_text()}\nOf my dog.\n")
    told = {"hub": hub.endpoint, "token": hub.token}
    push_folder(folder, REPO, say=quiet, license="cc-by-4.0", **told)
    assert card(hub).endswith("\nOf my dog.\n") and front_matter.read(card(hub))["license"] == "cc-by-4.0"
    write(hub, "README.md", card(hub).replace("Of my dog.", "Of Rex."))
    heard: list[str] = []
    push_folder(folder, REPO, say=heard.append, **told)
    assert card(hub).endswith("\nOf Rex.\n") and "your text in mine/README.md was not used" in heard[0]


def test_a_card_that_is_not_utf8_is_one_line(mine: Captioned, hub: LocalHub, tmp_path: Path) -> None:
    folder = mine.save(tmp_path / "mine")
    with (folder / "README.md").open("ab") as file:
        file.write("Müller".encode("latin-1"))
    with pytest.raises(SourceError, match=r"README\.md: is not UTF-8"):
        push_folder(folder, REPO, hub=hub.endpoint, token=hub.token, say=quiet)


def test_a_dry_run_shows_the_plan_and_sends_nothing(dogs: Captioned, hub: LocalHub) -> None:
    heard: list[str] = []
    told = push(dogs, hub, dry_run=True, say=heard.append)
    assert not told.changed and "data/train-00000-of-00001.parquet" in heard[0] and "6 add" in heard[0]
    assert all(line.startswith(("GET", "HEAD")) for line in hub.requests) and not hub.door.api.repo_exists(
        REPO, repo_type="dataset"
    )


TOKEN = "hf_" + "AbCdEfGhIj" * 3 + "Klmn"


def test_secrets_in_captions_are_refused_although_they_are_packed(hub: LocalHub, tmp_path: Path) -> None:
    fill(tmp_path / "mine", ["a.jpg", "b.jpg", "c.jpg"])
    words = " ".join(f"dog number {n * n}" for n in range(300))  # so much that it is packed, and neither the least nor the last
    metadata(tmp_path / "mine", [("a.jpg", "a dog"), ("b.jpg", f"m {words} {TOKEN} {words}"), ("c.jpg", "z")])
    data = load_captioned(tmp_path / "mine")
    shard = data.save(tmp_path / "saved") / "data/train-00000-of-00001.parquet"
    assert TOKEN.encode() not in shard.read_bytes()
    with pytest.raises(HubError, match=r"nothing was sent: data/train-00000-of-00001\.parquet: Hugging Face token \(hf_A…\)"):
        push(data, hub)
    assert not hub.door.api.repo_exists(REPO, repo_type="dataset")


def test_short_names_are_looked_for_in_texts_and_not_in_pixels(tmp_path: Path) -> None:
    def found(content: bytes, text: str) -> set[str]:
        table = pa.table({"image": [{"bytes": content, "path": "a"}], "text": [text]})
        pq.write_table(table, tmp_path / "a.parquet", compression="none", use_dictionary=False)
        return {finding.kind for finding in secrets.scan_file(tmp_path / "a.parquet", names=frozenset({"anna"}))}

    assert found(b"\xff anna \xff", "a dog") == set()
    assert found(b"\xff", "by anna") == {"name of this user or machine"}
    assert found(f"\0 {TOKEN}".encode(), "a dog") == {"Hugging Face token"}
    assert found(b"see /home/ada/x/", "a dog") == {"local path"}


def test_a_long_attribution_is_looked_at_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "MOST", 1000)
    (tmp_path / "a.csv").write_text("a,b\n" * 5000)
    assert not secrets.scan_file(tmp_path / "a.csv", names=frozenset())
    (tmp_path / "a.csv").write_text("a,b\n" * 5000 + TOKEN)
    assert [finding.offset for finding in secrets.scan_file(tmp_path / "a.csv", names=frozenset())] == [20_000]


def test_another_dataset_is_not_added_to(dogs: Captioned, hub: LocalHub) -> None:
    hub.door.api.create_repo(REPO, repo_type="dataset", private=True)
    write(hub, "data/train-00000-of-00001.parquet", "PAR1")
    with pytest.raises(HubError, match=r"holds another dataset \(data/train-00000-of-00001\.parquet\).*name another"):
        push(dogs, hub)
    assert len(commits(hub)) == 2


def test_a_public_repository_is_never_met_by_a_private_push(dogs: Captioned, hub: LocalHub) -> None:
    hub.door.api.create_repo(REPO, repo_type="dataset", private=False)
    with pytest.raises(HubError, match="public"):
        push(dogs, hub)
    assert push(dogs, hub, private=False).changed


@pytest.mark.parametrize(
    ("more", "error", "match"),
    [
        ({"license": "cc-by"}, ConfigError, r"'cc-by' is not a licence id of the Hub; did you mean"),
        ({"license": "my own words"}, ConfigError, r"is not a licence id"),
        ({"license": "cc-by-4.0"}, ConfigError, r"every picture names its own licence \(Attribution"),
        ({"repo_id": "dogs"}, HubError, r"dogs: this is not the name of a repository"),
        ({"repo_id": "somebody/dogs"}, HubError, r"you may not write under 'somebody'"),
        ({"hub": "globe"}, HubError, r"hub: globe: is no Hub"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(
    more: dict[str, Any], error: type[Exception], match: str, dogs: Captioned, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Captioned, "save", lambda *_: pytest.fail("pictures were written"))
    with pytest.raises(error, match=match):
        push(dogs, hub, **more)


def test_a_folder_that_was_changed_is_not_published(dogs: Captioned, hub: LocalHub, tmp_path: Path) -> None:
    folder = dogs.save(tmp_path / "dogs")
    shard = folder / "data/train-00000-of-00001.parquet"
    shard.write_bytes(shard.read_bytes().replace(b"\xff\xd9", b"\xff\xd8"))
    with pytest.raises(SourceError, match="has been changed since it was saved"):
        push_folder(folder, REPO, hub=hub.endpoint, token=hub.token, say=quiet)


def test_nothing_private_goes_out(hub: LocalHub, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x013B] = "Jane Author"
    exif.get_ifd(0x8825)[29] = "1984:12:24"
    home = tmp_path / "home-of-jane" / "dogs"
    home.mkdir(parents=True)
    (home / "a.jpg").write_bytes(encoded(picture(1), exif=exif, comment=b"seen by Jane"))
    (home / "b.png").write_bytes(encoded(picture(2), "PNG"))
    (home / "broken.jpg").write_bytes(b"no picture")
    data = load_captioned(home, prompt="a dog", on_bad_image="skip")
    push(data, hub)
    there = [hub.door.api.hf_hub_download(REPO, name, repo_type="dataset") for name in files(hub)]
    saved = [path for path in data.save(tmp_path / "out").rglob("*") if path.is_file()]
    rows = repr(pq.read_table(tmp_path / "out/data/train-00000-of-00001.parquet").to_pylist()).encode()
    content = b"".join([*(Path(path).read_bytes() for path in [*there, *saved]), rows])
    assert b"hfdk subset folder dogs" in content and b"broken.jpg" in content
    for word in (str(tmp_path).encode(), b"home-of-jane", b"Jane", b"1984:12:24", b"Exif"):
        assert word not in content


def test_the_command_publishes_a_subset_as_it_does_a_run(
    mine: Captioned, online: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HFDK_HUB_DIR", str(tmp_path / "hub"))
    words = ["publish", str(mine.save(tmp_path / "mine")), "--repo", "you/mine", "--hub", "local"]
    assert main([*words, "--dry-run"]) == 0
    assert re.search(r"6 add.*\nwould publish: you/mine on the embedded Hub, commit none yet", capsys.readouterr().out)
    assert main([*words, "--license", "cc-by-4.0", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["verified"] and told["changed"] and told["files"] == 6 and "/datasets/you/mine/commit/" in told["url"]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"] is False  # the licence that was stated is remembered
    assert main([*words, "--license", "mine"]) == 2 and "not a licence id" in capsys.readouterr().err
    assert main(["publish", str(tmp_path), "--repo", "you/x", "--hub", "local"]) == 2
    assert push_to_hub.__doc__ and "private" in push_to_hub.__doc__
