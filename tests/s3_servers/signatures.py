"""Checking AWS signatures (version 4) of requests."""

from __future__ import annotations

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from .http_server import HttpRequest
from .s3_messages import INVALID_ACCESS_KEY, SIGNATURE_DOES_NOT_MATCH, S3Error


def check_signature(request: HttpRequest, access_key: str, secret: str) -> S3Error | None:
    """Return the error that S3 would answer with, or None when the signature is good."""
    scheme, _, parameters = request.headers.get("authorization", "").partition(" ")
    fields = dict(item.strip().split("=", 1) for item in parameters.split(",") if "=" in item)
    if scheme != "AWS4-HMAC-SHA256" or not {"Credential", "Signature"} <= fields.keys():
        return INVALID_ACCESS_KEY
    known_key, _, region, *_ = fields["Credential"].split("/")
    if known_key != access_key:
        return INVALID_ACCESS_KEY
    signed = {name: request.headers.get(name) for name in fields["SignedHeaders"].split(";")}
    url = f"http://{request.headers['host']}{request.target}"
    copy = AWSRequest(method=request.method, url=url, headers=signed)
    copy.context["timestamp"] = request.headers["x-amz-date"]
    signer = S3SigV4Auth(Credentials(access_key, secret), "s3", region)
    to_sign = signer.string_to_sign(copy, signer.canonical_request(copy))
    if signer.signature(to_sign, copy) != fields["Signature"]:
        return SIGNATURE_DOES_NOT_MATCH
    return None
