"""What every example has to be, whichever source it comes from."""

from stilts_jax.data.readers import BadRow
from stilts_jax.tasks.spec import (
    ChoiceExample,
    ClassifyExample,
    EmbedExample,
    Example,
    SpanExample,
    TagExample,
    TextExample,
)


def check_example(example: Example, *, gold: bool) -> None:
    """Checks one example.

    Args:
        example: what a converter made of a row.
        gold: whether it has to have its gold label.

    Raises:
        BadRow: a text is empty or no text, or gold is missing.
    """
    texts: dict[str, str] = {}
    has_gold = True
    match example:
        case ClassifyExample(text=text, pair=pair, label=label):
            texts = {"text": text} if pair is None else {"first text": text, "second text": pair}
            has_gold = label is not None
        case ChoiceExample(prompt=prompt, choices=choices, label=label):
            texts = {"prompt": prompt, **{f"choice {index}": choice for index, choice in enumerate(choices)}}
            has_gold = label is not None
            if label is not None and not 0 <= label < len(choices):
                raise BadRow(f"the label {label} is none of the {len(choices)} choices")
        case TagExample(words=words, tags=tags):
            # A word may be empty: UD and WikiANN have tokens of nothing but invisible characters.
            texts = {"sentence": "\n".join(words) or "_"}
            has_gold = tags is not None
        case SpanExample(question=question, context=context, answers=answers, impossible=impossible):
            texts = {"question": question, "context": context}
            has_gold = bool(answers) or impossible
        case EmbedExample(text=text, positive=positive):
            texts = {"text": text} if positive is None else {"text": text, "positive": positive}
        case TextExample(text=text):
            texts = {"text": text}
    for name, text in texts.items():
        _check_text(name, text)
    if gold and not has_gold:
        raise BadRow("gold is blank, and training needs it")


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise BadRow(f"the {name} is {text!r}, not a text")
    if not text.strip():
        raise BadRow(f"the {name} is empty")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadRow(
                f"the {name} holds half a character (lone surrogate U+{ord(text[error.start]):04X})"
            ) from None
