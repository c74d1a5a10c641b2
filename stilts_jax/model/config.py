"""What an encoder and its heads are, and how they are computed: records that hash, so that `jit` can key on them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar, Literal, get_args

from stilts_jax.errors import ConfigError, EncoderError, nearest
from stilts_jax.settings import COUNT, POSITIVE, Checked, Compute, HeadForm, Range

Family = Literal["xlm-roberta", "xlm-roberta-xl"]
HeadKind = Literal["classify", "choice", "tag", "span", "embed", "mlm"]
Pooling = Literal["mean", "pooler"]

# Ours -> the key in a transformers config.json. Those without a default there are never guessed: transformers'
# own class defaults are not XLM-R's (30,522 words, 512 positions, 2 types, epsilon 1e-12).
_TRANSFORMERS_KEYS = {
    "family": "model_type",
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "type_vocab_size": "type_vocab_size",
    "layer_norm_eps": "layer_norm_eps",
    "pad_id": "pad_token_id",
    "hidden_dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}
_TRANSFORMERS_DEFAULTS = {
    "pad_token_id": 1,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}
# What the encoder computes and a config.json might ask to be otherwise.
_FIXED = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
    "pad_token_id": 1,  # batches are padded with it, and positions of tokens are counted from it
}


DROPOUT = Range(0.0, 0.999999)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(Checked):
    """The shape of an encoder.

        >>> import stilts_jax as sj
        >>> shape = {"hidden_size": 64, "num_layers": 2, "num_heads": 4, "intermediate_size": 256}
        >>> sj.EncoderConfig(vocab_size=1000, **shape).max_length
        512

    Attributes:
        family: "xlm-roberta" normalises after each block, "xlm-roberta-xl" before it and once at the end.
        max_positions: rows of the position table; sequences are at most ``max_positions - pad_id - 1`` long.
        pad_id: the token that is not attended to; positions of tokens start one above it.
    """

    group: ClassVar[str] = "encoder."
    family: Family = "xlm-roberta"
    vocab_size: Annotated[int, POSITIVE]
    hidden_size: Annotated[int, POSITIVE]
    num_layers: Annotated[int, POSITIVE]
    num_heads: Annotated[int, POSITIVE]
    intermediate_size: Annotated[int, POSITIVE]
    max_positions: Annotated[int, POSITIVE] = 514
    type_vocab_size: Annotated[int, POSITIVE] = 1
    layer_norm_eps: Annotated[float, Range(1e-30, 1.0)] = 1e-5
    pad_id: Annotated[int, COUNT] = 1
    hidden_dropout: Annotated[float, DROPOUT] = 0.1
    attention_dropout: Annotated[float, DROPOUT] = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size % self.num_heads:
            raise ConfigError(
                f"{self.num_heads} heads do not divide a hidden size of {self.hidden_size}.",
                where="encoder.num_heads",
                fix="take a number of heads that divides hidden_size",
            )
        if not 0 <= self.pad_id < self.vocab_size:
            raise ConfigError(
                f"pad_id {self.pad_id} is not in a vocabulary of {self.vocab_size}.", where="encoder.pad_id"
            )
        if self.max_length < 1:
            raise ConfigError(
                f"{self.max_positions} positions leave no room for a token.",
                where="encoder.max_positions",
                fix=f"positions start at pad_id + 1 = {self.pad_id + 1}; XLM-R has 514 rows for 512 tokens",
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def max_length(self) -> int:
        """Most tokens of a sequence, specials included."""
        return self.max_positions - self.pad_id - 1

    def training_flops(self, length: int = 0) -> float:
        """Returns multiply-adds, times two, of forward and backward pass of the layers for one token.

        Embeddings, heads and recomputation do not count.

        Args:
            length: tokens that a token attends to; 0 leaves the attention's products out.
        """
        dense = 2 * (4 * self.hidden_size**2 + 2 * self.hidden_size * self.intermediate_size)
        return 3.0 * self.num_layers * (dense + 4 * length * self.hidden_size)

    @property
    def post_norm(self) -> bool:
        """Whether a block's sum is normalised (XLM-R) or its input (XL, XXL)."""
        return self.family == "xlm-roberta"

    @classmethod
    def from_transformers(cls, values: Mapping[str, Any], *, where: str = "config.json") -> "EncoderConfig":
        """Reads a ``config.json`` of transformers; raises where it describes another architecture."""
        family = values.get("model_type")
        if family not in get_args(Family):
            raise EncoderError(
                f"This is a {family!r} model.",
                where=f"{where}: model_type",
                fix=f"take an encoder of one of the families {', '.join(get_args(Family))}",
            )
        for key, fixed in _FIXED.items():
            if values.get(key, fixed) != fixed:
                raise EncoderError(
                    f"{key} is {values[key]!r}; the encoder here computes {key}={fixed!r}.",
                    where=f"{where}: {key}",
                    fix="take an encoder that XLM-R's own code was made for; this one can't be computed here",
                )
        found = {**_TRANSFORMERS_DEFAULTS, **values}
        missing = sorted(key for key in _TRANSFORMERS_KEYS.values() if found.get(key) is None)
        if missing:
            raise EncoderError(
                f"The configuration lacks {', '.join(missing)}.",
                where=where,
                fix="take the config.json that came with the weights; these values are not guessed",
            )
        try:
            return cls(**{ours: found[key] for ours, key in _TRANSFORMERS_KEYS.items()})
        except (ConfigError, TypeError) as error:
            raise EncoderError(
                f"The configuration makes no sense: {error}",
                where=where,
                fix="take the config.json that came with the weights",
            ) from error

    def to_transformers(self) -> dict[str, Any]:
        """Returns what a ``config.json`` of transformers says about this shape."""
        ours = asdict(self)
        return {
            **{key: ours[name] for name, key in _TRANSFORMERS_KEYS.items()},
            "hidden_act": "gelu",
            "initializer_range": 0.02,
            "bos_token_id": 0,
            "eos_token_id": 2,
        }


