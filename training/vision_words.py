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

from .model import IGNORED, OmniForTraining
from .sketch import Words
from .synthetic.dense import COLOURS, WHAT, dense_example
from .synthetic.example import Language, Split
from .synthetic.generated import Generated
from .synthetic.lettering import Span, print_line, random_text
from .synthetic.page import random_page
from .synthetic.scene import draw, random_scene
from .synthetic.sketching import thing_words
from .token_head import NEARNESS, TokenHead, best_path, token_ids
from .vision_labels import UNITS, letters, place_labels
from .whitening import whiten_patches

WHITENING_PICTURES = 300
EMPTY_WEIGHT = 0.2
"""Weight in the loss of a patch that shows nothing; about half of them do."""

EMBEDS_FROM = 0.4
"""The difficulty from which embeds learn scenes and lines of print. Before, features tell too little: the losses of
embeds only made noise, and letters did not appear."""

SCENES = 0.45  # of the pictures that are no labelled patches
PAGES = 0.2  # of the lines


@dataclass
class Picture:
    """One slice, and one of: a class and a colour a patch; the words that the places of a scene tell; a line of print
    and where its letters stand."""

    piece: PatchedSlice
    patches: tuple[np.ndarray, np.ndarray] | None = None
    scene: dict[int, Words] | None = None
    line: str = ""
    spans: list[Span] = field(default_factory=list)


