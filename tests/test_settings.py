"""The settings: what .env.example says, what wrong values are told, what is derived."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from dotenv import dotenv_values

from reos.settings import Settings, SettingsError, load_settings

pytestmark = pytest.mark.unit

EXAMPLE = Path(__file__).parent.parent / ".env.example"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_example_lists_every_setting_once_and_no_other() -> None:
    lines = [line.split("=")[0] for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")]
    assert sorted(lines) == sorted(name.upper() for name in Settings.model_fields)


def test_the_example_holds_the_defaults() -> None:
    given = dotenv_values(EXAMPLE)
    assert Settings(_env_file=EXAMPLE) == Settings(_env_file=None)  # type: ignore[call-arg]
    for name, field in Settings.model_fields.items():
        # Written out, not left empty, wherever there is one fixed default.
        if field.default_factory is None and field.default not in (None, "", ()):
            assert given[name.upper()], f"{name.upper()} has a default that .env.example does not show"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "0"),
        ("PORT", "eighty"),
        ("WORKERS", "0"),
        ("DB_DSN", "mysql://x"),
        ("PUBLIC_URL", "example.org"),
        ("JWT_SECRET_KEY", "short"),
        ("JWT_ALGORITHM", "none"),
        ("DB_POOL_MIN", "99"),
        ("SMTP_TLS", "perhaps"),
        ("WEBHOOK_RETRY_SECONDS", "5,soon"),
        ("LOG_FORMAT", "xml"),
        ("CORS_ORIGINS", "app.example.com"),
        ("CORS_ORIGINS", "https://app.example.com/"),
        ("CORS_ORIGINS", "https://app.example.com,https://"),
        ("PUBLIC_URL", "http://"),
        ("LINK_RESET_PASSWORD", "https:///reset"),
        ("SMTP_FROM_EMAIL", "nobody"),
        ("S3_ENDPOINT", "not a host"),
    ],
)
def test_a_wrong_value_is_one_sentence_that_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as caught:
        load_settings()
    assert "\n" not in str(caught.value)


def test_a_short_secret_is_fine_for_debugging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET_KEY", "short")
    monkeypatch.setenv("DEBUG", "true")
    assert load_settings().jwt_secret_key == "short"


def test_a_secret_is_generated_once_and_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    first, second = load_settings(data_dir=tmp_path / "d"), load_settings(data_dir=tmp_path / "d")
    assert first.jwt_secret_key == second.jwt_secret_key
    assert len(first.jwt_secret_key) >= 32
    assert stat.S_IMODE(os.stat(tmp_path / "d" / "jwt_secret_key").st_mode) == 0o600


def test_lists_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ORIGINS", "https://a.example, https://b.example,")
    monkeypatch.setenv("WEBHOOK_RETRY_SECONDS", "1,2")
    settings = Settings()
    assert settings.cors_origins == ("https://a.example", "https://b.example")
    assert settings.webhook_retry_seconds == (1, 2)


def test_the_minio_names_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIO_ENDPOINT", "localhost:9000")
    settings = Settings()
    assert settings.s3_endpoint == "localhost:9000"
    assert settings.uses_s3


def test_the_base_url_can_be_opened_from_the_machine_itself() -> None:
    assert Settings(host="0.0.0.0", port=8123).base_url == "http://127.0.0.1:8123"
    assert Settings(public_url="https://crm.example.org/").base_url == "https://crm.example.org"


def test_origins_are_compared_as_browsers_send_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ORIGINS", "https://App.Example.com, http://localhost:3000")
    assert load_settings().cors_origins == ("https://app.example.com", "http://localhost:3000")


def test_an_object_store_may_be_a_host_and_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ENDPOINT", "minio:9000")
    assert load_settings().s3_endpoint == "minio:9000"
