"""Which step of a run is the best, and when to stop looking: functions of the history alone."""

import math
from collections.abc import Sequence

# [[step, score], ...]: plain lists, as they lie in a checkpoint's record.
History = Sequence[Sequence[float]]


def best_step(history: History) -> int | None:
    """Returns the step with the highest score, the first of them if several share it."""
    scored = [(score, -step) for step, score in history if not math.isnan(score)]
    return int(-max(scored)[1]) if scored else None


def is_out_of_patience(history: History, patience: int) -> bool:
    """Says whether the last ``patience`` evaluations brought no gain; 0 is endless patience."""
    best = best_step(history)
    since = sum(1 for step, _ in history if best is None or step > best)
    return bool(patience) and since >= patience


def is_collapsed(score: float, chance: float, examples: int) -> bool:
    """Says whether a score is no better than chance, as far as so many examples can tell.

    Fine-tuning large models from some seeds ends at chance level; such a run must not go unnoticed into a
    mean.

    Args:
        score: in percent, of the best step.
        chance: what guessing the most frequent class scores, in percent.
        examples: how many were scored; two standard errors above chance still count as chance.
    """
    share = chance / 100
    return score <= chance + 200 * math.sqrt(share * (1 - share) / max(1, examples))
