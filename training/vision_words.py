"""The vision encoder with heads, for learning before the decoder looks at it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.processing.tokenizer import Tokenizer

from .last_layer import least_squares, outputs_of
from .model import IGNORED, OmniForTraining
from .synthetic.dense import COLOURS, WHAT
from .synthetic.example import Split
from .synthetic.generated import Generated
from .token_head import NEARNESS, TokenHead, best_path, token_ids
from .vision_labels import UNITS, letters, place_labels
from .vision_pictures import Picture, draw_picture
from .whitening import whiten_patches

WHITENING_PICTURES = 300
EMPTY_WEIGHT = 0.2
"""Weight in the loss of a patch that shows nothing; about half of them do."""


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
        """embeds [places, D], of each head its words int64 [places]."""
        loss = embeds.new_zeros((), dtype=torch.float32)
        for name, words in places.items():
            loss = loss + F.cross_entropy(self.heads[name](embeds), words, ignore_index=IGNORED, reduction="sum")
        what = places["what"]
        known = what != IGNORED
        distance = self.heads["what"].distance(embeds[known], self.wanted(places)[known], what[known] > 0)
        return loss / (what > 0).sum() + NEARNESS * distance

    def wanted(self, places: dict[str, torch.Tensor]) -> torch.Tensor:
        """What the embeds of places are wanted to be, [places, D]: the sum of all heads' words, or the blank."""
        said = [self.heads[name].table[words.clamp(min=0)] * (words > 0)[:, None] for name, words in places.items()]
        wanted = torch.stack(said).sum(0)
        wanted[places["what"] == 0] = self.heads["what"].table[0]
        return wanted

    def features(self, patches: torch.Tensor, shapes: list[tuple[int, int]]) -> torch.Tensor:
        return self.vision.vpm(patches, shapes, lambda: None)

    def prepare(self, seed: int) -> None:
        """Fits the first layer to the pictures it will see."""
        seen = [item.piece.patches for item in Generated(self.draw, WHITENING_PICTURES, seed, "train")]
        embedding = self.vision.vpm.embeddings.patch_embedding
        assert embedding.bias is not None
        whiten_patches(embedding.weight, embedding.bias, torch.cat(seen))

    @torch.no_grad()
    def fit_last_layer(self, data: Generated) -> None:
        """The projection that brings embeds nearest to what they are wanted to be, where that is known."""
        resampler, kept = self.vision.resampler, []
        for item in data:
            if item.patches is not None:
                continue
            batch, shapes = self.collate([item]), [(item.piece.rows, item.piece.columns)]
            with outputs_of(resampler.ln_post) as given:
                resampler(self.features(batch["patches"], shapes), shapes)
            places = {name: each[0] for name, each in batch["places"].items()}
            known = places["what"] != IGNORED
            groups = (places["what"] > 0).long() + 2 * bool(item.line)
            kept.append((given[0][0][known], self.wanted(places)[known], groups[known]))
        inputs, wanted, groups = (torch.cat(each) for each in zip(*kept, strict=True))
        resampler.proj.copy_(least_squares(inputs, wanted, groups))

    def draw(self, rng: random.Random, split: Split, difficulty: float) -> Picture:
        return draw_picture(rng, split, difficulty, self.processor)

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
