"""How to reach an S3 service: one hashable, picklable configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from persidict.checks import check_int
from persidict.stores.shared.secret import (
    Secret,
    SecretObject,
    SecretURL,
    as_secret,
    masked_proxies,
    masked_url,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DEFAULT_MAX_CONCURRENCY: Final = 64
"""How many requests may be under way at once; S3 grants a prefix no more than some hundreds."""

AUTO, BOTOCORE, DIRECT = TRANSPORTS = ("auto", "botocore", "direct")
"""How requests may travel."""

_UNSIGNED_NAME: Final = "unsigned"
_CONFIG_DEFAULTS: Final = {name: getattr(Config(), name) for name in Config.OPTION_DEFAULTS}


def config_options(config: Config | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a botocore Config says beyond the defaults, as plain values.

    Raises:
        TypeError: It is neither a Config nor a mapping, or has an option that none has.
    """
    if config is None:
        return {}
    if isinstance(config, Mapping):
        options = dict(config)
        if options.get("proxies") is not None:
            options["proxies"] = _checked_proxies(options["proxies"])
        as_config(options)
        if options.get("signature_version") is UNSIGNED:
            options["signature_version"] = _UNSIGNED_NAME
        return options
    if not isinstance(config, Config):
        raise TypeError(
            "boto_config must be a botocore.config.Config or a mapping of its options,"
            f" not {type(config).__name__}"
        )
    options = {
        name: getattr(config, name)
        for name, default in _CONFIG_DEFAULTS.items()
        if getattr(config, name) != default
    }
    if options.get("signature_version") is UNSIGNED:
        options["signature_version"] = _UNSIGNED_NAME
    if options.get("proxies"):
        options["proxies"] = _checked_proxies(options["proxies"])
    return options


def _checked_proxies(given: Any) -> dict[str, Any]:
    """Return proxies with users and passwords masked.

    Raises:
        TypeError: They are no mapping of URLs.
        ValueError: A password has characters in it that end it, for whoever reads the URL.
    """
    proxies = masked_proxies(given)
    del given
    if not isinstance(proxies, dict):
        kind = type(proxies.reveal()).__name__
        raise TypeError(f"proxies, in boto_config, must be a mapping of URLs, not {kind}")
    for name, url in proxies.items():
        if isinstance(url, SecretObject):
            kind = type(url.reveal()).__name__
            raise TypeError(f"the proxy for {name!r}, in boto_config, must be a str, not {kind}")
        if isinstance(url, SecretURL) and url.is_ambiguous:
            raise ValueError(
                f"the password of the proxy for {name!r}, in boto_config, has a '/', '?' or '#'"
                " in it: write %2F, %3F or %23"
            )
    return proxies


def as_config(options: Mapping[str, Any]) -> Config:
    """Return the Config that has these options."""
    given = dict(options)
    if given.get("signature_version") == _UNSIGNED_NAME:
        given["signature_version"] = UNSIGNED
    try:
        if "retries" in given:
            given["retries"] = dict(given["retries"])  # botocore rewrites it in place
        # last, lest they show where something else is wrong
        proxies = given.pop("proxies", None)
        config = Config(**given)
        return config if proxies is None else config.merge(Config(proxies=_revealed(proxies)))
    except (BotoCoreError, TypeError, ValueError) as error:
        error.add_note("persidict: the options of boto_config are those of a botocore Config")
        raise


