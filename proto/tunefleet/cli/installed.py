"""Tells early, and in plain words, when a part of TuneFleet is not installed."""

from __future__ import annotations

from importlib.util import find_spec

from tunefleet.errors import Reason, TuneFleetError

_COORDINATOR_NEEDS = (
    *("coordinator", "sqlalchemy", "alembic", "pyarrow", "torch", "tvm", "onnx", "onnxruntime"),
)
_DATASETS_NEED = ("coordinator", "numpy", "pyarrow", "sqlalchemy")
_STUDIES_NEED = (*_DATASETS_NEED, "torch", "matplotlib", "xgboost")
_TRAINING_NEEDS = (*_DATASETS_NEED, "torch", "onnx", "onnxruntime")
_AGENT_NEEDS = ("agent", "tvm", "numpy", "onnxruntime", "psutil")


def require_coordinator() -> None:
    """Make sure that a coordinator can run here, importing nothing of it.

    Raises:
        TuneFleetError: NOT_INSTALLED.
    """
    _require("coordinator", _COORDINATOR_NEEDS)


def require_datasets(*, models: bool = False) -> None:
    """Make sure that datasets can be read here without a coordinator.

    Args:
        models: and cost models run over them.

    Raises:
        TuneFleetError: NOT_INSTALLED.
    """
    _require("coordinator", (*_DATASETS_NEED, "onnxruntime") if models else _DATASETS_NEED)


def require_studies() -> None:
    """Make sure that studies can run here without a coordinator.

    Raises:
        TuneFleetError: NOT_INSTALLED.
    """
    _require("coordinator", _STUDIES_NEED)


def require_training() -> None:
    """Make sure that cost models can be trained here without a coordinator.

    Raises:
        TuneFleetError: NOT_INSTALLED.
    """
    _require("coordinator", _TRAINING_NEEDS)


def require_agent() -> None:
    """Make sure that an agent can run here, importing nothing of it.

    Raises:
        TuneFleetError: NOT_INSTALLED.
    """
    _require("agent", _AGENT_NEEDS)


def _require(part: str, modules: tuple[str, ...]) -> None:
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise TuneFleetError(
            Reason.NOT_INSTALLED,
            f"the {part} cannot run here: {', '.join(missing)} not installed",
            hint=f"Install it with `pip install 'tunefleet[{part}]'`.",
        )
