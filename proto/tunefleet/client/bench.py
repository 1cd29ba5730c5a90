"""Timing again what a campaign compiled."""

from __future__ import annotations

from typing import Any

from tunefleet.client.campaign import Campaign
from tunefleet.client.datasets import artifact_json
from tunefleet.v1 import campaign_pb2


class BenchCalls:
    """The part of a connection to a coordinator that has compiled modules timed."""

    def bench(
        self, campaign: str, *, devices: str = "", per_op: bool = False, name: str = ""
    ) -> Campaign:
        """Time a finished campaign's modules again, on devices of its hardware.

        Args:
            campaign: who compiled them, by id, an unambiguous beginning of it, or name.
            devices: selector such as ``name=box``; empty for all. One device times each target.
            per_op: also find out where the time goes inside of the network.
            name: in listings.

        Returns:
            The campaign that times them; :func:`bench_result` reads what came of it.

        Raises:
            TuneFleetError: CAMPAIGN_UNKNOWN; CAMPAIGN_STATE, it compiled nothing (yet);
                NO_DEVICE_MATCHES, none that could run it is connected.
        """
        return self._create(
            campaign_pb2.CampaignSpec(
                name=name or f"bench of {campaign}",
                device_selector=devices,
                purpose=campaign_pb2.CAMPAIGN_PURPOSE_BENCH,
                bench=campaign_pb2.BenchOptions(campaign_id=campaign, per_op=per_op),
            )
        )

    def _create(self, spec: campaign_pb2.CampaignSpec) -> Campaign:
        """Start a campaign; whoever has the connection knows how."""
        raise NotImplementedError


def bench_result(campaign: Campaign) -> dict[str, Any]:
    """Fetch what came of a benchmark.

    Returns:
        ``groups``, one for each target and hardware, with ``subjects``: for each its
        ``end_to_end_s`` and, where it was asked for, ``ops`` with the seconds, the share and, for
        tasks, the latency alone; ``by_operator`` compares the subjects.

    Raises:
        TuneFleetError: CAMPAIGN_STATE, it has not ended yet.
    """
    return artifact_json(campaign, "bench.json")
