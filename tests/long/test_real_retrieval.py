"""Retrieval by the real encoder folder that STILTS_REAL_ENCODER names, on real Tatoeba sentences."""

import os

import numpy as np
import pytest

from stilts_jax.evaluation.retrieval import Embedder
from stilts_jax.evaluation.search import find_neighbours, normalise
from stilts_jax.experiment.models import open_model
from stilts_jax.model import Model
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.read import DataSource, read_retrieval

pytestmark = [pytest.mark.real, pytest.mark.slow]


def test_swahili_finds_english_as_often_as_with_pytorch(real_root):
    """PyTorch's XLMRobertaModel, mean over the last layer's tokens, cosine in numpy: .764 of 390 sentences."""
    if not os.environ.get("STILTS_REAL_ENCODER"):
        pytest.skip("no real encoder")
    opened = open_model(os.environ["STILTS_REAL_ENCODER"])
    parts = Model(opened.config, ()), {"encoder": opened.params}, opened.tokenizer
    embed = Embedder(*parts, layer=12, tokens_per_batch=2048)
    pairs = read_retrieval(get_task("tatoeba"), "test", "sw", DataSource(real_root))
    english = normalise(embed([sentence.text for sentence in pairs.queries]))
    swahili = normalise(embed([sentence.text for sentence in pairs.candidates]))
    numbers = {sentence.id: number for number, sentence in enumerate(pairs.candidates)}
    gold = np.array([numbers[pairs.gold[sentence.id][0]] for sentence in pairs.queries])
    # XTREME asks the other way round, which is why a report says 81.3.
    found = find_neighbours(swahili, english, 1)[0].index[:, 0]
    assert np.mean(found[gold] == np.arange(len(gold))) == pytest.approx(0.764, abs=1.5 / len(gold))
