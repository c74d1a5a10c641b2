import pytest

from stilts_jax.report.figures import Block, Figures


@pytest.fixture
def without_figures(monkeypatch):
    """Drawing takes longer than all the rest of a small report."""
    monkeypatch.setattr(Figures, "draw", lambda self, name, title, *_, **__: Block("chart", title, ""))
