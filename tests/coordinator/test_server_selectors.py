from __future__ import annotations

import pytest
from store_samples import FINGERPRINT, device

from coordinator.server.selectors import matches, select
from tunefleet.errors import Reason, TuneFleetError

PI = device("pi4", labels={"site": "lab", "gpu": ""})


@pytest.mark.parametrize(
    "selector",
    [
        "",
        " ",
        "arch=x86_64",
        "name=pi4",
        "name=pi*",
        "id=id-pi4",
        f"fingerprint={FINGERPRINT}",
        "cpu=Some CPU",
        "target.kind=llvm",
        "target.mcpu=znver4",
        "target.num-cores=2",
        "site=lab",
        "site!=office",
        "rack!=1",
        "gpu",
        "target.mcpu",
        " site = lab , arch=x86_64,gpu ",
    ],
)
def test_a_device_matches(selector: str) -> None:
    assert matches(selector, PI)


@pytest.mark.parametrize(
    "selector",
    ["arch=aarch64", "site=l", "site!=lab", "rack", "rack=1", "target.mattr", "site=lab,rack"],
)
def test_a_device_does_not_match(selector: str) -> None:
    assert not matches(selector, PI)


@pytest.mark.parametrize("selector", ["=lab", "site=", "a b", "site=lab,", "cores>=4", "a==b", ","])
def test_what_is_no_selector_is_refused(selector: str) -> None:
    with pytest.raises(TuneFleetError) as raised:
        matches(selector, PI)
    assert raised.value.reason is Reason.INVALID_ARGUMENT


def test_the_devices_that_match_keep_their_order() -> None:
    devices = [PI, device("nuc", labels={}), device("pi5")]
    assert [d.name for d in select("site=lab", devices)] == ["pi4", "pi5"]


def test_a_broken_selector_is_refused_even_without_devices() -> None:
    with pytest.raises(TuneFleetError):
        select("site=", [])
