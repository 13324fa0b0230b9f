"""The whole little world: every generator by the name of its task, and mixtures of them to train on."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial

from torch.utils.data import Dataset

from ..features import Features, Featuriser
from .arithmetic import sum_example
from .compare import compare_example, judged_example
from .copying import copy_example
from .dictation import spoken_example, transcription_example
from .drills import count_drill, print_drill, property_drill, relation_drill, text_drill
from .example import Example, Generator, Language, Split
from .facts import fact_example
from .informal import informal
from .lettering import lettering_example
from .memory import memory_example, told_example
from .outside import refusal_example
from .page import page_example
from .scene_questions import scene_example
from .sketching import sketch_page, sketch_scene, sketch_speech, sketch_text
from .smalltalk import greeting_example

TASKS: dict[str, Generator] = {
    "shapes": scene_example,
    "text": lettering_example,
    "page": page_example,
    "compare": compare_example,
    "speech": transcription_example,
    "spoken": spoken_example,
    "sum": sum_example,
    "copy": copy_example,
    "fact": fact_example,
    "greeting": greeting_example,
    "memory": memory_example,
    "refusal": refusal_example,
}

SKETCHED: dict[str, Generator] = {
    "shapes": partial(scene_example, drawn=sketch_scene),
    "text": partial(lettering_example, printed=sketch_text),
    "page": partial(page_example, sketched=sketch_page),
    "compare": partial(compare_example, drawn=sketch_scene, printed=sketch_text),
    "speech": partial(transcription_example, recorded=sketch_speech),
    "spoken": partial(spoken_example, drawn=sketch_scene, recorded=sketch_speech),
    "memory": partial(memory_example, drawn=sketch_scene),
}

TRAINING_ONLY: dict[str, Generator] = {
    "told": told_example,
    "judged": judged_example,
    "text drill": text_drill,
    "print drill": print_drill,
    "count drill": count_drill,
    "property drill": property_drill,
    "relation drill": relation_drill,
    "sketched print drill": partial(print_drill, printed=sketch_text),
    "sketched count drill": partial(count_drill, drawn=sketch_scene),
    "sketched property drill": partial(property_drill, drawn=sketch_scene),
    "sketched relation drill": partial(relation_drill, drawn=sketch_scene),
    **{f"sketched {task}": generator for task, generator in SKETCHED.items()},
}

LANGUAGES: tuple[Language, ...] = ("en", "zh")


def _language(rng: random.Random) -> Language:
    return rng.choice(LANGUAGES)


def example(task: str, seed: int | str, index: int, split: Split, language: Language | None = None) -> Example:
    """Example `index` of a task: the same for the same arguments."""
    name = f"{seed} {split} {task} {index}"
    rng = random.Random(name)
    made = (TASKS | TRAINING_ONLY)[task](rng, language or _language(rng), split)
    return informal(random.Random(f"{name} informal"), made)


class World(Dataset[Features]):
    """A mixture of tasks by weight, drawn as it is asked for: item i depends on the seed and i alone."""

    def __init__(
        self, weights: Mapping[str, float], size: int, seed: int | str, featurise: Callable[..., Features] | Featuriser
    ) -> None:
        unknown = set(weights) - set(TASKS) - set(TRAINING_ONLY)
        if unknown:
            raise ValueError(f"unknown task(s) {', '.join(sorted(unknown))}; known are {', '.join(TASKS)}")
        self.names, self.weights = list(weights), list(weights.values())
        self.size, self.seed, self.featurise = size, seed, featurise

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Features:
        if not 0 <= index < self.size:
            raise IndexError(index)
        (task,) = random.Random(f"{self.seed} {index}").choices(self.names, self.weights)
        return self.featurise(example(task, self.seed, index, "train").conversations)
