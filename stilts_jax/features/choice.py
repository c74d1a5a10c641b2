"""choice: one ``<s> prompt </s></s> choice </s>`` for each choice."""

from collections.abc import Sequence

import numpy as np

from stilts_jax.features.ragged import join, tokenize
from stilts_jax.features.records import Ragged
from stilts_jax.features.settings import PAIR_SPECIALS, Work
from stilts_jax.tasks.spec import ChoiceExample
from stilts_jax.tokenization import CLS_ID, SEP_ID


def build_choice(examples: Sequence[ChoiceExample], work: Work) -> dict[str, np.ndarray | Ragged]:
    """Columns ``tokens`` (one entry for each choice), ``first_choice``, ``num_choices`` and ``label``.

    A prompt that is too long loses its beginning, and a choice stays whole. Only a choice that is longer than
    a whole row by itself loses its end; how many do is said.
    """
    rows = len(examples)
    counts = np.fromiter((len(example.choices) for example in examples), np.int64, rows)
    prompts, choices = tokenize(
        work.tokenizer,
        [example.prompt for example in examples],
        [choice for example in examples for choice in example.choices],
        advance=work.advance,
    )
    budget = work.settings.max_length - PAIR_SPECIALS
    too_long = int((choices.lengths > budget).sum())
    if too_long:
        work.progress.say(f"{too_long} choices are longer than max_length and lose their end")
    choices = choices.head(budget)
    prompts = prompts._replace(
        starts=np.repeat(prompts.starts, counts), lengths=np.repeat(prompts.lengths, counts)
    ).tail(budget - choices.lengths)
    tokens = join(CLS_ID, prompts, SEP_ID, SEP_ID, choices, SEP_ID, rows=len(choices.starts))
    return {
        "example": np.arange(rows),
        "tokens": tokens,
        "first_choice": np.cumsum(counts) - counts,
        "num_choices": counts.astype(np.int32),
        "label": work.read_labels(examples),
    }
