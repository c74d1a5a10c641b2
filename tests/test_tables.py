"""A kind of task is a column through four tables, and a metric a row of one: they have to agree."""

import jax

from stilts_jax.evaluation.decode import DECODERS
from stilts_jax.evaluation.metrics import MAIN_VALUES, METRICS
from stilts_jax.features.build import FEATURIZERS
from stilts_jax.model import SHAPES, HeadConfig, abstract_encoder, init_head
from stilts_jax.tasks import get_task, list_tasks
from stilts_jax.tasks.spec import KINDS
from stilts_jax.train.losses import LOSSES


def test_the_four_tables_have_the_same_kinds():
    assert set(FEATURIZERS) == set(LOSSES) == set(DECODERS) == set(KINDS)


def test_every_kind_has_a_head():
    for kind in KINDS:
        labels = 3 if kind in ("classify", "tag") else 0
        jax.eval_shape(
            lambda key, kind=kind, n=labels: init_head(
                HeadConfig(kind=kind, num_labels=n), SHAPES["tiny"], key
            ),
            jax.random.key(0),
        )
    assert abstract_encoder(SHAPES["tiny"])["layers"]


def test_every_task_has_a_metric_with_a_main_value():
    assert set(METRICS) == set(MAIN_VALUES)
    for name in list_tasks():
        task = get_task(name)
        assert task.metric in METRICS, name
        assert task.kind in KINDS


def test_tasks_train_on_tasks_that_exist():
    for name in list_tasks():
        for step in get_task(name).train_on:
            assert get_task(step).kind == get_task(name).kind
