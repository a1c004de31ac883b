"""How a push reaches the local Hub: check the card, ask how each file should travel, commit all of it at once."""

import base64
import binascii
import json
from fnmatch import fnmatch
from typing import Any

from starlette.responses import JSONResponse, Response

from ..cards import front_matter
from .blobs import git_sha1
from .call import Call, Refusal, Route, api, not_here_yet
from .rules import card_faults
from .store import LARGE, BadChange, Changes, Entry, StaleParent, is_clean, large_entry


async def validate_yaml(call: Call) -> Response:
    body = await call.json()
    try:
        metadata = front_matter.read(str(body.get("content", "")))
        faults = card_faults(metadata)
    except ValueError as error:
        metadata, faults = {}, [str(error)]
    if faults:
        return JSONResponse({"errors": [{"message": fault} for fault in faults], "warnings": []}, 400)
    warnings = [] if metadata else [{"message": "empty or missing yaml metadata in repo card"}]
    return JSONResponse({"errors": [], "warnings": warnings})


async def preupload(call: Call) -> Response:
    """For each file: `lfs` or `regular`, and what is there now, so that an unchanged file is not sent again."""
    repo = call.repo(write=True)
    refuse_pull_request(call)
    files, body = call.store.files(call.revision(repo)), await call.json()
    answer = []
    for asked in body.get("files", []):
        path, size = str(asked.get("path")), int(asked.get("size", 0))
        large = size > 0 and (size > call.lfs_above or any(fnmatch(path.rsplit("/", 1)[-1], kind) for kind in LARGE))
        now = files.get(path)
        mode = "lfs" if large else "regular"
        answer.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": now.etag if now else None})
    return JSONResponse({"files": answer})


async def commit(call: Call) -> Response:
    """Lines of JSON: a header, then one change each. Nothing happens unless all of it can."""
    repo = call.repo(write=True)
    refuse_pull_request(call)
    branch = call.args["rev"].removeprefix("refs/heads/")
    title, message, parent = "", "", None
    put: dict[str, Entry] = {}
    remove: list[str] = []
    remove_folders: list[str] = []
    for key, value in lines(await call.request.body()):
        path = str(value.get("path", ""))
        if key == "header":
            title, message, parent = str(value.get("summary", "")), str(value.get("description", "")), value.get("parentCommit")
        elif not is_clean(path.rstrip("/")):
            raise Refusal(400, f"{path!r} is not a path inside a repository")
        elif key == "file":
            put[path] = keep_regular(call, path, value)
        elif key == "lfsFile":
            put[path] = large_entry(path, size_of(call, value), str(value.get("oid")))
        elif key == "deletedFile":
            remove.append(path)
        elif key == "deletedFolder":
            remove_folders.append(path)
        else:
            raise Refusal(400, f"a commit cannot hold a line of kind {key!r}")
    try:
        oid = call.store.commit(repo, branch, parent, Changes(title, message, put, remove, remove_folders), call.user)
    except StaleParent as error:
        raise Refusal(412, f"A commit has happened since. Please refresh and try again. ({error})") from error
    except BadChange as error:
        raise Refusal(404 if "doesn't exist" in str(error) else 400, str(error), code=error_code(error)) from error
    url = f"{call.base}/{repo.prefix}{repo.id}/commit/{oid}"
    return JSONResponse({"success": True, "commitOid": oid, "commitUrl": url, "pullRequestUrl": None, "hookOutput": ""})


def error_code(error: BadChange) -> str | None:
    text = str(error)
    return "EntryNotFound" if "doesn't exist" in text else "RevisionNotFound" if "no branch" in text else None


def refuse_pull_request(call: Call) -> None:
    if call.request.query_params.get("create_pr") or call.args["rev"].startswith("refs/pr/"):
        raise not_here_yet("a pull request")


def lines(body: bytes) -> list[tuple[str, dict[str, Any]]]:
    try:
        items = [json.loads(line) for line in body.splitlines() if line.strip()]
        return [(str(item["key"]), dict(item["value"])) for item in items]
    except (ValueError, KeyError, TypeError) as error:
        raise Refusal(400, "a line of the commit is not a JSON object with `key` and `value`") from error


def keep_regular(call: Call, path: str, value: dict[str, Any]) -> Entry:
    try:
        text = str(value.get("content", ""))
        data = base64.b64decode(text, validate=True) if value.get("encoding") == "base64" else text.encode()
    except binascii.Error as error:
        raise Refusal(400, f"{path}: the content is not base64") from error
    name = git_sha1(data)
    call.store.blobs.put("git", name, data)
    return Entry(path, len(data), name, None)


def size_of(call: Call, value: dict[str, Any]) -> int:
    """The size of a large file; a copy inside the Hub does not say it."""
    sha256 = str(value.get("oid"))
    if not call.store.has_large(sha256):
        raise Refusal(400, f"the content of {value.get('path')} was never uploaded")
    return call.store.content(large_entry("", 0, sha256)).size


ROUTES = [
    Route("POST", "/api/validate-yaml", validate_yaml),
    api("POST", "/preupload/(?P<rev>[^/]+)", preupload),
    api("POST", "/commit/(?P<rev>[^/]+)", commit),
]
