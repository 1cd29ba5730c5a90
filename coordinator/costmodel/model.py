"""The attention cost model: the stores of a program attend to each other and to the hardware.

A program is the row of its schedule and the rows of its buffer stores. The hardware enters three
times, each time so that it can change the order of programs of one task
(a term added to the score could not): joined to every store's features, as a token the stores
attend to, and as scale and shift (FiLM) of the normalised values in every block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coordinator.costmodel.layout import RATIOS
from coordinator.costmodel.normalise import Normaliser
from tunefleet.features import MAX_ROWS, PROGRAM_FEATURES_PER_STORE

_MASKED = -1e9
"""Finite: a row of minus infinity turns into NaN in softmax, in ONNX runtimes too."""
_POOL_SCALE = 0.25
"""Programs have about four stores, so pooled sums start near the size of one store's values."""


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the network. They travel with its weights."""

    width: int = 48
    attention_heads: int = 4
    blocks: int = 1
    """Twice the width and a second block ranked held-out tasks of the shipped dataset no better,
    and take twice the time."""
    hardware_width: int = 48
    ensemble: int = 4
    """Score heads; their disagreement is the model's uncertainty."""
    head_width: int = 48
    token_width: int = PROGRAM_FEATURES_PER_STORE
    """Raw values of a token: a buffer store, or a schedule step."""
    max_tokens: int = MAX_ROWS
    scheduled: bool = True
    """Whether the first token is the row of the whole schedule."""
    relations: bool = True
    """Whether stores' sizes are related to the hardware's by construction (``layout.RATIOS``)."""
    hardware: bool = True
    """Whether the hardware is looked at; without, a model for one device."""
    pooling: str = "sum+attention"
    """How tokens become one program: ``sum``, ``attention`` or both."""
    dropout: float = 0.1
    """Share of a program's embedding hidden in training."""

    def __post_init__(self) -> None:
        """Check what cannot be mended later.

        Raises:
            ValueError: no such pooling.
        """
        if not set(self.pooling.split("+")) <= {"sum", "attention"}:
            raise ValueError(f"pooling is sum, attention or sum+attention, not {self.pooling!r}")


