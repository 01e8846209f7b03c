"""A C2PA signer for tests: a root and a house, made on the spot and trusted by nobody."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["make_signer"]


def certificate(name, key, issuer, issuer_key, *, authority):
    """A certificate of `key` with what C2PA asks for."""
    now = datetime.datetime.now(datetime.UTC)
    called = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, who)]) for who in (name, issuer)]
    usage = dict.fromkeys(
        [
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ],
        False,
    )
    usage |= {"digital_signature": not authority, "key_cert_sign": authority, "crl_sign": authority}
    builder = (
        x509.CertificateBuilder()
        .issuer_name(called[1])
        .subject_name(called[0])
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def make_signer(folder: Path, curve: ec.EllipticCurve) -> dict[str, Path]:
    """chain.pem and key.pem of a test house under a test root."""
    root, house = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(curve)
    chain = certificate("House", house, "Root", root, authority=False)
    chain += certificate("Root", root, "Root", root, authority=True)
    (folder / "chain.pem").write_bytes(chain)
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(house.private_bytes(*pem))
    return {"certificate": folder / "chain.pem", "key": folder / "key.pem"}
