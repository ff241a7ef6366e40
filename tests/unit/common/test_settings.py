from pathlib import Path

import pytest
from pydantic import ValidationError

from intertie.common.settings import (
    EtcdSettings,
    ListenSettings,
    LogSettings,
    NamedPeerSettings,
    ServiceSettings,
    SettingsInvalid,
    load,
)

GOOD = """
site = "north"
[listen]
addresses = ["10.201.0.2:7400", "unix:/run/broker.sock"]
[etcd]
endpoints = ["10.201.0.2:2379"]
ca = "ca.pem"
certificate = "broker.pem"
key = "broker.key"
server_name = "etcd.north.site.intertie"
prefix = "/intertie/north"
[[metascheds]]
name = "meta"
addresses = ["10.250.0.2:7400", "10.250.0.3:7400"]
server_name = "metasched.meta.meta.intertie"
trust_domain = "meta.meta.intertie"
"""


class Settings(ServiceSettings):
    site: str
    listen: ListenSettings
    etcd: EtcdSettings
    log: LogSettings = LogSettings()
    metascheds: tuple[NamedPeerSettings, ...] = ()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "broker.toml"
    path.write_text(GOOD)
    return path


def test_reads_tables_and_defaults(file: Path) -> None:
    settings = load(Settings, file)
    assert settings.site == "north"
    assert settings.listen.addresses == ("10.201.0.2:7400", "unix:/run/broker.sock")
    assert settings.etcd.ca == Path("ca.pem")
    assert settings.metascheds[0].name == "meta"
    assert settings.log.level == "info"


def test_the_environment_overrides_one_field_of_a_table(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERTIE_LOG__LEVEL", "debug")
    monkeypatch.setenv("INTERTIE_ETCD__PREFIX", "/intertie/other")
    monkeypatch.setenv("INTERTIE_CONFIG", "of the client, and none of ours")
    settings = load(Settings, file)
    assert settings.log.level == "debug"
    assert settings.etcd.prefix == "/intertie/other"
    assert settings.etcd.endpoints == ("10.201.0.2:2379",)


def test_is_frozen(file: Path) -> None:
    settings = load(Settings, file)
    with pytest.raises(ValidationError):
        settings.site = "south"
    with pytest.raises(ValidationError):
        settings.log.level = "debug"


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('site = "north"', "", "site: Field required"),
        ('key = "broker.key"', "", "etcd: Value error, ca, certificate and key go"),
        ('name = "meta"\n', "nam = 'meta'\n", "metascheds[0].nam: is not a setting"),
        ('key = "broker.key"', 'kez = "broker.key"', "etcd.kez: is not a setting"),
        ('prefix = "/intertie/north"', 'prefix = "north/"', "etcd.prefix"),
        ('name = "meta"', "", "metascheds[0].name: Field required"),
        ('addresses = ["10.250.0.2', 'address = ["10.250.0.2', "metascheds[0].addresses: Field"),
        ('["10.250.0.2:7400", "10.250.0.3:7400"]', "[]", "metascheds[0].addresses: Tuple should"),
        ('["10.201.0.2:2379"]', "[]", "etcd.endpoints"),
        ('["10.201.0.2:2379"]', '["etcd-1:2379", "etcd-2:2379"]', "etcd-1:2379 is none; write its"),
        ("[listen]", "[listen", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_field(
    file: Path, old: str, new: str, named: str
) -> None:
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(SettingsInvalid) as caught:
        load(Settings, file)
    assert str(caught.value).startswith(f"{file}: ")
    assert named in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"none\.toml: cannot be read"):
        load(Settings, tmp_path / "none.toml")


def test_etcd_without_tls_is_on_loopback_only() -> None:
    EtcdSettings(endpoints=("127.0.0.1:2379",), prefix="/intertie/north")
    with pytest.raises(ValidationError, match=r"127\.0\.0\.0/8"):
        EtcdSettings(endpoints=("127.0.0.1:2379", "10.0.0.1:2379"), prefix="/intertie/north")


def test_etcd_is_found_by_addresses_or_by_one_name() -> None:
    """A bug: a name, as the examples have it, was handed to gRPC as if it were an address."""
    for endpoints, by_name in (
        (("north-etcd:2379",), True),
        (("10.201.0.2:2379", "10.201.0.3:2379"), False),
    ):
        settings = EtcdSettings(
            endpoints=endpoints,
            prefix="/intertie/north",
            ca=Path("/ca"),
            certificate=Path("/certificate"),
            key=Path("/key"),
        )
        assert settings.by_name is by_name
