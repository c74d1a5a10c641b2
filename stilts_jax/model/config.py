"""What an encoder and its heads are, and how they are computed: records that hash, so that `jit` can key on them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from stilts_jax.errors import ConfigError, EncoderError, nearest

Family = Literal["xlm-roberta", "xlm-roberta-xl"]
HeadKind = Literal["classify", "choice", "tag", "span", "embed", "mlm"]
HeadForm = Literal["transformers", "jiant"]
Pooling = Literal["mean", "pooler"]
Remat = Literal["none", "attention", "dots", "full"]
Attention = Literal["auto", "xla", "cudnn", "splash", "splash-interpret"]
FloatName = Literal["float32", "bfloat16", "float64"]

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


def _one_of(where: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{value!r} is not known here.", where=where, fix=nearest(str(value), known))


def _probability(where: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ConfigError(
            f"A dropout rate of {value}.", where=where, fix="take one from 0 up to, not including, 1"
        )


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The shape of an encoder.

    Attributes:
        family: "xlm-roberta" normalises after each block, "xlm-roberta-xl" before it and once at the end.
        max_positions: rows of the position table; sequences are at most ``max_positions - pad_id - 1`` long.
        pad_id: the token that is not attended to; positions of tokens start one above it.
    """

    family: Family = "xlm-roberta"
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    max_positions: int = 514
    type_vocab_size: int = 1
    layer_norm_eps: float = 1e-5
    pad_id: int = 1
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1

    def __post_init__(self) -> None:
        _one_of("encoder.family", self.family, get_args(Family))
        for name in (
            "vocab_size",
            "hidden_size",
            "num_layers",
            "num_heads",
            "intermediate_size",
            "type_vocab_size",
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
                raise ConfigError(
                    f"{name} is {value!r}.", where=f"encoder.{name}", fix="give a whole number above 0"
                )
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
        if not self.layer_norm_eps > 0:
            raise ConfigError(f"layer_norm_eps is {self.layer_norm_eps}.", where="encoder.layer_norm_eps")
        for name in ("hidden_dropout", "attention_dropout"):
            _probability(f"encoder.{name}", getattr(self, name))

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
class HeadConfig:
    """What reads the encoder for one kind of task.

    Attributes:
        num_labels: width of the output (classify, tag).
        form: "transformers" has the structure of its ForSequenceClassification and ForMultipleChoice;
            "jiant" is the paper authors': the encoder's own pooler first, then dense, tanh, out.
        init: "transformers" draws from normal(0, 0.02) with zero biases; "jiant" draws kernels and biases
            uniformly from +-1/sqrt(fan in).
        pooling: of an embed head: "mean" over all tokens without parameters, or "pooler" (dense, tanh on
            ``<s>``) with a learned scale, for dual encoders.
        layer: which hidden state an embed head pools (0 is the embeddings); None is the last.
    """

    kind: HeadKind
    num_labels: int = 0
    form: HeadForm = "transformers"
    init: HeadForm = "transformers"
    dropout: float = 0.1
    pooling: Pooling = "mean"
    layer: int | None = None

    def __post_init__(self) -> None:
        _one_of("head.kind", self.kind, get_args(HeadKind))
        _one_of("head.form", self.form, get_args(HeadForm))
        _one_of("head.init", self.init, get_args(HeadForm))
        _one_of("head.pooling", self.pooling, get_args(Pooling))
        _probability("head.dropout", self.dropout)
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


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How a model is computed, not what it is.

    Attributes:
        dtype: of activations and matrix products; norms, softmax and losses are at least float32.
        param_dtype: what parameters are kept in.
        remat: what the backward pass computes again: nothing; "attention", the attention probabilities;
            "dots", all but the results of the layers' matrix products; "full", everything but layer inputs.
        attention: the backend, or "auto"; see ``stilts_jax.model.attention``. "splash-interpret" runs the TPU
            kernel in the interpreter, for tests.
        matmul_precision: as ``jax.default_matmul_precision`` takes it; None leaves the platform's default.
        platform: what the model is compiled for where that is not this process's own backend.
    """

    dtype: FloatName = "float32"
    param_dtype: FloatName = "float32"
    remat: Remat = "none"
    attention: Attention = "auto"
    matmul_precision: str | None = None
    platform: Literal["cpu", "gpu", "tpu"] | None = None

    def __post_init__(self) -> None:
        _one_of("compute.dtype", self.dtype, get_args(FloatName))
        _one_of("compute.param_dtype", self.param_dtype, get_args(FloatName))
        _one_of("compute.remat", self.remat, get_args(Remat))
        _one_of("compute.attention", self.attention, get_args(Attention))


@dataclass(frozen=True)
class Model:
    """An encoder with its heads by name; hashable, so that a jitted function can take it as static."""

    encoder: EncoderConfig
    heads: tuple[tuple[str, HeadConfig], ...] = ()
    compute: Compute = Compute()

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
