import os
import stat
import subprocess
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from countermark.core.errors import CountermarkError, UsageError
from countermark.provenance import keys


def test_keys_are_made_once_and_for_the_owner_only(home):
    assert keys.existing_installation() is None
    made = keys.installation()
    assert keys.installation() == made == keys.existing_installation()
    assert stat.S_IMODE((home / "keys").stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in (home / "keys").iterdir()} == {0o600}
    assert len(made.watermark_key) == 32
    assert [entry.name for entry in home.iterdir()] == ["keys"]


def test_the_leaf_is_signed_by_the_root(home):
    leaf, root = x509.load_pem_x509_certificates(keys.installation().identity.chain.encode())
    leaf.verify_directly_issued_by(root)
    root.verify_directly_issued_by(root)
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_processes_that_race_get_the_same_keys(home):
    code = "from countermark.provenance import keys; print(keys.installation().watermark_key.hex())"
    racers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(4)]
    printed = {racer.communicate()[0] for racer in racers}
    assert len(printed) == 1
    assert len(printed.pop()) == 65
    assert [entry.name for entry in home.iterdir()] == ["keys"]


def test_an_incomplete_folder_is_refused_and_kept(home):
    (home / "keys").mkdir()
    (home / "keys" / "root.pem").write_text("x")
    with pytest.raises(CountermarkError, match=r"root-key\.pem is missing"):
        keys.installation()
    assert (home / "keys" / "root.pem").read_text() == "x"


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_an_unwritable_home_is_one_line(home):
    home.chmod(0o500)
    try:
        with pytest.raises(CountermarkError, match="cannot make keys"):
            keys.installation()
    finally:
        home.chmod(0o700)


def test_a_home_that_is_a_file_is_one_line(home, monkeypatch):
    (home / "file").write_text("x")
    monkeypatch.setenv("COUNTERMARK_HOME", str(home / "file"))
    with pytest.raises(CountermarkError, match="cannot make keys"):
        keys.installation()


def test_the_trust_list_is_own_root_and_the_folder(home, tmp_path):
    assert keys.trust_list() == ""
    own = keys.installation()
    (home / "trust").mkdir()
    (home / "trust" / "other.pem").write_text(own.root)
    assert keys.trust_list().count("BEGIN CERTIFICATE") == 2
    (home / "trust" / "broken.pem").write_text("no certificate")
    with pytest.raises(UsageError, match=r"broken\.pem"):
        keys.trust_list()


def test_a_key_that_does_not_belong_is_refused(home, tmp_path):
    keys.installation()
    chain, root_key = tmp_path / "chain.pem", home / "keys" / "root-key.pem"
    chain.write_text(keys.installation().identity.chain)
    assert keys.own_identity(chain, home / "keys" / "leaf-key.pem").key
    with pytest.raises(UsageError, match="does not belong"):
        keys.own_identity(chain, root_key)
    with pytest.raises(UsageError, match="not an unencrypted PEM"):
        keys.own_identity(chain, chain)
    with pytest.raises(CountermarkError, match="no such file"):
        keys.own_identity(tmp_path / "absent.pem", root_key)


def test_a_trust_folder_that_is_none_is_one_line(home):
    home.mkdir(parents=True, exist_ok=True)
    (home / "trust").write_text("not a folder")
    with pytest.raises(CountermarkError, match=r"trust: cannot be read .*mend its permissions"):
        keys.trust_list()
