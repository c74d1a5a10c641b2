"""Which phases an experiment has: a pure function from settings and tasks to a list, parents first.

A phase is what is trained (or only evaluated) as one unit. Two targets that train on the same data with the same
hyperparameters share a phase (XQuAD and MLQA), and every target shares the intermediate phase before it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from stilts_jax.checked import split_names, split_pairs, stem
from stilts_jax.errors import ConfigError, nearest
from stilts_jax.settings import Settings
from stilts_jax.tasks import list_tasks
from stilts_jax.tasks.spec import Hyperparameters, Task

NONE = "none"
HUB = "hub:"  # a row that starts from another, already fine-tuned encoder

Stage = Literal["intermediate", "target", "retrieval"]


class Training(NamedTuple):
    """How targets are trained, one task after the other; nothing is trained where there are no ``steps``."""

    steps: tuple[str, ...]
    hyperparameters: Hyperparameters | None = None


@dataclass(frozen=True)
class Phase:
    """One unit of an experiment; tasks are references for ``get_task``: ``my.module:TASK``, ``mnli@de``."""

    name: str  # readable and unique in its grid: ``mnli.s0``, ``mnli.s0+squad_v1.s1``
    stage: Stage
    intermediate: str
    train: tuple[str, ...]  # one task per step where there are several; empty where nothing is trained
    evaluate: tuple[str, ...]  # scored when it is done
    encoder: str  # where the encoder comes from if there is no parent
    parent: "Phase | None" = None
    intermediate_seed: int | None = None
    target_seed: int | None = None
    hyperparameters: Hyperparameters | None = None  # the target's own where it trains on another task's data
    carry_head: bool = False  # take over the parent's head too (the second step of a training in two steps)

    @property
    def seed(self) -> int:
        """The seed of what this phase itself trains."""
        return (self.intermediate_seed if self.stage == "intermediate" else self.target_seed) or 0

    def ancestors(self) -> Iterator["Phase"]:
        """The parent, its parent, and so on."""
        phase = self.parent
        while phase is not None:
            yield phase
            phase = phase.parent


def list_phases(settings: Settings, get_task: Callable[[str], Task]) -> list[Phase]:
    """Returns every phase of the grid, parents before children, row by row."""
    experiment = settings.experiment
    targets = _target_trainings(settings, get_task)
    phases: list[Phase] = []
    for row in split_names(experiment.intermediates):
        for start in _starts(row, settings, get_task):
            if start.train:
                phases.append(start)
            phases.extend(_target_phases(start, targets, settings, get_task))
    _check_names(phases, settings, get_task)
    return phases


def _check_names(phases: list[Phase], settings: Settings, get_task: Callable[[str], Task]) -> None:
    names = [phase.name for phase in phases]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"{name!r} would be run twice.",
                where="config.experiment",
                fix="name each row and target once",
            )
    tasks: dict[str, Task] = {}
    for task in (get_task(name) for phase in phases for name in (*phase.train, *phase.evaluate)):
        if tasks.setdefault(task.name, task) != task:
            raise ConfigError(
                f"Two tasks are called {task.name!r}.", where="config.experiment", fix="rename one of them"
            )
    # A registered task that a part of an experiment leaves out may keep its options.
    known = {name for task in tasks for name in (task, stem(task))}.union(list_tasks())
    for name in settings.train.exceptions().keys() - known:
        what = f"{name!r} is no task."
        raise ConfigError(what, where="config.train.by_task", fix=nearest(name, sorted(known)))


def _target_trainings(settings: Settings, get_task: Callable[[str], Task]) -> dict[Training, tuple[str, ...]]:
    """Returns the target tasks that each run serves."""
    instead = split_pairs(settings.experiment.train_on, "config.experiment.train_on")
    trainings: dict[Training, tuple[str, ...]] = {}
    for name in split_names(settings.experiment.targets):
        task, key = get_task(name), Training(())
        if task.is_trained:
            wanted = instead[name].split("/") if name in instead else task.train_on or (name,)
            language = name.partition("@")[2] or settings.experiment.source_language
            steps = tuple(
                step if language == "en" or "@" in step else f"{step}@{language}" for step in wanted
            )
            for step in map(get_task, steps):  # a head that can answer; unknown names were refused before
                if step.kind != task.kind or (step.labels and task.labels and step.labels != task.labels):
                    raise ConfigError(
                        f"{name} ({_form(task)}) can't be scored by a model of {step.name} ({_form(step)}).",
                        where="config.experiment.train_on, or train_on of the task",
                        fix="train it on a task of its kind with the same labels in the same order",
                    )
            key = Training(steps, hyperparameters_of(task, settings))
        trainings[key] = (*trainings.get(key, ()), name)
    return trainings


def _form(task: Task) -> str:
    return f"{task.kind} of {', '.join(task.labels)}" if task.labels else task.kind


def hyperparameters_of(task: Task, settings: Settings) -> Hyperparameters:
    """Returns the task's preset with what the settings override."""
    preset = task.hyperparameters.get(settings.preset, task.hyperparameters["paper"])
    return replace(preset, **settings.train.given_for(task.name))  # type: ignore[arg-type]


