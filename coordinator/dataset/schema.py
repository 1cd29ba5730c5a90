"""What a dataset's files hold: their columns, their version, and what they say of themselves.

A dataset is a folder with ``trials.parquet`` (one row a trial) and, to featurize or replay its
trials, ``workloads.parquet`` (one row a workload) and ``devices.parquet`` (one row a hardware).
The trials alone are a dataset too.

Sizes, from 1,320 candidates of twelve convolutions: features as plainly encoded float32 lists with
zstd 19 take 100 bytes a trial (split by bytes 166, a column a value 207 and more, dictionaries 112:
neighbouring trials share whole rows, which only plain bytes show to zstd), traces 35.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from tunefleet import __version__
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.features import PROGRAM_FEATURES_PER_STORE, stores_digest

VERSION = "1"
"""Of the columns and their meaning; a file of another version is refused."""

TRIALS_FILE = "trials.parquet"
WORKLOADS_FILE = "workloads.parquet"
DEVICES_FILE = "devices.parquet"
CARD_FILE = "README.md"

TRIAL_COLUMNS = pa.schema(
    [
        ("trial_id", pa.string()),
        # Structural hash of the workload, 16 hex digits.
        ("workload", pa.string()),
        ("task", pa.string()),
        # JSON: networks and families the workload comes from, with its weight in each, as the
        # trial's own campaign knew them; the table of workloads has all campaigns' together.
        ("sources", pa.string()),
        # Canonical JSON.
        ("target", pa.string()),
        ("fingerprint", pa.string()),
        ("device_id", pa.string()),
        # JSON, as tunefleet.devices.DeviceProfile writes it.
        ("device_profile", pa.string()),
        # Structural hash of the scheduled program, 16 hex digits.
        ("candidate", pa.string()),
        ("trace", pa.string()),
        # stores x 172 values, row by row; null where they were not extracted or left out.
        ("features", pa.list_(pa.float32())),
        ("verdict", pa.string()),
        # Seconds per run, one value a repeat.
        ("samples_s", pa.list_(pa.float64())),
        ("error", pa.string()),
        # JSON: the machine's state meanwhile.
        ("conditions", pa.string()),
        ("build_s", pa.float64()),
        ("run_s", pa.float64()),
        ("started_at_unix_s", pa.float64()),
        ("predicted", pa.float64()),
        ("explored", pa.bool_()),
        ("model_version", pa.string()),
        ("campaign_id", pa.string()),
        ("lease_id", pa.string()),
    ]
)

WORKLOAD_COLUMNS = pa.schema(
    [
        ("workload", pa.string()),
        ("name", pa.string()),
        ("flops", pa.float64()),
        ("sources", pa.string()),
        # The IRModule as TVM's JSON; null where the exporting coordinator did not have it.
        ("module", pa.string()),
    ]
)

DEVICE_COLUMNS = pa.schema(
    [
        ("device_id", pa.string()),
        ("name", pa.string()),
        ("fingerprint", pa.string()),
        ("profile", pa.string()),
    ]
)

_PREFIX = "tunefleet."


@dataclass(frozen=True)
class About:
    """What every file of a dataset says of itself."""

    licence: str = ""
    description: str = ""
    feature_schema: str = field(default_factory=stores_digest)
    created_unix_s: float = field(default_factory=time.time)
    release: str = __version__

    def metadata(self, table: str) -> dict[str, str]:
        """Return the entries that the file of a table carries."""
        entries = {
            "dataset": VERSION,
            "table": table,
            "feature_schema": self.feature_schema,
            "features_per_store": str(PROGRAM_FEATURES_PER_STORE),
            "licence": self.licence,
            "description": self.description,
            "created_unix_s": repr(self.created_unix_s),
            "release": self.release,
        }
        return {_PREFIX + key: text for key, text in entries.items()}

    @classmethod
    def read(cls, entries: Mapping[bytes, bytes] | None, table: str, file_name: str) -> About:
        """Read what a file says of itself.

        Raises:
            TuneFleetError: DATASET_INVALID, it is no such table or of another version.
        """
        raw = {
            key.decode(errors="replace"): text.decode(errors="replace")
            for key, text in (entries or {}).items()
        }
        version, found = raw.get(_PREFIX + "dataset"), raw.get(_PREFIX + "table")
        if version is None or found != table:
            raise invalid(
                f"{file_name} is no table of {table}: export one with `tunefleet dataset export`"
            )
        if version != VERSION:
            raise invalid(
                f"{file_name} is a dataset of version {version[:20]}, this release knows "
                f"{VERSION}; import it with the release that wrote it and export it again"
            )
        try:
            created = float(raw.get(_PREFIX + "created_unix_s", "0"))
        except ValueError:
            created = 0.0
        return cls(
            licence=raw.get(_PREFIX + "licence", ""),
            description=raw.get(_PREFIX + "description", ""),
            feature_schema=raw.get(_PREFIX + "feature_schema", ""),
            created_unix_s=created,
            release=raw.get(_PREFIX + "release", ""),
        )


def invalid(message: str) -> TuneFleetError:
    """Make the error of a dataset that cannot be used."""
    return TuneFleetError(Reason.DATASET_INVALID, message)
