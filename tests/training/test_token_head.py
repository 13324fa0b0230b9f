"""Embeds that are a token's embedding mean that token."""

from __future__ import annotations

import torch

from training.token_head import TokenHead


def test_embeds_near_a_tokens_embedding_mean_it() -> None:
    torch.manual_seed(0)
    embeddings = torch.randn(50, 32)
    head = TokenHead(embeddings, [0, 7, 9])
    assert head(embeddings[[9, 0, 7]]).argmax(-1).tolist() == [2, 0, 1]
    assert head.distance(embeddings[[7]], head.table[[1]]) == 0
    spoken = embeddings[[0, 7, 7, 0, 9]]
    losses = [head.ctc([spoken], [torch.tensor(target)]).item() for target in ([1, 2], [2, 1], [1])]
    assert losses[0] < 0.5 < min(losses[1:])
