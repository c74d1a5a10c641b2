"""Reads data sets of the Hugging Face hub from ``ROOT/hub/OWNER/NAME``, and fetches the files of single splits there.

The folder has the layout of the repository, or of the branch in which the hub keeps parquet files of all data sets: a
copy can be used as it is, and what ``datasets`` has written with ``save_to_disk``. Reading never asks the hub.
"""

import fnmatch
import functools
import importlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stilts_jax.errors import DataError, explain
from stilts_jax.tasks.sources.files import find_files
from stilts_jax.tasks.sources.rows import Opened, Problems, Row
from stilts_jax.tasks.spec import Source

# Of a split: train-00000-of-00002.parquet, or with a hash behind it.
_PART = re.compile(r"-(\d+)-of-(\d+)(?=[-.])")
_NAME_FIX = "check the name; where a data set asks for permission, set HF_TOKEN to a token that has it"
_BUSY_FIX = "wait some minutes, or set HF_TOKEN, which allows more requests; then type it again"
_FIXES = {401: _NAME_FIX, 403: _NAME_FIX, 404: _NAME_FIX, 429: _BUSY_FIX}  # by what the hub answers
_OTHER_FIX = "check the connection (and HF_HUB_OFFLINE, HF_ENDPOINT), and type it again: what is there stays"


class SourceFailure(DataError):
    """A whole data set can't be had (no such repository, no connection, a library missing), not just a part."""


def need(library: str, extra: str) -> Any:
    """Returns a library that an extra of this package installs."""
    try:
        return importlib.import_module(library)
    except ImportError as error:
        fix = f"pip install 'stilts-jax[{extra}]'"
        raise SourceFailure(f"this data needs {library}", where=str(error), fix=fix) from error


def list_causes(error: BaseException) -> list[BaseException]:
    """Returns an error and what led to it, which is the last."""
    causes = [error]
    while (before := causes[-1].__cause__ or causes[-1].__context__) and before not in causes:
        causes.append(before)
    return causes


def make_rows(records: Iterable[Mapping[str, Any]], features: Mapping[str, Any]) -> Iterator[Row]:
    """Yields rows with class names for the numbers of those columns that hold a class, or a list of classes."""
    kinds = {name: getattr(one, "feature", one) for name, one in features.items()}  # of a list, its items'
    classes = {name: one.names for name, one in kinds.items() if getattr(one, "names", None)}

    def name(names: Sequence[str], value: Any) -> Any:
        if isinstance(value, list):
            return [name(names, item) for item in value]
        # -1 is a class that is not known. A number without a name stays one, which is no label of the task.
        return None if value is None or value < 0 else names[value] if value < len(names) else value

    for number, fields in enumerate(records):
        named = {column: name(names, fields[column]) for column, names in classes.items() if column in fields}
        yield Row(number + 1, number, {**fields, **named}, strict=True)


def _patterns(config: str, split: str) -> list[str]:
    """Returns where a split is in a repository; the first pattern that finds anything holds."""
    places = f"{config}/{split}-* {config}/{split} {config}/{split}/* {config}/*-{split}"
    places += f" data/{split}-* {split}-*" if config == "default" else ""
    return [f"{place}.parquet" for place in places.split()]


def _unfinished(folder: Path, config: str, split: str) -> Path:
    """Returns a file that is there while a split is being fetched: its files may not be complete."""
    return folder / f".{config.replace('/', '-')}.{split}.unfinished"


def find(source: Source, split: str, language: str, root: Path) -> dict[str, tuple[Path, ...]]:
    """Returns the files of a split in a language; nothing if it is not there, or only in part."""
    config, name = source.names(split, language)
    folder = root / "hub" / source.name
    if not source.has(language) or _unfinished(folder, config, name).exists():
        return {}
    # The last ones are what save_to_disk writes; what `map` caches lies beside it.
    patterns = [*_patterns(config, name), *(f"{config}/{name}/{one}.arrow" for one in ("data-*", "dataset"))]
    paths = _take_whole(next(filter(None, (find_files(folder, pattern) for pattern in patterns)), ()))
    return {"": paths} if paths else {}


