"""Which statements through another alias an atomic step refuses."""

import pytest

from durable_workflows.store.sql import is_write


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (1)",
        "  update t SET a = 1",
        "DELETE FROM t",
        "/* by hand */ DELETE FROM t",
        "-- by hand\nTRUNCATE t",
        "/* a /* b */ UPDATE t SET a = 1",
        "WITH old AS (SELECT 1) DELETE FROM t",
        "WITH gone AS (DELETE FROM t RETURNING id) SELECT id FROM gone",
        "WITH a AS (SELECT 1)\nUPDATE t SET b = 2",
        "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a",
        "REPLACE INTO t VALUES (1)",
        "COPY t FROM STDIN",
    ],
)
def test_a_write_is_seen(sql):
    assert is_write(sql)


@pytest.mark.parametrize(
    "sql",
    [
        'SELECT "update" FROM t',
        "SELECT 1 FROM t FOR UPDATE",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "WITH a AS (SELECT id FROM t FOR UPDATE SKIP LOCKED) SELECT * FROM a",
        "WITH a AS (SELECT id FROM t FOR NO KEY UPDATE) SELECT * FROM a",
        "WITH a AS (SELECT updated FROM t) SELECT * FROM a",
        "SAVEPOINT x",
        "SHOW server_version",
        "EXPLAIN SELECT 1",
    ],
)
def test_a_read_passes(sql):
    assert not is_write(sql)
