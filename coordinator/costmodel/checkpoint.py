"""A cost model on the coordinator's disk: numbers and JSON, nothing unpickled."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from coordinator.costmodel.feature_sets import (
    FEATURE_SETS,
    FeatureSet,
    of_schema,
    of_width,
    other_schema,
)
from coordinator.costmodel.model import CostModel, ModelConfig

_META = "meta"
_WEIGHT_PREFIX = "weight/"


@dataclass(frozen=True)
class Checkpoint:
    """A model version's weights and what is needed to build on them."""

    version: str
    parent_version: str
    """Empty for a model trained from scratch."""
    config: ModelConfig
    rows_normalised: int
    """Training rows its normalisation constants were fitted on."""
    weights: dict[str, NDArray[np.float32]]
    """By torch's parameter names, normalisation constants included."""

    @classmethod
    def of(
        cls, model: CostModel, version: str, parent_version: str, rows_normalised: int
    ) -> Checkpoint:
        """Take a copy of a model's weights."""
        weights = {
            name: tensor.detach().numpy().astype(np.float32, copy=True)
            for name, tensor in model.state_dict().items()
        }
        return cls(version, parent_version, model.config, rows_normalised, weights)

    @property
    def features(self) -> FeatureSet:
        """Return the features the model is for.

        Raises:
            ValueError: this release has none of that size.
        """
        return of_width(self.config.token_width)

    def build(self) -> CostModel:
        """Make the model again, in evaluation mode.

        Raises:
            ValueError: names or shapes of the weights are not those of this release's network.
        """
        self.check_weights()
        model = CostModel(self.config)
        model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in self.weights.items()})
        return model.eval()

    def check_weights(self) -> None:
        """Compare the weights' names and shapes with those of this release's network.

        Raises:
            ValueError: they differ; it says where.
        """
        # Without memory: the sizes it claims may be larger than the weights it has.
        with torch.device("meta"):
            wanted = {k: tuple(v.shape) for k, v in CostModel(self.config).state_dict().items()}
        found = {name: weight.shape for name, weight in self.weights.items()}
        wrong = sorted(k for k in wanted | found if wanted.get(k) != found.get(k))
        if wrong:
            name = wrong[0]
            more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise ValueError(
                f"its weights are not those of this release's network: {name} is "
                f"{found.get(name, 'missing')}, wanted is {wanted.get(name, 'none')}{more}"
            )

    def save(self, path: Path) -> None:
        """Write an ``.npz`` whose entry ``meta`` is JSON as bytes."""
        meta = {
            "schema_digest": self.features.schema(),
            "version": self.version,
            "parent_version": self.parent_version,
            "config": asdict(self.config),
            "rows_normalised": self.rows_normalised,
        }
        arrays: dict[str, NDArray[np.generic]] = {
            _META: np.frombuffer(json.dumps(meta).encode(), np.uint8)
        }
        arrays.update({_WEIGHT_PREFIX + name: value for name, value in self.weights.items()})
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        path.write_bytes(buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or made for another feature schema.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                meta = json.loads(file[_META].tobytes())
                weights = {
                    name.removeprefix(_WEIGHT_PREFIX): file[name]
                    for name in file.files
                    if name.startswith(_WEIGHT_PREFIX)
                }
            digest = meta["schema_digest"]
            schema = of_schema(digest)
            if schema is None:
                known = tuple(FEATURE_SETS.values())
                raise ValueError(f"the model {other_schema(digest, known)}")  # noqa: TRY301
            checkpoint = cls(
                version=str(meta["version"]),
                parent_version=str(meta["parent_version"]),
                config=ModelConfig(**meta["config"]),
                rows_normalised=int(meta["rows_normalised"]),
                weights=weights,
            )
            if checkpoint.features is not schema:
                raise ValueError(f"it says {schema.name} and has other sizes")  # noqa: TRY301
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as e:
            raise ValueError(f"cannot use the checkpoint {path}: {e}") from e
        return checkpoint
