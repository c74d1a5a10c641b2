"""A kind of task is a column through four tables, and a metric a row of one: they have to agree."""

from stilts_jax.evaluation.evaluate import DECODERS
from stilts_jax.features.build import FEATURIZERS
from stilts_jax.tasks.spec import KINDS
from stilts_jax.train.losses import LOSSES


def test_the_four_tables_have_the_same_kinds():
    assert set(FEATURIZERS) == set(LOSSES) == set(DECODERS) == set(KINDS)
