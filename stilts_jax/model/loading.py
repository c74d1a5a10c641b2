"""Reads an encoder from a folder of transformers: strictly, tensor by tensor, each straight to its devices.

Every tensor in the files is used, known to be useless here, or named in an error; so is every parameter that is not
found, and every number that is not finite. Nothing is ever filled with random numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from stilts_jax.errors import ConfigError, EncoderError
from stilts_jax.model.config import EncoderConfig, HeadConfig
from stilts_jax.model.encoder import abstract_encoder
from stilts_jax.model.heads import init_head, init_pooler
from stilts_jax.model.layers import Params
from stilts_jax.model.weights import Stored, find_folder, open_weights, read_json
from stilts_jax.sharding import parameter_paths

# Modules and arrays of ours by path -> those of transformers. {} is the number of the layer.
_SHARED = {
    "embeddings/word": "embeddings.word_embeddings.weight",
    "embeddings/position": "embeddings.position_embeddings.weight",
    "embeddings/type": "embeddings.token_type_embeddings.weight",
    "layers/attention/query": "encoder.layer.{}.attention.self.query",
    "layers/attention/key": "encoder.layer.{}.attention.self.key",
    "layers/attention/value": "encoder.layer.{}.attention.self.value",
    "layers/attention/output": "encoder.layer.{}.attention.output.dense",
    "layers/ffn/up": "encoder.layer.{}.intermediate.dense",
    "layers/ffn/down": "encoder.layer.{}.output.dense",
    "pooler": "pooler.dense",
}
ENCODER_NAMES = {
    "xlm-roberta": {
        **_SHARED,
        "embeddings/norm": "embeddings.LayerNorm",
        "layers/attention/norm": "encoder.layer.{}.attention.output.LayerNorm",
        "layers/ffn/norm": "encoder.layer.{}.output.LayerNorm",
    },
    "xlm-roberta-xl": {
        **_SHARED,
        "layers/attention/norm": "encoder.layer.{}.attention.self_attn_layer_norm",
        "layers/ffn/norm": "encoder.layer.{}.LayerNorm",
        "final_norm": "encoder.LayerNorm",
    },
}
# Kinds of heads -> the class in transformers and its modules. ForMultipleChoice calls its dense layer the encoder's
# pooler.
HEADS: dict[str, tuple[str, dict[str, str]]] = {
    "classify": ("ForSequenceClassification", {"dense": "classifier.dense", "out": "classifier.out_proj"}),
    "choice": ("ForMultipleChoice", {"dense": "roberta.pooler.dense", "out": "classifier"}),
    "tag": ("ForTokenClassification", {"out": "classifier"}),
    "span": ("ForQuestionAnswering", {"out": "qa_outputs"}),
    "mlm": ("ForMaskedLM", {"dense": "lm_head.dense", "norm": "lm_head.layer_norm", "bias": "lm_head.bias"}),
}
ENCODER_PREFIX = "roberta."  # before the encoder's tensors wherever a head stands beside it
_DECODER = "lm_head.decoder.weight"  # the word embeddings once more
# Buffers that older versions saved, and tensors that repeat another one.
_UNUSED = ("embeddings.position_ids", "embeddings.token_type_ids", _DECODER, "lm_head.decoder.bias")
_FLOATS = ("F64", "F32", "F16", "BF16", "float64", "float32", "float16", "bfloat16")
Weights = Mapping[str, Stored]
_ROWS_AT_A_TIME = 8192  # of the word table, where two copies of it are compared


@dataclass(frozen=True)
class TaskHead:
    """A head with its parameters and the names of its labels, as a transformers folder holds it.

    >>> import stilts_jax as sj
    >>> sj.TaskHead(sj.HeadConfig(kind="classify", num_labels=2), params={}, labels=("yes", "no")).labels
    ('yes', 'no')
    """

    config: HeadConfig
    params: Params
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadedEncoder:
    config: EncoderConfig
    params: Params  # with ``pooler`` where the folder has one
    mlm_head: Params | None
    task_head: TaskHead | None
    tokenizer_folder: Path  # where the tokenizer's files should be


@dataclass(frozen=True)
class Tensor:
    """One array of ours and where it lies in a folder."""

    path: str  # ours, such as ``layers/attention/query/kernel``
    keys: tuple[str, ...]  # theirs; one a layer where ``stacked``, else one
    transposed: bool  # torch keeps a matrix as [out, in], we as [in, out]
    stacked: bool
    shape: tuple[int, ...]

    @property
    def their_shape(self) -> tuple[int, ...]:
        """The shape of each tensor there."""
        inner = self.shape[1:] if self.stacked else self.shape
        return inner[::-1] if self.transposed else inner


def list_tensors(tree: Any, names: Mapping[str, str], layers: int = 1, prefix: str = "") -> list[Tensor]:
    """Returns where every array of a tree (or of its shapes) lies, if its modules are called ``names`` there."""
    found = []
    for path, leaf in parameter_paths(tree):
        module, _, last = path.rpartition("/")
        theirs = "weight" if last in ("kernel", "scale") else last
        name, stacked = prefix + (names.get(path) or f"{names[module]}.{theirs}"), path.startswith("layers/")
        keys = tuple(name.format(layer) for layer in range(layers if stacked else 1))
        found.append(Tensor(path, keys, last == "kernel", stacked, tuple(leaf.shape)))
    return found


def load_encoder(
    name_or_folder: str | Path,
    *,
    dtype: str = "float32",
    sharding: Callable[[Params], Any] | None = None,
    download: bool = False,
) -> LoadedEncoder:
    """Loads an encoder, and the head beside it if there is one.

        >>> import jax, stilts_jax as sj
        >>> model = sj.Model(sj.SHAPES["tiny"])
        >>> params = sj.init_params(model, jax.random.key(0))
        >>> _ = sj.export_encoder(folder / "exported", model.encoder, params["encoder"])
        >>> sj.load_encoder(folder / "exported").config == model.encoder
        True

    It is in a folder in transformers' layout, or a hub repository, which ``download`` may fetch into the cache.
    Parameters become ``dtype``, whatever they are stored in. ``sharding`` makes shardings of the encoder's abstract
    parameters, such as ``partial(shardings, mesh=mesh)``: each device's part is read by itself, so that the host never
    holds a whole array. None gives numpy arrays, which heads always are.
    """
    is_known = False
    with suppress(TypeError):
        is_known = jax.numpy.issubdtype(dtype, jax.numpy.floating)
    if not is_known:
        fix = "take float32, bfloat16 or float16"
        raise ConfigError(f"Parameters are no numbers of the kind {dtype}.", where="dtype", fix=fix)
    folder = find_folder(name_or_folder, download=download)
    described = read_json(folder / "config.json")
    config = EncoderConfig.from_transformers(described, where=str(folder / "config.json"))
    weights, key = open_weights(folder), jax.random.key(0)
    prefix = ENCODER_PREFIX if any(name.startswith(ENCODER_PREFIX) for name in weights) else ""
    abstract = abstract_encoder(config)
    if any(name.startswith(f"{prefix}pooler.") for name in weights):
        abstract["pooler"] = jax.eval_shape(lambda: init_pooler(config, key))
    heads = _find_heads(weights, described, config.hidden_dropout)
    parts = {"encoder": list_tensors(abstract, ENCODER_NAMES[config.family], config.num_layers, prefix)}
    for kind, head in heads.items():
        shapes = jax.eval_shape(lambda head=head: init_head(head, config, key))
        parts[kind] = list_tensors(shapes, HEADS[kind][1])
    useless = lambda name: name.removeprefix(prefix) in _UNUSED  # noqa: E731
    account(folder, weights, [tensor for part in parts.values() for tensor in part], useless)
    _check_tie(folder, weights, f"{prefix}embeddings.word_embeddings.weight")
    places = {"encoder": dict(parameter_paths(sharding(abstract)))} if sharding else {}
    if sharding and places["encoder"].keys() != {tensor.path for tensor in parts["encoder"]}:
        fix = "write partial(stilts_jax.shardings, mesh=mesh)"
        raise ConfigError("It does not say where each parameter lies.", where="sharding", fix=fix)
    params = {part: load_tensors(weights, some, dtype, places.get(part)) for part, some in parts.items()}
    encoder, mlm_head, task_head = params.pop("encoder"), params.pop("mlm", None), None
    for name, values in params.items():
        labels = _read_labels(described, heads[name].num_labels, folder / "config.json")
        task_head = TaskHead(heads[name], values, labels)
    return LoadedEncoder(config, encoder, mlm_head, task_head, folder)


def _find_heads(weights: Weights, described: dict[str, Any], dropout: float) -> dict[str, HeadConfig]:
    """Returns the heads that stand beside the encoder, by the names of their tensors."""
    modules = {part for key in weights for part in (key.partition(".")[0], key.rpartition(".")[0])}
    kinds: list[Any] = [kind for kind, top in (("mlm", "lm_head"), ("span", "qa_outputs")) if top in modules]
    if modules & {"classifier.dense", "classifier.out_proj"}:
        kinds.append("classify")
    elif "classifier" in modules:  # two classes call one layer by one name
        kinds.append("choice" if "ForMultipleChoice" in str(described.get("architectures")) else "tag")
    out = weights.get("classifier.out_proj.weight") or weights.get("classifier.weight")
    labels = max([1, *out.shape[:1]]) if out else 1  # a missing tensor is reported with all others
    counts, own = {"classify": labels, "tag": labels}, described.get("classifier_dropout")
    rate = own if isinstance(own, int | float) and 0 <= own < 1 else dropout
    return {kind: HeadConfig(kind=kind, num_labels=counts.get(kind, 0), dropout=rate) for kind in kinds}


def _read_labels(described: dict[str, Any], count: int, path: Path) -> tuple[str, ...]:
    """Returns what the outputs of a head mean, the first one first; nothing where ``config.json`` does not say it."""
    named, numbers = described.get("id2label"), [str(number) for number in range(count)]
    if named is None or not count:
        return ()
    # Names that are not of these outputs (counted from 1, cut off) would be left aside without a word.
    if not isinstance(named, dict) or named.keys() != set(numbers):
        what = f"id2label does not name the outputs 0 to {count - 1}, each once."
        raise EncoderError(what, where=str(path), fix="name them, or remove it")
    return tuple(str(named[number]) for number in numbers)


def account(folder: Path, weights: Weights, tensors: list[Tensor], useless: Callable[[str], bool]) -> None:
    """Raises unless the files hold just what is needed, in the right shapes, and what is ``useless``."""
    expected = {key: tensor for tensor in tensors for key in tensor.keys}
    missing = [key for key in expected if key not in weights]
    unknown = [key for key in weights if key not in expected and not useless(key)]
    if keys := missing or unknown:
        fault, fix = "are missing", "the folder does not hold the whole model that its config.json describes"
        if not missing:
            fault = "have no place in this model"
            fix = "the weights belong to another architecture, or to more layers than config.json says"
        some = ", ".join(keys[:5] + ["..."] * (len(keys) > 5))
        raise EncoderError(f"{len(keys)} tensors {fault}: {some}.", where=str(folder), fix=fix)
    for key, tensor in expected.items():
        where, shape, dtype, _ = weights[key]
        if shape != tensor.their_shape:
            what = f"The tensor has shape {shape}, config.json asks for {tensor.their_shape}."
            raise EncoderError(what, where=where, fix="weights and config.json do not belong together")
        if dtype not in _FLOATS:  # they mean nothing without their scales
            what = f"The tensor holds numbers of the type {dtype}, as quantized weights do."
            raise EncoderError(what, where=where, fix="take the model in float32, float16 or bfloat16")


def _check_tie(folder: Path, weights: Weights, table: str) -> None:
    if _DECODER not in weights:
        return
    decoder, words = weights[_DECODER], weights[table]
    rows, width = words.shape
    starts = range(0, rows, _ROWS_AT_A_TIME)
    parts = ((slice(start, min(start + _ROWS_AT_A_TIME, rows)), slice(0, width)) for start in starts)
    # What is not finite is equal here, and named where the tensors are loaded.
    equal = (np.array_equal(decoder.read(part), words.read(part), equal_nan=True) for part in parts)
    if decoder.shape != words.shape or not all(equal):
        what = "The masked-language-model head has a word table of its own; here it shares the encoder's."
        fix = "take a checkpoint with tied embeddings, as XLM-R's are"
        raise EncoderError(what, where=f"{folder}: {_DECODER}", fix=fix)


def load_tensors(weights: Weights, tensors: list[Tensor], dtype: str, places: Any = None) -> Params:
    """Returns arrays of ours: where ``places`` says by path, else of numpy."""
    loaded: dict[str, Any] = {}
    for tensor in tensors:
        path, shape, sharding = tensor.path, tensor.shape, (places or {}).get(tensor.path)
        if sharding is None:
            loaded[path] = _read_part(weights, tensor, [(0, size) for size in shape], dtype)
            continue
        # make_array_from_callback would hold the parts of all devices at once; here the host holds one.
        parts, holders = [], dict[tuple[tuple[int, int], ...], list[Any]]()
        for device, index in sharding.addressable_devices_indices_map(shape).items():
            bounds = tuple(part.indices(size)[:2] for part, size in zip(index, shape))
            holders.setdefault(bounds, []).append(device)
        for bounds, devices in holders.items():
            part = _read_part(weights, tensor, bounds, dtype)
            parts += [jax.block_until_ready(jax.device_put(part, device)) for device in devices]
            del part
        loaded[path] = jax.make_array_from_single_device_arrays(shape, sharding, parts)
    return unflatten_dict(loaded, sep="/")


def _read_part(weights: Weights, tensor: Tensor, bounds: Sequence[tuple[int, int]], dtype: str) -> np.ndarray:
    """Fills a part of one of our arrays, layer by layer."""
    part = np.empty([stop - start for start, stop in bounds], jax.numpy.dtype(dtype))
    inner = tuple(slice(*pair) for pair in bounds[tensor.stacked :])
    targets, first = (part, bounds[0][0]) if tensor.stacked else (part[None], 0)
    for key, target in zip(tensor.keys[first:], targets):
        found = weights[key].read(inner[::-1] if tensor.transposed else inner)
        target[...] = found.T if tensor.transposed else found
        if not np.isfinite(target).all():  # one pass more over what was just read
            what = "The tensor holds numbers that are not finite (NaN or infinity)."
            fix = "fetch the weights again: they are damaged, or saved from a training that failed"
            raise EncoderError(what, where=weights[key].where, fix=fix)
    return part
