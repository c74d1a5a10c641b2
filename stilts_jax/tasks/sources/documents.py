"""Reads the bytes of data files, and JSON in them."""

import gzip
import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stilts_jax.errors import DataError

_BETWEEN = re.compile(r"[\s,:]*")  # what stands between the parts of valid JSON


class BadRow(Exception):
    """A row that can't be used; whoever reads the row knows its place."""


def read_bytes(path: Path) -> bytes:
    """Returns what a file holds, unzipped where its name ends in ``.gz``, without a byte order mark.

    A NUL is in no text: disks leave runs of them where a file was not written to its end.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"the file can't be read: {error}", where=str(path), fix="fetch or copy it again"
        ) from error
    if b"\0" in content:
        raise DataError(
            f"the file is damaged: it holds {content.count(0)} NUL bytes",
            where=f"{path}:{content.count(10, 0, content.index(0)) + 1}",
            fix="fetch or copy it again; text has to be in UTF-8",
        )
    return content.removeprefix(b"\xef\xbb\xbf")


def parse_json(text: str) -> Any:
    """Returns what a JSON text says."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise BadRow(f"this is not JSON: {error}") from error
    except ValueError:
        raise BadRow("this JSON holds a number of thousands of digits") from None
    except RecursionError:
        raise BadRow("this JSON is nested too deeply") from None


def read_json(path: Path) -> Any:
    """Returns what a JSON file holds."""
    content = read_bytes(path)
    try:
        return parse_json(content.decode())
    except UnicodeDecodeError as error:
        what, line = "this is not UTF-8", content.count(b"\n", 0, error.start) + 1
    except BadRow as error:
        what, line = str(error), getattr(error.__cause__, "lineno", 1)
    raise DataError(what, where=f"{path}:{line}", fix="fetch or copy it again")


def read_object(path: Path) -> dict[str, Any]:
    """Returns what a JSON file holds that is an object."""
    content = read_json(path)
    if type(content) is not dict:
        raise DataError(
            "this is not a JSON object", where=f"{path}:1", fix="compare it with the released file"
        )
    return content


def find_line(path: Path, place: Sequence[str | int]) -> int:
    """Returns the line of a valid JSON file on which the value begins that ``place`` leads to, for an error."""
    text = read_bytes(path).decode()
    decode = json.JSONDecoder().raw_decode
    position = _skip(text, 0)
    for wanted in place:
        in_object, index = text[position] == "{", 0
        position = _skip(text, position + 1)
        while True:
            key: str | int = index
            if in_object:
                key, position = decode(text, position)
                position = _skip(text, position)
            if key == wanted:
                break
            position = _skip(text, decode(text, position)[1])
            index += 1
    return text.count("\n", 0, position) + 1


def _skip(text: str, position: int) -> int:
    match = _BETWEEN.match(text, position)
    return match.end() if match else position
