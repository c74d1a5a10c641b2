"""Errors that a person can act on: what went wrong, where, and what to do about it. Every mistake ends in one."""

import difflib
import errno
import sys
import traceback
from collections.abc import Iterable

# Exit codes of the ``stilts`` command. A launcher repeats a command that ended with EXIT_RUN_AGAIN.
EXIT_OK = 0
EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_RUN_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: preempted; progress was saved
EXIT_INTERRUPTED = 130  # Ctrl-C: progress was saved, and a launcher does not repeat the command


class _ThreeParts(BaseException):
    exit_code = EXIT_ERROR

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what)

    def __str__(self) -> str:
        where, fix = self.where and f"\n  where: {self.where}", self.fix and f"\n  to do: {self.fix}"
        return f"{self.what}{where}{fix}"


class StiltsError(_ThreeParts, Exception):
    """A failure: ``what`` went wrong, ``where`` (file:line, task, step), and as ``fix`` what to do next."""


class ConfigError(StiltsError):
    """An option, argument or setting that is unknown, contradictory or out of range."""

    exit_code = EXIT_USAGE


class DataError(StiltsError):
    """A data file that is missing, malformed, or does not say what a task needs."""


class EncoderError(StiltsError):
    """An encoder folder, tokenizer or weight file that can't be used."""


class CheckpointError(StiltsError):
    """A checkpoint or run directory that can't be used."""


class RecordError(CheckpointError):
    """A record (``result.json``, ``trained.json``, ...) that is damaged or of another version."""


class LockedError(CheckpointError):
    """A run directory in which another process is at work."""


class TrainingError(StiltsError):
    """Training that can't go on: a non-finite loss."""


class RunAgain(_ThreeParts):
    """SIGTERM or Ctrl-C (EXIT_INTERRUPTED) stopped the run after saving; the same command goes on where it stopped.

    No ``Exception``: what handles failures, here or in a library, must not handle this.
    """

    exit_code = EXIT_RUN_AGAIN


_IN_THE_WAY = (
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY),
    *(errno.EBUSY, errno.ENAMETOOLONG, errno.ELOOP),
)
_FORBIDDEN = "you may not write or read there: name another folder, or change its permissions"
_STORAGE = "the disk or the network file system failed: look after it, then run the command again"
_DISK_ERRORS = {
    **dict.fromkeys(_IN_THE_WAY, "name another path, or remove what is there"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), _FORBIDDEN),
    errno.ENOSPC: "free some space, or name another folder; what was saved before is intact",
    errno.EDQUOT: "the quota is used up: free some space; what was saved before is intact",
    errno.EFBIG: "files may not grow so large here: raise the limit (ulimit -f), or name another folder",
    errno.EROFS: "the file system is read-only: name another folder",
    errno.ENOENT: "it is missing: name the right path; if it was removed while this ran, run the command again",
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.ENOLCK), _STORAGE),
    errno.EMFILE: "raise the limit of open files (ulimit -n), then run the command again",
}
_MEMORY_FIX = (
    "in training more microbatches (train.accumulation), compute.remat=full, a smaller train.max_length or "
    "compute.dtype=bfloat16; in prediction fewer tokens a batch (evaluation.tokens_per_batch, --tokens_per_batch); "
    "in mining a smaller evaluation.tile; or free the device of other processes"
)


def explain(error: BaseException) -> StiltsError | None:
    """Returns the error in three parts, if it is one of ours, or a lack of disk or memory; None if it is a defect."""
    if isinstance(error, StiltsError):
        return error
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        where, fix = str(error.filename or "a file"), _DISK_ERRORS[error.errno]
        return StiltsError(f"{error.strerror}.", where=where, fix=fix)
    text = str(error).strip().partition("\n")[0][:300]
    missing = isinstance(error, FileNotFoundError) or text.startswith("Forbidden: ")
    unnumbered = isinstance(error, OSError) and error.errno is None and missing and "gcsfs" in sys.modules
    if unnumbered or type(error).__module__.startswith(_STORES):
        fix = "check its name and your login (gcloud auth application-default login), then run the command again"
        return StiltsError("The bucket, or something in it, can't be used.", where=text, fix=fix)
    if isinstance(error, FloatingPointError):
        fix = "look at the data and the learning rate; without compute.check_nans training names the step and its rows"
        what = "A result is not a number: compute.check_nans, which :debug sets, looks for that."
        return StiltsError(what, where=text, fix=fix)
    on_device = type(error).__name__ == "JaxRuntimeError" and "RESOURCE_EXHAUSTED" in str(error)
    if on_device or isinstance(error, MemoryError):
        owner = "device" if on_device else "machine"
        return StiltsError(f"The {owner}'s memory ran out.", where=text, fix=_MEMORY_FIX)
    return None


_STORES = ("gcsfs", "aiohttp", "google.auth", "google.api_core")  # where errors of a bucket come from
_tracebacks = False


def show_tracebacks(wanted: bool) -> None:
    """Makes ``describe`` show where errors that a person can act on were raised."""
    global _tracebacks
    _tracebacks = wanted


def describe(error: Exception) -> str:
    """Returns an error as it is printed: in three parts, or with its traceback if it is a defect."""
    explained = explain(error)
    if explained and not _tracebacks:
        return str(explained)
    where = "".join(traceback.format_exception(error))
    defect = "This is a defect of stilts_jax: please report the lines above and the command line."
    return where + ("" if explained is error else str(explained or defect))


def nearest(name: object, known: Iterable[str]) -> str:
    """Returns ``did you mean 'x'?`` or the list of what is known, for the ``fix`` of an error."""
    names = sorted(one or '""' for one in known)
    folded = {one.casefold(): one for one in names}
    close = difflib.get_close_matches(str(name).casefold(), folded, n=1, cutoff=0.6)
    return f"did you mean {folded[close[0]]!r}?" if close else f"known: {', '.join(names)}"
