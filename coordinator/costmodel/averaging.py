"""The average of a model's weights over its training."""

from __future__ import annotations

import torch

_YOUNG_STEPS = 10
"""How long the first weights count: an average over short trainings should forget them too."""


class Average:
    """Follows a model's parameters and takes their place at the end.

    The average of the last steps is a better model than the last step (Polyak and Juditsky, 1992).
    """

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        """Begin with a model as it is.

        Args:
            model: the one that is trained.
            decay: what is kept of the average at each step, below 1; 0 follows the last step.
        """
        self._model = model
        self._decay = decay
        self.weight = {name: p.detach().clone() for name, p in model.named_parameters()}
        """By the parameters' names."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after a step, counted from 0."""
        decay = min(self._decay, (step + 1) / (step + _YOUNG_STEPS))
        for name, parameter in self._model.named_parameters():
            self.weight[name].lerp_(parameter, 1.0 - decay)

    @torch.no_grad()
    def apply(self) -> None:
        """Make the average the model's parameters."""
        for name, parameter in self._model.named_parameters():
            parameter.copy_(self.weight[name])