def _take_whole(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Returns a split's files less what is left of one that was published in other parts; nothing where parts lack."""
    groups: dict[str, list[Path]] = {}
    for path in paths:
        part = _PART.search(path.name)
        groups.setdefault(part[2] if part else "", []).append(path)
    whole = [group for total, group in groups.items() if not total or len(group) >= int(total)]
    if len(whole) > 1 or any(total and len(group) > int(total) for total, group in groups.items()):
        # Nobody knows which of them is meant.
        what = f"a split is here twice: {len(paths)} files, {paths[0].name} to {paths[-1].name}"
        raise DataError(what, where=str(paths[0].parent), fix="remove the files of one of them")
    return tuple(whole[0]) if whole else ()


def open_rows(source: Source, split: str, language: str, paths: Sequence[Path], problems: Problems) -> Opened:
    """Yields files, each with its rows; class labels are names."""
    datasets = need("datasets", "hub")
    import pyarrow.parquet  # which that has brought

    for path in paths:
        try:
            if path.suffix == ".parquet":
                table = pyarrow.parquet.ParquetFile(path).read()
            else:
                table = pyarrow.ipc.open_stream(path).read_all()
        except (OSError, pyarrow.ArrowException) as error:
            fix = "remove it and fetch it again: stilts prepare"
            raise DataError(f"the file can't be read: {error}", where=str(path), fix=fix) from error
        try:
            features = datasets.Features.from_arrow_schema(table.schema)
        except (ValueError, TypeError, KeyError) as error:  # a later version knows more of them
            fix = "pip install --upgrade datasets, or fetch it again: stilts prepare"
            raise DataError(f"its types can't be read: {error}", where=str(path), fix=fix) from error
        records = (fields for batch in table.to_batches(1000) for fields in batch.to_pylist())
        yield path, make_rows(records, features)


def fetch(source: Source, split: str, language: str, root: Path) -> None:
    """Downloads the files of a split in a language; a SourceFailure says that the repository can't be had at all."""
    from huggingface_hub import constants, snapshot_download

    config, name = source.names(split, language)
    folder = root / "hub" / source.name
    unfinished = _unfinished(folder, config, name)
    try:
        commit, files = _find_remote(source.name, config, name)
        folder.mkdir(parents=True, exist_ok=True)
        unfinished.touch()
        wanted: Any = {"revision": commit, "allow_patterns": files, "local_dir": folder}
        snapshot_download(source.name, repo_type="dataset", **wanted)
        for file in files:
            if not (folder / file).is_file():  # the client only warns where the hub does not answer
                raise OSError(f"{file} did not come")
    except Exception as error:  # the hub's client raises many kinds
        if explain(error):  # one of ours, or a full disk
            raise
        causes = list_causes(error)
        # Of errors of one answer the last is httpx's, whose first line says what was asked.
        answers = {getattr(getattr(one, "response", None), "status_code", 0): one for one in causes}
        # The last answer may be of what was asked before that one.
        known = max((answer for answer in answers if answer in _FIXES), default=0)
        reason = str(answers[known] if known else causes[-1]).strip().partition("\n")[0]
        fix = _FIXES.get(known, _OTHER_FIX)
        address = f"{constants.ENDPOINT}/datasets/{source.name}"
        raise SourceFailure(f"{source.name} can't be fetched: {reason}", where=address, fix=fix) from error
    unfinished.unlink(missing_ok=True)  # two processes may fetch the same


def _find_remote(repository: str, config: str, split: str) -> tuple[str, list[str]]:
    """Returns the commit and the names of a split's files on the hub, of its main or its converted branch."""
    from huggingface_hub import constants, errors

    seen: set[str] = set()
    # The second one holds parquet files of repositories of other files.
    for branch in ("main", "refs/convert/parquet"):
        with suppress(errors.RevisionNotFoundError):
            commit, listing = _list_remote(repository, branch)
            for pattern in _patterns(config, split):
                found = fnmatch.filter(listing, pattern)  # whose * may be several folders
                if files := sorted(one for one in found if one.count("/") == pattern.count("/")):
                    return commit, files
            seen |= {name.rpartition("/")[0] for name in listing if name.endswith(".parquet")}
    what = f"{repository} has no parquet files of split {split!r} in configuration {config!r}"
    there = f"parquet files are in {', '.join(sorted(seen)[:20]) or 'no folder'}"
    fix = "read the task from files, or from a copy of the repository that has them"
    raise DataError(what, where=f"{constants.ENDPOINT}/datasets/{repository}: {there}", fix=fix)


@functools.lru_cache(maxsize=64)  # an anonymous user may send few requests
def _list_remote(repository: str, branch: str) -> tuple[str, tuple[str, ...]]:
    """Returns the newest commit of a branch, and the names of its files."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

    url = f"{constants.ENDPOINT}/api/datasets/{repository}/revision/{quote(branch, safe='')}"
    response = http_backoff("GET", url, headers=build_hf_headers())  # waits as long as the hub asks for
    hf_raise_for_status(response)
    content = response.json()
    return content["sha"], tuple(file["rfilename"] for file in content["siblings"])
