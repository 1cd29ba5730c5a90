"""Versions of the cost model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from coordinator.state.records import ModelVersionRecord


class ModelStore(ABC):
    """What the store does with cost models, by the rules of the whole contract."""

    @abstractmethod
    def add_model_version(
        self, model: ModelVersionRecord, *, instead_of: str | None = None
    ) -> None:
        """Add a version. One that is promoted becomes the current one.

        Args:
            model: the version; its name must be new.
            instead_of: the version that it was judged against, empty for none.

        Raises:
            TuneFleetError: MODEL_VERSION_STATE if it is promoted and another version than
                ``instead_of`` is the current one; ``None`` stands for whichever that is.
        """

    @abstractmethod
    def promote_model(
        self,
        version: str,
        why: str,
        *,
        instead_of: str | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> ModelVersionRecord:
        """Make a version the current one; for the current one nothing changes.

        Args:
            version: its name.
            why: the reason, kept with it.
            instead_of: as in :meth:`add_model_version`.
            metrics: what was measured of it; those it had keep their values where none is new.

        Raises:
            TuneFleetError: MODEL_VERSION_UNKNOWN, or MODEL_VERSION_STATE if another version than
                ``instead_of`` is the current one.
        """

    @abstractmethod
    def roll_back_model(self, version: str, why: str) -> ModelVersionRecord:
        """Take the current version out of use and return the one that is current now.

        That is the one promoted last among those that were not rolled back. A version that was
        rolled back before, and is not current again, changes nothing.

        Raises:
            TuneFleetError: MODEL_VERSION_UNKNOWN, or MODEL_VERSION_STATE if the version is not the
                current one or no other is promoted.
        """

    @abstractmethod
    def current_model(self) -> ModelVersionRecord | None:
        """Return the version agents rank with: the one that was promoted last."""

    @abstractmethod
    def get_model_version(self, version: str) -> ModelVersionRecord:
        """Return one version. Raises MODEL_VERSION_UNKNOWN."""

    @abstractmethod
    def list_model_versions(self) -> list[ModelVersionRecord]:
        """Return all versions, newest first."""
