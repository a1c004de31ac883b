"""Files from the public web: addresses that may be asked, connections to the numbers that were checked, downloads that go on where
they stopped. Nothing here knows what is in a file.

The environment's proxies (HTTPS_PROXY ...) are not used: a proxy looks names up itself, so what was checked here would not be what
is connected to. Where one is set and nothing can be reached, the error says so.
"""

from .address import Rules
from .fetch import Fetched, Patience, Wanted, Web

__all__ = ["Fetched", "Patience", "Rules", "Wanted", "Web"]
