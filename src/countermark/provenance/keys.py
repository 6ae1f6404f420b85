"""Keys of an installation: its certificate authority, its signing certificate, its watermark key, whom it trusts.

They are made on first use in home()/keys (folder 0700, files 0600). The folder is filled beside its place and renamed
as a whole, so that of two processes that race one wins and the other takes the winner's keys. The certificates follow
what C2PA asks of a signer: leaf with digitalSignature, emailProtection and the authority's key identifier.
"""

from __future__ import annotations

import datetime
import os
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.files import read_bounded
from countermark.core.home import home

if TYPE_CHECKING:
    from cryptography import x509

_MAX_PEM_BYTES = 2**20
_WATERMARK_KEY_BYTES = 32
_VALID_DAYS = 3650
_FILES = ("root-key.pem", "root.pem", "leaf-key.pem", "leaf.pem", "watermark.key")
_NO_USAGE = dict.fromkeys(
    (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    ),
    False,
)


@dataclass(frozen=True)
class Identity:
    """What signs: the certificate chain as PEM text, leaf first, and the leaf's private key as PEM bytes."""

    chain: str
    key: bytes


@dataclass(frozen=True)
class Installation:
    """The keys that this installation made for itself."""

    identity: Identity
    root: str
    watermark_key: bytes


def installation() -> Installation:
    """The installation's keys, made now if there are none. Raises CountermarkError when they can't be kept."""
    folder = home() / "keys"
    if not folder.exists():
        _make(folder)
    return _load(str(folder))


def existing_installation() -> Installation | None:
    """The installation's keys, or None when none were made yet: reading makes no keys."""
    folder = home() / "keys"
    return _load(str(folder)) if folder.exists() else None


def own_identity(certificate: Path, key: Path) -> Identity:
    """The identity of a user's own PEM files. Raises UsageError when they can't be read or do not belong together."""
    from cryptography.hazmat.primitives import serialization

    chain, key_pem = (_given(argument, path) for argument, path in (("certificate", certificate), ("key", key)))
    certificates = _certificates(chain, certificate)
    try:
        private = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError) as error:
        raise UsageError(f"key {key}: not an unencrypted PEM private key; convert it with openssl") from error
    if private.public_key() != certificates[0].public_key():
        raise UsageError(f"key {key} does not belong to certificate {certificate}; the leaf comes first in the chain")
    return Identity(chain.decode("ascii", "replace"), key_pem)


def _given(argument: str, path: Path) -> bytes:
    try:
        return read_bounded(Path(path), _MAX_PEM_BYTES)
    except CountermarkError as error:
        raise UsageError(f"{argument}: {error}; give a PEM file") from error


def trust_list() -> str:
    """The PEM roots that make a signature trusted: the installation's own, and every home()/trust/*.pem.

    Raises CountermarkError for a folder that cannot be read and for a file there that holds no certificate.
    """
    own = existing_installation()
    roots = [own.root] if own else []
    folder = home() / "trust"
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".pem")) if folder.exists() else []
    except OSError as error:  # to go on without it would call trusted files strangers'
        raise CountermarkError(f"{folder}: cannot be read ({error.strerror}); mend its permissions") from error
    for path in (folder / name for name in names):
        pem = read_bounded(path, _MAX_PEM_BYTES)
        _certificates(pem, path)
        roots.append(pem.decode("ascii", "replace"))
    return "\n".join(roots)


def _certificates(pem: bytes, path: Path) -> list[x509.Certificate]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise UsageError(f"{path}: no PEM certificate in it; give a certificate file or take it away") from error


@lru_cache(maxsize=8)
def _load(folder: str) -> Installation:
    missing = [name for name in _FILES if not (Path(folder) / name).is_file()]
    if missing:
        raise CountermarkError(f"{folder}: {missing[0]} is missing; restore the folder, or move it away for new keys")
    read = {name: read_bounded(Path(folder) / name, _MAX_PEM_BYTES) for name in _FILES}
    if len(read["watermark.key"]) != _WATERMARK_KEY_BYTES:
        raise CountermarkError(f"{folder}: watermark.key is damaged; restore it, or move the folder away for new keys")
    root = read["root.pem"].decode("ascii", "replace")
    identity = Identity(read["leaf.pem"].decode("ascii", "replace") + root, read["leaf-key.pem"])
    return Installation(identity, root, read["watermark.key"])


def _make(folder: Path) -> None:
    beside = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".keys-"))  # mode 0700
        for name, content in _new_keys().items():
            _write_private(beside / name, content)
        beside.rename(folder)  # fails when another process has put its keys there meanwhile: then those are taken
    except OSError as error:
        if not folder.exists():
            reason = error.strerror or error
            raise CountermarkError(f"cannot make keys in {folder}: {reason}; set COUNTERMARK_HOME") from error
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)


def _write_private(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _new_keys() -> dict[str, bytes]:
    from cryptography.hazmat.primitives.asymmetric import ec

    root_key, leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    name = f"Countermark installation {secrets.token_hex(4)}"
    root = _certificate(f"{name} root", f"{name} root", root_key.public_key(), root_key, is_authority=True)
    leaf = _certificate(name, f"{name} root", leaf_key.public_key(), root_key, is_authority=False)
    contents = (_key_pem(root_key), root, _key_pem(leaf_key), leaf, secrets.token_bytes(_WATERMARK_KEY_BYTES))
    return dict(zip(_FILES, contents, strict=True))


def _key_pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _certificate(subject: str, issuer: str, public_key: Any, root_key: Any, *, is_authority: bool) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import ExtendedKeyUsageOID

    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)  # clocks differ
    usage = {"key_cert_sign": True, "crl_sign": True} if is_authority else {"digital_signature": True}
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=_VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**{**_NO_USAGE, **usage}), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )
    if not is_authority:
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        builder = builder.add_extension(authority, critical=False)
    return builder.sign(root_key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _name(common: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    attributes = ((NameOID.COMMON_NAME, common), (NameOID.ORGANIZATION_NAME, common))
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in attributes])
