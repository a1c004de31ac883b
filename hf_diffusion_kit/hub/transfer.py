"""How bytes move: files out (`resolve`), large files in by LFS, and Xet both ways."""

import mimetypes
import re
from pathlib import PurePosixPath

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from .access import Role
from .call import API_REPO, PAGE_REPO, Call, Refusal, Route, asked_range, content_response, page
from .xet import BadXet, XetContent, check_terms, chunks_of, files_of_shard, reconstruction

SHA256 = "(?P<sha>[0-9a-f]{64})"
XET = "/xet/[0-9a-f]+"
XET_HASH = "(?P<hash>[0-9a-f]{64})"


async def resolve(call: Call) -> Response:
    repo = call.opened_repo()
    oid = call.revision(repo)
    entry = call.store.files(oid).get(call.args["path"])
    if entry is None:
        raise Refusal(404, "Entry not found", code="EntryNotFound", headers={"X-Repo-Commit": oid})
    headers = {"X-Repo-Commit": oid, "ETag": f'"{entry.etag}"', **shown_as(entry.path)}
    if entry.sha256:
        headers |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
        if xet := call.store.xet_hash(entry.sha256):
            auth = f"{call.base}/api/{repo.kind}s/{repo.id}/xet-read-token/{oid}"
            headers |= {"X-Xet-Hash": xet, "Link": f'<{auth}>; rel="xet-auth"'}
    return content_response(call, call.store.content(entry), headers)


def shown_as(path: str) -> dict[str, str]:
    """Pictures are shown as pictures, text as text, and nothing else as anything a browser would run."""
    kind = mimetypes.guess_type(path)[0] or ""
    kind = kind if re.fullmatch(r"image/(png|jpeg|webp|gif)", kind) else "application/octet-stream"
    if PurePosixPath(path).suffix in (".md", ".txt", ".json", ".yaml", ".toml", ".py"):
        kind = "text/plain; charset=utf-8"
    return {"Content-Type": kind, "X-Content-Type-Options": "nosniff"}


# LFS


async def lfs_batch(call: Call) -> Response:
    call.repo(write=True)
    body = await call.json()
    if body.get("operation") != "upload":
        raise Refusal(501, "LFS downloads are not part of the local Hub; files come from /resolve/")
    objects = []
    for asked in body.get("objects", []):
        sha, size = str(asked.get("oid")), int(asked.get("size", -1))
        answer = {"oid": sha, "size": size, "authenticated": True}
        if not re.fullmatch("[0-9a-f]{64}", sha) or size < 0:
            answer["error"] = {"code": 422, "message": "an object needs a sha256 and a size"}
        elif not call.store.has_large(sha):
            put, verify = (
                f"/lfs/{sha}?key={call.keys.sign(f'put {sha}')}",
                f"{call.request.url.path.removesuffix('/batch')}/verify",
            )
            answer["actions"] = {
                "upload": {"href": call.base + put, "header": {}},
                "verify": {"href": call.base + verify, "header": {}},
            }
        objects.append(answer)
    return JSONResponse({"transfer": "basic", "objects": objects}, media_type="application/vnd.git-lfs+json")


async def lfs_put(call: Call) -> Response:
    """The address is signed, for clients send no token with it."""
    sha = call.args["sha"]
    if not call.keys.signed(f"put {sha}", call.request.query_params.get("key")):
        raise Refusal(403, "this upload address is not valid")
    if not await call.store.blobs.receive("lfs", sha, call.request.stream(), sha256=sha):
        raise Refusal(400, "the bytes do not have the sha256 that was announced")
    return Response()


async def lfs_verify(call: Call) -> Response:
    call.repo(write=True)
    body = await call.json()
    sha = str(body.get("oid"))
    if not call.store.blobs.has("lfs", sha) or call.store.blobs.content("lfs", sha).size != body.get("size"):
        raise Refusal(404, "the object did not arrive whole")
    return JSONResponse({})


# Xet: the token comes from the Hub, the rest is the storage's own small protocol