def _revealed(proxies: Mapping[str, Any]) -> dict[str, Any]:
    return {name: url.reveal() if isinstance(url, Secret) else url for name, url in proxies.items()}


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple(sorted((name, _frozen(inner)) for name, inner in value.items()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return tuple(_frozen(inner) for inner in value)
    return value


def _aws_environment() -> int:
    """Digest the variables that botocore reads: they are part of a configuration."""
    return hash(frozenset((k, v) for k, v in os.environ.items() if k.startswith("AWS_")))


def _identity_of(variable: str, usual: str) -> tuple[str, int, int, int] | None:
    """Tell one content of a file that botocore reads from another; None: there is no file."""
    path = os.path.expanduser(os.environ.get(variable) or usual)
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return path, status.st_mtime_ns, status.st_size, status.st_ino


@dataclass(frozen=True, eq=False)
class S3Connection:
    """Everything that decides how a client is made; equal ones share a client.

    Attributes:
        region: The region's name; None: as botocore finds it.
        endpoint_url: The URL of a service that is not AWS; None: as botocore finds it.
        profile_name: A profile of the AWS configuration files.
        access_key_id: Credentials, all three masked; None: as botocore finds them.
        secret_access_key: See `access_key_id`.
        session_token: See `access_key_id`.
        options: What a botocore Config says beyond the defaults of this package.
        max_concurrency: How many requests may be under way at once.
        ready_client: A client that was made elsewhere, instead of all but the one above.
        transport: How requests travel: one of TRANSPORTS.
    """

    region: str | None
    endpoint_url: str | None
    profile_name: str | None
    access_key_id: Secret | None
    secret_access_key: Secret | None
    session_token: Secret | None
    options: Mapping[str, Any]
    max_concurrency: int
    ready_client: S3Client | None
    transport: str

    @classmethod
    def of(
        cls,
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        profile_name: str | None = None,
        access_key_id: str | Secret | None = None,
        secret_access_key: str | Secret | None = None,
        session_token: str | Secret | None = None,
        config: Config | Mapping[str, Any] | None = None,
        max_concurrency: int = DEFAULT_MAX_CONCURRENCY,
        ready_client: S3Client | None = None,
        transport: str = AUTO,
    ) -> S3Connection:
        """Check what a user gave.

        Raises:
            TypeError: A parameter is of a wrong type.
            ValueError: There are parameters that mean nothing beside a ready client,
                incomplete credentials, or no concurrency at all.
        """
        check_int("max_concurrency", max_concurrency, at_least=1)
        connection = cls(
            region=_text("region", region),
            endpoint_url=_url("endpoint_url", masked_url(endpoint_url)),
            profile_name=_text("profile_name", profile_name),
            access_key_id=as_secret("aws_access_key_id", access_key_id),
            secret_access_key=as_secret("aws_secret_access_key", secret_access_key),
            session_token=as_secret("aws_session_token", session_token),
            options=config_options(config),
            max_concurrency=max_concurrency,
            ready_client=ready_client,
            transport=_transport(transport),
        )
        connection._check()
        return connection

    def _check(self) -> None:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("give both aws_access_key_id and aws_secret_access_key, or neither")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError(
                "aws_session_token needs aws_access_key_id and aws_secret_access_key beside it"
            )
        if self.ready_client is None:
            return
        if not hasattr(self.ready_client, "put_object") or not hasattr(self.ready_client, "meta"):
            raise TypeError(
                f"s3_client must be a boto3 S3 client, not {type(self.ready_client).__name__}"
            )
        if self.transport == DIRECT:
            raise ValueError(
                "transport cannot be 'direct' beside s3_client: what a ready client has been"
                " taught is known to botocore alone"
            )
        given = (self.endpoint_url, self.profile_name, self.access_key_id, self.options)
        if any(given):
            raise ValueError(
                "s3_client is a ready client: endpoint_url, profile_name, credentials and"
                " boto_config mean nothing beside it"
            )
        if self.region not in (None, self.ready_client.meta.region_name):
            raise ValueError(
                f"region is {self.region!r}, but that of s3_client is"
                f" {self.ready_client.meta.region_name!r}"
            )

    def registry_key(self) -> tuple[Any, ...]:
        """Return what two connections have in common when they can share one client."""
        return (
            self.region,
            self.endpoint_url,
            self.profile_name,
            self.access_key_id,
            self.secret_access_key,
            self.session_token,
            _frozen(self.options),
            self.max_concurrency,
            self.transport,
            *self.surroundings(),
        )

    def surroundings(self) -> tuple[Any, ...]:
        """Tell what botocore reads, of environment and files, from what it has been before."""
        credentials = None
        if self.access_key_id is None:
            credentials = _identity_of("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
        return _aws_environment(), credentials, _identity_of("AWS_CONFIG_FILE", "~/.aws/config")

    def config(self) -> Config:
        """Return the defaults for this use, overlaid with the options given."""
        retries: dict[str, Any] = {"mode": "standard"}
        if "AWS_MAX_ATTEMPTS" not in os.environ:
            retries["total_max_attempts"] = 5
        defaults = Config(
            retries=retries,  # type: ignore[arg-type]
            max_pool_connections=self.max_concurrency,
            tcp_keepalive=True,
            connect_timeout=10,
            # A signed SHA-256 of the body guards every upload already; the optional second
            # checksum costs CPU, and over TLS an encoding that many servers do not know.
            request_checksum_calculation="when_required",
        )
        return defaults.merge(as_config(self.options))


def _text(name: str, given: Any) -> str | None:
    if given is not None and not isinstance(given, str):
        raise TypeError(f"{name} must be a str or None, not {type(given).__name__}")
    return given or None


def _url(name: str, url: Any) -> str | None:
    if isinstance(url, SecretURL):
        raise ValueError(
            f"{name} must not have a user and a password in it, as {url!r} has: give"
            " aws_access_key_id and aws_secret_access_key"
        )
    text = _text(name, url)
    if text and not text.startswith(("http://", "https://")):
        raise ValueError(f"{name} must begin with http:// or https://, it is {text!r}")
    if text and not {"?", "#"}.isdisjoint(text):
        raise ValueError(f"{name} must end before the first ? or #, which name no server")
    return text


def _transport(given: Any) -> str:
    if not isinstance(given, str):
        raise TypeError(f"transport must be a str, not {type(given).__name__}")
    if given not in TRANSPORTS:
        raise ValueError(f"transport must be one of {', '.join(TRANSPORTS)}, it is {given!r}")
    return given
