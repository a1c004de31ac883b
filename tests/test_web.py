"""No private machine is asked, whatever an address says; and a file from the web is whole and right, or not there."""

import hashlib
import random
import resource
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

import faulty
from hf_diffusion_kit.errors import HubError, KitError, SourceError, StorageError
from hf_diffusion_kit.web import Fetched, Patience, Rules, Wanted, Web
from hf_diffusion_kit.web.address import is_public, target

CONTENT = random.Random(0).randbytes(200_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PUBLIC = "93.184.216.34"
DNS = {
    "inside.example": ["10.1.2.3"],
    "metadata.example": ["169.254.169.254"],
    "half.example": [PUBLIC, "127.0.0.1"],
    "six.example": ["fd00::1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "nat.example": ["64:ff9b::a00:1"],
    "zone.example": ["fe80::1%eth0"],
    "localhost": ["127.0.0.1", "::1"],
    "intranet": ["192.168.1.1"],
    "nowhere.example": ["0.0.0.0"],
    "0x7f.example": ["100.64.0.1"],
}
ADDRESSES = [  # address, why it is not asked; {port} is where the canary listens
    ("https://127.0.0.1/x", "127.0.0.1, which is not of the public"),
    ("https://127.0.0.1:{port}/x", "asks at port"),
    ("http://127.0.0.1:{port}/x", "is not https"),
    ("http://localhost:{port}/x", "is not https"),
    ("https://localhost/x", "127.0.0.1, which is not"),
    ("https://LOCALHOST./x", "127.0.0.1, which is not"),
    ("http://[::1]:{port}/x", "is not https"),
    ("https://[::1]/x", "::1, which is not"),
    ("https://[::]/x", "::, which is not"),
    ("https://[::ffff:127.0.0.1]/x", "has no plain name"),
    ("https://[::ffff:7f00:1]/x", "::ffff:7f00:1, which is not"),
    ("https://[fe80::1%25eth0]/x", "address"),
    ("https://[fc00::1]/x", "fc00::1, which is not"),
    ("https://[fec0::1]/x", "fec0::1, which is not"),
    ("https://[ff02::1]/x", "ff02::1, which is not"),
    ("https://[2002:7f00:1::]/x", "which is not"),
    ("https://2130706433/x", "no plain name"),
    ("https://0x7f000001/x", "no plain name"),
    ("https://0x7f.0.0.1/x", "no plain name"),
    ("https://0177.0.0.1/x", "no plain name"),
    ("https://127.1/x", "no plain name"),
    ("https://127.0.0.1./x", "127.0.0.1, which is not"),
    ("https://0/x", "no plain name"),
    ("https://0.0.0.0/x", "0.0.0.0, which is not"),
    ("https://10.0.0.1/x", "10.0.0.1, which is not"),
    ("https://172.31.255.1/x", "which is not"),
    ("https://192.168.0.1/x", "which is not"),
    ("https://169.254.169.254/latest/meta-data/", "which is not"),
    ("https://100.100.100.200/x", "which is not"),
    ("https://168.63.129.16/x", "which is not"),
    ("https://224.0.0.1/x", "which is not"),
    ("https://255.255.255.255/x", "which is not"),
    ("https://inside.example/x", "10.1.2.3, which is not"),
    ("https://metadata.example/x", "169.254.169.254, which is not"),
    ("https://half.example/x", "127.0.0.1, which is not"),
    ("https://six.example/x", "fd00::1, which is not"),
    ("https://mapped.example/x", "::ffff:127.0.0.1, which is not"),
    ("https://nat.example/x", "64:ff9b::a00:1, which is not"),
    ("https://zone.example/x", "fe80::1%eth0, which is not"),
    ("https://nowhere.example/x", "0.0.0.0, which is not"),
    ("https://intranet/x", "192.168.1.1, which is not"),
    ("https://0x7f.example/x", "100.64.0.1, which is not"),
    ("https://user:secret@127.0.0.1:{port}/x", "user name or password"),
    ("https://good.example@127.0.0.1:{port}/x", "user name or password"),
    ("https://127.0.0.1:{port}\\@good.example/x", "characters"),
    ("https://127\u30020.0.1/x", "characters"),
    ("https://\uff11\uff12\uff17.0.0.1/x", "characters"),
    ("https://\u24db\u24de\u24d2alhost/x", "characters"),
    ("https://%6c%6fcalhost/x", "no plain name"),
    ("https://good.example /x", "characters"),
    ("https://good.example/x\r\nHost: inside.example", "characters"),
    ("https:///x", "no plain name"),
    ("https:127.0.0.1:{port}/x", "no plain name"),
    ("//127.0.0.1:{port}/x", "is not https"),
    ("file:///etc/hostname", "is not https but file"),
    ("ftp://127.0.0.1:{port}/x", "is not https but ftp"),
    ("gopher://127.0.0.1:{port}/x", "is not https but gopher"),
    ("data:image/png;base64,AAAA", "is not https but data"),
    ("https://good.example:99999/x", "no address"),
    ("https://[/x", "no address"),
    ("", "characters"),
]


@pytest.fixture
def canary() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0)
        yield listening


def knocked(canary: socket.socket) -> bool:
    try:
        canary.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every number that a connection is wanted to, loopback included; none comes about."""
    seen: list[tuple[str, int]] = []

    def refuse(address: tuple[str, int], timeout: float | None = None) -> socket.socket:
        seen.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", refuse)
    return seen


def looked_up(name: str, port: int) -> list[str]:
    return DNS.get(name, [name] if ":" in name or name[0].isdigit() else [PUBLIC])


def web(loopback: str = "", **patience: Any) -> Web:
    made = Web(Rules(loopback=loopback), Patience(**({"stall": 5.0, "sleep": lambda seconds: None} | patience)), random.Random(0))
    made.lines.lookup = looked_up
    return made


def refused(made: Web, address: str, folder: Path) -> KitError:
    with pytest.raises(KitError) as caught, made:
        made.fetch(Wanted(address, folder / "file", most=1000))
    assert not (folder / "file").exists()
    assert "\n" not in caught.value.line()
    return caught.value


@pytest.mark.parametrize(("address", "why"), ADDRESSES)
def test_a_private_address_is_not_asked(
    address: str, why: str, tmp_path: Path, canary: socket.socket, connected: list[Any]
) -> None:
    port = canary.getsockname()[1]
    error = refused(web(), address.format(port=port), tmp_path)
    assert isinstance(error, SourceError)
    assert why in str(error)
    assert "secret" not in str(error)
    assert connected == []
    assert not knocked(canary)


@pytest.mark.parametrize(("address", "why"), ADDRESSES)
def test_nor_does_a_redirect_lead_there(address: str, why: str, tmp_path: Path, canary: socket.socket) -> None:
    to = address.format(port=canary.getsockname()[1])
    if not to.isascii() or "\n" in to or not to or to.startswith(("//", "https:///")):
        to = f"http://127.0.0.1:{canary.getsockname()[1]}/"  # cannot stand in a header
    with faulty.Faulty({}) as server:
        server.always["/start"] = faulty.redirect(to)
        error = refused(web(server.origin), f"{server.url}/start", tmp_path)
        assert isinstance(error, SourceError)
        assert "was not asked" in str(error)
        assert not knocked(canary)
        assert len(server.requests) == 1


def test_the_canary_does_sing(tmp_path: Path, canary: socket.socket) -> None:
    """The table proves something only if a connection would be seen."""
    origin = f"127.0.0.1:{canary.getsockname()[1]}"
    refused(web(origin, stall=0.1, tries=1), f"http://{origin}/x", tmp_path)
    assert knocked(canary)


YES = (PUBLIC, "8.8.8.8", "172.32.0.1", "2606:2800:220:1::1", "64:ff9b::808:808")
NO = ("198.18.0.1", "2001:db8::1", "2001::1", "::127.0.0.1", "5f00::1", "")


@pytest.mark.parametrize(("number", "public"), [*((number, True) for number in YES), *((number, False) for number in NO)])
def test_which_numbers_are_public(number: str, public: bool) -> None:
    assert is_public(number) is public


def test_a_list_of_hosts_holds_for_redirects_too(connected: list[Any]) -> None:
    rules = Rules(hosts=frozenset({"a.example"}))
    assert target("https://A.example./x y".replace(" ", "%20"), rules).address == "https://a.example/x%20y"
    with pytest.raises(SourceError, match=r"leads to b.example and not to a.example"):
        target("https://b.example/x", rules)


# TLS: the number that was checked is the one that is connected to, under the name that was asked for


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secured(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[faulty.Faulty, list[Any], list[Any]]]:
    """A server that is files.example, the numbers that were connected to, and the names that were asked for in the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("files.example").configure_cert(context)
    names: list[Any] = []
    context.sni_callback = lambda sock, name, context: names.append(name)
    seen: list[Any] = []
    create = socket.create_connection
    with faulty.Faulty({"/a": CONTENT, "/b": CONTENT}, context) as server:

        def there(address: tuple[str, int], timeout: float | None = None) -> socket.socket:
            seen.append(address)
            return create(("127.0.0.1", server.up.server_port), timeout)

        monkeypatch.setattr(socket, "create_connection", there)
        yield server, seen, names


def test_a_name_is_looked_up_once_and_that_number_is_used(secured: Any, authority: trustme.CA, tmp_path: Path) -> None:
    server, seen, names = secured
    asked: list[str] = []

    def turncoat(name: str, port: int) -> list[str]:
        asked.append(name)
        return [PUBLIC] if len(asked) == 1 else ["127.0.0.1"]

    made = web()
    made.lines.lookup = turncoat
    made.lines.context = ssl.create_default_context()
    authority.configure_trust(made.lines.context)
    with made:
        for name in "ab":
            made.fetch(Wanted(f"https://files.example/{name}", tmp_path / name, most=10**6, sha256=SHA256))
    assert (asked, seen, names) == (["files.example"], [(PUBLIC, 443)], ["files.example"])
    assert [headers["host"] for _, headers in server.requests] == ["files.example"] * 2
    assert server.connections == 1


def test_proxies_of_the_environment_are_not_used(
    secured: Any, authority: trustme.CA, tmp_path: Path, canary: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{canary.getsockname()[1]}")
    made = web()
    made.lines.context = ssl.create_default_context()
    authority.configure_trust(made.lines.context)
    with made:
        made.fetch(Wanted("https://files.example/a", tmp_path / "a", most=10**6))
    assert not knocked(canary)


@pytest.mark.parametrize("trusts", [False, True])
def test_a_wrong_certificate_ends_it_at_once(trusts: bool, secured: Any, authority: trustme.CA, tmp_path: Path) -> None:
    server, seen, _ = secured
    made = web()
    if trusts:  # the authority, but the certificate is of another name
        made.lines.context = ssl.create_default_context()
        authority.configure_trust(made.lines.context)
    error = refused(made, "https://other.example/a" if trusts else "https://files.example/a", tmp_path)
    assert isinstance(error, HubError)
    assert "certificate is not valid" in str(error)
    assert len(seen) == 1
    assert server.requests == []


# Downloads


CUT = faulty.cut(100_000)
COMES = [  # name, what happens to the first requests, requests in all
    ("nothing", [], 1),
    ("503 Slow Down", [faulty.status(503, b"<Code>SlowDown</Code>")] * 3, 4),
    ("429, 500, 502, 504, 408", [faulty.status(n) for n in (429, 500, 502, 504, 408)], 6),
    ("503 with a long page", [faulty.status(503, b"x" * 300_000)], 2),
    ("reset", [faulty.reset] * 3, 4),
    ("hung up", [faulty.hung_up], 2),
    ("cut", [CUT], 2),
    ("cut again and again, each time with gain", [faulty.cut(20_000 + 66_000)] * 2, 3),
    ("cut at the last byte", [faulty.cut(199_999)], 2),
    ("cut before the first byte", [faulty.cut(0)], 2),
    ("cut, then 503, then reset", [CUT, faulty.status(503), faulty.reset], 4),
    ("cut, then a server without ranges", [CUT, faulty.no_ranges], 2),
    ("cut, then another part", [CUT, faulty.other_part], 3),
    ("another part, unasked", [faulty.other_part], 2),
    ("length too large", [faulty.plain(Content_Length="200010")], 2),
    ("length that is no number", [faulty.plain(Content_Length="many")], 1),
    ("no length", [faulty.plain(Content_Length="")], 1),
    ("chunks", [faulty.chunked()], 1),
    ("chunks, cut", [faulty.chunked(end=False)], 2),
    ("chunks, cut in the size of the last", [faulty.cut_zero], 2),
    ("gzip", [faulty.zipped()], 1),
    ("gzip, cut", [faulty.zipped(whole=False)], 2),
    ("gzip that is none", [faulty.zipped(lie=True)], 2),
    ("a packing that nobody asked for", [faulty.plain(Content_Encoding="br")], 2),
    ("an HTML page", [faulty.page], 2),
    ("an HTML page as a picture", [faulty.page_in_disguise], 2),
    ("no HTTP", [faulty.garbage], 2),
    ("300 headers", [faulty.many_headers], 2),
    ("cut among the headers", [faulty.half_headers], 2),
    ("length too small", [faulty.plain(CONTENT[:1000])], 2),
    ("wrong content of the right length", [faulty.plain(bytes(200_000))], 2),
    ("redirect", [faulty.redirect("/file?again")], 2),
]


@pytest.mark.parametrize(("faults", "requests"), [case[1:] for case in COMES], ids=[case[0] for case in COMES])
def test_the_file_comes_in_the_end(faults: list[faulty.Fault], requests: int, tmp_path: Path) -> None:
    came: list[int] = []
    path = tmp_path / "deep" / "file"
    with faulty.Faulty({"/file": CONTENT}) as server, web(server.origin) as made:
        server.faults["/file"] = list(faults)
        fetched = made.fetch(Wanted(f"{server.url}/file", path, most=10**6, sha256=SHA256), came.append)
        assert len(server.requests) == requests
    assert fetched is not None
    assert (fetched.bytes, fetched.sha256) == (len(CONTENT), SHA256)
    assert path.read_bytes() == CONTENT
    assert sum(came) == len(CONTENT)
    assert [entry.name for entry in path.parent.iterdir() if entry.is_file()] == ["file"]


def flip(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


FAILS: list[tuple[str, faulty.Fault, type[KitError], str, dict[str, Any]]] = [
    ("404", faulty.status(404), SourceError, "is not there: the server answered 404", {}),
    ("403", faulty.status(403), SourceError, "may not be read: the server answered 403", {}),
    ("418", faulty.status(418), SourceError, "cannot be fetched: the server answered 418", {}),
    ("503 for ever", faulty.status(503), HubError, "answered 503 Service Unavailable (6 times in a row)", {}),
    ("Retry-After of an hour", faulty.status(503, Retry_After="3600"), HubError, "asks to wait 3600 seconds", {}),
    ("reset for ever", faulty.reset, HubError, "the connection was cut (6 times", {}),
    ("cut for ever", faulty.cut(1000), HubError, "was cut after 1000 of 1", {}),
    ("an HTML page", faulty.page, SourceError, "sent an HTML page instead of the file (fetched twice)", {}),
    ("an HTML page as a picture", faulty.page_in_disguise, SourceError, "it is an HTML page", {"sha256": SHA256}),
    ("wrong sha256", faulty.plain(flip(CONTENT)), SourceError, "another sha256 than it must", {"sha256": SHA256}),
    ("wrong size, announced", faulty.plain(b"x"), SourceError, "has 1 bytes and not 200000", {"size": 200_000}),
    ("wrong size, not announced", faulty.chunked(b"x"), SourceError, "has 1 bytes and not 200000", {"size": 200_000}),
    ("wrong MD5", faulty.plain(flip(CONTENT)), SourceError, "not what the server itself says", {}),
    ("too large, announced", faulty.plain(bytes(300_001)), SourceError, "at most 300000 are taken", {}),
    ("no end", faulty.endless, SourceError, "does not end", {}),
    ("no end, in chunks", faulty.chunked(times=5), SourceError, "does not end", {}),
    ("a bomb", faulty.zipped(bomb=True), SourceError, "does not end", {}),
    ("redirect in a circle", faulty.redirect("/file"), SourceError, "redirects more than 3 times", {}),
    ("no HTTP", faulty.garbage, HubError, "could not be read", {}),
    ("cut among the headers", faulty.half_headers, HubError, "could not be read", {}),
    ("no length, and nothing known", faulty.plain(Content_Length="", ETag=""), SourceError, "does not say how long it is", {}),
    ("300 headers", faulty.many_headers, HubError, "could not be read", {}),
    ("length too large", faulty.plain(Content_Length="200010"), HubError, "of 200010 bytes", {}),
    ("gzip, cut", faulty.zipped(whole=False), HubError, "was cut", {}),
    ("206 for ever", faulty.other_part, HubError, "another part than was asked for", {}),
]


@pytest.mark.parametrize(("fault", "kind", "why", "known"), [case[1:] for case in FAILS], ids=[case[0] for case in FAILS])
def test_or_one_line_says_why_not(
    fault: faulty.Fault, kind: type[KitError], why: str, known: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    with faulty.Faulty({"/file": CONTENT}) as server, web(server.origin) as made:
        server.always["/file"] = fault
        with pytest.raises(kind) as caught:
            made.fetch(Wanted(f"{server.url}/file", path, most=300_000, **known))
        assert len(server.requests) <= 7
    assert why in str(caught.value)
    assert "\n" not in caught.value.line()
    assert not path.exists()
    if kind is SourceError:
        assert not path.with_name("file.part").exists()


SLOW = {
    "silence": faulty.silent,
    "stall": faulty.stall(50_000),
    "drip": faulty.drip,
    "dripping headers": faulty.drip_headers,
    "dripping size of a chunk": faulty.drip_chunks,
    "trailers without end": faulty.endless_trailers,
    "continue, continue": faulty.for_ever_continuing,
}


@pytest.mark.parametrize("fault", SLOW.values(), ids=SLOW)
def test_nobody_waits_for_ever(fault: faulty.Fault, tmp_path: Path) -> None:
    began = time.monotonic()
    with faulty.Faulty({"/file": CONTENT}) as server, web(server.origin, stall=0.25, tries=2) as made:
        server.always["/file"] = fault
        with pytest.raises(HubError, match="2 times in a row"):
            made.fetch(Wanted(f"{server.url}/file", tmp_path / "file", most=10**6))
        server.always.clear()
        assert made.fetch(Wanted(f"{server.url}/file", tmp_path / "file", most=10**6, sha256=SHA256))
    assert time.monotonic() - began < 4


def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Also in another process, and not with another version."""
    path, address = tmp_path / "file", ""
    with faulty.Faulty({"/file": CONTENT}) as server:
        address = f"{server.url}/file"
        server.faults["/file"] = [faulty.cut(150_000)]
        with web(server.origin, tries=1) as made, pytest.raises(HubError):
            made.fetch(Wanted(address, path, most=10**6))
        assert path.with_name("file.part").stat().st_size == 150_000
        with web(server.origin) as made:
            assert made.fetch(Wanted(address, path, most=10**6, sha256=SHA256))
        assert [headers.get("range") for _, headers in server.requests] == [None, "bytes=150000-"]
        assert server.requests[1][1]["if-range"] == faulty.etag(CONTENT)


@pytest.mark.parametrize("secret", [True, False])
@pytest.mark.parametrize("honest", [True, False])
def test_two_versions_are_not_mixed(honest: bool, secret: bool, tmp_path: Path) -> None:
    """The file changes between two attempts; the server heeds If-Range, or does not. `secret`: nor does an MD5 tell."""
    path, changed = tmp_path / "file", bytes(reversed(CONTENT))
    with faulty.Faulty({"/file": CONTENT}) as server, web(server.origin) as made:
        server.secret = secret
        wanted = Wanted(f"{server.url}/file", path, most=10**6)
        server.faults["/file"] = [faulty.cut(150_000)]
        with pytest.raises(HubError), web(server.origin, tries=1) as short:
            short.fetch(wanted)
        server.files["/file"] = changed
        server.faults["/file"] = [] if honest else [faulty.whatever_version]
        made.fetch(wanted)
        assert len(server.requests) == (2 if honest else 3)
    assert path.read_bytes() == changed


def test_a_part_that_is_whole_is_only_confirmed(tmp_path: Path) -> None:
    """Killed after the last byte and before the name was given."""
    path = tmp_path / "file"
    with faulty.Faulty({"/file": CONTENT}) as server, web(server.origin) as made:
        wanted = Wanted(f"{server.url}/file", path, most=10**6, accept=_killed)
        with pytest.raises(KeyboardInterrupt):
            made.fetch(wanted)
        assert not path.exists()
        made.fetch(Wanted(wanted.address, path, most=10**6, sha256=SHA256))
        assert [headers.get("range") for _, headers in server.requests] == [None, "bytes=200000-"]
    assert path.read_bytes() == CONTENT


def _killed(path: Path, fetched: Fetched) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("note", ["", "{", '{"validator": "", "md5": ""}', "[]", '{"validator": "\\"other\\"", "md5": ""}'])
def test_a_part_of_unknown_origin_is_not_gone_on_with(note: str, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(b"something else")
    if note:
        (tmp_path / "file.part.json").write_text(note)
    with faulty.Faulty({"/file": CONTENT}) as server, web(server.origin) as made:
        made.fetch(Wanted(f"{server.url}/file", tmp_path / "file", most=10**6))
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_pauses_grow_with_chance_and_heed_the_server(tmp_path: Path) -> None:
    pauses: list[float] = []
    with faulty.Faulty({"/file": CONTENT}) as server, web(server.origin, pause=1.0, sleep=pauses.append) as made:
        server.faults["/file"] = [faulty.status(503)] * 4 + [faulty.status(429, Retry_After="77")]
        made.fetch(Wanted(f"{server.url}/file", tmp_path / "file", most=10**6))
    chance = random.Random(0)
    assert pauses[:4] == [2**n * (0.5 + chance.random()) for n in range(4)]
    assert pauses[4:] == [77.0]


def test_what_is_asked_is_polite(tmp_path: Path) -> None:
    with faulty.Faulty({"/file": CONTENT}) as server, web(server.origin) as made:
        for name in "abc":
            made.fetch(Wanted(f"{server.url}/file", tmp_path / name, most=10**6))
        assert server.connections == 1
        assert server.requests[0][1]["user-agent"].startswith("hf-diffusion-kit/")
        assert server.requests[0][1]["accept-encoding"] == "identity"
        assert not {"cookie", "authorization", "referer"} & server.requests[0][1].keys()


def test_nobody_there_is_said_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        origin = f"127.0.0.1:{free.getsockname()[1]}"
    pauses: list[float] = []
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    error = refused(web(origin, sleep=pauses.append), f"http://{origin}/x", tmp_path)
    assert isinstance(error, HubError)
    assert "nobody answers there" in str(error)
    assert "HTTPS_PROXY is set, but proxies are not used" in str(error)
    assert len(pauses) == 1


def test_stop_wakes_who_reads_and_who_waits(tmp_path: Path) -> None:
    with faulty.Faulty({"/file": CONTENT, "/busy": b""}) as server, web(server.origin, stall=30, sleep=None, pause=30) as made:
        server.always["/file"] = faulty.stall(1000)
        server.always["/busy"] = faulty.status(503)
        ends: list[str] = []

        def fetch(name: str) -> None:
            try:
                made.fetch(Wanted(f"{server.url}/{name}", tmp_path / name, most=10**6))
            except InterruptedError:
                ends.append(name)

        threads = [threading.Thread(target=fetch, args=(name,)) for name in ("file", "busy")]
        for thread in threads:
            thread.start()
        while len(server.requests) < 2:
            time.sleep(0.01)
        time.sleep(0.05)
        began = time.monotonic()
        made.stop()
        for thread in threads:
            thread.join(5)
        assert sorted(ends) == ["busy", "file"]
        assert time.monotonic() - began < 2


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where a folder is wanted")
    with (
        faulty.Faulty({"/file": CONTENT}) as server,
        web(server.origin) as made,
        pytest.raises(StorageError, match=r"cannot be written: (File exists|Not a directory)"),
    ):
        made.fetch(Wanted(f"{server.url}/file", tmp_path / "file" / "in" / "file", most=10**6))
    assert server.requests == []


def test_a_full_disk_is_one_line_and_what_came_is_kept(tmp_path: Path) -> None:
    path, before = tmp_path / "file", resource.getrlimit(resource.RLIMIT_FSIZE)
    with faulty.Faulty({"/file": CONTENT}) as server, web(server.origin) as made:
        wanted = Wanted(f"{server.url}/file", path, most=10**6, sha256=SHA256)
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, before[1]))
        try:
            with pytest.raises(StorageError) as caught:
                made.fetch(wanted)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert str(caught.value).count("cannot be written: File too large") == 1
        assert not path.exists()
        made.fetch(wanted)
        assert "range" in server.requests[1][1]
    assert path.read_bytes() == CONTENT


def test_processes_do_not_write_one_file_together(tmp_path: Path) -> None:
    """Three at once: one fetches, the others find it there."""
    code = """
import sys, pathlib
from hf_diffusion_kit.web import *
origin, path = sys.argv[1], pathlib.Path(sys.argv[2])
with Web(Rules(loopback=origin)) as web:
    print(web.fetch(Wanted(f"http://{origin}/file", path, most=10**6, there=path.exists)) is not None)
"""
    with faulty.Faulty({"/file": CONTENT}) as server:
        slow: Callable[..., None] = lambda asked, content: (time.sleep(1), faulty.proper(asked, content))[1]  # noqa: E731
        server.always["/file"] = slow
        command = [sys.executable, "-c", code, server.origin, str(tmp_path / "file")]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        said = sorted(process.communicate()[0].strip() for process in running)
        assert said == ["False", "False", "True"]
        assert len(server.requests) == 1
    assert (tmp_path / "file").read_bytes() == CONTENT
