"""From an experiment's settings to what ``stilts plan`` compiles."""

from pathlib import Path

from stilts_jax.errors import ConfigError, nearest
from stilts_jax.experiment.models import head_config, make_compute
from stilts_jax.experiment.phases import hyperparameters_of
from stilts_jax.experiment.settings import Settings, split_names
from stilts_jax.experiment.start import RANDOM, read_shape
from stilts_jax.model import SHAPES, EncoderConfig
from stilts_jax.plan.records import Setup
from stilts_jax.sharding import MeshConfig
from stilts_jax.tasks import get_task
from stilts_jax.train.optimizer import OptimizerConfig

# Hub names whose shape is known without their files.
_KNOWN = {
    "xlm-roberta-base": "base",
    "xlm-roberta-large": "large",
    "xlm-roberta-xl": "xl",
    "xlm-roberta-xxl": "xxl",
}


def make_setup(
    settings: Settings,
    *,
    topology: str,
    shape: str | None = None,
    task_name: str | None = None,
    rows: int | None = None,
    length: int | None = None,
) -> Setup:
    """Returns the training step that the settings describe.

    Args:
        topology: see ``stilts_jax.plan``.
        shape: name of a shape; the settings' encoder if None.
        task_name: what is trained; the first target (or intermediate) if None.
        rows: of a batch; the task's own if None.
        length: of a row; the task's own if None.
    """
    experiment = settings.experiment
    named = [*split_names(experiment.targets), *split_names(experiment.intermediates)]
    task = get_task(task_name or next(name for name in named if name != "none").partition("/")[0])
    chosen = hyperparameters_of(task, settings)
    trained = get_task(task.train_on[-1]) if task.train_on else task
    train = settings.train
    return Setup(
        encoder=find_shape(shape or settings.encoder),
        head=head_config(trained, settings),
        compute=make_compute(settings),
        optimizer=OptimizerConfig(
            learning_rate=chosen.learning_rate,
            total_steps=1000,
            moment_dtype=train.moment_dtype,  # type: ignore[arg-type]  # checked by the settings
            layer_decay=train.layer_decay,
            freeze_embeddings=train.freeze_embeddings,
            freeze_layers=train.freeze_layers,
        ),
        rows=rows or chosen.batch_size,
        length=length or chosen.max_length,
        topology=topology,
        mesh=MeshConfig(settings.mesh.data, settings.mesh.fsdp, settings.mesh.tensor),
        accumulation=train.accumulation,
        zero1=settings.mesh.zero1,
    )


def find_shape(encoder: str) -> EncoderConfig:
    """Returns the shape of a name, a hub name or a folder."""
    known = {**{name: name for name in SHAPES}, **_KNOWN}
    short = encoder.rpartition("/")[2]
    folder = Path(encoder.removeprefix(RANDOM))
    if folder.is_dir():
        return read_shape(folder)
    if short not in known:
        raise ConfigError(f"There is no shape {encoder!r}.", where="--encoder", fix=nearest(short, known))
    return SHAPES[known[short]]
