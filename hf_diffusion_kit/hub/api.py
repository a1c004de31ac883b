"""The JSON half of the local Hub: who am I, repositories, revisions, trees, branches and tags."""

import json
from collections.abc import Iterable
from datetime import date
from typing import Any
from urllib.parse import parse_qs

from starlette.responses import JSONResponse, Response

from ..cards import front_matter
from .blobs import pointer
from .call import OWN_PATHS, Call, Refusal, Route, api, not_here_yet
from .rules import HUB_ID, as_list
from .store import Commit, Entry, Repo, folders_of

ANY_NAME = "anyName"
"""In the answer to whoami, of this Hub alone: repositories may be under any name."""


async def whoami(call: Call) -> Response:
    if call.role.value == "nobody":
        raise Refusal(401, "Invalid username or password.")
    token = {"displayName": "local", "role": call.role.value, "createdAt": "2026-01-01T00:00:00.000Z"}
    who = {"type": "user", "id": call.user, "name": call.user, "fullname": call.user, "isPro": False, "orgs": []}
    who |= {ANY_NAME: True} if call.any_name else {}
    return JSONResponse({**who, "auth": {"type": "access_token", "accessToken": token}})


# Repositories


def named_repo(call: Call, body: dict[str, Any]) -> tuple[str, str]:
    """(kind, id) of the repository that the body of a create or delete names; under the user's own name, unless any may be used."""
    call.needs_write()
    kind = body.get("type") or "model"
    if kind not in ("model", "dataset"):
        raise not_here_yet(f"the repository type {kind!r}")
    repo_id = f"{body.get('organization') or call.user}/{body.get('name')}"
    if not HUB_ID.fullmatch(repo_id) or repo_id.endswith(".git") or repo_id.split("/")[0] in OWN_PATHS:
        raise Refusal(400, f"{repo_id!r} is not a valid repository name")
    if not call.any_name and not repo_id.startswith(f"{call.user}/"):
        raise Refusal(403, f"You don't have the rights to create a {kind} under the namespace {repo_id.split('/')[0]!r}")
    return kind, repo_id


async def create_repo(call: Call) -> Response:
    body = await call.json()
    kind, repo_id = named_repo(call, body)
    private = body["visibility"] == "private" if "visibility" in body else bool(body.get("private"))
    repo = call.store.repo(kind, repo_id)
    status = 200 if repo is None else 409
    repo = repo or call.store.create(kind, repo_id, private=private, author=call.user)
    answer = {"url": f"{call.base}/{repo.prefix}{repo.id}", "name": repo.id, "id": repo.id}
    return JSONResponse(answer if status == 200 else {**answer, "error": f"You already created this {kind} repo"}, status)


async def delete_repo(call: Call) -> Response:
    kind, repo_id = named_repo(call, await call.json())
    repo = call.store.repo(kind, repo_id)
    if repo is None:
        raise Refusal(404, "Repository not found", code="RepoNotFound")
    call.store.delete(repo)
    return JSONResponse({})


async def change_settings(call: Call) -> Response:
    repo, body = call.repo(write=True), await call.json()
    private = body["visibility"] == "private" if "visibility" in body else bool(body.get("private", repo.private))
    call.store.change_settings(repo, private=private, gated=body.get("gated", repo.gated) or None)
    return JSONResponse({"private": private})


async def list_repos(call: Call) -> Response:
    wanted = call.request.query_params
    found = [
        repo
        for repo in call.store.repos()
        if repo.kind == call.kind
        and not (repo.private and call.role.value == "nobody")
        and wanted.get("search", "").lower() in repo.id.lower()
        and repo.id.startswith(f"{wanted['author']}/" if "author" in wanted else "")
    ]
    return JSONResponse([info(call, repo, call.revision(repo, "main")) for repo in found])


async def auth_check(call: Call) -> Response:
    call.opened_repo()
    return JSONResponse({})


