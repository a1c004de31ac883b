"""The page of a repository for a browser: card, gallery, files. Plain HTML, no script; all that came from outside is escaped."""

import re
from collections.abc import Iterator
from html import escape
from typing import Any
from urllib.parse import quote

from starlette.responses import HTMLResponse, Response

from .api import card_of
from .call import Call, Route, page
from .rules import front_matter
from .store import Entry, Repo

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1f2933; }
h1 { font-size: 1.4rem; }
.tag { background: #eef2f6; border-radius: 1rem; padding: .1rem .6rem; margin-right: .3rem; font-size: .85rem; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; } 
figure { margin: 0; }
.gallery img { width: 100%; border-radius: .5rem; image-rendering: auto; } figcaption { font-size: .85rem; color: #52606d; }
pre { background: #f5f7fa; padding: .8rem; overflow-x: auto; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem .2rem 0; text-align: left; }
article img { max-width: 100%; } code { background: #f5f7fa; }
"""


def document(title: str, body: str) -> HTMLResponse:
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    text = f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>'
    return HTMLResponse(
        text, headers={"Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'"}
    )


async def front_page(call: Call) -> Response:
    items = [
        f'<li><a href="/{repo.prefix}{repo.id}">{escape(repo.id)}</a> {repo.kind}{", private" if repo.private else ""}</li>'
        for repo in call.store.repos()
        if not repo.private or call.role.value != "nobody"
    ]
    hint = "" if call.role.value != "nobody" else '<p>Private repositories are listed after <a href="/login">signing in</a>.</p>'
    return document("Local Hub", f"<h1>Local Hub</h1><ul>{''.join(items) or '<li>nothing here yet</li>'}</ul>{hint}")


async def login(call: Call) -> Response:
    """Makes a browser ask: any user name, and the token (file `token` in the Hub's folder) as the password."""
    if call.role.value == "nobody":
        return Response("sign in with the token", 401, {"WWW-Authenticate": 'Basic realm="local Hub: the token is the password"'})
    return await front_page(call)


async def repo_page(call: Call) -> Response:
    repo = call.repo()
    oid = call.revision(repo)
    files = call.store.files(oid)
    card = card_of(call, files)
    base = f"/{repo.prefix}{repo.id}/resolve/{oid}/"
    tags = [repo.kind, "private" if repo.private else "public", *map(str, card.get("tags") or [])]
    body = [
        f'<p><a href="/">Local Hub</a></p><h1>{escape(repo.id)}</h1>',
        "<p>" + "".join(f'<span class="tag">{escape(tag)}</span>' for tag in tags) + "</p>",
        gallery(card, files, base),
        f"<article>{''.join(rendered(card_text(call, files), base))}</article>",
        file_table(repo, files, base),
        f"<p>commit <code>{oid}</code>, {escape(next(call.store.history(oid)).date)}</p>",
    ]
    return document(repo.id, "\n".join(body))


def card_text(call: Call, files: dict[str, Entry]) -> str:
    entry = files.get("README.md")
    if entry is None:
        return "There is no README.md."
    return front_matter(b"".join(call.store.content(entry).read(0, entry.size)).decode(errors="replace"))[1]


def gallery(card: dict[str, Any], files: dict[str, Entry], base: str) -> str:
    """The pictures that the card's `widget` names, with their prompts."""
    widget = card.get("widget")
    figures = []
    for item in widget if isinstance(widget, list) else []:
        output = item.get("output") if isinstance(item, dict) else None
        path = output.get("url") if isinstance(output, dict) else None
        if isinstance(path, str) and path in files:
            caption = escape(str(item.get("text", "")))
            figures.append(f'<figure><img src="{base}{quote(path)}" alt=""><figcaption>{caption}</figcaption></figure>')
    return f'<section class="gallery">{"".join(figures)}</section>' if figures else ""


def file_table(repo: Repo, files: dict[str, Entry], base: str) -> str:
    rows = [
        f'<tr><td><a href="{base}{quote(entry.path)}">{escape(entry.path)}</a></td><td>{entry.size:,} bytes</td>'
        f"<td>{'large' if entry.sha256 else ''}</td></tr>"
        for entry in files.values()
    ]
    return f"<h2>Files</h2><table>{''.join(rows)}</table>"


def rendered(text: str, base: str) -> Iterator[str]:
    """As much Markdown as a card needs: headings, lists, tables, code, links and pictures of the repository itself."""
    code: list[str] | None = None
    table: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.lstrip().startswith("```"):
            if code is not None:
                yield f"<pre>{escape(chr(10).join(code))}</pre>"
            code = [] if code is None else None
        elif code is not None:
            code.append(line)
        elif line.startswith("|"):
            table.append(line)
        else:
            if table:
                yield table_of(table, base)
                table = []
            if heading := re.match(r"(#{1,4}) +(.*)", line):
                level = len(heading[1])
                yield f"<h{level}>{inline(heading[2], base)}</h{level}>"
            elif item := re.match(r"\s*[-*] +(.*)", line):
                yield f"<ul><li>{inline(item[1], base)}</li></ul>"
            elif line.strip() and not re.fullmatch(r"\s*<(!--.*--|/?[A-Za-z]+ ?/?)>\s*", line):
                yield f"<p>{inline(line, base)}</p>"
    if code is not None:
        yield f"<pre>{escape(chr(10).join(code))}</pre>"


def table_of(lines: list[str], base: str) -> str:
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines if not re.fullmatch(r"[|\s:-]+", line)
    ]
    return (
        "<table>" + "".join(f"<tr>{''.join(f'<td>{inline(cell, base)}</td>' for cell in row)}</tr>" for row in rows) + "</table>"
    )


def inline(text: str, base: str) -> str:
    safe = escape(text)
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
    safe = re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", safe)
    safe = re.sub(r"!\[([^\]]*)\]\((?![a-z]+:|/)([^)\s]+)\)", rf'<img src="{base}\2" alt="\1">', safe)
    return re.sub(r"(?<!!)\[([^\]]+)\]\((https?://[^)\s]+)\)", r'<a href="\2" rel="noreferrer">\1</a>', safe)


ROUTES = [
    Route("GET", "/", front_page),
    Route("GET", "/login", login),
    page("GET", "", repo_page),
    page("GET", "/(?:tree|commit)/(?P<rev>[^/]+)", repo_page),
]
