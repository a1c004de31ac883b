"""Who may do what: the tokens of the local Hub and the signed addresses it hands out."""

import base64
import hashlib
import hmac
import os
import secrets
import string
import time
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


class Role(Enum):
    NOBODY = "nobody"
    READ = "read"
    WRITE = "write"


def keep_token(path: Path) -> str:
    """The token in `path`; the first time a new one is drawn and written for the owner's eyes only."""
    if not path.exists():
        token = "hf_" + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(34))
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token)
    return path.read_text().strip()


@dataclass(frozen=True)
class Keys:
    """Checks what callers show. Signatures hold until the server stops."""

    write: str = field(repr=False)
    read: str = field(repr=False)
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    @property
    def name(self) -> str:
        """Tells one hub folder from another, and says nothing of the token."""
        return hashlib.sha256(b"name of " + self.write.encode()).hexdigest()[:16]

    def role(self, authorization: str | None, *, browser: bool = False) -> Role | None:
        """None: something was shown and it is wrong. A browser may show the token as the password of Basic authentication."""
        if not authorization:
            return Role.NOBODY
        scheme, _, shown = authorization.partition(" ")
        if scheme.lower() == "basic" and browser:
            try:
                shown = base64.b64decode(shown).decode().partition(":")[2]
            except ValueError:
                return None
        elif scheme.lower() != "bearer":
            return None
        for token, role in ((self.write, Role.WRITE), (self.read, Role.READ)):
            if hmac.compare_digest(shown.strip().encode(), token.encode()):
                return role
        return None

    def sign(self, text: str) -> str:
        return hmac.new(self.secret, text.encode(), hashlib.sha256).hexdigest()[:40]

    def signed(self, text: str, signature: str | None) -> bool:
        return hmac.compare_digest(self.sign(text), signature or "")

    def xet_token(self, role: Role, *, seconds: int = 3600) -> tuple[str, int]:
        """A token for the Xet storage, and when it ends (Unix time)."""
        ends = int(time.time()) + seconds
        return f"{role.value}.{ends}.{self.sign(f'xet {role.value} {ends}')}", ends

    def xet_role(self, authorization: str | None) -> Role:
        role, _, rest = (authorization or "").removeprefix("Bearer ").partition(".")
        ends, _, signature = rest.partition(".")
        good = self.signed(f"xet {role} {ends}", signature) and int(ends) > time.time()
        return Role(role) if good else Role.NOBODY
