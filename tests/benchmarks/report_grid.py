"""Writes a whole grid of 619 phases with made-up scores, to time `stilts report W`.

python tests/benchmarks/report_grid.py W
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.report.made_up_grid import TRAININGS, write_grid

INTERMEDIATES = [
    *("none", "mnli", "qqp", "squad_v1", "squad_v2", "hellaswag", "ccg", "cosmosqa"),
    *("commonsenseqa", "anli", "mnli+squad_v1"),
]

if __name__ == "__main__":
    write_grid(Path(sys.argv[1]), intermediates=INTERMEDIATES, trainings=list(TRAININGS), seeds=3)
