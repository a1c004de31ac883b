"""A push is one commit or none, private unless said otherwise, never twice, never over somebody else's work, and read back."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hf_diffusion_kit.errors import HubError
from hf_diffusion_kit.hub.blobs import git_sha1
from hf_diffusion_kit.hub.choice import open_door, remote_card
from hf_diffusion_kit.hub.door import Door
from hf_diffusion_kit.hub.local import LocalHub
from hf_diffusion_kit.hub.plan import Action
from hf_diffusion_kit.hub.publish import Pushed, push
from hf_diffusion_kit.hub.store import Changes, Entry
from hf_diffusion_kit.testing import Fault, once

NAMES = frozenset({"marie-curie"})
"""Stands for the names of this user and machine."""
CARD = "---\nlicense: mit\n---\n# A card\n"


@pytest.fixture
def door(hub: LocalHub) -> Door:
    return Door(hub.endpoint, hub.token, pause=0.001)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {"README.md": CARD, "run.json": "{}\n", "images/0.png": "", "model.safetensors": ""}
    for name, text in files.items():
        path = tmp_path / "stage" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "stage" / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}" + bytes(50_000))
    (tmp_path / "stage" / "images" / "0.png").write_bytes(PNG)
    return tmp_path / "stage"


def png() -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (2, 3)).save(buffer, "png")
    return buffer.getvalue()


PNG = png()


def send(door: Door, folder: Path, **more: Any) -> Pushed:
    return push(door, folder, "you/x", private_names=NAMES, say=lambda _line: None, **more)


def commits(door: Door) -> list[str]:
    return [commit.title for commit in door.api.list_repo_commits("you/x")]


def files(door: Door) -> list[str]:
    return door.api.list_repo_files("you/x")


def test_first_second_and_changed_push(door: Door, folder: Path, hub: LocalHub) -> None:
    first = send(door, folder, message="first")
    assert (first.verified, first.changed, first.files, first.repo_id) == (True, True, 4, "you/x")
    assert first == f"{hub.endpoint}/you/x/commit/{first.oid}"
    assert door.api.repo_info("you/x").private
    assert files(door) == [".gitattributes", "README.md", "images/0.png", "model.safetensors", "run.json"]
    hub.requests.clear()
    again = send(door, folder)
    assert (again.oid, again.changed, again.bytes_sent) == (first.oid, False, 0)
    assert not [line for line in hub.requests if not line.startswith("GET")]
    (folder / "run.json").write_text('{"a": 1}\n')
    changed = send(door, folder, message="second")
    assert (changed.bytes_sent, changed.plan.counts()) == (9, "1 change, 3 same (9 bytes to send)")
    assert commits(door) == ["second", "first", "initial commit"]


def test_files_of_the_repository_stay_unless_named(door: Door, folder: Path) -> None:
    send(door, folder)
    (folder / "run.json").unlink()
    (folder / "images" / "0.png").unlink()
    assert not send(door, folder).changed
    plan = send(door, folder, delete=["images/*"]).plan
    assert [row.path for row in plan.of(Action.DELETE)] == ["images/0.png"]
    assert files(door) == [".gitattributes", "README.md", "model.safetensors", "run.json"]


def test_a_dry_run_shows_the_plan_and_sends_nothing(door: Door, folder: Path, hub: LocalHub) -> None:
    (folder / "weights.bin").write_bytes(b"x")
    shown: list[str] = []
    told = push(door, folder, "you/x", dry_run=True, private_names=NAMES, say=shown.append)
    assert (told.verified, told.changed, told.oid) == (False, False, "")
    assert "add" in shown[0] and "model.safetensors" in shown[0]
    assert "REFUSED" in shown[0] and "weights.bin  (a pickle" in shown[0]
    assert all(line.startswith("GET") for line in hub.requests)
    assert not door.api.repo_exists("you/x")


def absolute_link(folder: Path) -> None:
    (folder / "link.txt").symlink_to("/etc/hostname")


def folder_link(folder: Path) -> None:
    (folder / "all").symlink_to(folder.parent)


def text(name: str, content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)

    return write


TOKEN = "hf_" + "AbCdEfGhIj" * 3 + "Klmn"
REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "token in a text": (text("log.txt", f"login {TOKEN}"), "Hugging Face token"),
    "token in a notebook": (text("a.ipynb", f'{{"source": ["!hf login --token {TOKEN}\\n"]}}'), "Hugging Face token"),
    "environment file": (text(".env", f"HF_TOKEN={TOKEN}"), "holds .env: Hugging Face token"),
    "pickle": (text("optimizer.bin", "x"), "pickle"),
    "checkpoint": (text("a/model.CKPT", "x"), "pickle"),
    "unknown kind": (text("run.exe", "x"), "not a kind of file"),
    "cache": (text("__pycache__/a.py", "x"), "does not belong"),
    "link out": (absolute_link, "leads out of the folder"),
    "folder link": (folder_link, "leads out of the folder"),
    "path of a home": (text("notes.md", "see /home/marie/runs/1"), "local path"),
    "name of this user": (text("b.json", '{"by": "marie-curie"}'), "name of this user"),
    "card": (text("README.md", "---\nlicense: mine\n---\n"), "not a licence id"),
    "base that is a path": (text("README.md", "---\nbase_model: /models/sd15\n---\n"), "not a Hub id"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_must_not_be_published_is_not(case: str, door: Door, folder: Path, hub: LocalHub) -> None:
    plant, reason = REFUSED[case]
    plant(folder)
    with pytest.raises(HubError, match="1 files must not be published, nothing was sent") as refused:
        send(door, folder)
    assert reason in str(refused.value)
    assert TOKEN[:12] not in str(refused.value)
    assert not hub.requests


def test_a_public_repository_is_never_met_by_a_private_push(door: Door, folder: Path) -> None:
    door.api.create_repo("you/x", private=False)
    with pytest.raises(HubError, match="public"):
        send(door, folder)
    assert files(door) == [".gitattributes"]
    send(door, folder, private=False)
    assert len(files(door)) == 5


# Faults. Each is struck once (or always), and what must be there afterwards is named.

COMMIT = ("POST", "/commit/")


@pytest.mark.parametrize(
    "fault", [Fault(503), Fault(429), Fault(500, body="<html>"), Fault(0), Fault(200, body="<html>")], ids=str
)
def test_a_commit_that_did_not_arrive_is_sent_again(fault: Fault, door: Door, folder: Path, hub: LocalHub) -> None:
    hub.set_faults(once(*COMMIT, fault))
    told = send(door, folder, message="mine")
    assert told.verified
    assert commits(door) == ["mine", "initial commit"]


@pytest.mark.parametrize("fault", [Fault(504, after=True), Fault(0, after=True), Fault(200, after=True, body="<html>")], ids=str)
def test_a_commit_whose_answer_was_lost_is_found_and_not_repeated(fault: Fault, door: Door, folder: Path, hub: LocalHub) -> None:
    hub.set_faults(once(*COMMIT, fault))
    told = send(door, folder, message="mine")
    assert (told.verified, told.changed) == (True, True)
    assert told.oid == door.api.repo_info("you/x").sha
    assert commits(door) == ["mine", "initial commit"]


@pytest.mark.parametrize(
    "where", [("GET", "/api/models/you/x"), ("POST", "/preupload/"), ("POST", "/repos/create"), ("GET", "/tree/")], ids=str
)
def test_the_steps_before_and_after_are_repeated(where: tuple[str, str], door: Door, folder: Path, hub: LocalHub) -> None:
    door.api.create_repo("you/x", private=True) if where[1].startswith("/tree") else None
    hub.set_faults(once(*where, Fault(503)))
    assert send(door, folder, message="mine").verified
    assert commits(door) == ["mine", "initial commit"]


def meanwhile(hub: LocalHub, path: str, content: bytes | None) -> None:
    """Somebody else's commit comes in between our look and our commit; None deletes the file."""
    left = [path]

    def rule(method: str, asked: str) -> Fault | None:
        if left and (method, "/commit/" in asked) == ("POST", True):
            store = hub._up.app.store  # asked in the server's own thread, before our request is served
            repo = store.repo("model", "you/x")
            assert repo is not None
            put = {} if content is None else {path: Entry(path, len(content), git_sha1(content), None)}
            store.blobs.put("git", git_sha1(content or b""), content or b"")
            store.commit(repo, "main", None, Changes("other", "", put, [] if put else [path], []), "them")
            left.clear()
        return None

    hub.set_faults(rule)


