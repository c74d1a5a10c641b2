"""NLVR2: is a sentence true of two photographs? They lie in ``nlvr2/images``: ``train/NN``, ``dev`` and ``test1``."""

from stilts_jax.tasks.sources.readers import read_jsonl
from stilts_jax.tasks.sources.rows import Row
from stilts_jax.tasks.spec import ClassifyExample, Hyperparameters, Task, files

_PATHS = "nlvr2/{split}.json nlvr2/data/{split}.json"


def _convert(row: Row, labels: tuple[str, ...]) -> ClassifyExample:
    stem = row["identifier"].rpartition("-")[0]  # the last number counts sentences of a pair of pictures
    below = f"/{row.id('directory')}" if "directory" in row.fields else ""
    folder = f"nlvr2/images/{stem.partition('-')[0]}{below}"
    pictures = tuple(f"{folder}/{stem}-img{side}.png" for side in (0, 1))
    return ClassifyExample(row["identifier"], row["sentence"], None, row.label("label", labels), pictures)


TASK = Task(
    name="nlvr2",
    title="NLVR2",
    kind="classify",
    group="intermediate",
    reported="test",
    labels=("False", "True"),
    pictures="seen",
    hyperparameters={"paper": Hyperparameters(1e-5, 64, 20, max_length=80)},  # IGLUE's
    counts={"train": 86_373, "dev": 6_982, "test": 6_967},
    sources=(files(_PATHS, _convert, "train dev test:test1", read=read_jsonl),),
)
