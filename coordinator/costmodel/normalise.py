"""Normalisation that lives inside the model, so that whoever runs it feeds raw values.

The constants are buffers: fitted once on training data, kept by every version fine-tuned from it
(else the fine-tuned weights would see other inputs than those they were trained on).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coordinator.costmodel.layout import RATIOS, Ratio
from tunefleet.features import HARDWARE_FEATURES, PROGRAM_FEATURES_PER_STORE

_CLAMP_SIGMAS = 6.0
"""Inputs further from the training data than this say no more than "far out"."""
_BINS = 8
"""Pieces of the piecewise-linear encoding (Gorishniy et al., "On Embeddings for Numerical Features
in Tabular Deep Learning", 2022). With it a network tells apart tile sizes that standardisation
squeezes together: 1 to 2 points of held-out PCA on convolutions."""
_BIN_WIDTH_FLOOR = 0.25
"""In powers of two. Steeper bins would amplify the last bits, in which runtimes' logarithms differ,
beyond what parity between torch and ONNX allows."""
_BIN_SAMPLE = 32_768
"""Stores that suffice to place the bins."""
_PROGRAM_STD_FLOOR = 0.5
_HARDWARE_STD_FLOOR = 1.0
"""In powers of two. A fleet's first model has often seen one device, whose spread is zero; a
second device with twice the cache is then one unit away, not infinitely far."""


class Normaliser(nn.Module):
    """Raw inputs to what the network sees; NaN hardware becomes zero and a flag."""

    program_mean: Tensor
    program_std: Tensor
    hardware_mean: Tensor
    hardware_std: Tensor
    ratio_mean: Tensor
    ratio_std: Tensor
    bin_start: Tensor
    bin_width: Tensor
    ratio_of_program: Tensor
    ratio_of_hardware: Tensor
    ratio_needs: Tensor
    ratio_offset: Tensor

    hardware_size = 2 * len(HARDWARE_FEATURES)

    def __init__(
        self, token_width: int = PROGRAM_FEATURES_PER_STORE, related: tuple[Ratio, ...] = RATIOS
    ) -> None:
        """Make one that changes nothing until it is fitted.

        Args:
            token_width: raw values of a store, or of a schedule step.
            related: which of them are related to the hardware.
        """
        super().__init__()
        self.program_size = (1 + _BINS) * (token_width + len(related))
        """Values a store has after :meth:`forward`."""
        for name, size in (
            ("program", token_width),
            ("hardware", len(HARDWARE_FEATURES)),
            ("ratio", len(related)),
        ):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_std", torch.ones(size))
        encoded = (token_width + len(related), _BINS)
        self.register_buffer("bin_start", torch.zeros(encoded))
        self.register_buffer("bin_width", torch.ones(encoded))
        # Selection matrices rather than gathers: two small products export to any ONNX runtime.
        of_program = torch.zeros(token_width, len(related))
        of_hardware = torch.zeros(len(HARDWARE_FEATURES), len(related))
        for column, ratio in enumerate(related):
            of_program[ratio.program, column] = 1.0
            for name, power in ratio.hardware:
                of_hardware[HARDWARE_FEATURES.index(name), column] = power
        offset = torch.tensor([ratio.offset for ratio in related])
        self.register_buffer("ratio_of_program", of_program, persistent=False)
        self.register_buffer("ratio_of_hardware", of_hardware, persistent=False)
        self.register_buffer("ratio_needs", of_hardware.abs(), persistent=False)
        self.register_buffer("ratio_offset", offset, persistent=False)

    def fit(self, features: Tensor, mask: Tensor, hardware: Tensor) -> None:
        """Set the constants from training data, once.

        Args:
            features: float32 [N, L, 172], raw.
            mask: float32 [N, L], 1 where there is a store.
            hardware: float32 [N, H], raw, NaN where unknown.
        """
        real = mask > 0
        log_hardware, missing = _log_hardware(hardware)
        ratios, ratio_missing = self._ratios(features, log_hardware, missing)
        if real.any():
            self._fit_bins(torch.cat([features[real], ratios[real]], dim=-1))
        known_ratio = real.unsqueeze(-1) & (ratio_missing.unsqueeze(1) < 0.5)
        _fit(self.program_mean, self.program_std, features[real], None, _PROGRAM_STD_FLOOR)
        _fit(
            self.hardware_mean, self.hardware_std, log_hardware, missing < 0.5, _HARDWARE_STD_FLOOR
        )
        _fit(
            self.ratio_mean,
            self.ratio_std,
            ratios.flatten(0, 1),
            known_ratio.flatten(0, 1),
            _HARDWARE_STD_FLOOR,
        )

    def forward(self, features: Tensor, hardware: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise raw inputs.

        Args:
            features: float32 [B, L, 172], raw.
            hardware: float32 [B, H], raw, NaN where unknown.

        Returns:
            Float32 [B, L, ``program_size``] and float32 [B, ``hardware_size``], without NaN.
        """
        log_hardware, missing = _log_hardware(hardware)
        ratios, ratio_missing = self._ratios(features, log_hardware, missing)
        program = _standardise(features, self.program_mean, self.program_std)
        relations = _standardise(ratios, self.ratio_mean, self.ratio_std)
        relations = relations * (1.0 - ratio_missing).unsqueeze(1)
        device = _standardise(log_hardware, self.hardware_mean, self.hardware_std)
        device = device * (1.0 - missing)
        pieces = self._pieces(torch.cat([features, ratios], dim=-1))
        return torch.cat([program, relations, pieces], dim=-1), torch.cat([device, missing], dim=-1)

    def _pieces(self, values: Tensor) -> Tensor:
        """Encode [B, L, F] as [B, L, F * bins]: how far a value is through each quantile bin."""
        share = (values.unsqueeze(-1) - self.bin_start) / self.bin_width
        # The last size is spelt out, for where there is no store: ONNX could not tell it from none.
        size = share.shape[-2:].numel()
        return torch.clamp(share, 0.0, 1.0).reshape(*values.shape[:2], size)

    def _fit_bins(self, values: Tensor) -> None:
        # torch.quantile takes 16 million values at most.
        some = values[:: 1 + len(values) // _BIN_SAMPLE]
        edges = torch.quantile(some, torch.linspace(0.0, 1.0, _BINS + 1), dim=0).T
        self.bin_start.copy_(edges[:, :-1])
        self.bin_width.copy_((edges[:, 1:] - edges[:, :-1]).clamp(min=_BIN_WIDTH_FLOOR))

    def _ratios(
        self, features: Tensor, log_hardware: Tensor, missing: Tensor
    ) -> tuple[Tensor, Tensor]:
        of_hardware = log_hardware @ self.ratio_of_hardware - self.ratio_offset
        ratios = features @ self.ratio_of_program - of_hardware.unsqueeze(1)
        ratio_missing = torch.clamp(missing @ self.ratio_needs, max=1.0)
        return ratios * (1.0 - ratio_missing).unsqueeze(1), ratio_missing


def _log_hardware(hardware: Tensor) -> tuple[Tensor, Tensor]:
    unknown = torch.isnan(hardware)
    known = torch.where(unknown, torch.zeros_like(hardware), hardware)
    return torch.log2(1.0 + torch.clamp(known, min=0.0)), unknown.to(hardware.dtype)


def _standardise(values: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return torch.clamp((values - mean) / std, -_CLAMP_SIGMAS, _CLAMP_SIGMAS)


def _fit(mean: Tensor, std: Tensor, values: Tensor, known: Tensor | None, floor: float) -> None:
    weight = torch.ones_like(values) if known is None else known.to(values.dtype)
    total = weight.sum(dim=0).clamp(min=1.0)
    centre = (values * weight).sum(dim=0) / total
    variance = ((values - centre).square() * weight).sum(dim=0) / total
    mean.copy_(centre)
    std.copy_(variance.sqrt().clamp(min=floor))