def _starts(row: str, settings: Settings, get_task: Callable[[str], Task]) -> Iterator[Phase]:
    """The starts of a row: its encoder as it is (then ``train`` is empty), or one intermediate phase for each seed."""
    experiment = settings.experiment
    if row == NONE or row.startswith(HUB):
        encoder = settings.encoder if row == NONE else row.removeprefix(HUB)
        yield Phase(row, "intermediate", row, (), (), encoder)
        return
    fix = nearest(row, [NONE, *list_tasks()])
    if row not in list_tasks() and repr(NONE) in fix.partition("?")[0]:
        raise ConfigError(f"There is no task {row!r}.", where="config.experiment.intermediates", fix=fix)
    tasks = tuple(row.split("/"))
    # An unknown name is refused here, before anything runs.
    scored = tuple(name for name in tasks if get_task(name).is_scored_on_selection)
    label = "+".join(get_task(name).name for name in tasks)
    for seed in range(experiment.first_seed, experiment.first_seed + experiment.intermediate_seeds):
        yield Phase(
            f"{label}.s{seed}",
            "intermediate",
            label,
            tasks,
            scored,
            settings.encoder,
            intermediate_seed=seed,
        )


def _target_phases(
    start: Phase,
    trainings: dict[Training, tuple[str, ...]],
    settings: Settings,
    get_task: Callable[[str], Task],
) -> Iterator[Phase]:
    first = settings.experiment.first_seed
    start = replace(start, parent=start if start.train else None)
    for training, targets in trainings.items():
        if not training.steps:
            yield replace(
                start, name=f"{start.name}+retrieval", stage="retrieval", train=(), evaluate=targets
            )
        # Runs on the same data with other hyperparameters need names of their own.
        alone = sum(other.steps == training.steps for other in trainings) == 1
        own = "" if alone else f"({get_task(targets[0]).name})"
        for seed in range(first, first + settings.experiment.target_seeds):
            last, path = start.parent, []
            for step in training.steps:
                path.append(get_task(step).name)
                last = replace(
                    start,
                    name=f"{start.name}+{'-'.join(path)}{own}.s{seed}",
                    stage="target",
                    train=(step,),
                    evaluate=targets if len(path) == len(training.steps) else (),
                    parent=last,
                    target_seed=seed,
                    hyperparameters=training.hyperparameters,
                    carry_head=len(path) > 1,
                )
                yield last


def select_part(phases: list[Phase], part: int, parts: int) -> list[Phase]:
    """Returns the phases of one part, from 1 to ``parts``.

    Rows (an intermediate with one of its seeds) are dealt out whole, so that parents stay with their children.
    Where there are more parts than rows, several parts share a row: the first trains the intermediate, and the
    others wait for it and take their share of the targets.
    """
    rows: dict[tuple[str, int | None], list[Phase]] = {}
    for phase in phases:
        rows.setdefault((phase.intermediate, phase.intermediate_seed), []).append(phase)
    mine: list[Phase] = []
    for number, row in enumerate(rows.values()):
        takers = [taker for taker in range(parts) if taker % len(rows) == number] or [number % parts]
        # A training in two steps stays together.
        units = list(dict.fromkeys(_first_of_target(phase).name for phase in row))
        turn = {unit: takers[index % len(takers)] for index, unit in enumerate(units)}
        mine += [phase for phase in row if turn[_first_of_target(phase).name] == part - 1]
    return mine


def _first_of_target(phase: Phase) -> Phase:
    while phase.parent is not None and phase.parent.stage == phase.stage:
        phase = phase.parent
    return phase
