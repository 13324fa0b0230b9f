"""Embeds that are a token's embedding mean that token."""

from __future__ import annotations

import torch

from training.token_head import TokenHead


def test_embeds_near_a_tokens_embedding_mean_it() -> None:
    torch.manual_seed(0)
    embeddings = torch.randn(50, 32)
    head = TokenHead(embeddings, [0, 7, 9])
    assert head(embeddings[[9, 0, 7]]).argmax(-1).tolist() == [2, 0, 1]
    assert head.distance(embeddings[[7]], head.table[[1]], torch.tensor([True])) == 0
    spoken = embeddings[[0, 7, 7, 0, 9]]
    losses = [head.ctc([spoken], [torch.tensor(target)]).item() for target in ([1, 2], [2, 1], [1])]
    assert losses[0] < 0.5 < min(losses[1:])


def test_the_few_that_say_something_are_half_of_the_distance() -> None:
    head = TokenHead(torch.randn(50, 32, generator=torch.manual_seed(0)), [0, 7])
    wanted = torch.zeros(10, 32)
    said = torch.arange(10) == 3
    embeds = wanted + said[:, None]
    assert head.distance(embeds, wanted, said) == head.distance(embeds + 1, wanted + 1, said)
    torch.testing.assert_close(head.distance(embeds, wanted, said), torch.tensor(0.5 / head.variance))
    other = wanted + (torch.arange(10) == 5)[:, None]
    torch.testing.assert_close(head.distance(other, wanted, said), torch.tensor(0.5 / 9 / head.variance))
    torch.testing.assert_close(head.distance(embeds[said], wanted[said], said[said]), torch.tensor(0.5 / head.variance))
