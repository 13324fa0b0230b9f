"""A cheap head for an encoder's embeds: the decoder's own token embeddings.

With it an encoder learns to give at each place what a sketch (`sketch.py`) gives there, which the decoder can read
already.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.processing.tokenizer import Tokenizer

SHARPNESS = 16.0
"""The score of an embed that is its token's embedding; others' are near 0."""

NEARNESS = 0.5
"""Weight of the distance between embeds and the token embeddings that they stand for."""


class TokenHead(nn.Module):
    """Scores embeds by their products with tokens' embeddings, which stay as they are."""

    table: torch.Tensor  # [tokens, D]

    def __init__(self, embeddings: torch.Tensor, tokens: list[int]) -> None:
        super().__init__()
        self.register_buffer("table", embeddings[tokens].detach().clone())
        self.scale = float(SHARPNESS / self.table.pow(2).sum(-1).mean())
        self.variance = float(embeddings.detach().var())

    def forward(self, embeds: torch.Tensor) -> torch.Tensor:
        """[…, D] -> float32 [..., tokens]"""
        return (embeds @ self.table.T.to(embeds.dtype)).float() * self.scale

    def distance(self, embeds: torch.Tensor, wanted: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        """Mean square of what parts embeds from wanted ones, in variances of a token's embedding. Half of it is of
        those that say something (bool [n]): nine in ten are blanks."""
        apart = (embeds.float() - wanted).pow(2).mean(-1) / self.variance
        shares = [apart[each].mean() for each in (said, ~said) if each.any()]
        return sum(shares, apart.new_zeros(())) / 2

    def ctc(self, embeds: list[torch.Tensor], targets: list[torch.Tensor]) -> torch.Tensor:
        """The CTC loss of sequences of embeds [n, D]; 0 is the blank (Graves et al., 2006)."""
        logits = [self(x).log_softmax(-1) for x in embeds]
        lengths = torch.tensor([len(x) for x in logits])
        padded = nn.utils.rnn.pad_sequence(logits)  # [embeds, sequences, tokens]
        sizes = torch.tensor([len(t) for t in targets])
        loss = F.ctc_loss(padded, torch.cat(targets), lengths, sizes, zero_infinity=True)
        chances = torch.cat(logits).detach().exp()
        return loss + NEARNESS * self.distance(torch.cat(embeds), chances @ self.table, chances[:, 0] < 0.5)


def best_path(logits: torch.Tensor) -> list[int]:
    """The best path of a CTC head, without repetitions and blanks."""
    best = logits.argmax(-1).unique_consecutive()
    return best[best > 0].tolist()


def token_ids(tokenizer: Tokenizer, units: Iterable[str]) -> list[int]:
    """The blank's token, which stands at every embed's place in a prompt, and the units'."""
    found = [tokenizer.encode(unit, allow_special=False) for unit in units]
    assert all(len(ids) == 1 for ids in found)
    return [tokenizer.special("unk"), *(ids[0] for ids in found)]
