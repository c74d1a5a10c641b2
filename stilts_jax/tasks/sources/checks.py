"""What every example has to be, whichever source it comes from."""

from stilts_jax.tasks.sources.documents import BadRow
from stilts_jax.tasks.sources.rows import check_text
from stilts_jax.tasks.spec import (
    ChoiceExample,
    ClassifyExample,
    EmbedExample,
    Example,
    SpanExample,
    TagExample,
    TextExample,
)


def check_example(example: Example) -> bool:
    """Checks what a converter made of a row, and returns whether it has its gold.

    Raises:
        BadRow: a text is empty or no text, or the example can't be what its kind is.
    """
    texts: dict[str, str] = {}
    has_gold = True
    check_text("the id", example.id)
    match example:
        case ClassifyExample(text=text, pair=pair, label=label):
            texts = {"text": text} if pair is None else {"first text": text, "second text": pair}
            has_gold = label is not None
        case ChoiceExample(prompt=prompt, choices=choices, label=label):
            texts = {"prompt": prompt, **{f"choice {index}": choice for index, choice in enumerate(choices)}}
            has_gold = label is not None
            if len(choices) < 2:
                raise BadRow(f"{len(choices)} choices are there, and a question needs two")
            if label is not None and not 0 <= label < len(choices):
                raise BadRow(f"the label {label} is none of the {len(choices)} choices")
        case TagExample(words=words, tags=tags):
            if not words:
                raise BadRow("the sentence has no words")
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
        check_text(f"the {name}", text)
    return has_gold
