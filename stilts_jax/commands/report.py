"""Write the report of a work directory: one page, its tables as CSV and LaTeX, figures as SVG, PDF and PNG.

Only the results below WORKDIR/phases are read. All scores are in scores.csv, a row a score; in Python
stilts_jax.load_results(WORKDIR) returns the same frame.
"""

from argparse import Namespace

from stilts_jax.commands.options import Add
from stilts_jax.files import local_path, open_path


def add_arguments(add: Add) -> None:
    add("workdir", type=open_path)
    add("--out", "the folder to write; WORKDIR/report by default", type=open_path)
    add(
        "--benchmark",
        "whose averages are formed; by default of the one whose tasks these are, else of XTREME",
        default=None,
    )
    told = "a CSV with a row a language: code, columns of distances, script, log_size; kept as "
    add("--distances", f"{told}WORKDIR/distances.csv, which later reports use", type=local_path)
    told = "show published numbers beside these; by default only where the encoder is XLM-R Large"
    add("--published", told, action="store_true", default=None)


def run(arguments: Namespace) -> None:
    from stilts_jax.report import write_report

    given = {name: getattr(arguments, name) for name in ("distances", "benchmark", "published", "progress")}
    paths = write_report(arguments.workdir, arguments.out, **given)
    print(f"{paths.summary}\n\nThe whole report: {paths.html}")