@dataclass(frozen=True, kw_only=True)
class HeadConfig(Checked):
    """What reads the encoder for one kind of task.

        >>> import stilts_jax as sj
        >>> sj.HeadConfig(kind="classify", num_labels=3).form
        'transformers'

    Attributes:
        num_labels: width of the output (classify, tag).
        form: "transformers" has the structure of its ForSequenceClassification and ForMultipleChoice;
            "jiant" is the paper authors': the encoder's own pooler first, then dense, tanh, out.
        init: "transformers" draws from normal(0, 0.02) with zero biases; "jiant" draws kernels and biases
            uniformly from +-1/sqrt(fan in).
        pooling: of an embed head: "mean" over all tokens without parameters, or "pooler" (dense, tanh on
            ``<s>``) with a learned scale, for dual encoders.
        layer: which hidden state an embed head pools (0 is the embeddings); None is the last.
        patches: of a picture that the head looks at (classify, mlm); 0: it looks at none.
        patch_width: numbers of a patch.
        pictures: that a row has at most.
    """

    group: ClassVar[str] = "head."
    kind: HeadKind
    num_labels: Annotated[int, COUNT] = 0
    form: HeadForm = "transformers"
    init: HeadForm = "transformers"
    dropout: Annotated[float, DROPOUT] = 0.1
    pooling: Pooling = "mean"
    layer: int | None = None
    patches: Annotated[int, COUNT] = 0
    patch_width: Annotated[int, COUNT] = 0
    pictures: Annotated[int, POSITIVE] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patches and (self.kind not in ("classify", "mlm") or not self.patch_width):
            raise ConfigError(
                f"A {self.kind} head with patches of {self.patch_width} numbers can't look at pictures.",
                where="head.patches",
                fix="give classify or mlm heads patches and patch_width, others none",
            )
        if self.kind in ("classify", "tag") and self.num_labels < 1:
            raise ConfigError(
                f"A {self.kind} head needs labels, num_labels is {self.num_labels}.", where="head.num_labels"
            )
        if self.layer is not None and (self.kind != "embed" or self.layer < 0):
            raise ConfigError(
                f"layer={self.layer} on a {self.kind} head.",
                where="head.layer",
                fix="only embed heads read another layer than the last; layers count from 0, the embeddings",
            )

    @property
    def uses_encoder_pooler(self) -> bool:
        """Whether the head reads ``encoder/pooler``."""
        return self.form == "jiant" and self.kind in ("classify", "choice")


@dataclass(frozen=True)
class Model:
    """An encoder with its heads by name; hashable, so that a jitted function can take it as static.

    >>> import stilts_jax as sj
    >>> model = sj.Model(sj.SHAPES["base"], (("nli", sj.HeadConfig(kind="classify", num_labels=3)),))
    >>> model.head("nli").num_labels
    3
    """

    encoder: EncoderConfig
    heads: tuple[tuple[str, HeadConfig], ...] = ()
    compute: Compute = field(default_factory=Compute)

    def __post_init__(self) -> None:
        names = [name for name, _ in self.heads]
        if len(set(names)) < len(names):
            raise ConfigError(f"Two heads have one name: {', '.join(names)}.", where="model.heads")
        for name, head in self.heads:
            if head.layer is not None and head.layer > self.encoder.num_layers:
                raise ConfigError(
                    f"Layer {head.layer} of an encoder of {self.encoder.num_layers} layers.",
                    where=f"model.heads.{name}.layer",
                    fix=f"take one from 0, the embeddings, to {self.encoder.num_layers}",
                )

    def head(self, name: str) -> HeadConfig:
        """Returns the head called ``name``."""
        heads = dict(self.heads)
        if name not in heads:
            raise ConfigError(
                f"The model has no head {name!r}.", where="model.heads", fix=nearest(name, heads)
            )
        return heads[name]


# Shapes by name. "tiny" is for tests; "e5-small" is multilingual-e5-small's.
SHAPES: dict[str, EncoderConfig] = {
    "tiny": EncoderConfig(
        vocab_size=320, hidden_size=32, num_layers=2, num_heads=4, intermediate_size=64, max_positions=130
    ),
    "e5-small": EncoderConfig(
        vocab_size=250002,
        hidden_size=384,
        num_layers=12,
        num_heads=12,
        intermediate_size=1536,
        layer_norm_eps=1e-12,
    ),
    "base": EncoderConfig(
        vocab_size=250002, hidden_size=768, num_layers=12, num_heads=12, intermediate_size=3072
    ),
    "large": EncoderConfig(
        vocab_size=250002, hidden_size=1024, num_layers=24, num_heads=16, intermediate_size=4096
    ),
    "xl": EncoderConfig(
        family="xlm-roberta-xl",
        vocab_size=250880,
        hidden_size=2560,
        num_layers=36,
        num_heads=32,
        intermediate_size=10240,
    ),
    "xxl": EncoderConfig(
        family="xlm-roberta-xl",
        vocab_size=250880,
        hidden_size=4096,
        num_layers=48,
        num_heads=32,
        intermediate_size=16384,
    ),
}