def info(call: Call, repo: Repo, oid: str) -> dict[str, Any]:
    files = call.store.files(oid)
    card = card_of(call, files)
    head = next(call.store.history(oid))
    tags = [str(tag) for tag in as_list(card.get("tags"))]
    answer: dict[str, Any] = {"_id": repo.id, "id": repo.id, "author": repo.id.split("/")[0], "sha": oid, "private": repo.private}
    answer |= {"gated": repo.gated or False, "disabled": False, "downloads": 0, "likes": 0, "tags": tags, "cardData": card}
    answer |= {"createdAt": repo.created, "lastModified": head.date, "usedStorage": sum(e.size for e in files.values())}
    answer |= {"siblings": [{"rfilename": path} for path in files]}
    if repo.kind == "model":
        answer["modelId"] = repo.id
        answer |= {key: card[key] for key in ("library_name", "pipeline_tag") if key in card}
    return answer


def card_of(call: Call, files: dict[str, Entry]) -> dict[str, Any]:
    """The metadata of README.md as plain JSON values; empty when there is none or it cannot be read."""
    entry = files.get("README.md")
    if entry is None:
        return {}
    text = b"".join(call.store.content(entry).read(0, entry.size)).decode(errors="replace")
    try:
        return json.loads(
            json.dumps(
                front_matter.read(text), default=lambda value: value.isoformat() if isinstance(value, date) else str(value)
            )
        )
    except ValueError:
        return {}


async def repo_info(call: Call) -> Response:
    repo = call.repo()
    oid = call.revision(repo)
    answer = info(call, repo, oid)
    if call.request.query_params.get("blobs"):
        files = call.store.files(oid)
        for sibling in answer["siblings"]:
            entry = files[sibling["rfilename"]]
            sibling |= {"size": entry.size, "blobId": entry.git}
            if entry.sha256:
                sibling["lfs"] = {
                    "sha256": entry.sha256,
                    "size": entry.size,
                    "pointerSize": len(pointer(entry.sha256, entry.size)),
                }
    return JSONResponse(answer)


# Trees


def described(call: Call, entry: Entry, commits: dict[str, Commit] | None) -> dict[str, Any]:
    answer: dict[str, Any] = {"type": "file", "path": entry.path, "size": entry.size, "oid": entry.git}
    if entry.sha256:
        answer["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": len(pointer(entry.sha256, entry.size))}
        if xet := call.store.xet_hash(entry.sha256):
            answer["xetHash"] = xet
    if commits is not None:
        last = commits[entry.changed]
        answer["lastCommit"] = {"id": last.oid, "title": last.title, "date": last.date}
    return answer


def described_folder(path: str, files: Iterable[Entry], commits: dict[str, Commit] | None) -> dict[str, Any]:
    inside = [entry for entry in files if entry.path.startswith(path + "/")]
    answer: dict[str, Any] = {"type": "directory", "path": path, "size": 0, "oid": inside[0].git}
    if commits is not None:
        last = max((commits[entry.changed] for entry in inside), key=lambda commit: commit.date)
        answer["lastCommit"] = {"id": last.oid, "title": last.title, "date": last.date}
    return answer


def commits_if(call: Call, oid: str, wanted: object) -> dict[str, Commit] | None:
    """`expand=true` asks for the last commit of every file."""
    return {commit.oid: commit for commit in call.store.history(oid)} if str(wanted).lower() in ("true", "1") else None


async def tree(call: Call) -> Response:
    repo = call.repo()
    oid = call.revision(repo)
    files, root = call.store.files(oid), (call.args["path"] or "").strip("/")
    commits = commits_if(call, oid, call.request.query_params.get("expand"))
    recursive = call.request.query_params.get("recursive", "").lower() in ("true", "1")
    under = f"{root}/" if root else ""
    inside = [entry for path, entry in files.items() if path.startswith(under)]
    if root and not inside:
        raise Refusal(404, f"{root} does not exist on {call.args['rev']!r}", code="EntryNotFound")
    folders = sorted({f for entry in inside for f in folders_of(entry.path) if f.startswith(under) and f != root})
    if not recursive:
        inside = [entry for entry in inside if "/" not in entry.path[len(under) :]]
        folders = [folder for folder in folders if "/" not in folder[len(under) :]]
    answer = [described_folder(folder, files.values(), commits) for folder in folders]
    return JSONResponse(answer + [described(call, entry, commits) for entry in inside], headers={"X-Repo-Commit": oid})


