import pytest

from stilts_jax.report.figures import Block, Figures


@pytest.fixture
def figures():
    """What a test asks for that needs drawings."""


@pytest.fixture(autouse=True)
def no_figures(request, monkeypatch):
    """Drawing takes longer than all the rest of a small report."""
    if "figures" not in request.fixturenames:
        monkeypatch.setattr(Figures, "draw", lambda self, name, title, *_, **__: Block("chart", title, ""))
