"""Wait for MLflow's database and bring its tables up to date, one pod at a time. Runs in MLflow's image."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy
from mlflow.store.db.utils import _safe_initialize_tables, _upgrade_db
from services import NotReadyError, log, setting, start_logging, wait_for
from sqlalchemy.exc import OperationalError

LOCK = 0x756E696F34  # "unio4": any number will do, as long as all pods take the same


def connect(engine: sqlalchemy.Engine) -> sqlalchemy.Connection:
    """A connection, once the server answers."""
    try:
        return engine.connect()
    except OperationalError as error:
        raise NotReadyError(str(error.orig).strip().splitlines()[0]) from error


@contextmanager
def turn(connection: sqlalchemy.Connection) -> Iterator[None]:
    """Nobody else changes the tables meanwhile; the server takes the lock back if this process dies."""
    if connection.dialect.name == "postgresql":
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
    yield


def main() -> None:
    """The database comes from the environment, as for ``mlflow server``."""
    start_logging()
    engine = sqlalchemy.create_engine(setting("MLFLOW_BACKEND_STORE_URI"))
    with wait_for("the database", lambda: connect(engine)) as connection, turn(connection):
        log.info("the database answers; bringing its tables up to date")
        _safe_initialize_tables(engine)
        _upgrade_db(engine)
    log.info("the tables are up to date")


if __name__ == "__main__":
    main()
