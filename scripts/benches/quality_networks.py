"""The networks of the time-to-quality bench as ONNX files, and what the import makes of them.

squeezenet and resnet50 are the project's examples; the others are built from configurations of the
``transformers`` package with seeded random weights and exported through torch, so that
onnxruntime and every importer get the very same file. Run as a job:
``{"name", "model_path", "target", "out_dir"}``.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordinator.models.job import Progress, run_job
from scripts.benches.quality_jobs import run_job_once

MODELS = ("squeezenet", "resnet50", "mobilenetv2", "bert")

SOURCES: Mapping[str, tuple[str, ...]] = {
    "squeezenet": ("squeezenet",),
    "resnet50": ("resnet50",),
    "mobilenetv2": ("mobilenetv2-1.0-224",),
    "bert": ("bert-mini-128",),
}
"""What datasets call these networks, or others of the same layers (scripts/networks.py). Workloads
that others share with them are found by their structure."""

_EXAMPLES = ("squeezenet", "resnet50")


@dataclass(frozen=True)
class QualityNetwork:
    """One network, imported as a coordinator does."""

    name: str
    """What figures call it."""
    model: Path
    inputs: Path
    """Archive of input tensors."""
    outputs: Path
    """Archive of what onnxruntime makes of them."""
    prepared: Path
    """The network with its batch norms folded and its convolutions channels-last, unscheduled."""
    tasks: Mapping[str, int]
    """How often it calls each workload."""
    import_s: float
    """What importing took."""


def prepare_network(named: str, target: str, folder: Path) -> QualityNetwork:
    """Write and import a network; what lies in the folder from an earlier call is used again.

    Args:
        named: one of :data:`MODELS`, or the path of an ONNX file.
        target: canonical target.
        folder: for everything of this network.

    Raises:
        JobError: it cannot be written or imported.
    """
    name = short_name(named)
    model = folder / f"{name}.onnx" if named in MODELS else Path(named).absolute()
    spec = {"name": name, "model_path": str(model), "target": target, "out_dir": str(folder)}
    made = run_job_once("scripts.benches.quality_networks", spec, folder)
    return QualityNetwork(
        name,
        model,
        Path(made["inputs_npz"]),
        Path(made["outputs_npz"]),
        Path(made["prepared"][target]),
        {task["workload"]: task["weight"] for task in made["tasks"]},
        made["import_s"],
    )


def short_name(named: str) -> str:
    """Return what figures call a network."""
    return named if named in MODELS else Path(named).stem


def _write_and_import(spec: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    from coordinator.models.import_job import import_model  # noqa: PLC0415 (TVM, onnx: slow)

    model = Path(spec["model_path"])
    if spec["name"] in MODELS:
        _write(spec["name"], model)
    began = time.monotonic()
    job = {"model_path": str(model), "targets": [spec["target"]], "out_dir": spec["out_dir"]}
    result = import_model(job, progress)
    return {**result, "import_s": time.monotonic() - began}


def _write(name: str, path: Path) -> None:
    from coordinator.models.examples import write_example  # noqa: PLC0415 (onnxruntime)

    if name in _EXAMPLES:
        write_example(name, path)
        return
    import torch  # noqa: PLC0415

    torch.manual_seed(0)
    network, inputs = _BUILDERS[name](torch)
    # Plain tensors, not a class of the package's own, are what can be exported.
    network.config.return_dict = False
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(network.eval(), inputs)
        torch.onnx.export(program, (), str(path), dynamo=True, external_data=False, verbose=False)


def _mobilenet_v2(torch: Any) -> tuple[Any, tuple[Any, ...]]:
    import transformers  # noqa: PLC0415

    config = transformers.MobileNetV2Config(depth_multiplier=1.0, image_size=224, num_labels=1000)
    network = transformers.MobileNetV2ForImageClassification(config)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            # The package's own scale lets the activations die away, and with them any error.
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.BatchNorm2d):
            # An exporter does away with one that changes nothing, as a trained one never does.
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network, (torch.randn(1, 3, 224, 224),)


def _bert(torch: Any) -> tuple[Any, tuple[Any, ...]]:
    import transformers  # noqa: PLC0415

    config = transformers.BertConfig(
        vocab_size=1000,
        num_hidden_layers=4,
        hidden_size=256,
        num_attention_heads=4,
        intermediate_size=1024,
        attn_implementation="eager",
    )
    return transformers.BertModel(config), (torch.ones(1, 128, dtype=torch.int64),)


_BUILDERS = {"mobilenetv2": _mobilenet_v2, "bert": _bert}


if __name__ == "__main__":
    sys.exit(run_job(_write_and_import))
