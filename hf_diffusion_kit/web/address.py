"""Which addresses may be asked at all. An address comes from a file of annotations or from a server's redirect, so it is not trusted:
https only, and only to machines of the public internet. What counts is the number that a name leads to, not the name."""

import ipaddress
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from ..errors import SourceError

NOT_PUBLIC = [
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # a provider's inner network; also some clouds' metadata
        "127.0.0.0/8",  # this machine
        "168.63.129.16/32",  # Azure's own services
        "169.254.0.0/16",  # link-local; the metadata of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocols; Oracle's metadata
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved, broadcast
        "2001::/23",  # protocols, Teredo
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address in disguise
        "3fff::/20",  # documentation
    )
]
"""IANA's special-purpose registries, kept here because `ipaddress.is_global` changes from one Python to the next."""
GLOBAL_V6 = ipaddress.ip_network("2000::/3")
"""All that IANA has given out of IPv6; the rest (::1, fc00::/7, fe80::/10, fec0::/10, ff00::/8 ...) is refused."""
NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""How a network without IPv4 reaches IPv4: the last 32 bits count."""
NAME = re.compile(r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
PRINTED = re.compile(r"[!-~]+")
"""ASCII without spaces and control characters."""
OURS = {"127.0.0.1", "::1", "localhost"}
FIX = "only https addresses of the public internet are asked"

Lookup = Callable[[str, int], list[str]]
"""(name, port) -> the numbers it leads to."""


@dataclass(frozen=True)
class Rules:
    hosts: frozenset[str] | None = None
    """The only names that may be asked, redirects included; None: any public one."""
    loopback: str = ""
    """`127.0.0.1:8080`: the one server of this machine that may be asked, by plain http. For tests and local mirrors."""


@dataclass(frozen=True)
class Target:
    """An address that may be asked, as far as its text tells."""

    scheme: str
    host: str
    """Lower case, ASCII, without brackets or a dot at the end."""
    port: int
    path: str
    """With its query, percent-encoded."""

    @property
    def origin(self) -> str:
        """As the Host header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if (self.scheme, self.port) == ("https", 443) else f"{host}:{self.port}"

    @property
    def address(self) -> str:
        return f"{self.scheme}://{self.origin}{self.path}"


def target(address: str, rules: Rules) -> Target:
    """Raises SourceError for an address that may not be asked; nothing is looked up."""
    if not PRINTED.fullmatch(address) or "\\" in address:
        raise refused(address, "has characters that no address has; a name in another script is written xn--...")
    try:
        told = urlsplit(address)
        host, port = (told.hostname or "").lower(), told.port
    except ValueError as error:
        raise refused(address, f"is no address ({error})") from error
    if told.scheme not in ("https", "http"):
        raise refused(address, f"is not https but {told.scheme or 'nothing'}")
    if "@" in told.netloc:
        raise refused(address, "has a user name or password in it")
    bare = host.removesuffix(".")
    if not is_host(bare):
        raise refused(address, f"has no plain name of a machine ({host[:80]!r})")
    # quoted again so that no two readers see different paths; what is encoded already stays
    path = quote(told.path or "/", safe="/%:@!$&'()*+,;=~-._") + (f"?{told.query}" if told.query else "")
    found = Target(told.scheme, bare, port or (443 if told.scheme == "https" else 80), path)
    if bare in OURS and rules.loopback and found.origin == rules.loopback and told.scheme == "http":
        return found
    if told.scheme != "https":
        raise refused(address, "is not https but http")
    if found.port != 443:
        raise refused(address, f"asks at port {found.port} instead of 443")
    if rules.hosts is not None and bare not in rules.hosts:
        raise refused(address, f"leads to {bare} and not to {' or '.join(sorted(rules.hosts))}")
    return found


def is_host(host: str) -> bool:
    """A name of letters, digits, - and dots; or an IP number in its one canonical form, for 0x7f.1, 2130706433 and 0177.0.0.1 are
    127.0.0.1 to some programs."""
    if ":" in host or re.search(r"(^|\.)(\d+|0x[0-9a-f]*)$", host):
        try:
            return str(ipaddress.ip_address(host)) == host
        except ValueError:
            return False
    return NAME.fullmatch(host) is not None


def follow(found: Target, location: str, rules: Rules) -> Target:
    """Where a redirect leads, held to the same rules. Raises SourceError."""
    try:
        address = urljoin(found.address, location)
    except ValueError as error:
        raise refused(location, f"is no address ({error})") from error
    after = target(address, rules)
    if found.scheme == "https" and after.scheme != "https":
        raise refused(after.address, "is a redirect from https to http")
    return after


def numbers(found: Target, rules: Rules, lookup: Lookup) -> list[str]:
    """The IP numbers to connect to, each of them checked. Raises SourceError when one is not public, OSError when the name is not
    known. Asked once a connection: whoever connects uses these numbers, so that a name cannot change its mind in between."""
    ours = found.scheme == "http"  # `target` lets http through for the one allowed server of this machine alone
    found_numbers = list(dict.fromkeys(lookup(found.host, found.port)))
    for number in found_numbers:
        good = ipaddress.ip_address(number).is_loopback if ours else is_public(number)
        if not good:
            raise refused(found.address, f"leads to {number}, which is not of the public internet")
    if not found_numbers:
        raise OSError(f"{found.host} leads nowhere")
    return found_numbers


def is_public(number: str) -> bool:
    try:
        address = ipaddress.ip_address(number)
    except ValueError:  # fe80::1%eth0 and the like
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address in NAT64:
            return is_public(str(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)))
        if address not in GLOBAL_V6:
            return False
    return not any(address in network for network in NOT_PUBLIC if network.version == address.version)


def look_up(name: str, port: int) -> list[str]:
    return [str(info[4][0]) for info in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)]


def refused(address: str, why: str) -> SourceError:
    told = address[:120].encode("ascii", "backslashreplace").decode()
    return SourceError(f"{why}, so it was not asked", where=re.sub(r"//[^/@]*@", "//...@", told), fix=FIX, case=15)
