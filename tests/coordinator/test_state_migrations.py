from __future__ import annotations

import json
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text
from store_samples import NOW, campaign, device, lease, model, task, trial

from coordinator.state.migrate import migrate
from coordinator.state.records import LeaseState
from coordinator.state.rows import model_values
from coordinator.state.sql import open_store
from coordinator.state.tables import metadata
from tunefleet.errors import Reason, TuneFleetError

MADE_AFTER_0006 = ("switches", "join_tokens", "certificates", "audit_log")
ADDED_AFTER_0006 = (
    *("campaigns.tuning_ended", "leases.trials", "campaigns.tvm_version"),
    *("devices.draining", "devices.protocol", "devices.feature_schema", "devices.capabilities"),
)
INDEXED_AFTER_0006 = (
    *("ix_leases_device", "ix_leases_hardware", "ix_leases_active_hardware"),
    *("ix_record_sets_hardware", "ix_trials_lease"),
)
"""What later migrations made, to undo them."""


def test_the_migrations_make_the_tables_that_the_code_expects(url: str) -> None:
    open_store(url).close()
    with create_engine(url).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_versions_promoted_by_older_releases_stay_in_their_order(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        migrate(connection, "0005")
        for version, promoted in (("v1", True), ("v2", True), ("v3", False)):
            values = {**model_values(model(version, promoted)), "metrics": "{}"}
            values = {k: v for k, v in values.items() if k != "rolled_back"}
            names = ", ".join(values)
            places = ", ".join(f":{name}" for name in values)
            connection.execute(
                text(f"INSERT INTO model_versions ({names}) VALUES ({places})"), values
            )
    engine.dispose()
    store = open_store(url)
    try:
        assert store.roll_back_model("v2", "slow").version == "v1"
        assert not store.get_model_version("v3").rolled_back
    finally:
        store.close()


def test_the_trials_of_rounds_that_older_releases_leased_are_counted(url: str) -> None:
    store = open_store(url)
    store.put_device(device())
    store.create_campaign(campaign(), "")
    store.add_tasks("c-1", [task()])
    store.grant_lease(lease())
    store.ingest_trials("id-pi4", "l-1", 1, [trial(1), trial(2)], NOW)
    store.end_lease("l-1", 1, LeaseState.DONE)
    store.close()
    engine = create_engine(url)
    with engine.begin() as connection:
        for index in INDEXED_AFTER_0006:
            connection.execute(text(f"DROP INDEX {index}"))
        for table in MADE_AFTER_0006:
            connection.execute(text(f"DROP TABLE {table}"))
        for column in ADDED_AFTER_0006:
            table, _, name = column.partition(".")
            connection.execute(text(f"ALTER TABLE {table} DROP COLUMN {name}"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0006'"))
    engine.dispose()
    store = open_store(url)
    try:
        assert store.task_progress("c-1")[0].trials_by_round == (2,)
        assert store.get_campaign("c-1").tuning_ended == ""
    finally:
        store.close()


def test_campaigns_of_older_releases_use_up_their_budget(url: str) -> None:
    store = open_store(url)
    store.create_campaign(campaign(), "")
    store.close()
    engine = create_engine(url)
    with engine.begin() as connection:
        spec = json.loads(connection.execute(text("SELECT spec FROM campaigns")).scalar_one())
        del spec["min_gain"]
        connection.execute(text("UPDATE campaigns SET spec = :spec"), {"spec": json.dumps(spec)})
    engine.dispose()
    store = open_store(url)
    try:
        assert store.get_campaign("c-1").spec.min_gain == 0
    finally:
        store.close()


def test_a_file_of_an_older_release_is_copied_first(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        migrate(connection, "0006")
    engine.dispose()
    for _ in range(2):
        open_store(f"sqlite:///{file}").close()
    copy = tmp_path / "store.db.at-0006"
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name, copy.name]
    with create_engine(f"sqlite:///{copy}").connect() as connection:
        assert MigrationContext.configure(connection).get_current_revision() == "0006"


def test_a_new_database_is_not_copied(tmp_path: Path) -> None:
    open_store(f"sqlite:///{tmp_path / 'store.db'}").close()
    assert not list(tmp_path.glob("*.at-*"))


def test_a_database_of_a_newer_release_is_left_alone(url: str) -> None:
    open_store(url).close()
    with create_engine(url).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(TuneFleetError, match="9999") as raised:
        open_store(url)
    assert raised.value.reason is Reason.INCOMPATIBLE


def test_a_folder_with_odd_characters_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / "50% of ä home"
    folder.mkdir()
    store = open_store(f"sqlite:///{folder / 'store.db'}")
    assert store.list_devices() == []
    store.close()
