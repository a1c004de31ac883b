"""The page of a repository for a browser: card, gallery, files. Plain HTML, no script; all that came from outside is escaped."""

from collections.abc import Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from starlette.responses import HTMLResponse, Response

from ..cards import front_matter
from .api import card_of
from .call import Call, Route, page
from .rules import as_list
from .store import Entry

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1f2933; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.tag { background: #eef2f6; border-radius: 1rem; padding: .1rem .6rem; margin-right: .3rem; font-size: .85rem; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; }
figure { margin: 0; } .gallery img { width: 100%; border-radius: .5rem; } figcaption { font-size: .85rem; color: #52606d; }
pre { background: #f5f7fa; padding: .8rem; overflow-x: auto; } code { background: #f5f7fa; overflow-wrap: anywhere; }
table { border-collapse: collapse; margin: 1rem 0; } td, th { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top; }
article img { max-width: 100%; min-width: 6rem; } footer { color: #52606d; margin-top: 2rem; }
"""
SAFE = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; base-uri 'self'; form-action 'none'"


def document(title: str, body: str, *, base: str = "/") -> HTMLResponse:
    """`base` is what the relative addresses of the body start from."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><base href="{escape(base)}"><style>{STYLE}</style>'
    text = f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>'
    return HTMLResponse(text, headers={"Content-Security-Policy": SAFE, "Referrer-Policy": "no-referrer"})


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
    tags = [repo.kind, "private" if repo.private else "public", *map(str, as_list(card.get("tags")))]
    body = [
        f'<p><a href="/">Local Hub</a></p><h1>{escape(repo.id)}</h1>',
        "<p>" + " ".join(f'<span class="tag">{escape(tag)}</span>' for tag in tags) + "</p>",
        f"<article>{rendered(card_text(call, files), gallery(card, files))}</article>",
        file_table(files),
        f"<footer>commit <code>{oid}</code>, {escape(next(call.store.history(oid)).date)}</footer>",
    ]
    return document(repo.id, "\n".join(body), base=f"/{repo.prefix}{repo.id}/resolve/{oid}/")


def card_text(call: Call, files: dict[str, Entry]) -> str:
    entry = files.get("README.md")
    if entry is None:
        return "There is no README.md."
    return front_matter.split(b"".join(call.store.content(entry).read(0, entry.size)).decode(errors="replace"))[1]


def gallery(card: dict[str, Any], files: dict[str, Entry]) -> str:
    """The pictures that the card's `widget` names, with their prompts."""
    widget = card.get("widget")
    figures = []
    for item in widget if isinstance(widget, list) else []:
        output = item.get("output") if isinstance(item, dict) else None
        path = output.get("url") if isinstance(output, dict) else None
        if isinstance(path, str) and path in files:
            caption = escape(str(item.get("text", "")))
            figures.append(f'<figure><img src="{quote(path)}" alt=""><figcaption>{caption}</figcaption></figure>')
    return f'<section class="gallery">{"".join(figures)}</section>' if figures else ""


def file_table(files: dict[str, Entry]) -> str:
    rows = [
        f'<tr><td><a href="{quote(entry.path)}">{escape(entry.path)}</a></td><td>{entry.size:,} bytes</td>'
        f"<td>{'large' if entry.sha256 else ''}</td></tr>"
        for entry in files.values()
    ]
    return f"<h2>Files</h2><table>{''.join(rows)}</table>"


def rendered(text: str, gallery: str) -> str:
    """Markdown as HTML. Of the HTML in it, `<Gallery />` becomes the gallery, comments vanish, the rest is shown as text."""

    def html(_self: RendererHTML, tokens: Sequence[Token], place: int, _options: Any, _env: Any) -> str:
        raw = tokens[place].content.strip()
        if raw == "<Gallery />":
            return gallery
        return "" if raw.startswith("<!--") and raw.endswith("-->") and raw.count("-->") == 1 else escape(raw)

    markdown = MarkdownIt("commonmark").enable("table")
    markdown.add_render_rule("html_block", html)
    markdown.add_render_rule("html_inline", html)
    return markdown.render(text)


ROUTES = [
    Route("GET", "/", front_page),
    Route("GET", "/login", login),
    page("GET", "", repo_page),
    page("GET", "/(?:tree|commit)/(?P<rev>[^/]+)", repo_page),
]