def test_a_change_to_other_files_is_built_upon(door: Door, folder: Path, hub: LocalHub) -> None:
    send(door, folder, message="first")
    (folder / "run.json").write_text('{"a": 1}\n')
    meanwhile(hub, "theirs.txt", b"theirs")
    assert send(door, folder, message="mine").verified
    assert commits(door) == ["mine", "other", "first", "initial commit"]
    assert "theirs.txt" in files(door)


@pytest.mark.parametrize("content", [b'{"theirs": 1}\n', None], ids=["changed", "deleted"])
def test_a_change_to_our_files_stops_the_push(content: bytes | None, door: Door, folder: Path, hub: LocalHub) -> None:
    send(door, folder, message="first")
    (folder / "README.md").write_text(CARD + "more\n")
    meanwhile(hub, "run.json", content)
    with pytest.raises(
        HubError, match=r"somebody else changed run\.json meanwhile, nothing was published.*hfdk publish RUN --repo you/x"
    ):
        send(door, folder, message="mine")
    assert commits(door) == ["other", "first", "initial commit"]


def test_the_same_change_by_somebody_else_is_no_quarrel(door: Door, folder: Path, hub: LocalHub) -> None:
    send(door, folder, message="first")
    (folder / "run.json").write_text("{1}\n")
    meanwhile(hub, "run.json", b"{1}\n")
    told = send(door, folder, message="mine")
    assert (told.verified, told.changed) == (True, False)
    assert commits(door) == ["other", "first", "initial commit"]


