"""Muon and AdamW as one optimizer."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from training.muon import MuonAdamW, StackedMuon


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.body = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])})
        self.frozen = nn.Linear(8, 8).requires_grad_(False)

    @property
    def layers(self) -> list[nn.Linear]:
        return list(self.body["layers"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x = x + layer(x).relu()
        return self.frozen(x)


def step(net: Net, optimizer: MuonAdamW, seed: int) -> None:
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    (net(x) - 1).square().mean().backward()
    optimizer.step()


def test_matrices_of_layers_go_to_muon_and_the_rest_to_adamw() -> None:
    net = Net()
    adamw, muon = MuonAdamW(net.named_parameters(), lr=1e-3).parts
    assert {id(p) for p in muon.param_groups[0]["params"]} == {id(layer.weight) for layer in net.layers}
    others = [*net.embed.parameters(), *(layer.bias for layer in net.layers)]
    assert {id(p) for p in adamw.param_groups[0]["params"]} == {id(p) for p in others}


def test_a_schedule_moves_both() -> None:
    net = Net()
    optimizer = MuonAdamW(net.named_parameters(), lr=1e-3, muon_ratio=5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 0.5)
    assert [part.param_groups[0]["lr"] for part in optimizer.parts] == [0.5e-3, 2.5e-3]
    assert schedule.get_last_lr() == [0.5e-3, 2.5e-3]


def test_encoders_learn_at_their_share_and_a_schedule_keeps_it() -> None:
    model = nn.ModuleDict({"llm": Net(), "vision": Net(), "audio": Net()})
    optimizer = MuonAdamW(model.named_parameters(), lr=1e-3, muon_ratio=5, encoder_share=0.1)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 0.5)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, net in model.items():
        share = 1.0 if name == "llm" else 0.1
        assert rates[id(net.embed.weight)] == pytest.approx(0.5e-3 * share)
        assert rates[id(net.layers[1].weight)] == pytest.approx(2.5e-3 * share)


def test_resuming_from_its_state_makes_the_same_steps() -> None:
    torch.manual_seed(0)
    net = Net()
    optimizer = MuonAdamW(net.named_parameters(), lr=1e-2)
    for seed in range(3):
        step(net, optimizer, seed)
    twin = copy.deepcopy(net)
    resumed = MuonAdamW(twin.named_parameters(), lr=1e-2)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for seed in range(3, 6):
        step(net, optimizer, seed)
        step(twin, resumed, seed)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))


def test_the_loss_falls() -> None:
    torch.manual_seed(0)
    net = Net()
    optimizer = MuonAdamW(net.named_parameters(), lr=1e-2)
    x = torch.randn(64, 4)
    before = (net(x) - 1).square().mean().item()
    for seed in range(30):
        step(net, optimizer, seed)
    assert (net(x) - 1).square().mean().item() < before / 2


def test_a_model_of_matrices_alone_has_muon_alone() -> None:
    net = Net()
    names = [(name, p) for name, p in net.named_parameters() if "layers" in name and p.ndim == 2]
    (only,) = MuonAdamW(names, lr=1e-3).parts
    assert isinstance(only, torch.optim.Muon)


@pytest.mark.parametrize("bfloat16", [True, False])
def test_stacked_matrices_make_torchs_steps(bfloat16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide, tall and square ones, some of one shape. In float32 but for the rounding of torch's."""
    monkeypatch.setattr("training.muon.trains_in_bfloat16", lambda: bfloat16)
    torch.manual_seed(0)
    shapes = [(24, 40), (40, 24), (32, 32), (24, 40), (40, 24), (24, 32)]
    ours, theirs = ([nn.Parameter(torch.full(shape, 0.1)) for shape in shapes] for _ in range(2))
    optimizers = [kind(ps, lr=0.02) for kind, ps in ((StackedMuon, ours), (torch.optim.Muon, theirs))]
    for _ in range(4):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape)
            other.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-3)
        assert (mine - 0.1).abs().mean() > 0.005
    assert optimizers[0].state_dict()["state"][0].keys() == optimizers[1].state_dict()["state"][0].keys()


def test_a_matrix_without_a_gradient_stays() -> None:
    moved, stays = (nn.Parameter(torch.ones(4, 4)) for _ in range(2))
    moved.grad = torch.randn(4, 4)
    StackedMuon([moved, stays], lr=0.02).step()
    assert not torch.equal(moved, torch.ones(4, 4))
    assert torch.equal(stays, torch.ones(4, 4))
