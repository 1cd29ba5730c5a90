"""``tunefleet model evaluate`` and ``compare``: how well cost models rank."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help stays fast.

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from tunefleet.cli.dataset import DatasetFormat
from tunefleet.cli.dataset_options import (
    ModelFeaturesOption,
    PlaceArgument,
    ProfileOption,
    SampleOption,
)
from tunefleet.cli.options import DEFAULT_LISTEN, CoordinatorOption, FormatOption, OutputFormat
from tunefleet.errors import Reason, TuneFleetError

_MODEL_HELP = "A model's folder, an ONNX file, or a version of the coordinator's."
KindOption = Annotated[
    DatasetFormat,
    typer.Option(
        "--kind",
        help="What DATASET is: tables that `dataset export` wrote, or a MetaSchedule database.",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="Device that measured a MetaSchedule database.", show_default=False
    ),
]
TargetOption = Annotated[
    str,
    typer.Option(
        metavar="TARGET",
        help="Target that a MetaSchedule database was built for.",
        show_default=False,
    ),
]
AllOption = Annotated[
    bool,
    typer.Option(
        "--all", help="Judge all trials, also where the model learned from this very dataset."
    ),
]
HeldOutOption = Annotated[
    bool,
    typer.Option(
        "--held-out", help="Judge only the trials, one in five, that no model ever learns from."
    ),
]


def evaluate(
    *,
    model: Annotated[str, typer.Argument(metavar="MODEL", help=_MODEL_HELP, show_default=False)],
    place: PlaceArgument,
    every: AllOption = False,
    held_out: HeldOutOption = False,
    per_task: Annotated[
        bool, typer.Option("--per-task", help="Also list how well each task is ranked.")
    ] = False,
    features: ModelFeaturesOption = None,
    sample: SampleOption = None,
    profile: ProfileOption = None,
    dataset_format: KindOption = DatasetFormat.PARQUET,
    device: DeviceOption = "",
    target: TargetOption = "",
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Rank the trials of DATASET by MODEL, and compare the order with what was measured.

    \bThe model runs in onnxruntime, as on agents. Where it learned from DATASET itself,
    only trials that were held out are judged. Figures come with 95 % intervals from
    resampling workloads. A coordinator is needed for its own versions and for
    MetaSchedule databases, which it imports and whose features an agent computes.
    A model says itself which features it is for; one for schedule steps also takes
    TenSet's files (its dataset folder, measure_records, a device's folder or one file).

    \bExamples:
      $ tunefleet model evaluate my-model my-trials --per-task
      $ tunefleet model evaluate v3 my-trials --format json | jq .models[0].metrics.pca
      $ tunefleet model evaluate base old-tuning --kind metaschedule --device box \\
          --target 'llvm -mcpu=znver4 -num-cores=2'

    With --format json, progress goes to stderr and one JSON object to stdout.
    """
    from tunefleet.cli.local_jobs import profile_files
    from tunefleet.cli.model_tables import evaluation_sheet
    from tunefleet.cli.output import make_console, print_json

    judging = _Judging(place, dataset_format, device, target, coordinator, output_format)
    judged_by = {"features": features, "sample": sample, "profiles": profile_files(profile)}
    result = judging.run([model], rows=_rows(every, held_out), per_task=per_task, **judged_by)
    if output_format is OutputFormat.JSON:
        print_json(result)
    else:
        make_console().print(evaluation_sheet(result))


def compare(
    *,
    first: Annotated[str, typer.Argument(metavar="A", help=_MODEL_HELP, show_default=False)],
    second: Annotated[
        str, typer.Argument(metavar="B", help="What A is compared with.", show_default=False)
    ],
    place: PlaceArgument,
    every: AllOption = False,
    held_out: HeldOutOption = False,
    features: ModelFeaturesOption = None,
    sample: SampleOption = None,
    profile: ProfileOption = None,
    dataset_format: KindOption = DatasetFormat.PARQUET,
    device: DeviceOption = "",
    target: TargetOption = "",
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Rank the trials of DATASET by two models, and tell whether A is ahead of B.

    \bBoth are judged on the same tasks, and the difference has an interval of its own:
    it is often narrower than those of the two figures let one think. One may rank by
    buffer stores and the other by schedule steps: they see the same trials.

    \bExamples:
      $ tunefleet model compare my-model base my-trials
      $ tunefleet model compare v4 v3 my-trials --held-out --format json | jq .verdict

    With --format json, progress goes to stderr and one JSON object to stdout.
    """
    from tunefleet.cli.local_jobs import profile_files
    from tunefleet.cli.model_tables import comparison_sheet
    from tunefleet.cli.output import make_console, print_json

    judging = _Judging(place, dataset_format, device, target, coordinator, output_format)
    judged_by = {"features": features, "sample": sample, "profiles": profile_files(profile)}
    result = judging.run([first, second], rows=_rows(every, held_out), **judged_by)
    if output_format is OutputFormat.JSON:
        print_json(result)
    else:
        make_console().print(comparison_sheet(result))


@dataclass(frozen=True)
class _Judging:
    """Everything that judging one model and judging two have in common."""

    place: Path
    dataset_format: DatasetFormat
    device: str
    target: str
    coordinator: str
    output_format: OutputFormat

    def __post_init__(self) -> None:
        if self._is_database and not (self.device and self.target):
            raise _invalid("name a MetaSchedule database's --device and --target: it does not")
        if not self._is_database and (self.device or self.target):
            raise _invalid("--device and --target are for MetaSchedule databases")

    @property
    def _is_database(self) -> bool:
        return self.dataset_format is DatasetFormat.METASCHEDULE

    def run(self, models: Sequence[str], **options: Any) -> dict[str, Any]:
        """Find models and dataset, and judge; options as ``evaluate_models`` takes them."""
        from tunefleet.cli.local_jobs import evaluate_models
        from tunefleet.cli.model_inputs import Database, found_model, stored_database
        from tunefleet.cli.output import make_console
        from tunefleet.cli.watching import ActivityBar

        as_json = self.output_format is OutputFormat.JSON
        console = make_console(sys.stderr if as_json else sys.stdout)
        with ExitStack() as stack:
            files = [stack.enter_context(found_model(model, self.coordinator)) for model in models]
            place, only = self.place, None
            if self._is_database:
                database = Database(self.place, self.device, self.target)
                place, only = stack.enter_context(
                    stored_database(database, self.coordinator, console)
                )
            bar = stack.enter_context(ActivityBar(console))
            return evaluate_models(files, place, only=only, activity=bar.advance, **options)


def _rows(every: bool, held_out: bool) -> str:
    if every and held_out:
        raise _invalid("--all and --held-out exclude each other")
    return "all" if every else "held_out" if held_out else "auto"


def _invalid(message: str) -> TuneFleetError:
    return TuneFleetError(Reason.INVALID_ARGUMENT, message)