def test_a_hub_that_never_answers_is_given_up(door: Door, folder: Path, hub: LocalHub) -> None:
    hub.set_faults(lambda method, path: Fault(503) if "/commit/" in path else None)
    with pytest.raises(HubError, match=r"failed 5 times, nothing was published.*503.*hfdk publish RUN --repo you/x"):
        send(door, folder)
    hub.set_faults(None)
    assert commits(door) == ["initial commit"]
    assert door.api.repo_info("you/x").private  # empty, private, and used again by the next push
    assert send(door, folder).changed


@pytest.mark.parametrize("status", [400, 403, 409, 413])
def test_a_refusal_is_one_line_without_the_token(status: int, door: Door, folder: Path, hub: LocalHub) -> None:
    secret = hub.token
    hub.set_faults(lambda method, path: Fault(status, body=f'{{"error": "no: {secret}"}}') if "/commit/" in path else None)
    with pytest.raises(HubError) as refused:
        send(door, folder)
    line = refused.value.line()
    assert str(status) in line and "\n" not in line and refused.value.exit_code == 6
    assert secret[3:11] not in line
    assert secret not in repr(door)


def test_what_the_hub_holds_is_compared_with_what_was_sent(door: Door, folder: Path, hub: LocalHub) -> None:
    meanwhile_broken = once("POST", "/commit/", Fault(504, after=True))

    def rule(method: str, path: str) -> Fault | None:
        fault = meanwhile_broken(method, path)
        if method == "GET" and "/commits/" in path:  # the commit has arrived; now its content is damaged
            hub._up.app.store.db.execute("UPDATE files SET size = 1, git = 'bad' WHERE path = 'run.json'")
        return fault

    hub.set_faults(rule)
    with pytest.raises(HubError, match=r"pushed as [0-9a-f]{40}, but the Hub does not have run\.json as it is here"):
        send(door, folder)


def test_a_file_that_changes_during_the_push_stops_it(door: Door, folder: Path, hub: LocalHub) -> None:
    hub.set_faults(lambda method, path: (folder / "run.json").write_text("{22}\n") and None if "/repos/create" in path else None)
    with pytest.raises(HubError, match=r"run\.json changed while it was being published"):
        send(door, folder)
    assert commits(door) == ["initial commit"]


def test_bad_doors_and_bad_folders(hub: LocalHub, folder: Path, tmp_path: Path) -> None:
    for token, words in ((hub.read_token, "may only read"), ("hf_" + "x" * 34, "401")):
        with pytest.raises(HubError, match=words) as refused:
            send(Door(hub.endpoint, token, pause=0.001), folder)
        assert token[3:11] not in str(refused.value)
    with pytest.raises(HubError, match="not the name of a repository"):
        push(Door(hub.endpoint, hub.token), folder, "no-user")
    with pytest.raises(HubError, match="no such folder"):
        send(Door(hub.endpoint, hub.token), tmp_path / "missing")
    with pytest.raises(HubError, match="nothing was sent"):
        send(Door("http://127.0.0.1:9", hub.token, pause=0.001), folder)


def test_which_hub_is_meant(monkeypatch: pytest.MonkeyPatch, online: None) -> None:
    with pytest.raises(HubError, match=r"no token.*--hub local"), open_door(None):
        pass
    with pytest.raises(HubError, match="is no Hub"), open_door("lokal"):
        pass
    with open_door("local") as door:
        assert door.api.whoami()["name"] == "you"
    with open_door("https://hub.example", token="x") as door:
        assert (door.endpoint, door.token) == ("https://hub.example", "x")


def test_the_card_that_is_there(door: Door, folder: Path, hub: LocalHub) -> None:
    assert remote_card(door, "you/x") is None
    door.api.create_repo("you/x", private=True)
    assert remote_card(door, "you/x") is None
    send(door, folder)
    assert remote_card(door, "you/x") == CARD
    hub.set_faults(lambda method, path: Fault(400) if "/resolve/" in path else None)
    with pytest.raises(HubError, match="could not be read"):  # not: there is none
        remote_card(door, "you/x")
    assert not any(Path(os.environ["HF_HOME"]).rglob("models--you--x"))  # and nothing of it stays in the user's cache
