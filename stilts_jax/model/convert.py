"""Which tensor of a transformers checkpoint is which array of ours, and nothing else."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stilts_jax.model.config import EncoderConfig, HeadConfig
from stilts_jax.model.encoder import Params

# Modules of ours by path -> modules of transformers. {} is the number of the layer.
_SHARED = {
    "embeddings/word": "embeddings.word_embeddings",
    "embeddings/position": "embeddings.position_embeddings",
    "embeddings/type": "embeddings.token_type_embeddings",
    "layers/attention/query": "encoder.layer.{}.attention.self.query",
    "layers/attention/key": "encoder.layer.{}.attention.self.key",
    "layers/attention/value": "encoder.layer.{}.attention.self.value",
    "layers/attention/output": "encoder.layer.{}.attention.output.dense",
    "layers/ffn/up": "encoder.layer.{}.intermediate.dense",
    "layers/ffn/down": "encoder.layer.{}.output.dense",
    "pooler": "pooler.dense",
}
_NORMS = {
    "xlm-roberta": {
        "embeddings/norm": "embeddings.LayerNorm",
        "layers/attention/norm": "encoder.layer.{}.attention.output.LayerNorm",
        "layers/ffn/norm": "encoder.layer.{}.output.LayerNorm",
    },
    "xlm-roberta-xl": {
        "layers/attention/norm": "encoder.layer.{}.attention.self_attn_layer_norm",
        "layers/ffn/norm": "encoder.layer.{}.LayerNorm",
        "final_norm": "encoder.LayerNorm",
    },
}
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}

ENCODER_PREFIX = "roberta."  # before the encoder's tensors wherever a head stands beside it
DECODER_TABLE = "lm_head.decoder.weight"  # the word embeddings once more
# Buffers that older versions saved, and tensors that repeat another one.
EXPECTED_UNUSED = (
    "embeddings.position_ids",
    "embeddings.token_type_ids",
    DECODER_TABLE,
    "lm_head.decoder.bias",
)

# Heads of ours -> transformers. ForMultipleChoice calls its dense layer the encoder's pooler.
_HEADS: dict[str, dict[str, str]] = {
    "classify": {"dense": "classifier.dense", "out": "classifier.out_proj"},
    "choice": {"dense": "roberta.pooler.dense", "out": "classifier"},
    "tag": {"out": "classifier"},
    "span": {"out": "qa_outputs"},
    "mlm": {"dense": "lm_head.dense", "norm": "lm_head.layer_norm"},
}
_CLASSES = {
    "classify": "ForSequenceClassification",
    "choice": "ForMultipleChoice",
    "tag": "ForTokenClassification",
    "span": "ForQuestionAnswering",
    "mlm": "ForMaskedLM",
}


@dataclass(frozen=True)
class Tensor:
    """One array of ours and where it lies there.

    Attributes:
        path: ours, such as ``layers/attention/query/kernel``.
        keys: there; one a layer where ``stacked``, else one.
        transposed: torch keeps a matrix as [out, in], we as [in, out].
        shape: ours.
    """

    path: str
    keys: tuple[str, ...]
    transposed: bool
    stacked: bool
    shape: tuple[int, ...]

    @property
    def their_shape(self) -> tuple[int, ...]:
        """The shape of each tensor there."""
        inner = self.shape[1:] if self.stacked else self.shape
        return inner[::-1] if self.transposed else inner


def encoder_tensors(config: EncoderConfig, shapes: Mapping[str, Any], prefix: str = "") -> list[Tensor]:
    """Returns every array of an encoder; ``shapes`` is its parameters, concrete or abstract."""
    modules = {**_SHARED, **_NORMS[config.family]}
    found = []
    for path, leaf in walk(shapes):
        if path in modules:
            name = f"{modules[path]}.weight"
        else:
            module, _, last = path.rpartition("/")
            name = f"{modules[module]}.{LEAVES[last]}"
        stacked = path.startswith("layers/")
        keys = tuple(prefix + name.format(layer) for layer in range(config.num_layers if stacked else 1))
        found.append(Tensor(path, keys, path.endswith("/kernel"), stacked, tuple(leaf.shape)))
    return found


def head_tensors(kind: str, shapes: Mapping[str, Any]) -> list[Tensor]:
    """Returns every array of a head of the transformers form."""
    found = []
    for path, leaf in walk(shapes):
        module, _, last = path.rpartition("/")
        name = f"{_HEADS[kind][module]}.{LEAVES[last]}" if module else f"lm_head.{last}"
        found.append(Tensor(path, (name,), path.endswith("/kernel"), False, tuple(leaf.shape)))
    return found


def architecture(config: EncoderConfig, head: HeadConfig | None) -> str:
    """Returns the name of the transformers class."""
    family = "XLMRoberta" if config.family == "xlm-roberta" else "XLMRobertaXL"
    return family + ("Model" if head is None else _CLASSES.get(head.kind, "Model"))


def walk(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every leaf of nested dicts with its path, such as ``embeddings/norm/scale``."""
    for name, value in tree.items():
        path = f"{above}/{name}" if above else name
        if isinstance(value, Mapping):
            yield from walk(value, path)
        else:
            yield path, value


def nest(leaves: Mapping[str, Any]) -> Params:
    """The inverse of ``walk``."""
    tree: Params = {}
    for path, value in leaves.items():
        *above, last = path.split("/")
        node = tree
        for name in above:
            node = node.setdefault(name, {})
        node[last] = value
    return tree
