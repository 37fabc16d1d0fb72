"""Cache a model: fetched from S3 once, then read from this machine's disk.

Needs a bucket, and credentials where boto3 finds them:

    python examples/recipes/cache_a_model.py my-bucket
"""

from __future__ import annotations

import sys

from botocore.exceptions import BotoCoreError, ClientError

from persidict import S3Dict

Weights = list[float]


def main(bucket_name: str) -> None:
    """Store a model as one machine does, and use it as another one does."""
    trained = S3Dict[Weights](bucket_name=bucket_name, base_dir="trainer", append_only=True)
    trained.setdefault(("sentiment", "v1"), [0.25] * 1000)

    # append-only: what was fetched once is current for ever, and nobody asks again
    models = S3Dict[Weights](
        bucket_name=bucket_name, base_dir="model_cache", append_only=True, cache_size_limit=10**9
    )
    for _ in range(3):
        weights = models["sentiment", "v1"]
    info = models.cache_info()
    print(f"{len(weights)} weights; fetched {info.misses} time, read {info.hits} times from disk")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(sys.argv[1])
    except (BotoCoreError, ClientError) as trouble:
        sys.exit(f"cache_a_model.py: {trouble}")
