"""Where this package keeps what it can make again: below HF_HOME, as the ecosystem does."""

import os
import tempfile
from pathlib import Path


def cache_folder(*parts: str) -> Path:
    """`$HF_HOME/hf_diffusion_kit/parts...`, made if it is not there. Where that may not be written (a read-only home), a folder of
    this user below the system's temporary one."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    folder = Path(home).expanduser() / "hf_diffusion_kit" / Path(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    folder = Path(tempfile.gettempdir()) / f"hf_diffusion_kit-{os.getuid() if hasattr(os, 'getuid') else 'user'}" / Path(*parts)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder
