"""The encoder and its heads: records, pure functions of parameters, folders of transformers in and out."""

# ruff: noqa: F401  (these are the names that other rooms use)

from stilts_jax.model.config import SHAPES, Compute, EncoderConfig, HeadConfig, Model
from stilts_jax.model.encoder import abstract_encoder, encode, init_encoder, writes_layers_out
from stilts_jax.model.export import export_encoder
from stilts_jax.model.heads import abstract_params, apply_model, init_head, init_params, normalise, pool_mean
from stilts_jax.model.layers import Backend, choose_backend
from stilts_jax.model.loading import LoadedEncoder, TaskHead, load_encoder
from stilts_jax.model.weights import find_folder
