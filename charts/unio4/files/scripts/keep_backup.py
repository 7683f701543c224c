"""Put a dump of MLflow's database into the bucket, under the time it was made, and let the oldest go."""

import time
import urllib.parse
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from services import TRY_AGAIN, NotReadyError, RefusedError, log, run, s3_client, setting, wait_for


def store(client: Any, dump: Path, bucket: str, folder: str, keep: int) -> None:
    """Oldest first is the order of the names. Nothing goes before the new one is there."""
    key = f"{folder}/mlflow-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.dump"
    try:
        client.upload_file(str(dump), bucket, key)
        log.info("s3://%s/%s: %d bytes", bucket, key, dump.stat().st_size)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{folder}/mlflow-")
        names = sorted(one["Key"] for page in pages for one in page.get("Contents", []))
        for old in names[:-keep]:
            client.delete_object(Bucket=bucket, Key=old)
            log.info("s3://%s/%s removed; %d are kept", bucket, old, keep)
    except ClientError as error:
        again = error.response["ResponseMetadata"]["HTTPStatusCode"] in TRY_AGAIN
        raise (NotReadyError if again else RefusedError)(f"S3: s3://{bucket}/{key}: {error}") from error
    except BotoCoreError as error:
        raise NotReadyError(str(error)) from error


def main() -> None:
    """Everything comes from the job's environment."""
    place, dump = urllib.parse.urlsplit(setting("FOLDER")), Path(setting("DUMP"))
    if not dump.is_file() or not dump.stat().st_size:
        raise RefusedError(f"{dump} is not there or empty: the init container `dump` says why")
    client, folder, keep = s3_client(), place.path.strip("/"), int(setting("KEEP"))
    wait_for("S3", lambda: store(client, dump, place.netloc, folder, keep))


if __name__ == "__main__":
    run(main)
