"""Models that PyTorch fine-tuned and transformers saved: predictions equal those that PyTorch makes itself."""

import numpy as np
import pytest

from stilts_jax.evaluation.decode import DECODERS
from stilts_jax.evaluation.predict import predict
from stilts_jax.features.build import FeatureSettings, build_features
from stilts_jax.model import Compute, Model, load_encoder
from stilts_jax.tasks.spec import ChoiceExample, ClassifyExample, SpanExample, TagExample
from stilts_jax.tokenization import load_tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

CLASSES = {
    "classify": "XLMRobertaForSequenceClassification",
    "choice": "XLMRobertaForMultipleChoice",
    "tag": "XLMRobertaForTokenClassification",
    "span": "XLMRobertaForQuestionAnswering",
}
LENGTH = 64


@pytest.fixture(scope="module", params=sorted(CLASSES))
def saved(request, tmp_path_factory, tokenizer):
    """A kind, PyTorch's model, and the folder where transformers saved it with its tokenizer."""
    torch.manual_seed(1)
    config = transformers.XLMRobertaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=LENGTH + 2,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        num_labels=2 if request.param == "span" else 3,
        initializer_range=0.4,
    )
    model = getattr(transformers, CLASSES[request.param])(config).eval()
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return request.param, model, folder


@pytest.fixture(scope="module")
def examples(make_text):
    return {
        "classify": [ClassifyExample(str(s), make_text(s), make_text(s + 9)) for s in range(12)],
        "choice": [
            ChoiceExample(str(s), make_text(s, 1, 9), tuple(make_text(s + c, 1, 9) for c in (1, 2, 3)))
            for s in range(8)
        ],
        "tag": [TagExample(str(s), tuple(make_text(s, 1, 40).split())) for s in range(12)],
        "span": [SpanExample(str(s), make_text(s, 2, 5), make_text(s + 50, 3, 80)) for s in range(12)],
    }


def decode_theirs(kind, model, features, examples):
    """What PyTorch says, row by row; decoding is written out here."""
    tokens = features.columns["tokens"]
    with torch.no_grad():
        outputs = [
            model(
                torch.tensor(
                    tokens[row].reshape((1, 1, -1) if kind == "choice" else (1, -1)).astype(np.int64)
                )
            )
            for row in range(len(tokens))
        ]
    if kind == "classify":
        return [int(output.logits[0].argmax()) for output in outputs]
    if kind == "choice":
        scores = np.array([float(output.logits) for output in outputs]).reshape(-1, 3)
        return scores.argmax(axis=1).tolist()
    example = features.columns["example"]
    if kind == "tag":
        found = [[] for _ in examples]
        for row, output in enumerate(outputs):
            words = features.columns["word"][row]
            found[example[row]] += output.logits[0].argmax(-1).numpy()[words >= 0].tolist()
        return [tuple(tags) for tags in found]
    best = [(-np.inf, "")] * len(examples)
    for row, output in enumerate(outputs):
        start, end = output.start_logits[0].numpy(), output.end_logits[0].numpy()
        begins, ends = features.columns["char_start"][row], features.columns["char_end"][row]
        context = np.flatnonzero(begins >= 0)
        seen = np.flatnonzero(features.columns["max_context"][row])
        for s in sorted(seen, key=lambda place: -start[place])[:20]:
            for e in sorted(context, key=lambda place: -end[place])[:20]:
                text = examples[example[row]].context[begins[s] : ends[e]].strip()
                if s <= e < s + 30 and text and start[s] + end[e] > best[example[row]][0]:
                    best[example[row]] = (start[s] + end[e], text)
    return [text for _, text in best]


def test_predictions_equal_those_of_pytorch(saved, examples):
    kind, theirs, folder = saved
    loaded = load_encoder(folder)
    head = loaded.task_head
    assert head is not None and head.config.kind == kind
    model = Model(loaded.config, (("task", head.config),), Compute(matmul_precision="highest"))
    settings = FeatureSettings(max_length=LENGTH, max_query_length=12, stride=16)
    features = build_features(
        kind, {"xx": examples[kind]}, load_tokenizer(loaded.tokenizer_folder), settings, training=False
    )
    rows = predict(
        model,
        {"encoder": loaded.params, "head": head.params},
        features,
        head="task",
        tokens_per_batch=2048,
    )
    found = DECODERS[kind](rows, features, examples[kind])
    if kind == "span":
        assert len(features) > len(examples[kind])
        found = [answer.text for answer in found]
    expected = decode_theirs(kind, theirs, features, examples[kind])
    assert found == expected
    assert len(set(map(str, expected))) > 1
