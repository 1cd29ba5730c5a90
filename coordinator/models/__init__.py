"""Users' networks: import into Relax, task extraction, compilation. Runs as child jobs only."""

from tunefleet.torch_free import import_tvm_without_torch

import_tvm_without_torch()
