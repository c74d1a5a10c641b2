"""The encoder and its heads: records, pure functions of parameters, folders of transformers in and out."""

from stilts_jax.model.attention import Backend, choose_backend
from stilts_jax.model.config import SHAPES, Compute, EncoderConfig, HeadConfig, Model
from stilts_jax.model.encoder import (
    abstract_encoder,
    encode,
    init_encoder,
    take_layers_apart,
    writes_layers_out,
)
from stilts_jax.model.export import export_encoder
from stilts_jax.model.heads import abstract_params, apply_model, init_head, init_params, normalise, pool_mean
from stilts_jax.model.loading import LoadedEncoder, TaskHead, find_folder, load_encoder
from stilts_jax.model.losses import chunked_cross_entropy

__all__ = [
    "SHAPES",
    "Backend",
    "Compute",
    "EncoderConfig",
    "HeadConfig",
    "LoadedEncoder",
    "Model",
    "TaskHead",
    "abstract_encoder",
    "abstract_params",
    "apply_model",
    "choose_backend",
    "chunked_cross_entropy",
    "encode",
    "export_encoder",
    "find_folder",
    "init_encoder",
    "init_head",
    "init_params",
    "load_encoder",
    "normalise",
    "pool_mean",
    "take_layers_apart",
    "writes_layers_out",
]