class CostModel(nn.Module):
    """Scores programs for a device; higher is faster. Scores compare within one task only."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        related = RATIOS if config.relations and config.hardware else ()
        self.normaliser = Normaliser(config.token_width, related)
        width = config.width
        self.hardware = nn.Sequential(
            nn.Linear(Normaliser.hardware_size, config.hardware_width),
            nn.GELU(),
            nn.Linear(config.hardware_width, config.hardware_width),
        )
        self.store = nn.Linear(self.normaliser.program_size + config.hardware_width, width)
        self.hardware_token = nn.Linear(config.hardware_width, width)
        if config.scheduled:
            self.schedule_normaliser = Normaliser(config.token_width, ())
            schedule_size = self.schedule_normaliser.program_size + config.hardware_width
            self.schedule = nn.Linear(schedule_size, width)
        self.position = nn.Parameter(0.02 * torch.randn(config.max_tokens, width))
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.blocks))
        self.pool_query = nn.Linear(width, 1)
        embedded = width * (len(config.pooling.split("+")) + config.scheduled)
        embedded += config.hardware_width
        self.heads = _Heads(embedded, config)
        self.dropout = nn.Dropout(config.dropout)
        self.latency = nn.Linear(embedded, 1)
        self.register_buffer("latency_mean", torch.zeros(()))
        self.register_buffer("latency_std", torch.ones(()))

    latency_mean: Tensor
    latency_std: Tensor

    def fit_normalisation(
        self, features: Tensor, mask: Tensor, hardware: Tensor, log_latency: Tensor
    ) -> None:
        """Set all constants from training data, once.

        Args:
            features: as for :meth:`head_scores`, like the next two.
            mask: likewise.
            hardware: likewise.
            log_latency: float32 [B], NaN where a trial failed.
        """
        first = int(self.config.scheduled)
        self.normaliser.fit(features[:, first:], mask[:, first:], hardware)
        if self.config.scheduled:
            self.schedule_normaliser.fit(features[:, :1], mask[:, :1], hardware)
        known = log_latency[~torch.isnan(log_latency)]
        if len(known) > 1:
            self.latency_mean.copy_(known.mean())
            self.latency_std.copy_(known.std().clamp(min=1.0))

    def head_scores(self, features: Tensor, mask: Tensor, hardware: Tensor) -> Tensor:
        """Score programs with each head.

        Args:
            features: float32 [B, L, ``token_width``], raw; L is at most ``max_tokens``. Where the
                model is for scheduled programs, the first token is the schedule's row.
            mask: float32 [B, L], 1 where there is a token.
            hardware: float32 [B, H], raw, NaN where unknown.

        Returns:
            Float32 [B, E].
        """
        scores: Tensor = self.heads(self.embed(features, mask, hardware))
        return scores

    def log_latency(self, embedded: Tensor) -> Tensor:
        """Guess what training also guesses, from :meth:`embed`: the logarithm of the latency in
        standard deviations from the mean, float32 [B]. It teaches the model across tasks what
        ranking within each does not; nobody ranks by it."""
        guess: Tensor = self.latency(embedded).squeeze(-1)
        return guess

    def embed(self, features: Tensor, mask: Tensor, hardware: Tensor) -> Tensor:
        """Make one vector of each program on its device; arguments as for :meth:`head_scores`."""
        first = int(self.config.scheduled)
        row, features, mask = features[:, :first], features[:, first:], mask[:, first:]
        program, device = self.normaliser(features, hardware)
        device = self.hardware(device) * float(self.config.hardware)
        stores = program.shape[1]
        beside = device.unsqueeze(1).expand(-1, stores, -1)
        tokens = self.store(torch.cat([program, beside], dim=-1)) + self.position[:stores]
        token = self.hardware_token(device).unsqueeze(1)
        if self.config.scheduled:
            schedule, _ = self.schedule_normaliser(row, hardware)
            token = token + self.schedule(torch.cat([schedule, device.unsqueeze(1)], dim=-1))
        tokens = torch.cat([token, tokens], dim=1)
        # The hardware's token, which the schedule shares, is never masked, so no row of the
        # attention is empty.
        visible = torch.cat([torch.ones_like(device[:, :1]), mask], dim=1)
        bias = (1.0 - visible) * _MASKED
        for block in self.blocks:
            tokens = block(tokens, bias, device)
        parts = [*self._pool(tokens, mask, bias), device]
        if self.config.scheduled:
            parts.append(tokens[:, 0])
        embedded: Tensor = self.dropout(torch.cat(parts, dim=-1))
        return embedded

    def _pool(self, tokens: Tensor, mask: Tensor, bias: Tensor) -> list[Tensor]:
        """Make one vector, or two, of [B, 1 + L, width]."""
        pooled = []
        if "sum" in self.config.pooling:
            pooled.append(_POOL_SCALE * (tokens[:, 1:] * mask.unsqueeze(-1)).sum(dim=1))
        if "attention" in self.config.pooling:
            weights = torch.softmax(self.pool_query(tokens).squeeze(-1) + bias, dim=-1)
            pooled.append((tokens * weights.unsqueeze(-1)).sum(dim=1))
        return pooled

    def forward(self, features: Tensor, mask: Tensor, hardware: Tensor) -> tuple[Tensor, Tensor]:
        """Score programs; arguments as for :meth:`head_scores`.

        Returns:
            Float32 [B], the heads' mean, and float32 [B], their standard deviation.
        """
        scores = self.head_scores(features, mask, hardware)
        mean = scores.mean(dim=-1)
        spread = (scores - mean.unsqueeze(-1)).square().mean(dim=-1).sqrt()
        return mean, spread


class _Block(nn.Module):
    """Pre-norm attention and feed-forward, both modulated by the hardware."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.width = width
        self.heads = config.attention_heads
        self.scale = 1.0 / math.sqrt(width // config.attention_heads)
        self.norm_attention = nn.LayerNorm(width)
        self.norm_forward = nn.LayerNorm(width)
        self.film = nn.Linear(config.hardware_width, 4 * width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.forward_in = nn.Linear(width, 2 * width)
        self.forward_out = nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor, bias: Tensor, device: Tensor) -> Tensor:
        film = self.film(device).unsqueeze(1)
        scale_a, shift_a, scale_f, shift_f = film.split(self.width, dim=-1)
        tokens = tokens + self._attend(
            self.norm_attention(tokens) * (1.0 + scale_a) + shift_a, bias
        )
        hidden = self.norm_forward(tokens) * (1.0 + scale_f) + shift_f
        fed: Tensor = self.forward_out(nn.functional.gelu(self.forward_in(hidden)))
        return tokens + fed

    def _attend(self, tokens: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (
            part.reshape(*part.shape[:-1], self.heads, -1).transpose(1, 2)
            for part in self.qkv(tokens).split(self.width, dim=-1)
        )
        logits = (q @ k.transpose(-1, -2)) * self.scale + bias.unsqueeze(1).unsqueeze(1)
        mixed = torch.softmax(logits, dim=-1) @ v
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(-2))
        return out


class _Heads(nn.Module):
    """An ensemble of two-layer heads, computed together."""

    def __init__(self, width: int, config: ModelConfig) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, config.ensemble * config.head_width)
        bound = 1.0 / math.sqrt(config.head_width)
        self.weight = nn.Parameter(
            torch.empty(config.ensemble, config.head_width).uniform_(-bound, bound)
        )

    def forward(self, pooled: Tensor) -> Tensor:
        hidden = nn.functional.gelu(self.hidden(pooled))
        return (hidden.reshape(-1, *self.weight.shape) * self.weight).sum(dim=-1)
