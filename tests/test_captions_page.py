"""Captions edited in a browser: what was typed is what is written, and nothing else is."""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import toyset
from hf_diffusion_kit.data import load_captioned
from hf_diffusion_kit.errors import SourceError
from hf_diffusion_kit.studio.captions import FIRST_STATE, Shelf
from hf_diffusion_kit.studio.captions_page import CaptionsPage
from hf_diffusion_kit.studio.site import Site

OWN = "http://127.0.0.1:8000"
TYPED = 'a "red" one,\nover two lines \U0001f9ea <script>alert(1)</script> {{data}}'


def client(site: Site, *, known: bool = True) -> TestClient:
    there = TestClient(site, base_url=OWN, follow_redirects=True)
    if known:
        assert there.get(f"/?token={site.token}").status_code == 200
        assert "token" not in str(there.get("/").url)
        there.headers["Origin"] = OWN
    return there


def opened(folder: Path, **more: Any) -> tuple[TestClient, dict[str, Any]]:
    page = client(CaptionsPage(Shelf(folder), **more).site())
    return page, data(page)


def data(page: TestClient) -> dict[str, Any]:
    text = page.get("/").text
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0])


def save(page: TestClient, told: dict[str, Any], **edits: list[str]) -> Any:
    named = {f"{name}.png": texts for name, texts in edits.items()}
    return page.post("/save", json={"digest": told["digest"], "edits": named})