async def xet_token(call: Call) -> Response:
    write = call.args["verb"] == "write"
    call.repo(write=write)
    token, ends = call.keys.xet_token(Role.WRITE if write else Role.READ)
    headers = {"X-Xet-Cas-Url": xet_base(call), "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(ends)}
    return JSONResponse({"casUrl": xet_base(call), "accessToken": token, "exp": ends}, headers=headers)


def xet_base(call: Call) -> str:
    """Clients remember by this address what they uploaded; another folder served at the same port must not have the same one."""
    return f"{call.base}/xet/{call.keys.name}"


def needs_xet(call: Call, *, write: bool = False) -> None:
    role = call.keys.xet_role(call.request.headers.get("authorization"))
    if role is Role.NOBODY or (write and role is not Role.WRITE):
        raise Refusal(401, "this needs a valid token of the Xet storage")


async def put_xorb(call: Call) -> Response:
    needs_xet(call, write=True)
    blobs, name = call.store.blobs, call.args["hash"]
    new = not blobs.has("xorbs", name)
    if new:
        await blobs.receive("xorbs", name, call.request.stream())
        try:
            whole = bool(chunks_of(blobs.content("xorbs", name)))
        except BadXet:
            whole = False
        if not whole:
            blobs.path("xorbs", name).unlink()
            raise Refusal(400, "this is not a xorb")
    return JSONResponse({"was_inserted": new})


async def put_shard(call: Call) -> Response:
    """Every file of the shard is put together once and its sha256 compared: what is taken can be read back."""
    needs_xet(call, write=True)
    shard, store = await call.request.body(), call.store
    try:
        for file in files_of_shard(shard):
            check_terms(store.blobs, file.terms)
            content = XetContent(store.blobs, file.size, file.terms)
            sha256 = await run_in_threadpool(content.sha256)  # may be gigabytes: other requests go on meanwhile
            if file.sha256 not in (None, sha256):
                raise BadXet(f"file {file.hash} does not have the sha256 that the shard says")
            store.add_xet(sha256, file.hash, content)
    except BadXet as error:
        raise Refusal(400, str(error)) from error
    return JSONResponse({"result": 1})


async def get_reconstruction(call: Call) -> Response:
    needs_xet(call)
    content = call.store.xet_content(call.args["hash"])
    if content is None:
        raise Refusal(404, "no such file in the Xet storage")
    start, end = asked_range(call.request.headers.get("range"), content.size) or (0, content.size)
    address = {t.xorb: f"{xet_base(call)}/v1/xorbs/{t.xorb}?key={call.keys.sign(f'get {t.xorb}')}" for t in content.terms}
    return JSONResponse(reconstruction(content, start, end, address))


async def get_xorb(call: Call) -> Response:
    """The address is signed, for clients send no token with it."""
    name = call.args["hash"]
    if not call.keys.signed(f"get {name}", call.request.query_params.get("key")) or not call.store.blobs.has("xorbs", name):
        raise Refusal(403, "this download address is not valid")
    return content_response(call, call.store.blobs.content("xorbs", name), {"Content-Type": "application/octet-stream"})


ROUTES = [
    page("HEAD", "/resolve/(?P<rev>[^/]+)/(?P<path>.+)", resolve),
    page("GET", "/resolve/(?P<rev>[^/]+)/(?P<path>.+)", resolve),
    Route("POST", PAGE_REPO + r"\.git/info/lfs/objects/batch", lfs_batch),
    Route("POST", PAGE_REPO + r"\.git/info/lfs/objects/verify", lfs_verify),
    Route("PUT", f"/lfs/{SHA256}", lfs_put),
    Route("GET", API_REPO + "/xet-(?P<verb>read|write)-token/[^/]+", xet_token),
    Route("POST", f"{XET}/v1/xorbs/default/{XET_HASH}", put_xorb),
    Route("POST", f"{XET}/v1/shards", put_shard),
    Route("GET", f"{XET}/v1/reconstructions/{XET_HASH}", get_reconstruction),
    Route("GET", f"{XET}/v1/xorbs/{XET_HASH}", get_xorb),
]
