"""Wait for MLflow's database and bring its tables up to date, one pod at a time. Runs in MLflow's image."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy
from mlflow.store.db.utils import _safe_initialize_tables, _upgrade_db
from services import NotReadyError, RefusedError, log, run, setting, wait_for
from sqlalchemy.exc import OperationalError

LOCK = 0x756E696F34  # "unio4": any number will do, as long as all pods take the same

# What a server that is starting never says.
FINAL_WORDS = (
    "authentication failed",
    "does not exist",
    "no pg_hba.conf entry",
    "does not support SSL",
    "certificate verify failed",
)


def connect(engine: sqlalchemy.Engine) -> sqlalchemy.Connection:
    """A connection, once the server answers."""
    try:
        return engine.connect()
    except OperationalError as error:
        said = str(error.orig).strip().splitlines()[0]
        final = any(words in said for words in FINAL_WORDS)
        raise (RefusedError(f"the database: {said}") if final else NotReadyError(said)) from error


@contextmanager
def turn(connection: sqlalchemy.Connection) -> Iterator[None]:
    """Nobody else changes the tables meanwhile; the server takes the lock back if this process dies."""
    if connection.dialect.name == "postgresql":
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
    yield


def main() -> None:
    """The database comes from the environment, as for ``mlflow server``."""
    engine = sqlalchemy.create_engine(setting("MLFLOW_BACKEND_STORE_URI"))
    with wait_for("the database", lambda: connect(engine)) as connection, turn(connection):
        log.info("the database answers; bringing its tables up to date")
        _safe_initialize_tables(engine)
        _upgrade_db(engine)
    log.info("the tables are up to date")


if __name__ == "__main__":
    run(main)
