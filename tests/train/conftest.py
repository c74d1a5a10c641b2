import pytest

from tests.train import tiny_world


@pytest.fixture(scope="session")
def tiny():
    """A model of a few dozen numbers, its batches and a run of it."""
    return tiny_world
