"""The ``stilts`` command with an object store of its own: ``gs://NAME/...`` lies below $BUCKET_ROOT/NAME.

Paths are what they would be on a real one: ``etils.epath`` with its backend for ``fsspec``. Only two things are
exchanged: the file system that fsspec knows as ``gcs``, and what orbax asks Google for by itself.
"""

import os
import sys
from typing import Any

import fsspec
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from orbax.checkpoint._src.path import gcs_utils

ROOT = os.environ["BUCKET_ROOT"]
SCHEME = "gs://"


class Buckets(DirFileSystem):
    """Has folders only where it has objects, as far as a caller can tell."""

    protocol = ("gs", "gcs")

    def __init__(self, **_: Any) -> None:
        super().__init__(path=ROOT, fs=LocalFileSystem(auto_mkdir=True))

    def _join(self, path: Any) -> Any:
        return super()._join(path.removeprefix(SCHEME) if isinstance(path, str) else path)


def _arrays_of(path: str) -> dict[str, str]:
    return {"driver": "file", "path": f"{ROOT}/{os.fspath(path).removeprefix(SCHEME)}"}


if __name__ == "__main__":
    for name in Buckets.protocol:
        fsspec.register_implementation(name, Buckets, clobber=True)
    gcs_utils.get_kvstore_for_gcs = _arrays_of
    gcs_utils.is_hierarchical_namespace_enabled = lambda path: False
    from stilts_jax.main import main

    sys.exit(main())
