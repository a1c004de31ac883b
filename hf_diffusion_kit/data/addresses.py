"""Addresses of COCO's pictures, as they can be fetched."""

from urllib.parse import urlsplit

PRINTED = "images.cocodataset.org"
"""What the annotations say; it has no valid certificate."""
SECURE = "https://s3.amazonaws.com/images.cocodataset.org"
"""The same files."""


def secure(address: str) -> str | None:
    """The address over https; None for what is none. This machine's own (a test's server) stays as it is."""
    try:
        told = urlsplit(address.strip())
    except ValueError:
        return None
    if told.scheme not in ("http", "https") or not told.hostname:
        return None
    if told.hostname == PRINTED:
        return f"{SECURE}{told.path}"
    if told.scheme == "http" and told.hostname not in ("127.0.0.1", "localhost", "::1"):
        return told._replace(scheme="https").geturl()
    return told.geturl()
