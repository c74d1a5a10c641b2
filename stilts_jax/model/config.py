"""What an encoder and its heads are, and how they are computed: records that hash, so that `jit` can key on them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, get_args

from stilts_jax.checked import Checked, Range
from stilts_jax.errors import ConfigError, EncoderError, nearest
from stilts_jax.settings import COUNT, LAYER, POSITIVE, Compute, HeadForm

Family = Literal["xlm-roberta", "xlm-roberta-xl"]
HeadKind = Literal["classify", "choice", "tag", "span", "embed", "mlm"]
Pooling = Literal["mean", "pooler"]

# Fields that have another name in a config.json of transformers.
_RENAMED = {
    "family": "model_type",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "max_positions": "max_position_embeddings",
    "pad_id": "pad_token_id",
    "hidden_dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}
# Other values are never guessed: transformers' own class defaults are not XLM-R's (30,522 words, 512 positions,
# 2 types, epsilon 1e-12).
_DEFAULTS = {"pad_token_id": 1, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
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
    """

    group: ClassVar[str] = "encoder."
    # The one normalises after each block, "xlm-roberta-xl" before it and once at the end.
    family: Family = "xlm-roberta"
    vocab_size: Annotated[int, POSITIVE]
    hidden_size: Annotated[int, POSITIVE]
    num_layers: Annotated[int, Range(1, 1000)]
    num_heads: Annotated[int, POSITIVE]
    intermediate_size: Annotated[int, POSITIVE]
    max_positions: Annotated[int, POSITIVE] = 514  # rows of the position table
    type_vocab_size: Annotated[int, POSITIVE] = 1
    layer_norm_eps: Annotated[float, Range(1e-30, 1.0)] = 1e-5
    pad_id: Annotated[int, COUNT] = 1  # is not attended to; positions of tokens start one above it
    hidden_dropout: Annotated[float, DROPOUT] = 0.1
    attention_dropout: Annotated[float, DROPOUT] = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        what = f"{self.num_heads} heads do not divide a hidden size of {self.hidden_size}."
        self.refuse(self.hidden_size % self.num_heads, what, "num_heads", "take a divisor of hidden_size")
        what = f"pad_id {self.pad_id} is not in a vocabulary of {self.vocab_size}."
        self.refuse(self.pad_id >= self.vocab_size, what, "pad_id", "take 1, as XLM-R does")
        what = f"{self.max_positions} positions leave no room for a token."
        fix = f"positions start at pad_id + 1 = {self.pad_id + 1}; XLM-R has 514 rows for 512 tokens"
        self.refuse(self.max_length < 1, what, "max_positions", fix)

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def max_length(self) -> int:
        """Most tokens of a sequence, specials included."""
        return self.max_positions - self.pad_id - 1

    @property
    def post_norm(self) -> bool:
        """Whether a block's sum is normalised (XLM-R) or its input (XL, XXL)."""
        return self.family == "xlm-roberta"

    def check_layer(self, layer: int) -> None:
        """Refuses a layer that the encoder does not have."""
        if not 0 <= layer <= self.num_layers:
            what = f"Layer {layer} of an encoder of {self.num_layers} layers."
            fix = "take one of these, or 0 for the embeddings"
            raise ConfigError(what, where="num_layers, --layer, or layer of a head", fix=fix)

    def training_flops(self, length: int = 0) -> float:
        """Returns multiply-adds, times two, of a token's both passes through the layers; attention by ``length``."""
        dense = 2 * (4 * self.hidden_size**2 + 2 * self.hidden_size * self.intermediate_size)
        return 3.0 * self.num_layers * (dense + 4 * length * self.hidden_size)

    @classmethod
    def from_transformers(cls, values: Mapping[str, Any], *, where: str = "config.json") -> "EncoderConfig":
        """Reads a ``config.json`` of transformers; raises where it describes another architecture."""
        given = "take the config.json that came with the weights"
        families, family = get_args(Family), values.get("model_type")
        if family not in families:
            fix = f"take an encoder of one of the families {', '.join(families)}"
            raise EncoderError(f"This is a {family!r} model.", where=f"{where}: model_type", fix=fix)
        for key, fixed in _FIXED.items():
            if values.get(key, fixed) != fixed:
                what = f"{key} is {values[key]!r}; the encoder here computes {key}={fixed!r}."
                fix = "take an encoder that XLM-R's own code was made for"
                raise EncoderError(what, where=f"{where}: {key}", fix=fix)
        found: dict[str, Any] = {key: {**_DEFAULTS, **values}.get(theirs) for key, theirs in _KEYS.items()}
        missing = sorted(_KEYS[key] for key, value in found.items() if value is None)
        if missing:
            raise EncoderError(f"The configuration lacks {', '.join(missing)}.", where=where, fix=given)
        try:
            return cls(**found)
        except (ConfigError, TypeError) as error:
            what = f"The configuration makes no sense: {error}"
            raise EncoderError(what, where=where, fix=given) from error

    def to_transformers(self) -> dict[str, Any]:
        """Returns what a ``config.json`` of transformers says about this shape."""
        described = {_KEYS[key]: value for key, value in asdict(self).items()}
        fixed = {"hidden_act": "gelu", "initializer_range": 0.02, "bos_token_id": 0, "eos_token_id": 2}
        return described | fixed


