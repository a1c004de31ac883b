"""What a command says goes to streams that may be closed, full of another encoding's letters, or left by their reader."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any


class Unheard:
    """A stream whose reader may leave, as `head` does: the work goes on unheard. `forgiven`: what else does not matter."""

    def __init__(self, stream: Any, forgiven: type[OSError] = BrokenPipeError):
        self.stream = stream
        self.forgiven = forgiven

    def write(self, text: str) -> int:
        try:
            self.stream.write(printable(text, self.stream))
        except self.forgiven:
            self._leave()
        return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except self.forgiven:
            self._leave()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _leave(self) -> None:
        """What is still to be written, at the process's end too, goes nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)


def printable(text: str, stream: Any) -> str:
    """With backslashes for letters that the stream's encoding lacks, and for names of files that are no text."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


@contextmanager
def unheard() -> Iterator[None]:
    """Progress that nobody can be shown does not stop the work; an answer that cannot be written (a full disk) is an error. Either
    stream may have been closed before it began."""
    with ExitStack() as held:
        nowhere = held.enter_context(open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123
        held.enter_context(redirect_stdout(Unheard(sys.stdout or nowhere)))
        held.enter_context(redirect_stderr(Unheard(sys.stderr or nowhere, OSError)))
        yield
