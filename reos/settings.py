"""One frozen settings model, read once from the environment and `.env`.

The names of the environment variables are the upper-cased names of the fields. `.env.example`
lists every one with its default, and a test compares the two.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from base64 import b64decode
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MIN_SECRET_BYTES = 32

_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#@,\s]+")
_URL = re.compile(r"https?://[^/?#@\s]+(?:[/?#]\S*)?\Z")
_ADDRESS = re.compile(r"[^@\s<>]+@[^@\s<>]+")


class SettingsError(Exception):
    """A setting has a wrong value. The message is one sentence that names it."""


class Settings(BaseSettings):
    """Everything an operator may set. Times are in the unit that the name or comment gives."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    # Service
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    workers: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, le=256)
    debug: bool = False
    data_dir: Path = Path(".reos")
    seed_demo: bool = True
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    proxies_count: int = Field(0, ge=0, le=16)
    public_url: str = ""  # empty: http://HOST:PORT
    max_body_bytes: int = Field(1024 * 1024, ge=1024)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "console", "json"] = "auto"
    worker_metrics_port: int = Field(0, ge=0, le=65535)  # 0: the worker serves no /metrics of its own

    # Database
    db_dsn: str = ""  # empty: the embedded Postgres
    db_owner_dsn: str = ""  # empty: DB_DSN
    auto_migrate: bool | None = None  # None: true for the embedded database, else false
    db_listen_dsn: str = ""  # empty: DB_DSN
    db_replica_dsn: str = ""
    db_pool_min: int = Field(2, ge=0)
    db_pool_max: int = Field(8, ge=1)
    db_statement_cache_size: int = Field(256, ge=0)
    redis_url: str = ""

    # Security
    jwt_secret_key: str = ""  # empty: generated once into DATA_DIR
    jwt_algorithm: Literal["HS256", "HS384", "HS512"] = "HS256"
    jwt_access_token_expire_minutes: int = Field(30, ge=1)
    jwt_refresh_token_expire_days: int = Field(7, ge=1)
    session_max_days: int = Field(30, ge=1)  # since the log-in, however often it was refreshed
    password_min_length: int = Field(8, ge=1, le=128)
    password_require_uppercase: bool = True
    password_require_lowercase: bool = True
    password_require_digits: bool = True
    password_require_special: bool = True
    max_login_attempts: int = Field(5, ge=1, le=100)
    account_lockout_duration_minutes: int = Field(15, ge=1)
    require_verified_email: bool = False

    # Limits: requests in a window, 0 is off
    rate_limit_per_minute: int = Field(60, ge=0)
    rate_limit_per_hour: int = Field(1000, ge=0)
    rate_limit_per_day: int = Field(10000, ge=0)

    # Email and SMS
    smtp_host: str = ""  # empty: mails are files in DATA_DIR/outbox
    smtp_port: int = Field(25, ge=1, le=65535)
    smtp_user: str = ""
    smtp_password: str = ""
    smtp_tls: Literal["", "none", "starttls", "tls"] = ""
    smtp_from_email: str = "no-reply@localhost"
    smtp_from_name: str = "Real Estate OS"
    dev_outbox: bool = False
    link_verify_email: str = ""  # empty: PUBLIC_URL/verify-email
    link_reset_password: str = ""  # empty: PUBLIC_URL/reset-password
    sms_provider: Literal["outbox", "twilio", "http"] = "outbox"
    sms_api_key: str = ""
    sms_api_secret: str = ""
    sms_api_url: str = ""
    sms_from_number: str = ""

    # Campaigns
    campaign_messages_per_second: int = Field(0, ge=0)  # of all campaigns of an organisation; 0 is off
    bounce_secret: str = ""  # empty: no bounces are taken

    # Storage
    storage_provider: Literal["", "local", "s3"] = ""  # empty: s3 when S3_ENDPOINT is set, else local
    s3_endpoint: str = Field("", validation_alias=AliasChoices("s3_endpoint", "minio_endpoint"))
    s3_access_key: str = Field("", validation_alias=AliasChoices("s3_access_key", "minio_access_key"))
    s3_secret_key: str = Field("", validation_alias=AliasChoices("s3_secret_key", "minio_secret_key"))
    s3_bucket: str = Field("reos", validation_alias=AliasChoices("s3_bucket", "minio_bucket"))
    s3_region: str = Field("us-east-1", validation_alias=AliasChoices("s3_region", "minio_region"))
    s3_secure: bool = Field(True, validation_alias=AliasChoices("s3_secure", "minio_secure"))

    # Webhooks
    webhook_allow_private: bool = False
    webhook_max_attempts: int = Field(8, ge=1, le=100)
    # Before the second attempt, the third, …; the last counts for all that follow.
    webhook_retry_seconds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], NoDecode, Field(min_length=1)] = (
        5, 30, 300, 1800, 7200, 18000, 36000,
    )  # fmt: skip

    # Retention
    events_retention_days: int = Field(7, ge=1)
    audit_retention_days: int = Field(365, ge=1)
    soft_delete_retention_days: int = Field(90, ge=1)

    @field_validator("*", mode="before")
    @classmethod
    def _check_characters(cls, value: object) -> object:
        # Python shows a byte of the environment that is no UTF-8 as half a surrogate pair.
        if isinstance(value, str) and not value.isascii() and re.search("[\ud800-\udfff]", value):
            raise ValueError("must be UTF-8")
        return value

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        # A browser names itself by scheme, host and port alone; anything else would never be the same.
        for origin in value:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError("must be * or origins such as https://app.example.com, with a comma between them")
        return tuple(origin.lower() for origin in value)

    @field_validator("webhook_retry_seconds", mode="before")
    @classmethod
    def _split_seconds(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("bounce_secret")
    @classmethod
    def _check_secret(cls, value: str) -> str:
        if value.startswith("whsec_"):
            try:
                b64decode(value.removeprefix("whsec_"), validate=True)
            except ValueError:
                raise ValueError("must go on in base64 after whsec_") from None
        return value

    @field_validator("db_dsn", "db_owner_dsn", "db_listen_dsn", "db_replica_dsn")
    @classmethod
    def _check_dsn(cls, value: str) -> str:
        if value and not re.match(r"^postgres(ql)?://", value):
            raise ValueError("must be a postgresql:// URL")
        return value

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: str) -> str:
        if value and not re.match(r"^(rediss?|unix)://", value):
            raise ValueError("must be a redis://, rediss:// or unix:// URL")
        return value

    @field_validator("public_url", "link_verify_email", "link_reset_password")
    @classmethod
    def _check_url(cls, value: str) -> str:
        if value and not _URL.match(value):
            raise ValueError("must be an http:// or https:// URL")
        return value.rstrip("/")

    @field_validator("s3_endpoint")
    @classmethod
    def _check_endpoint(cls, value: str) -> str:
        if value and not _URL.match(value if "://" in value else f"https://{value}"):
            raise ValueError("must be an http:// or https:// URL, or host:port")
        return value

    @field_validator("smtp_from_email")
    @classmethod
    def _check_sender(cls, value: str) -> str:
        if not _ADDRESS.fullmatch(value):
            raise ValueError("must be an email address")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Settings:
        if self.db_pool_min > self.db_pool_max:
            raise ValueError("DB_POOL_MIN must not be larger than DB_POOL_MAX")
        short = self.jwt_secret_key and len(self.jwt_secret_key.encode()) < MIN_SECRET_BYTES
        if short and not self.debug:
            raise ValueError(f"JWT_SECRET_KEY must have at least {MIN_SECRET_BYTES} bytes")
        return self

    @property
    def base_url(self) -> str:
        """The address that links in mails start with, without a slash at the end."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104
        return self.public_url or f"http://{host}:{self.port}"

    @property
    def is_embedded(self) -> bool:
        """Whether the service runs its own Postgres in DATA_DIR."""
        return not self.db_dsn

    @property
    def uses_s3(self) -> bool:
        return self.storage_provider == "s3" or (not self.storage_provider and bool(self.s3_endpoint))

    @property
    def logs_json(self) -> bool:
        return self.log_format == "json" or (self.log_format == "auto" and not sys.stderr.isatty())


def load_settings(**overrides: object) -> Settings:
    """Read the settings and make sure that there is a signing secret. Raises SettingsError as `read_settings` does."""
    settings = read_settings(**overrides)
    if settings.jwt_secret_key:
        return settings
    try:
        secret = _generated_secret(settings.data_dir)
    except OSError as error:
        raise SettingsError(f"DATA_DIR: {error.filename} cannot be used: {error.strerror}.") from None
    return settings.model_copy(update={"jwt_secret_key": secret})


def read_settings(**overrides: object) -> Settings:
    """The settings, of which the signing secret may be empty.

    Raises SettingsError with one sentence that names the first wrong setting.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = str(first["loc"][0]).upper() if first["loc"] else ""
        message = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{name}: {message}." if name else f"{message}.") from None
    except UnicodeDecodeError:
        raise SettingsError(".env is not UTF-8.") from None
    except OSError as error:
        raise SettingsError(f"{error.filename} cannot be read: {error.strerror}.") from None


def _generated_secret(data_dir: Path) -> str:
    """The secret that DATA_DIR keeps, made at the first start. Readable by its owner alone. Raises OSError."""
    path = data_dir / "jwt_secret_key"
    data_dir.mkdir(parents=True, exist_ok=True)
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(48))
    except FileExistsError:
        pass
    secret = path.read_text().strip()
    if not secret:
        raise SettingsError(f"JWT_SECRET_KEY: {path} is empty; remove it or set the variable.")
    return secret
