"""What a device decided in a phase stays with the phase, until it runs on another device; what chance is."""

import io
from types import SimpleNamespace

import jax
import pytest

from stilts_jax import automatic
from stilts_jax.automatic import Device
from stilts_jax.experiment.context import Part
from stilts_jax.experiment.train import CHOICES, choose, is_collapsed
from stilts_jax.model import SHAPES
from stilts_jax.progress import Progress
from stilts_jax.settings import MeshConfig, Settings, TrainSettings
from stilts_jax.sharding import make_mesh
from stilts_jax.tasks.spec import Hyperparameters

PART = Part(SimpleNamespace(kind="classify"), "train", ("en",), Hyperparameters())


class Rows(bytes):
    visual_tokens = 0


@pytest.fixture
def decide(tmp_path, monkeypatch):
    """Chooses for a phase in one folder, on a device of a name; returns the choices and what was said."""

    def decide(device: Device, **train):
        monkeypatch.setattr(automatic, "this_device", lambda count: device)
        context = SimpleNamespace(
            settings=Settings(train=TrainSettings(**train)),
            mesh=make_mesh(MeshConfig(), jax.devices()[:1]),
            folder=lambda phase: tmp_path,
            progress=Progress(heard := io.StringIO()),
            is_main=True,
        )
        return choose(None, context, [(PART, Rows(10**6))], SHAPES["large"]), heard.getvalue()

    return decide


def test_choices_stay_with_the_phase_but_where_an_option_overrides(decide, monkeypatch, tmp_path):
    first, said = decide(Device("cpu"))
    assert (first.remat, first.accumulation) == ("none", 2) and "1 x cpu" in said
    assert decide(Device("cpu"), accumulation=4)[0].accumulation == 4
    (tmp_path / CHOICES).write_text("no")  # damage is chosen again
    assert decide(Device("cpu"))[0] == first
    # A later version would choose otherwise.
    monkeypatch.setattr(automatic, "_WIDE", 10**6)
    assert decide(Device("cpu"))[0] == first
    other, said = decide(Device("TPU v5 lite", memory=16 * 10**9))
    assert other.remat != "none" and "chosen anew" in said and "1 x TPU v5 lite" in said


def test_a_single_task_counts_with_all_its_rows(decide, monkeypatch):
    heard, whole = [], automatic.decide
    monkeypatch.setattr(automatic, "decide", lambda *given: heard.append(given[-1]) or whole(*given))
    decide(Device("cpu"))
    assert heard == [2 * 10**6 // 32]


def test_chance_has_a_margin_that_shrinks_with_the_examples():
    # The standard error of 500 guesses among three is 2.1 points.
    assert is_collapsed(33.3, 33.3, 500) and is_collapsed(37.0, 33.3, 500)
    assert not is_collapsed(38.0, 33.3, 500) and not is_collapsed(37.0, 33.3, 5000)
    assert not is_collapsed(0.1, 0.0, 100)  # a span at chance scores nothing at all
    assert is_collapsed(0.0, 0.0, 100)
