"""An S3 server: moto's, in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from servers import Server, UnavailableError

BUCKET, PREFIX = "my-bucket", "circuit-drift"


@contextmanager
def s3_server() -> Iterator[Server]:
    try:
        import boto3
        from moto.server import ThreadedMotoServer
    except ImportError as error:
        raise UnavailableError(f"moto's S3 server: {error}") from error
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        bucket = boto3.resource("s3", endpoint_url=url, region_name="us-east-1", **keys).Bucket(
            BUCKET
        )
        bucket.create()
        yield Server(
            page="s3.md",
            placeholders={"https://s3.example.org": url},
            names=lambda: sorted(
                entry.key.removeprefix(f"{PREFIX}/") for entry in bucket.objects.all()
            ),
            read=lambda name: bucket.Object(f"{PREFIX}/{name}").get()["Body"].read(),
            write=lambda name, content: bucket.put_object(Key=f"{PREFIX}/{name}", Body=content),
            delete=lambda name: bucket.Object(f"{PREFIX}/{name}").delete(),
            environment={
                "AWS_ACCESS_KEY_ID": keys["aws_access_key_id"],
                "AWS_SECRET_ACCESS_KEY": keys["aws_secret_access_key"],
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_EC2_METADATA_DISABLED": "true",
            },
        )
    finally:
        server.stop()
