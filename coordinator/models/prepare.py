"""The one way from an imported network to the functions that are tuned and compiled.

Extraction and compilation both start from what :func:`prepare` returns. The database finds a
schedule by the structure of its function, so any pass that ran for one but not for the other would
lose it.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from coordinator.models.constant_views import fold_constant_views
from coordinator.models.fold import fold_batch_norm
from coordinator.models.layout import channels_last
from coordinator.models.padding import pad_channels


def prepare(module: Any, target: str, *, convert_layout: bool = True) -> Any:
    """Lower a network to fused TIR functions, unscheduled.

    Args:
        module: Relax with constant weights, as the importers make it; left as it is.
        target: canonical target JSON.
        convert_layout: whether convolutions become channels-last. What is tuned does; the untuned
            network that it is compared with keeps the layout it came in, which is the faster one
            for unscheduled loops.

    Returns:
        An IRModule whose ``main`` calls the fused functions.
    """
    built_for = tvm.target.Target(target)
    passes = [
        relax.transform.DecomposeOpsForInference(),
        relax.transform.CanonicalizeBindings(),
        relax.transform.FoldConstant(),
        *relax.pipeline.library_dispatch_passes(built_for),
        relax.transform.LegalizeOps(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FoldConstant(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
        relax.transform.DeadCodeElimination(),
    ]
    with built_for, tvm.transform.PassContext(opt_level=3):
        folded = fold_constant_views(fold_batch_norm(module.clone()))
        if convert_layout:
            folded = channels_last(pad_channels(folded))
        return tvm.transform.Sequential(passes)(folded)
