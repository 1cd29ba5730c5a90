"""Where a training stands, on disk: weights and the optimiser's averages, numbers only."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from coordinator.costmodel.averaging import Average

_META = "meta"
_PARTS = ("weight", "mean", "square", "average")


@dataclass(frozen=True)
class Learner:
    """What changes while a model is trained."""

    model: torch.nn.Module
    optimiser: torch.optim.AdamW
    average: Average


@dataclass
class TrainingState:
    """All that a training needs to go on as if it had not been interrupted."""

    key: str
    """Names the data and the configuration: a state of others is of no use."""
    step: int
    """Steps done."""
    loss: float
    weight: dict[str, NDArray[np.float32]]
    mean: dict[str, NDArray[np.float32]]
    """Adam's running mean of gradients."""
    square: dict[str, NDArray[np.float32]]
    """Adam's running mean of squared gradients."""
    average: dict[str, NDArray[np.float32]]
    """Of the weights over all steps."""

    @classmethod
    def of(cls, key: str, step: int, loss: float, learner: Learner) -> TrainingState:
        """Take a copy of where a training stands."""
        state = cls(key, step, loss, {}, {}, {}, {})
        state.average = {
            name: value.numpy().copy() for name, value in learner.average.weight.items()
        }
        for name, tensor in learner.model.state_dict().items():
            state.weight[name] = tensor.detach().numpy().copy()
        for name, parameter in learner.model.named_parameters():
            moments = learner.optimiser.state.get(parameter)
            if moments:
                state.mean[name] = moments["exp_avg"].numpy().copy()
                state.square[name] = moments["exp_avg_sq"].numpy().copy()
        return state

    def restore(self, learner: Learner) -> None:
        """Put a model, its optimiser and its average where they stood."""
        model, moments = learner.model, learner.optimiser.state
        model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in self.weight.items()})
        learner.average.weight.update(
            {name: torch.from_numpy(value.copy()) for name, value in self.average.items()}
        )
        for name, parameter in model.named_parameters():
            if name in self.mean:
                moments[parameter] = {
                    "step": torch.tensor(float(self.step)),
                    "exp_avg": torch.from_numpy(self.mean[name].copy()),
                    "exp_avg_sq": torch.from_numpy(self.square[name].copy()),
                }

    def save(self, path: Path) -> None:
        """Write an ``.npz``; the file appears under its name only when complete."""
        meta = {"key": self.key, "step": self.step, "loss": self.loss}
        arrays: dict[str, NDArray[np.generic]] = {
            _META: np.frombuffer(json.dumps(meta).encode(), np.uint8)
        }
        for part in _PARTS:
            arrays |= {f"{part}/{name}": value for name, value in getattr(self, part).items()}
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        partial = path.with_name(path.name + ".partial")
        partial.write_bytes(buffer.getvalue())
        partial.replace(path)

    @classmethod
    def load(cls, path: Path, key: str) -> TrainingState | None:
        """Read what :meth:`save` wrote.

        Returns:
            ``None`` if there is nothing, if it cannot be read, or if it is of another training:
            then one begins anew.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                meta = json.loads(file[_META].tobytes())
                if meta["key"] != key:
                    return None
                parts: dict[str, dict[str, NDArray[np.float32]]] = {part: {} for part in _PARTS}
                for entry in file.files:
                    part, _, name = entry.partition("/")
                    if part in parts:
                        parts[part][name] = file[entry]
            return cls(key, int(meta["step"]), float(meta["loss"]), **parts)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None
