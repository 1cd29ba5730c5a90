"""Writes networks to collect from: architectures built from configurations, with random weights.

    python -m scripts.networks list
    python -m scripts.networks write DIR [NAME]...

Each becomes a program as ``torch.export.save`` writes it. Weights are random, which timing does not
see; architectures that are kept for evaluation are not among these.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

Network = tuple[Any, tuple[Any, ...]]
"""A module and example inputs."""


def _images(size: int) -> tuple[Any, ...]:
    return (torch.randn(1, 3, size, size),)


def _tokens(length: int) -> tuple[Any, ...]:
    return (torch.ones(1, length, dtype=torch.int64),)


def _bert(layers: int, width: int, heads: int, length: int) -> Network:
    config = transformers.BertConfig(
        vocab_size=1000,
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        attn_implementation="eager",
    )
    return transformers.BertModel(config), _tokens(length)


def _distilbert() -> Network:
    config = transformers.DistilBertConfig(
        vocab_size=1000, n_layers=2, dim=768, hidden_dim=3072, attn_implementation="eager"
    )
    return transformers.DistilBertModel(config), _tokens(64)


def _vit(width: int, heads: int, size: int, patch: int) -> Network:
    config = transformers.ViTConfig(
        num_hidden_layers=2,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        image_size=size,
        patch_size=patch,
        attn_implementation="eager",
    )
    return transformers.ViTModel(config), _images(size)


def _mobilenet_v1(multiplier: float, size: int) -> Network:
    config = transformers.MobileNetV1Config(depth_multiplier=multiplier, image_size=size)
    return transformers.MobileNetV1Model(config), _images(size)


def _mobilenet_v2(multiplier: float, size: int) -> Network:
    config = transformers.MobileNetV2Config(depth_multiplier=multiplier, image_size=size)
    return transformers.MobileNetV2Model(config), _images(size)


def _resnet(layer: str, depths: list[int], sizes: list[int], size: int) -> Network:
    config = transformers.ResNetConfig(
        layer_type=layer, depths=depths, hidden_sizes=sizes, embedding_size=64
    )
    return transformers.ResNetModel(config), _images(size)


def _regnet() -> Network:
    config = transformers.RegNetConfig(
        depths=[1, 2, 3, 1], hidden_sizes=[48, 96, 192, 432], groups_width=24, embedding_size=32
    )
    return transformers.RegNetModel(config), _images(224)


def _convnext() -> Network:
    config = transformers.ConvNextConfig(depths=[1, 1, 2, 1], hidden_sizes=[64, 128, 256, 512])
    return transformers.ConvNextModel(config), _images(192)


def _segformer() -> Network:
    config = transformers.SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[32, 64, 160, 256], attn_implementation="eager"
    )
    return transformers.SegformerModel(config), _images(128)


def _poolformer() -> Network:
    config = transformers.PoolFormerConfig(depths=[1, 1, 2, 1], hidden_sizes=[48, 96, 240, 384])
    return transformers.PoolFormerModel(config), _images(160)


NETWORKS: dict[str, Callable[[], Network]] = {
    "bert-mini-128": lambda: _bert(2, 256, 4, 128),
    "bert-small-64": lambda: _bert(2, 512, 8, 64),
    "bert-base-128": lambda: _bert(1, 768, 12, 128),
    "distilbert-64": _distilbert,
    "vit-tiny-224": lambda: _vit(192, 3, 224, 16),
    "vit-small-160": lambda: _vit(384, 6, 160, 16),
    "mobilenetv1-0.75-192": lambda: _mobilenet_v1(0.75, 192),
    "mobilenetv2-1.0-224": lambda: _mobilenet_v2(1.0, 224),
    "mobilenetv2-0.5-160": lambda: _mobilenet_v2(0.5, 160),
    "resnet18-224": lambda: _resnet("basic", [2, 2, 2, 2], [64, 128, 256, 512], 224),
    "resnet26-160": lambda: _resnet("bottleneck", [2, 2, 2, 2], [256, 512, 1024, 2048], 160),
    "regnet-224": _regnet,
    "convnext-192": _convnext,
    "segformer-128": _segformer,
    "poolformer-160": _poolformer,
}
"""Builds each network; seeded, so that equal releases write equal programs."""


def write(name: str, folder: Path) -> Path:
    """Write one network as a .pt2 file and return its path."""
    torch.manual_seed(0)
    module, inputs = NETWORKS[name]()
    module.config.return_dict = False
    path = folder / f"{name}.pt2"
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(module.eval(), inputs), path)
    return path


def main() -> int:
    """Serve the command line; returns how many could not be written."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list the networks")
    writing = commands.add_parser("write", help="write networks, all if none is named")
    writing.add_argument("folder", type=Path)
    writing.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    if options.command == "list":
        print("\n".join(NETWORKS))
        return 0
    unknown = sorted(set(options.names) - set(NETWORKS))
    if unknown:
        parser.error(f"there is no network {', '.join(unknown)}; see the list")
    options.folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name in options.names or NETWORKS:
        try:
            print(write(name, options.folder))
        except Exception as e:
            failed += 1
            print(f"{name}: {type(e).__name__}: {str(e).splitlines()[0]}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
