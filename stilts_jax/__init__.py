"""Intermediate-task training for zero-shot cross-lingual transfer, in JAX.

This page lists everything that other people's code uses; each name has an example in its docstring. They are imported
when they are asked for, so that ``stilts_jax.tasks`` and ``stilts_jax.features`` work without loading JAX.

    >>> import stilts_jax as sj
    >>> sorted(sj.SHAPES)  # of encoders, by name
    ['base', 'e5-small', 'large', 'tiny', 'xl', 'xxl']
    >>> sj.RULES[0]  # where a parameter lies on a mesh, by the end of its path; yours may stand before them
    ('embeddings/word', P(None, ('tensor', 'fsdp')))
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stilts_jax.checkpoint import Checkpoints
    from stilts_jax.commands.eval import evaluate
    from stilts_jax.evaluation.evaluate import evaluate_task
    from stilts_jax.evaluation.predict import predict
    from stilts_jax.experiment.predict import predict_texts
    from stilts_jax.model import SHAPES, Compute, EncoderConfig, HeadConfig, Model, TaskHead, apply_model
    from stilts_jax.model.encoder import encode
    from stilts_jax.model.export import export_encoder
    from stilts_jax.model.heads import init_params
    from stilts_jax.model.loading import load_encoder
    from stilts_jax.report import load_results
    from stilts_jax.sharding import RULES, MeshConfig, make_mesh, shardings
    from stilts_jax.tasks import get_task, list_tasks
    from stilts_jax.train.losses import check_batch, make_loss
    from stilts_jax.train.optimizer import OptimizerConfig, make_optimizer
    from stilts_jax.train.step import TrainState, eval_step, init_state, train_step

_NAMES = {
    "checkpoint": "Checkpoints",
    "commands.eval": "evaluate",
    "evaluation.evaluate": "evaluate_task",
    "evaluation.predict": "predict",
    "experiment.predict": "predict_texts",
    "model": "SHAPES Compute EncoderConfig HeadConfig Model TaskHead apply_model encode export_encoder init_params "
    "load_encoder",
    "report": "load_results",
    "sharding": "RULES MeshConfig make_mesh shardings",
    "tasks": "get_task list_tasks",
    "train.losses": "check_batch make_loss",
    "train.optimizer": "OptimizerConfig make_optimizer",
    "train.step": "TrainState eval_step init_state train_step",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}

__all__ = ["RULES", "SHAPES", "Checkpoints", "Compute", "EncoderConfig", "HeadConfig", "MeshConfig", "Model"]
__all__ += ["OptimizerConfig", "TaskHead", "TrainState", "apply_model", "check_batch", "encode"]
__all__ += ["eval_step", "evaluate", "evaluate_task", "export_encoder", "get_task", "init_params"]
__all__ += ["init_state", "list_tasks", "load_encoder", "load_results", "make_loss", "make_mesh"]
__all__ += ["make_optimizer", "predict", "predict_texts", "shardings", "train_step"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        try:
            return importlib.metadata.version("stilts-jax")
        except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
            return "unknown"
    if name not in _HOMES:
        raise AttributeError(f"module 'stilts_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"stilts_jax.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
