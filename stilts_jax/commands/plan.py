"""Say whether a phase fits some chips and how fast it can be there at best, without having them.

Compiles the real training and evaluation step for TOPOLOGY: a TPU slice by name (v5e:4x4, v6e:16x16, v5p:2x2x1,
v4:8x8x4; needs the extra `tpu`), GPUs (h200:8, h100:1; needs the extra `cuda`), or cpu:N. If it does not fit, the
nearest setting that does is proposed, compiled too. --target says what is trained; the batch and length are its own.
"""

import argparse

from stilts_jax.errors import EXIT_ERROR, EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("--config", default="target", metavar="FILE[:key=value,...]")
    parser.add_argument("--topology", required=True, help="v5e:4x4, v6e:16x16, h200:8, cpu:8, ...")
    parser.add_argument(
        "--encoder", help="a shape (tiny, e5-small, base, large, xl, xxl) instead of the config's"
    )
    parser.add_argument("--task", help="the task that is trained; the config's first by default")
    parser.add_argument("--rows", type=int, help="rows of a step's batch over all devices")
    parser.add_argument("--length", type=int, help="tokens a row")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from stilts_jax.commands.options import read_settings
    from stilts_jax.experiment.planning import make_setup
    from stilts_jax.plan.command import plan_command
    from stilts_jax.progress import Progress

    setup = make_setup(
        read_settings(arguments),
        topology=arguments.topology,
        shape=arguments.encoder,
        task_name=arguments.task,
        rows=arguments.rows,
        length=arguments.length,
    )
    text, fits = plan_command(setup, as_json=arguments.json, progress=Progress())
    print(text)
    return EXIT_OK if fits else EXIT_ERROR
