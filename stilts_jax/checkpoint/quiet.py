"""Reads of one checkpoint run side by side; when one of them fails, the others have nobody to report to."""

import logging
import sys
from functools import cache
from typing import Any


@cache
def quiet_late_reads() -> None:
    """Keeps quiet about reads that end after another one has failed: that one's error is raised, and says enough.

    Threads of tensorstore report to orbax's event loop, which the first failure has closed, and print a traceback
    each; so does asyncio for every failure that nobody asked for.
    """
    before = sys.unraisablehook

    def hook(found: Any) -> None:
        if found.exc_type is not RuntimeError or str(found.exc_value) != "Event loop is closed":
            before(found)

    sys.unraisablehook = hook
    logging.getLogger("asyncio").addFilter(
        lambda record: "exception was never retrieved" not in record.getMessage()
    )
