"""The vision encoder with heads, for learning before the decoder looks at it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from pipeline.model.vision import PatchedSlice
from pipeline.processing.image import patchify, slice_image
from pipeline.processing.tokenizer import Tokenizer

from .initialise import whiten_patches
from .model import IGNORED, OmniForTraining
from .sketch import COLUMNS, ROWS, Words
from .synthetic.dense import COLOURS, WHAT, dense_example
from .synthetic.example import Language, Split
from .synthetic.generated import Generated
from .synthetic.lettering import print_text, random_text
from .synthetic.page import random_page
from .synthetic.scene import draw, random_scene
from .synthetic.sketching import LEVELS, thing_words
from .token_head import NEARNESS, TokenHead, best_path, token_ids

WHITENING_PICTURES = 300
EMPTY_WEIGHT = 0.2
"""Weight in the loss of a patch that shows nothing; about half of them do."""

EMPTY_PLACES = 0.1
"""The same of the embeds of a scene; about one in twenty tells of something."""

SHOWN = (*WHAT, *COLOURS[1:])
"""What embeds tell of; nothing is the first."""

PLACES_FROM, LINES_FROM = 0.5, 0.7
"""The difficulty from which embeds learn what their places hold, and from which they learn lines of print and scenes.
Before, features tell too little: the losses of embeds only made noise, and letters did not appear."""


@dataclass
class Picture:
    """One slice, and one of: a class and a colour a patch (`placed`: for the embeds, too); words by place; a line of
    letters."""

    piece: PatchedSlice
    patches: tuple[np.ndarray, np.ndarray] | None = None
    placed: bool = True
    places: dict[int, Words] | None = None
    line: list[int] = field(default_factory=list)


class VisionWords(nn.Module):
    """The vision stage: its features tell what and which colour each patch shows, its embeds what stands where
    in a scene, and the letters of a line of print."""

    def __init__(self, model: OmniForTraining, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.vision, self.processor = model.vision, model.model_config.image_processor
        width = model.model_config.vision.hidden_size
        self.what, self.colour = nn.Linear(width, len(WHAT)), nn.Linear(width, len(COLOURS))
        self.words, self.levels = (TokenHead(model.llm.weight, token_ids(tokenizer, u)) for u in (SHOWN[1:], LEVELS))

    def forward(
        self,
        patches: torch.Tensor,
        sizes: torch.Tensor,
        dense: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        places: torch.Tensor,
        lines: list[torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """patches [T, 3 * patch²], sizes [slices, 2].

        First come the slices with `dense`, classes and colours of patches int64 [patches] and what each place holds
        of them [slices, query_num, SHOWN]; then those with `places` int64 [scenes, 2, query_num]; then those with
        `lines` of letters.
        """
        shapes = [(int(rows), int(columns)) for rows, columns in sizes]
        features = self.features(patches, shapes)
        count, known = len(shapes) - len(places) - len(lines), len(dense[0])
        loss = features.new_zeros((), dtype=torch.float32)
        if count:
            loss = loss + _loss(self.what(features[:known]), dense[0]) + _loss(self.colour(features[:known]), dense[1])
        placed = bool(dense[2].any())
        if not (placed or len(places) or lines):
            return {"loss": loss}
        embeds = self.vision.resampler(features, shapes)  # [slices, query_num, D]
        if placed:
            loss = loss + self._shares(embeds[:count], dense[2])
        if len(places):
            loss = loss + self._places(embeds[count : count + len(places)], places)
        if lines:
            loss = loss + self.words.ctc(list(embeds[count + len(places) :]), lines)
        return {"loss": loss}

    def _shares(self, embeds: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """Places that hold several letters, or parts of one, tell of each: shares [slices, query_num, SHOWN]."""
        weight = (1 - (1 - EMPTY_WEIGHT) * shares[..., 0]) * shares.sum(-1)
        surprise = -(self.words(embeds).log_softmax(-1) * shares).sum(-1)
        return (surprise * weight).sum() / weight.sum().clamp(min=1.0)

    def _places(self, embeds: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        words, levels = places.transpose(0, 1).flatten(1)  # [scenes * query_num]
        flat, shapes = embeds.flatten(0, 1), levels > 0
        loss = _loss(self.words(flat), words, EMPTY_PLACES) + F.cross_entropy(self.levels(flat[shapes]), levels[shapes])
        wanted = self.words.table[words] + self.levels.table[levels] * shapes[:, None]
        return loss + NEARNESS * self.words.distance(flat, wanted)

    def features(self, patches: torch.Tensor, shapes: list[tuple[int, int]]) -> torch.Tensor:
        return self.vision.vpm(patches, shapes, lambda: None)

    def prepare(self, seed: int) -> None:
        """Fits the first layer to the pictures it will see."""
        seen = [item.piece.patches for item in Generated(self.draw, WHITENING_PICTURES, seed, "train")]
        embedding = self.vision.vpm.embeddings.patch_embedding
        assert embedding.bias is not None
        whiten_patches(embedding.weight, embedding.bias, torch.cat(seen))

    def draw(self, rng: random.Random, split: Split, difficulty: float) -> Picture:
        """Labelled patches alone at first, a fifth of them in the end."""
        if rng.random() < 1 - 0.8 * (difficulty - LINES_FROM) / (1 - LINES_FROM):
            picture, what, colour = dense_example(rng, split, difficulty)
            return Picture(self._piece(picture), (what, colour), placed=difficulty >= PLACES_FROM)
        if rng.random() < 0.25:
            scene = random_scene(rng)
            return Picture(self._whole(draw(scene)), places=thing_words(scene))
        language: Language = "en" if rng.random() < 0.5 else "zh"
        if rng.random() < 0.2:
            page = random_page(rng, language, split)
            row = rng.randrange(len(page.cells))
            column = rng.randrange(len(page.cells[0]))
            sliced = slice_image(page.picture, self.processor)
            piece = sliced.slices[1 + row * len(page.cells[0]) + column]
            return Picture(self._piece(piece), line=_letters(page.cells[row][column]))
        text = random_text(rng, language, split, 8 if language == "en" else 6)
        return Picture(self._whole(print_text(rng, text, language, split)), line=_letters(text))

    def _whole(self, picture: Image.Image) -> PatchedSlice:
        return self._piece(slice_image(picture, self.processor).slices[0])

    def _piece(self, picture: Image.Image) -> PatchedSlice:
        patches, rows, columns = patchify(picture, self.processor.patch_size)
        return PatchedSlice(torch.from_numpy(patches), rows, columns)

    @staticmethod
    def collate(batch: list[Picture]) -> dict[str, Any]:
        dense = [item for item in batch if item.patches is not None]
        scenes = [item for item in batch if item.places is not None]
        # Slices of one size run through the resampler as one.
        lines = sorted((item for item in batch if item.line), key=lambda item: (item.piece.rows, item.piece.columns))
        pieces = [item.piece for item in (*dense, *scenes, *lines)]
        places = np.zeros((len(scenes), 2, COLUMNS * ROWS), dtype=np.int64)
        for number, item in enumerate(scenes):
            for place, words in (item.places or {}).items():
                places[number, :, place] = _classes(words)
        labels = [np.concatenate([item.patches[i] for item in dense if item.patches] or [_NONE]) for i in (0, 1)]
        shares = [_shares(item.patches[0], item.piece) * item.placed for item in dense if item.patches]
        return {
            "patches": torch.cat([piece.patches for piece in pieces]),
            "sizes": torch.tensor([(piece.rows, piece.columns) for piece in pieces]),
            "dense": (*(torch.from_numpy(label) for label in labels), torch.tensor(np.array(shares))),
            "places": torch.from_numpy(places),
            "lines": [torch.tensor(item.line) for item in lines],
        }

    @torch.inference_mode()
    def score(self, data: Generated) -> dict[str, float]:
        """Of patches and of places those right that show something, of lines those right as a whole."""
        right: dict[str, list[bool]] = {"patches": [], "places": [], "lines": []}
        for item in data:
            batch, shapes = self.collate([item]), [(item.piece.rows, item.piece.columns)]
            features = self.features(batch["patches"], shapes)
            if item.patches is not None:
                what = batch["dense"][0]
                right["patches"] += (self.what(features).argmax(-1) == what)[what > 0].tolist()
                continue
            embeds = self.vision.resampler(features, shapes)[0]
            if item.places is not None:
                wanted = batch["places"][0, 0]
                right["places"] += (self.words(embeds).argmax(-1) == wanted)[wanted > 0].tolist()
            else:
                right["lines"].append(best_path(self.words(embeds)) == item.line)
        return {name: sum(each) / len(each) for name, each in right.items() if each}


def _loss(logits: torch.Tensor, labels: torch.Tensor, empty: float = EMPTY_WEIGHT) -> torch.Tensor:
    weight = logits.new_ones(logits.shape[1], dtype=torch.float32)
    weight[0] = empty
    return F.cross_entropy(logits.float(), labels, weight, ignore_index=IGNORED)


_NONE = np.zeros(0, dtype=np.int64)


def _shares(what: np.ndarray, piece: PatchedSlice) -> np.ndarray:
    """Of the patches at each place that show something, the share of each class; float32 [places, SHOWN]."""
    shares = np.zeros((COLUMNS * ROWS, len(SHOWN)), dtype=np.float32)
    rows, columns = (part.flatten() + 0.5 for part in np.mgrid[: piece.rows, : piece.columns])
    places = (columns / piece.columns * COLUMNS).astype(int) * ROWS + (rows / piece.rows * ROWS).astype(int)
    np.add.at(shares, (places[what > 0], what[what > 0]), 1.0)
    shares[shares.sum(1) == 0, 0] = 1.0
    return shares / shares.sum(1, keepdims=True)


def _letters(text: str) -> list[int]:
    return [SHOWN.index(letter) for letter in text]


def _classes(words: Words) -> tuple[int, int]:
    """A word and, beside a shape, its level."""
    return SHOWN.index(words[0]), 1 + LEVELS.index(words[1]) if len(words) > 1 else 0
