"""Commands typed in this process, and what they left behind."""

import contextlib
import io
import json
from pathlib import Path

from stilts_jax.main import main


def stilts(*arguments: object, code: int = 0) -> str:
    """Types a command, which must end with ``code``; returns what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        found = main([str(one) for one in arguments])
    text = printed.getvalue()
    assert found == code and "Traceback" not in text, text
    return text


def results(workdir: Path) -> dict[str, dict]:
    """Returns the record of every phase by name, with its folder; of one whose last attempt failed, that failure."""
    paths = [path for name in ("result", "failure") for path in workdir.glob(f"phases/*/{name}.json")]
    found = [json.loads(path.read_text("utf-8")) | {"folder": path.parent} for path in paths]
    return {one["phase"]["name"]: one for one in found}