def files(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


def captions(folder: Path) -> dict[str, tuple[str, ...]]:
    data = load_captioned(folder)
    return {row.file_name: row.captions for row in (data.example(i) for i in range(len(data)))}


def test_what_is_typed_is_what_is_written(tmp_path: Path) -> None:
    folder = toyset.folder(tmp_path / "set")
    before, lines = files(folder), (folder / "metadata.jsonl").read_text().split("\n")
    page, told = opened(folder)
    assert told["pictures"][1] == {"name": "p1.png", "source": "metadata.jsonl", "captions": ["a green", "b green"]}
    assert any("captions come from metadata.jsonl" in note for note in told["notes"])
    answer = save(page, told, p1=["a green", TYPED])
    assert answer.status_code == 200 and answer.json()["pictures"]["p1.png"]["captions"] == ["a green", TYPED]
    assert captions(folder)["p1.png"] == ("a green", TYPED) and captions(folder)["p0.png"] == ("a red", "b red")
    now = (folder / "metadata.jsonl").read_text().split("\n")
    assert [i for i in range(len(lines)) if lines[i] != now[i]] == [3] and json.loads(now[3])["text"] == TYPED
    after = files(folder)
    assert after.pop(f"{FIRST_STATE}/metadata.jsonl") == before["metadata.jsonl"]
    assert {name for name in after if after[name] != before.get(name)} == {"metadata.jsonl"} and after.keys() == before.keys()
    again = {**told, "digest": answer.json()["digest"]}
    assert save(page, again, p0=["now red", "b red"]).status_code == 200
    assert files(folder)[f"{FIRST_STATE}/metadata.jsonl"] == before["metadata.jsonl"], "the first state is the one that is kept"


def test_a_caption_is_shown_as_text(tmp_path: Path) -> None:
    folder = toyset.folder(tmp_path / "<b>&set")
    page, told = opened(folder)
    save(page, told, p1=["a green", TYPED])
    answer = page.get("/")
    assert (
        "<script>alert" not in answer.text and "<b>&set" not in answer.text and data(page)["pictures"][1]["captions"][1] == TYPED
    )
    safe = answer.headers["content-security-policy"]
    assert "default-src 'none'" in safe and "unsafe" not in safe and "http" not in answer.text.replace("http-equiv", "")


@pytest.mark.parametrize("form", ["list", "two columns", "csv", "sidecars", "none", "twice"])
def test_captions_go_back_to_where_they_came_from(tmp_path: Path, form: str) -> None:
    folder = toyset.folder(tmp_path / "set", count=3)
    table = folder / "metadata.jsonl"
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    table.unlink()
    told = {f"p{i}.png": [row["text"] for row in rows if row["file_name"] == f"p{i}.png"] for i in range(3)}
    if form == "list":
        table.write_bytes(
            b"".join(json.dumps({"file_name": n, "k": 1, "captions": c}).encode() + b"\r\n" for n, c in told.items())
        )
    elif form == "two columns":
        table.write_text("\n".join(json.dumps({"file_name": n, "captions": c, "text": c[0]}) for n, c in told.items()))
    elif form == "twice":
        table.write_text("\n".join(json.dumps(row) for row in [*rows, *rows]))
    elif form == "csv":
        with (folder / "metadata.csv").open("w", newline="") as file:
            writer = csv.writer(file, delimiter=";")
            writer.writerows([("file_name", "who", "text"), *((row["file_name"], "me; you", row["text"]) for row in rows)])
    elif form == "sidecars":
        for name, texts in told.items():
            (folder / name.replace("png", "txt")).write_text("\n".join(texts) + "\n")
    before = files(folder)
    page, shown = opened(folder)
    if form == "none":
        assert all(one["captions"] == [] for one in shown["pictures"]) and "no captions yet" in " ".join(shown["notes"])
        texts = {"p0": [TYPED], "p1": ["one", "two"], "p2": ["x"]}
        wanted = {"p0.png": (TYPED,), "p1.png": ("one", "two"), "p2.png": ("x",)}
    else:
        typed = TYPED.replace("\n", " ") if form == "sidecars" else TYPED
        texts = {"p0": [typed, "b red"], "p1": ["", "b green"], "p2": ["a blue", "b blue", "a third", " "]}
        wanted = {"p0.png": (typed, "b red"), "p1.png": ("b green",), "p2.png": ("a blue", "b blue", "a third")}
    answer = save(page, shown, **texts)
    assert answer.status_code == 200, answer.text
    assert captions(folder) == wanted
    after = {name for name, digest in files(folder).items() if before.get(name) != digest and not name.startswith(FIRST_STATE)}
    assert after == {
        "csv": {"metadata.csv"},
        "sidecars": {"p0.txt", "p1.txt", "p2.txt"},
    }.get(form, {"metadata.jsonl"})
    if form == "list":
        assert table.read_bytes().count(b"\r\n") == 3 and json.loads(table.read_text().splitlines()[0])["k"] == 1
    if form == "csv":
        assert (folder / "metadata.csv").read_text().count('"me; you"') == 6
    if form != "none":
        kept = {
            name.removeprefix(f"{FIRST_STATE}/"): told for name, told in files(folder).items() if name.startswith(FIRST_STATE)
        }
        assert kept == {name: before[name] for name in after}


def test_two_tabs_do_not_overwrite_each_other(tmp_path: Path) -> None:
    folder = toyset.folder(tmp_path / "set")
    page, told = opened(folder)
    assert save(page, told, p0=["first tab", "b red"]).status_code == 200
    before = files(folder)
    late = save(page, told, p0=["second tab", "b red"])
    assert late.status_code == 409 and "changed elsewhere" in late.json()["error"] and "\n" not in late.json()["error"]
    assert files(folder) == before
    (folder / "p0.txt").write_text("somebody else's\n")
    clash = save(page, told, p0=["x", "y"])
    assert clash.status_code == 422 and "would not be used" in clash.json()["error"]


def test_who_may_not_come_in(tmp_path: Path) -> None:
    site = CaptionsPage(Shelf(toyset.folder(tmp_path / "set"))).site()
    stranger = client(site, known=False)
    assert (
        stranger.get("/").status_code
        == stranger.get("/?token=no").status_code
        == stranger.get("/picture?name=p0.png").status_code
        == 401
    )
    page = client(site)
    told = data(page)
    body = {"digest": told["digest"], "edits": {"p0.png": ["evil", ""]}}
    assert page.get("/", headers={"Host": "evil.example:8000"}).status_code == 403
    assert page.post("/save", json=body, headers={"Origin": "http://evil.example"}).status_code == 403
    assert page.post("/save", json=body, headers={"Origin": "null"}).status_code == 403
    assert page.post("/save", json=body, headers={"Origin": "http://127.0.0.1:9999"}).status_code == 403
    assert page.get("/picture?name=p0.png", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    del page.headers["Origin"]
    assert page.post("/save", json=body).status_code == 403
    assert captions(tmp_path / "set")["p0.png"] == ("a red", "b red")


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/passwd", "..%2Fsecret.png", "sub/../../secret.png", "metadata.jsonl", "p9.png", ""]
)
def test_only_the_sets_own_pictures_are_served_and_named(tmp_path: Path, name: str) -> None:
    folder = toyset.folder(tmp_path / "set")
    (tmp_path / "secret.png").write_bytes((folder / "p0.png").read_bytes())
    page, told = opened(folder)
    assert page.get("/picture?name=p0.png").headers["content-type"] == "image/jpeg"
    assert page.get("/picture", params={"name": name}).status_code == page.get(f"/picture?name={name}").status_code == 404
    before = files(tmp_path)
    answer = page.post("/save", json={"digest": told["digest"], "edits": {name: ["x"]}})
    assert answer.status_code == 422 and "holds no picture" in answer.json()["error"] and files(tmp_path) == before


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"digest": 1, "edits": {}}', b'{"digest": "x", "edits": {"p0.png": "text"}}', b"\xff"]
)
def test_what_is_no_request_is_said(tmp_path: Path, body: bytes) -> None:
    page, _ = opened(toyset.folder(tmp_path / "set"))
    answer = page.post("/save", content=body)
    assert answer.status_code == 400 and answer.json()["error"]


def test_what_a_file_cannot_hold_is_refused_whole(tmp_path: Path) -> None:
    folder = toyset.folder(tmp_path / "set", count=2)
    (folder / "metadata.jsonl").unlink()
    for i in range(2):
        (folder / f"p{i}.txt").write_text(f"picture {i}\n")
    before = files(folder)
    page, told = opened(folder)
    answer = save(page, told, p0=["fine"], p1=["one\ntwo"])
    assert answer.status_code == 422 and "line break" in answer.json()["error"] and files(folder) == before
    answer = page.post("/save", content=json.dumps({"digest": told["digest"], "edits": {"p0.png": ["\ud800"]}}).encode())
    assert answer.status_code == 422 and "no text" in answer.json()["error"] and files(folder) == before
    (folder / "p1.png").rename(folder / "p0.jpg")
    page, told = opened(folder)
    answer = save(page, told, p0=["of one alone"])
    assert answer.status_code == 422 and "p0.txt" in answer.json()["error"] and (folder / "p0.txt").read_text() == "picture 0\n"


def test_tokens_and_what_is_cut_are_told(tmp_path: Path) -> None:
    page, told = opened(toyset.folder(tmp_path / "set"), count=lambda text: len(text.split()) + 2, most=5)
    assert told["most"] == 5
    counts = page.post("/count", json={"texts": ["a  b", "a b c d\ne"]}).json()["counts"]
    assert counts == [{"tokens": 4, "cut": ""}, {"tokens": 7, "cut": "d e"}]


def test_folders_whose_captions_lie_elsewhere_are_refused(tmp_path: Path) -> None:
    folder = toyset.folder(tmp_path / "set")
    load_captioned(folder).save(tmp_path / "saved")
    for where, what in ((tmp_path / "saved", "sealed"), (tmp_path / "nowhere", "no such folder")):
        with pytest.raises(SourceError, match=what):
            Shelf(where).read()
    (folder / "concepts_list.json").write_text("[]")
    with pytest.raises(SourceError, match="concepts_list"):
        Shelf(folder).read()
