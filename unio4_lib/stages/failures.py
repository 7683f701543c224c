"""Why a run on a cluster has failed: a stage leaves its line in the artifact root, for KFP does not tell."""

from unio4_lib.artifacts.store import Store

FAILURES = "failures"  # key prefix below a root


def record(store: Store, run_key: str, line: str, *, final: bool = True) -> None:
    """A stage of this run failed; what is not final may pass, and does not replace what is known."""
    if final or store.get_bytes(_key(run_key)) is None:
        store.put_bytes(_key(run_key), line.encode())


def reason(store: Store, run_key: str) -> str | None:
    """The line of the stage that failed, if one could say it before its pod ended."""
    line = store.get_bytes(_key(run_key))
    return None if line is None else line.decode()


def forget(store: Store, run_key: str) -> None:
    """The run has been closed; if it is tried again, it fails for reasons of its own."""
    store.delete_bytes(_key(run_key))


def _key(run_key: str) -> str:
    return f"{FAILURES}/{run_key}.txt"
