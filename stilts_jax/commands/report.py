"""Write the report of a work directory: one page, its tables as CSV and LaTeX, figures as SVG, PDF and PNG.

Only the results below WORKDIR/phases are read. All scores are in scores.csv, a row a score; in Python
stilts_jax.load_results(WORKDIR) returns the same frame.
"""

import argparse

from stilts_jax.files import local_path, open_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("workdir", type=open_path)
    parser.add_argument("--out", type=open_path, help="the folder to write; WORKDIR/report by default")
    parser.add_argument("--benchmark", choices=("xtreme", "xtreme-r"), default="xtreme")
    parser.add_argument(
        "--distances",
        type=local_path,
        help="a CSV with a row a language: code, columns of distances, script, log_size; kept as "
        "WORKDIR/distances.csv, which later reports use",
    )
    parser.add_argument(
        "--published",
        action="store_true",
        default=None,
        help="show published numbers beside these; by default only where the encoder is XLM-R Large",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from stilts_jax.progress import Progress
    from stilts_jax.report import write_report

    paths = write_report(
        arguments.workdir,
        arguments.out,
        distances=arguments.distances,
        benchmark=arguments.benchmark,
        published=arguments.published,
        progress=Progress(),
    )
    print(paths.summary)
    print(f"\nThe whole report: {paths.html}")
    return 0
