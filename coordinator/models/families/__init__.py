"""Small networks of one family of operators each, with realistic and random shapes.

They are ONNX graphs and go the same way as a user's model, so that what is learnt from them
carries over: every family is a motif as networks have it, with neighbours, biases, batch
normalisations, activations and residual sums around the operators it is about.
"""

from __future__ import annotations

from collections.abc import Callable

from coordinator.models.families import convolutions, pointwise, products
from coordinator.models.families.graph import Graph

SAMPLERS: dict[str, Callable[[Graph], None]] = {
    "conv2d": convolutions.plain,
    "conv2d_strided": convolutions.strided,
    "conv2d_grouped": convolutions.grouped,
    "conv2d_depthwise": convolutions.depthwise,
    "conv1d": convolutions.one_dimensional,
    "conv3d": convolutions.three_dimensional,
    "dense": products.dense,
    "batch_matmul": products.batch_matmul,
    "attention": products.attention,
    "pooling": pointwise.pooling,
    "reduction": pointwise.reduction,
    "normalisation": pointwise.normalisation,
    "elementwise": pointwise.elementwise,
}
"""Adds one sampled network to a graph, by the family's name."""