class VisionWords(nn.Module):
    """The vision stage: its features tell what and which colour each patch shows, its embeds what stands where
    in a scene, and the letters of a line of print."""

    def __init__(self, model: OmniForTraining, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.vision, self.processor = model.vision, model.model_config.image_processor
        width = model.model_config.vision.hidden_size
        self.what, self.colour = nn.Linear(width, len(WHAT)), nn.Linear(width, len(COLOURS))
        heads = {name: TokenHead(model.llm.weight, token_ids(tokenizer, units)) for name, units in UNITS.items()}
        self.heads: Any = nn.ModuleDict(heads)

    def forward(
        self,
        patches: torch.Tensor,
        sizes: torch.Tensor,
        dense: tuple[torch.Tensor, torch.Tensor],
        places: dict[str, torch.Tensor],
        lines: list[torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """patches [T, 3 * patch²], sizes [slices, 2].

        First come the slices with `dense`, classes and colours of patches, int64 [patches]; then those with `places`,
        of each head its word there, int64 [slices, query_num]: 0 is nothing, IGNORED what the head isn't asked. The
        last of them show `lines` of letters.
        """
        shapes = [(int(rows), int(columns)) for rows, columns in sizes]
        features = self.features(patches, shapes)
        told, known = len(places["what"]), len(dense[0])
        loss = features.new_zeros((), dtype=torch.float32)
        if known:
            loss = loss + _loss(self.what(features[:known]), dense[0]) + _loss(self.colour(features[:known]), dense[1])
        if told:
            embeds = self.vision.resampler(features[known:], shapes[-told:])  # [told, query_num, D]
            loss = loss + self._places(embeds.flatten(0, 1), {name: each.flatten() for name, each in places.items()})
        if lines:
            loss = loss + self.heads["what"].ctc(list(embeds[-len(lines) :]), lines)
        return {"loss": loss}

    def _places(self, embeds: torch.Tensor, places: dict[str, torch.Tensor]) -> torch.Tensor:
        """embeds [places, D], of each head its words int64 [places]. What they are wanted to be, where that is known,
        is the sum of all heads' words, or the blank."""
        loss, wanted = embeds.new_zeros((), dtype=torch.float32), torch.zeros(len(embeds), embeds.shape[-1])
        for name, words in places.items():
            head = self.heads[name]
            loss = loss + F.cross_entropy(head(embeds), words, ignore_index=IGNORED, reduction="sum")
            wanted = wanted + head.table[words.clamp(min=0)] * (words > 0)[:, None]
        what = places["what"]
        wanted[what == 0] = self.heads["what"].table[0]
        known = what != IGNORED
        distance = self.heads["what"].distance(embeds[known], wanted[known], what[known] > 0)
        return loss / (what > 0).sum() + NEARNESS * distance

    def features(self, patches: torch.Tensor, shapes: list[tuple[int, int]]) -> torch.Tensor:
        return self.vision.vpm(patches, shapes, lambda: None)

    def prepare(self, seed: int) -> None:
        """Fits the first layer to the pictures it will see."""
        seen = [item.piece.patches for item in Generated(self.draw, WHITENING_PICTURES, seed, "train")]
        embedding = self.vision.vpm.embeddings.patch_embedding
        assert embedding.bias is not None
        whiten_patches(embedding.weight, embedding.bias, torch.cat(seen))

    def draw(self, rng: random.Random, split: Split, difficulty: float) -> Picture:
        """Labelled patches alone at first, a tenth of them in the end."""
        if rng.random() < 1 - 0.9 * (difficulty - EMBEDS_FROM) / (1 - EMBEDS_FROM):
            picture, what, colour = dense_example(rng, split, difficulty)
            return Picture(self._piece(picture), (what, colour))
        if rng.random() < SCENES:
            scene = random_scene(rng)
            return Picture(self._whole(draw(scene)), scene=thing_words(scene))
        language: Language = "en" if rng.random() < 0.5 else "zh"
        if rng.random() < PAGES:
            page = random_page(rng, language, split)
            row = rng.randrange(len(page.cells))
            column = rng.randrange(len(page.cells[0]))
            piece = slice_image(page.picture, self.processor).slices[1 + row * len(page.cells[0]) + column]
            return Picture(self._piece(piece), line=page.cells[row][column], spans=page.spans[row][column])
        text = random_text(rng, language, split, 8 if language == "en" else 6)
        picture, spans = print_line(rng, text, language, split)
        return Picture(self._whole(picture), line=text, spans=spans)

    def _whole(self, picture: Image.Image) -> PatchedSlice:
        return self._piece(slice_image(picture, self.processor).slices[0])

    def _piece(self, picture: Image.Image) -> PatchedSlice:
        patches, rows, columns = patchify(picture, self.processor.patch_size)
        return PatchedSlice(torch.from_numpy(patches), rows, columns)

    @staticmethod
    def collate(batch: list[Picture]) -> dict[str, Any]:
        dense = [item for item in batch if item.patches is not None]
        # Slices of one size run through the resampler as one.
        told = [item for item in batch if item.patches is None]
        told.sort(key=lambda item: (bool(item.line), item.piece.rows, item.piece.columns))
        pieces = [item.piece for item in (*dense, *told)]
        labels = [np.concatenate([item.patches[i] for item in dense if item.patches] or [_NONE]) for i in (0, 1)]
        return {
            "patches": torch.cat([piece.patches for piece in pieces]),
            "sizes": torch.tensor([(piece.rows, piece.columns) for piece in pieces]),
            "dense": tuple(torch.from_numpy(label) for label in labels),
            "places": place_labels([(item.scene or {}, item.line, item.spans) for item in told]),
            "lines": [torch.tensor(letters(item.line)) for item in told if item.line],
        }

    @torch.inference_mode()
    def score(self, data: Generated) -> dict[str, float]:
        """Of patches and of scenes' places those right that show something, or seem to; of lines those right as a
        whole."""
        right: dict[str, list[bool]] = {"patches": [], "places": [], "lines": []}
        for item in data:
            batch, shapes = self.collate([item]), [(item.piece.rows, item.piece.columns)]
            features = self.features(batch["patches"], shapes)
            if item.patches is not None:
                what = batch["dense"][0]
                right["patches"] += (self.what(features).argmax(-1) == what)[what > 0].tolist()
                continue
            embeds = self.vision.resampler(features, shapes)[0]
            if item.scene is None:
                right["lines"].append(best_path(self.heads["what"](embeds)) == letters(item.line))
                continue
            wanted = {name: batch["places"][name][0] for name in ("what", "colour")}
            found = {name: self.heads[name](embeds).argmax(-1) for name in wanted}
            same = (found["what"] == wanted["what"]) & (found["colour"] == wanted["colour"])
            right["places"] += same[(found["what"] > 0) | (wanted["what"] > 0)].tolist()
        return {name: sum(each) / len(each) for name, each in right.items() if each}


def _loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    weight = logits.new_ones(logits.shape[1], dtype=torch.float32)
    weight[0] = EMPTY_WEIGHT
    return F.cross_entropy(logits.float(), labels, weight, ignore_index=IGNORED)


_NONE = np.zeros(0, dtype=np.int64)
