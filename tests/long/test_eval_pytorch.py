"""`stilts eval FOLDER`: what PyTorch fine-tuned predicts here what it predicts there, its labels in whatever order."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from stilts_jax.experiment.models import fit_head
from stilts_jax.experiment.results import PhaseScores
from stilts_jax.main import main
from stilts_jax.model import HeadConfig, TaskHead
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.read import DataSource, read_examples

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

CLASSES = {
    "xnli": "XLMRobertaForSequenceClassification",
    "udpos": "XLMRobertaForTokenClassification",
    "panx": "XLMRobertaForTokenClassification",
    "xquad": "XLMRobertaForQuestionAnswering",
    "tatoeba": "XLMRobertaForMaskedLM",
}
SPELLED = {"contradiction": "Contradictory", "neutral": "NEUTRAL"}  # as other people's folders do
LANGUAGE = "tr"


@pytest.fixture(scope="module")
def save(world, tmp_path_factory):
    """Makes a folder of one task's class with these names of labels (None: transformers' own), and its model."""
    made = {}

    def make(task, names=None, outputs=0):
        key = (task, names, outputs)
        if key in made:
            return made[key]
        torch.manual_seed(1)
        tokenizer = transformers.AutoTokenizer.from_pretrained(world / "encoder")
        outputs = outputs or len(get_task(task).labels) or 2
        shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
        shape |= {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
        shape |= {"vocab_size": len(tokenizer), "num_labels": outputs, "initializer_range": 0.4}
        config = transformers.XLMRobertaConfig(**shape)
        model = getattr(transformers, CLASSES[task])(config).eval()
        if names:
            # The same model whatever the order of its labels: rows of the output move with their names.
            places = [get_task(task).labels.index(name) for name in names]
            out = getattr(model.classifier, "out_proj", model.classifier)
            out.weight.data, out.bias.data = out.weight.data[places], out.bias.data[places]
            model.config.id2label = {index: SPELLED.get(name, name) for index, name in enumerate(names)}
            model.config.label2id = {name: index for index, name in model.config.id2label.items()}
        folder = tmp_path_factory.mktemp(task) / "folder"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        made[key] = (folder, model, tokenizer)
        return made[key]

    return make


@pytest.fixture
def evaluate(world, tmp_path, capsys):
    """Types the command; returns its exit code, what it said and OUT."""

    def run(folder, task, *options):
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        command = ["eval", str(folder), f"--task={task}", f"--data_root={world / 'data'}", f"--out={out}"]
        code = main([*command, f"--config.experiment.languages={LANGUAGE}", *options])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out + said.err, out

    return run


def predict_in_torch(task, world, model, tokenizer):
    """What transformers says itself, one example at a time: names of labels, tags, answers, choices or indices."""

    def logits(*texts, **options):
        rows = tokenizer(*texts, return_tensors="pt", **options)
        with torch.no_grad():
            return model(**rows), rows

    found = []
    for example in read_examples(get_task(task), "test", LANGUAGE, DataSource(root=world / "data")):
        if task == "xnli":
            output, _ = logits(example.text, example.pair)
            found.append(model.config.id2label[int(output.logits.argmax())])
        elif task == "xquad":
            rows = tokenizer(example.question, example.context, return_offsets_mapping=True)
            output, _ = logits(example.question, example.context)
            start, end = output.start_logits[0].numpy(), output.end_logits[0].numpy()
            context = [place for place, owner in enumerate(rows.sequence_ids()) if owner == 1]
            best = (-np.inf, "")
            for s in sorted(context, key=lambda place: -start[place])[:20]:
                for e in sorted(context, key=lambda place: -end[place])[:20]:
                    text = example.context[rows.offset_mapping[s][0] : rows.offset_mapping[e][1]].strip()
                    if s <= e < s + 30 and text and start[s] + end[e] > best[0]:
                        best = (start[s] + end[e], text)
            found.append((example.id, best[1]))
        else:
            output, rows = logits(list(example.words), is_split_into_words=True)
            owners = rows.word_ids()
            first = [owners.index(word) for word in range(len(example.words))]
            found.append([model.config.id2label[int(output.logits[0, place].argmax())] for place in first])
    return found


def read_back(task, out):
    folder = out / "predictions" / task
    if task == "xquad":
        return list(json.loads((folder / f"test-{LANGUAGE}.json").read_text()).items())
    text = (folder / f"test-{LANGUAGE}.tsv").read_text()
    if task in ("udpos", "panx"):
        return [sentence.split("\n") for sentence in text.strip().split("\n\n")]
    return text.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["udpos", "xnli", "xquad"])
def test_predictions_are_those_of_pytorch_whatever_the_order_of_labels(task, save, evaluate, world):
    labels = get_task(task).labels
    orders = (labels, (labels[-1], *labels[:-1])) if labels else (None,)
    scores = []
    for order in orders:
        folder, model, tokenizer = save(task, order)
        code, said, out = evaluate(folder, task)
        assert code == 0, said
        assert "float32" in said
        expected = predict_in_torch(task, world, model, tokenizer)
        ours = {SPELLED.get(label, label): label for label in labels}
        if task == "xnli":
            expected = [ours[label] for label in expected]
        assert read_back(task, out) == expected
        assert len(set(map(str, expected))) > 1
        scores.append(json.loads((out / "scores.json").read_text())["scores"])
    assert all(one == scores[0] for one in scores)


def test_labels_without_names_are_refused_until_their_order_is_said(save, evaluate):
    folder, _, _ = save("xnli")
    code, said, _ = evaluate(folder, "xnli")
    assert code == 2 and "contradiction, entailment, neutral" in said and "--labels=" in said
    code, _, out = evaluate(folder, "xnli", "--labels=contradiction,entailment,neutral")
    named = evaluate(save("xnli", get_task("xnli").labels)[0], "xnli")[2]
    assert code == 0 and read_back("xnli", out) == read_back("xnli", named)


def test_outputs_of_arrays_on_a_device_are_put_in_order_too():
    """As those of a phase are, whose head was trained with its labels in another order."""
    out = {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.arange(3.0)}
    head = TaskHead(HeadConfig(kind="classify", num_labels=3), {"out": out}, NLI[::-1])
    fitted = fit_head(get_task("xnli"), "xnli", head)
    assert fitted.labels == NLI and fitted.params["out"]["bias"].tolist() == [2, 1, 0]
    assert fitted.params["out"]["kernel"].tolist() == [[2, 1, 0], [5, 4, 3]]


def test_what_is_said_at_the_end_is_so(save, evaluate):
    code, said, _ = evaluate(save("tatoeba")[0], "tatoeba", "--config.evaluation.limit=2")
    assert code == 0 and "the first 2" not in said  # pools stay whole
    code, said, _ = evaluate(save("xnli", NLI)[0], "xnli+tatoeba", "--config.evaluation.limit=2")
    assert code == 0 and "predictions of xnli are of the first 2" in said
    blank = PhaseScores(scores={"a": {}}, reported_split={"a": "test"}, main_metric={"a": ["accuracy"]})
    assert blank.summary() == "nothing was scored" and PhaseScores().summary() == "trained"


NLI = get_task("xnli").labels
OTHER_ORDER = ",".join(NLI[::-1])
REFUSED = {
    "two labels for three": ("xnli", {"outputs": 2}, "xnli", (), ("2 labels", "contradiction")),
    "labels that are none": ("xnli", {}, "xnli", ("--labels=a,b,c",), ("a, b, c", "neutral")),
    "too few labels": ("xnli", {}, "xnli", ("--labels=a,b",), ("has a, b;", "--labels=contradiction")),
    "labels that are named": (
        "xnli",
        {"names": NLI},
        "xnli",
        (f"--labels={OTHER_ORDER}",),
        ("leave --labels",),
    ),
    "labels where no task has any": ("tatoeba", {}, "tatoeba", ("--labels=a,b",), ("None of the tasks",)),
    "labels of another task": ("panx", {}, "udpos", (), ("7 labels", "17", "ADJ")),
    "tags where answers are asked for": ("panx", {}, "xquad", (), ("tag", "span", "xquad")),
    "answers where a choice is": ("xquad", {}, "xcopa", (), ("span", "choice")),
    "no head at all": ("tatoeba", {}, "xnli", (), ("xnli", "none")),
    "a head that is not there": ("xnli", {}, "xnli", ("--head=mnli",), ("mnli", "classify")),
    "a head that retrieval does not read": ("xnli", {}, "tatoeba", ("--head=mnli",), ("mnli", "classify")),
    "a head of another kind": ("panx", {}, "xnli", ("--head=tag",), ("tag", "classify")),
    "no score": ("tatoeba", {}, "mlm", (), ("mlm", "another task")),
    "no data": ("xnli", {}, "mlqa", (), ("mlqa", "stilts tasks mlqa")),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_a_model_that_cannot_do_the_task_is_refused(case, save, evaluate):
    made_for, changes, task, options, words = REFUSED[case]
    code, said, out = evaluate(save(made_for, **changes)[0], task, *options)
    assert code in (1, 2)
    for word in words:
        assert word in said, said
    assert not (out / "predictions").exists()
