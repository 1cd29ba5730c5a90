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

_META = "meta"
_PARTS = ("weight", "mean", "square")


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

    @classmethod
    def of(
        cls, key: str, step: int, loss: float, model: torch.nn.Module, optimiser: torch.optim.AdamW
    ) -> TrainingState:
        """Take a copy of where a training stands."""
        state = cls(key, step, loss, {}, {}, {})
        for name, tensor in model.state_dict().items():
            state.weight[name] = tensor.detach().numpy().copy()
        for name, parameter in model.named_parameters():
            moments = optimiser.state.get(parameter)
            if moments:
                state.mean[name] = moments["exp_avg"].numpy().copy()
                state.square[name] = moments["exp_avg_sq"].numpy().copy()
        return state

    def restore(self, model: torch.nn.Module, optimiser: torch.optim.AdamW) -> None:
        """Put a model and its optimiser where they stood."""
        model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in self.weight.items()})
        for name, parameter in model.named_parameters():
            if name in self.mean:
                optimiser.state[parameter] = {
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
