"""A data root in a temporary folder."""

import gzip
import json

import pytest

from stilts_jax.tasks.sources.read import DataSource


@pytest.fixture
def source(tmp_path):
    return DataSource(tmp_path)


@pytest.fixture
def write(tmp_path):
    """Writes a file of the root: text and bytes as they are, an object as JSON, a list as JSON lines."""

    def write_file(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            content = json.dumps(content)
        elif isinstance(content, list):
            content = "".join(f"{json.dumps(row)}\n" for row in content)
        content = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return write_file
