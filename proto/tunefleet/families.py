"""Families of operators that workloads are sampled from, to collect trials of."""

from __future__ import annotations

FAMILIES = {
    "conv2d": "plain 2-D convolutions, 1x1 to 7x7, as in image networks",
    "conv2d_strided": "2-D convolutions that halve or quarter the image",
    "conv2d_grouped": "grouped 2-D convolutions, as in ResNeXt and RegNet",
    "conv2d_depthwise": "depthwise 2-D convolutions, as in MobileNet and ConvNeXt",
    "conv1d": "1-D convolutions, as in audio and sequence networks",
    "conv3d": "3-D convolutions, as in video networks",
    "dense": "matrix products with weights, as in perceptrons and transformers",
    "batch_matmul": "batched products of two activations",
    "attention": "scaled dot-product attention over several heads",
    "pooling": "maximum, average and global pooling",
    "reduction": "sums, means, maxima and softmax over one or more axes",
    "normalisation": "layer, instance, group and RMS normalisation",
    "elementwise": "chains of elementwise operators, broadcasts and residual sums",
}
"""What each family holds, by name."""