async def paths_info(call: Call) -> Response:
    """The one request that comes as a form: `paths=a&paths=b&expand=True`."""
    repo = call.repo()
    oid = call.revision(repo)
    raw = (await call.request.body()).decode()
    form = await call.json() if raw.startswith("{") else parse_qs(raw)
    expand = form.get("expand", ["false"])
    commits = commits_if(call, oid, expand[0] if isinstance(expand, list) else expand)
    files, answer = call.store.files(oid), []
    for path in form.get("paths", []):
        if path in files:
            answer.append(described(call, files[path], commits))
        elif any(name.startswith(path.rstrip("/") + "/") for name in files):
            answer.append(described_folder(path.rstrip("/"), files.values(), commits))
    return JSONResponse(answer)


# Branches, tags, history


async def commits(call: Call) -> Response:
    history = call.store.history(call.revision(call.repo()))
    return JSONResponse(
        [{"id": c.oid, "title": c.title, "message": c.message, "authors": [{"user": c.author}], "date": c.date} for c in history]
    )


async def refs(call: Call) -> Response:
    found = call.store.refs(call.repo())
    listed = [{"name": ref.split("/", 2)[2], "ref": ref, "targetCommit": oid} for ref, oid in sorted(found.items())]
    branches = [item for item in listed if item["ref"].startswith("refs/heads/")]
    tags = [item for item in listed if item["ref"].startswith("refs/tags/")]
    return JSONResponse({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})


async def create_branch(call: Call) -> Response:
    repo, body = call.repo(write=True), await call.json()
    return new_ref(call, repo, f"refs/heads/{call.args['name']}", call.revision(repo, body.get("startingPoint")))


async def create_tag(call: Call) -> Response:
    repo, body = call.repo(write=True), await call.json()
    return new_ref(call, repo, f"refs/tags/{body.get('tag')}", call.revision(repo))


def new_ref(call: Call, repo: Repo, ref: str, oid: str) -> Response:
    if ref in call.store.refs(repo):
        raise Refusal(409, f"Reference already exists: {ref}")
    call.store.set_ref(repo, ref, oid)
    return JSONResponse({"ref": ref, "targetCommit": oid})


async def delete_branch(call: Call) -> Response:
    if call.args["name"] == "main":
        raise Refusal(403, "the branch main cannot be deleted")
    return drop_ref(call, f"refs/heads/{call.args['name']}")


async def delete_tag(call: Call) -> Response:
    return drop_ref(call, f"refs/tags/{call.args['name']}")


def drop_ref(call: Call, ref: str) -> Response:
    repo = call.repo(write=True)
    if ref not in call.store.refs(repo):
        raise Refusal(404, f"no such reference: {ref}", code="RevisionNotFound")
    call.store.set_ref(repo, ref, None)
    return JSONResponse({})


async def discussions(call: Call) -> Response:
    raise not_here_yet("pull requests and discussions")


ROUTES = [
    Route("GET", "/api/whoami-v2", whoami),
    Route("POST", "/api/repos/create", create_repo),
    Route("DELETE", "/api/repos/delete", delete_repo),
    Route("GET", "/api/(?P<kind>models|datasets)", list_repos),
    api("GET", "", repo_info),
    api("GET", "/auth-check", auth_check),
    api("GET", "/revision/(?P<rev>[^/]+)", repo_info),
    api("PUT", "/settings", change_settings),
    api("GET", "/tree/(?P<rev>[^/]+)(?:/(?P<path>.*))?", tree),
    api("POST", "/paths-info/(?P<rev>[^/]+)", paths_info),
    api("GET", "/commits/(?P<rev>[^/]+)", commits),
    api("GET", "/refs", refs),
    api("POST", "/branch/(?P<name>.+)", create_branch),
    api("DELETE", "/branch/(?P<name>.+)", delete_branch),
    api("POST", "/tag/(?P<rev>[^/]+)", create_tag),
    api("DELETE", "/tag/(?P<name>.+)", delete_tag),
    api("GET", "/discussions.*", discussions),
    api("POST", "/discussions.*", discussions),
]
