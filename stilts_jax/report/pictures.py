"""With pictures and without: what seeing adds to an intermediate task, beside the same training on its controls."""

from stilts_jax.report.grid import Grid, Row
from stilts_jax.report.names import CONTROLS, task_title
from stilts_jax.report.significance import Comparisons
from stilts_jax.report.tables import Cell, Section, Table, gain_tone, signed, words


def _seeing(intermediate: str) -> str:
    """``easy_vqa`` for ``easy_vqa.blind``; the name itself where it is no control."""
    parts = (part.rpartition(".") for part in intermediate.split("+"))
    return "+".join(name if control in CONTROLS else f"{name}{dot}{control}" for name, dot, control in parts)


def pictures_section(grid: Grid, comparisons: Comparisons) -> Section | None:
    """Returns nothing where no intermediate stands beside a control of its own."""
    pairs: list[tuple[Row, Row]] = []
    for control in grid.compared:
        seeing = (_seeing(control[0]), control[1])
        if seeing != control and seeing in grid.compared:
            pairs.append((seeing, control))
    tasks = [task for task in grid.scored if any((row, task) in comparisons.languages for row, _ in pairs)]
    if not tasks:
        return None
    found = comparisons.between([(*pair, task) for pair in pairs for task in tasks])
    rows = []
    for seeing, control in pairs:
        name = f"{grid.row_title(seeing)} − {task_title(control[0])}"
        rows.append([Cell(name)])
        for task in tasks:
            one = found.get((seeing, control, task))
            if one is None:
                rows[-1].append(Cell("–", note="the two have no items, or no languages, in common"))
                continue
            interval = one.interval
            shown = Cell(
                signed(interval.difference) + "*" * one.holds,
                detail=f"{signed(interval.low)} to {signed(interval.high)}",
                tone=gain_tone(interval.difference) if one.holds else None,
                strong=one.holds,
                numbers=interval._asdict() | {"holm": one.holm, "q": one.q, "items": one.items},
            )
            rows[-1].append(shown)
    reading = (
        "Is it the pictures that help, or the text that comes with them? Each field is the score after the task with "
        "its pictures less the score after a control that was trained on the same text: with blank pictures (blind), "
        "with those of other rows (shuffled), or with none (text). The interval (95 %) is over test items, paired, and "
        "over seeds where there are several; * differs from zero after Holm's correction over this table."
    )
    columns = [*words("Intermediate"), *words(*map(grid.title, tasks))]
    table = Table("pictures", "With pictures less without", columns, rows, ())
    return Section("pictures", "With pictures / without", reading, [table])
