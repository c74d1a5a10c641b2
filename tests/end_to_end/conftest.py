from pathlib import Path

import pytest

from stilts_jax.toy.world import write_world


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """The smallest toy world."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, size="test")
    return folder
