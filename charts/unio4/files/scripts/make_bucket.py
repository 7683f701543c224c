"""Make the bucket where it does not exist yet. Running it again changes nothing."""

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from services import TRY_AGAIN, NotReadyError, RefusedError, log, run, s3_client, setting, wait_for

MINE_ALREADY = ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")
STANDARD_REGION = "us-east-1"  # the one region that must not be named


def bucket_exists(client: Any, bucket: str) -> bool:
    """Whether it is there, and ours to use."""
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status == 404:
            return False
        if status in TRY_AGAIN:
            raise NotReadyError(str(error)) from error
        raise RefusedError(f"bucket {bucket!r}: {error}; check the keys and what they may do") from error
    except BotoCoreError as error:
        raise NotReadyError(str(error)) from error
    return True


def make_bucket(client: Any, bucket: str, region: str) -> None:
    """Another job may be faster: that is as good."""
    place = {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        client.create_bucket(Bucket=bucket, **(place if region != STANDARD_REGION else {}))
    except ClientError as error:
        if error.response["Error"]["Code"] not in MINE_ALREADY:
            raise RefusedError(f"bucket {bucket!r} cannot be made: {error}") from error
    except BotoCoreError as error:
        raise NotReadyError(str(error)) from error


def main() -> None:
    """Bucket and region come from the job's environment."""
    client, bucket = s3_client(), setting("BUCKET")
    if wait_for("S3", lambda: bucket_exists(client, bucket)):
        log.info("bucket %s is there", bucket)
        return
    region = setting("AWS_REGION", STANDARD_REGION)
    wait_for("S3", lambda: make_bucket(client, bucket, region))
    if not wait_for("S3", lambda: bucket_exists(client, bucket)):
        raise RefusedError(f"bucket {bucket!r} was made, but cannot be seen")
    log.info("bucket %s made", bucket)


if __name__ == "__main__":
    run(main)