_KEYS = {one.name: _RENAMED.get(one.name, one.name) for one in fields(EncoderConfig)}


@dataclass(frozen=True, kw_only=True)
class HeadConfig(Checked):
    """What reads the encoder for one kind of task.

    >>> import stilts_jax as sj
    >>> sj.HeadConfig(kind="classify", num_labels=3).form
    'transformers'
    """

    group: ClassVar[str] = "head."
    kind: HeadKind
    num_labels: Annotated[int, COUNT] = 0  # classify, tag
    # As transformers' ForSequenceClassification and ForMultipleChoice, or as the paper's authors had it ("jiant"):
    # the encoder's own pooler first, then dense, tanh, out.
    form: HeadForm = "transformers"
    # normal(0, 0.02) with zero biases, or ("jiant") kernels and biases uniform in +-1/sqrt(fan in).
    init: HeadForm = "transformers"
    dropout: Annotated[float, DROPOUT] = 0.1
    # Of an embed head: "mean" over all tokens without parameters, or "pooler" (dense, tanh on ``<s>``) with a learned
    # scale, for dual encoders.
    pooling: Pooling = "mean"
    # Whose states an embed head pools: 0 is the embeddings, None the last.
    layer: Annotated[int | None, LAYER] = None
    patches: Annotated[int, COUNT] = 0  # of a picture that a classify or mlm head looks at; 0: at none
    patch_width: Annotated[int, COUNT] = 0  # numbers of a patch
    pictures: Annotated[int, POSITIVE] = 1  # that a row has at most
    # What raw pixels (0 to 255) are brought to mean 0 and spread 1 by: where most of every picture is white, nothing
    # else would be seen for long.
    pixel_mean: Annotated[float, Range(-1e6, 1e6)] = 127.5
    pixel_spread: Annotated[float, Range(1e-3, 1e6)] = 127.5

    def __post_init__(self) -> None:
        super().__post_init__()
        blind = self.kind not in ("classify", "mlm") or not self.patch_width
        what = f"A {self.kind} head with patches of {self.patch_width} numbers can't look at pictures."
        fix = "give classify or mlm heads patches and patch_width, others none"
        self.refuse(self.patches and blind, what, "patches", fix)
        unlabelled = self.kind in ("classify", "tag") and self.num_labels < 1
        what = f"A {self.kind} head needs labels, num_labels is {self.num_labels}."
        self.refuse(unlabelled, what, "num_labels", "set it to the number of labels")
        astray = self.layer is not None and self.kind != "embed"
        fix = "only embed heads read another layer than the last"
        self.refuse(astray, f"layer={self.layer} on a {self.kind} head.", "layer", fix)

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
        shaped = isinstance(self.encoder, EncoderConfig) and isinstance(self.compute, Compute)
        pairs = self.heads if isinstance(self.heads, tuple) else (None,)
        for pair in pairs:
            shaped &= isinstance(pair, tuple) and [*map(type, pair)] == [str, HeadConfig]
        if not shaped:
            what = "A model is an EncoderConfig, a tuple of pairs, each of a name and a HeadConfig, and a Compute."
            fix = 'such as Model(SHAPES["base"], (("mine", HeadConfig(kind="span")),)); a dict is tuple(heads.items())'
            raise ConfigError(what, where="model", fix=fix)
        names = [name for name, _ in self.heads]
        if len(set(names)) < len(names):
            raise ConfigError(f"Two heads have one name: {', '.join(names)}.", where="model.heads")
        for name in names:
            if not name or "/" in name:  # it is a part of the paths of its parameters
                fix = 'such as "mine", without a /'
                raise ConfigError(f"{name!r} can't be the name of a head.", where="model.heads", fix=fix)

    def head(self, name: str) -> HeadConfig:
        heads = dict(self.heads)
        if name not in heads:
            what = f"The model has no head {name!r}."
            raise ConfigError(what, where="model.heads", fix=nearest(name, heads))
        return heads[name]


def _shaped(width: int, layers: int, heads: int, **changes: Any) -> EncoderConfig:
    shape = {"vocab_size": 250002, "intermediate_size": 4 * width, **changes}
    return EncoderConfig(hidden_size=width, num_layers=layers, num_heads=heads, **shape)


# Shapes by name; read only, as every caller in the process has the same. "tiny" is for tests; "e5-small" is
# multilingual-e5-small's.
SHAPES: MappingProxyType[str, EncoderConfig] = MappingProxyType(
    {
        "tiny": _shaped(32, 2, 4, vocab_size=320, intermediate_size=64, max_positions=130),
        "e5-small": _shaped(384, 12, 12, layer_norm_eps=1e-12),
        "base": _shaped(768, 12, 12),
        "large": _shaped(1024, 24, 16),
        "xl": _shaped(2560, 36, 32, family="xlm-roberta-xl", vocab_size=250880),
        "xxl": _shaped(4096, 48, 32, family="xlm-roberta-xl", vocab_size=250880),
    }
)
