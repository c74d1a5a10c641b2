import pytest

from stilts_jax.bench import filling
from stilts_jax.data.features import FeatureSettings, build_features
from stilts_jax.tasks.spec import ClassifyExample, SpanExample


def test_the_plain_loop_does_the_same_work(tokenizer, lines):
    pairs = [ClassifyExample("", a, b, 1) for a, b in zip(lines, reversed(lines))]
    settings = FeatureSettings(20, 500, 10_000)
    features = build_features("classify", {"en": pairs}, tokenizer, settings, training=True)
    loop = filling._loop_over_pairs(tokenizer.copy_fast(), pairs, settings)
    assert [features.columns["tokens"][row].tolist() for row in range(len(features))] == [
        ids for ids, _ in loop
    ]

    asked = [
        SpanExample("", line, context, ((context[5:12], 5),))
        for line, context in zip(lines, [*lines[1:], lines[0]])
        if len(context) > 12
    ]
    settings = FeatureSettings(1000, 500, 1)
    features = build_features("span", {"en": asked}, tokenizer, settings, training=True)
    loop = filling._loop_over_questions(tokenizer.copy_fast(), asked, settings)
    assert len(loop) == len(features)
    for row, (ids, _, last) in enumerate(loop):
        assert features.columns["tokens"][row].tolist() == ids
        assert features.columns["end"][row] == last


@pytest.mark.real
@pytest.mark.parametrize(
    ("task", "least"), [("mnli", 0.70), ("squad_v1", 0.85), ("udpos", 0.60), ("panx", 0.60)]
)
def test_few_computed_tokens_are_padding(task, least, real_root, real_tokenizer):
    from stilts_jax.data.sources import DataSource

    found = filling.measure_filling(task, real_tokenizer, DataSource(real_root))
    assert found.share >= least and found.shapes <= 8
