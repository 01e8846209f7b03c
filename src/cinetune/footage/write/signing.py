"""Content credentials (C2PA) in movies: who signed, and that the pictures are generated. Works offline; needs the extra
`cinetune[c2pa]`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cinetune.durable import atomic_write
from cinetune.errors import ConfigError, FootageError
from cinetune.footage.write.readback import movie_facts

__all__ = ["SIGNABLE", "check_signer", "read_manifest", "sign_movie"]

SIGNABLE = (".mov", ".mp4")
"""Suffixes of the containers that can carry a manifest (MXF cannot)."""
_GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_REMEDY = "give a PEM chain (signer first) and its unencrypted PEM key: EC P-256/384/521, RSA or Ed25519"


def _libraries() -> Any:
    try:
        import c2pa
    except ImportError as error:
        raise ConfigError(
            "signing needs c2pa-python, which is not installed",
            where="deliver.c2pa_certificate",
            remedy="pip install 'cinetune[c2pa]', or leave deliver.c2pa_certificate empty",
        ) from error
    return c2pa


def check_signer(certificate: Path, key: Path) -> None:
    """Raises `ConfigError` when the library is missing, or the two files are not a certificate chain and its key."""
    _signer(certificate, key).close()


def _signer(certificate: Path, key: Path) -> Any:
    c2pa = _libraries()
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    try:
        chain, secret = certificate.read_bytes(), key.read_bytes()
        private: Any = serialization.load_pem_private_key(secret, password=None)
        if x509.load_pem_x509_certificates(chain)[0].public_key() != private.public_key():
            raise ValueError("the key is not that of the first certificate")
        match private:
            case ec.EllipticCurvePrivateKey(key_size=size):
                name = {256: "ES256", 384: "ES384", 521: "ES512"}[size]
            case rsa.RSAPrivateKey():
                name = "PS256"
            case ed25519.Ed25519PrivateKey():
                name = "ED25519"
            case other:
                raise ValueError(f"no C2PA algorithm for {type(other).__name__}")
        algorithm = c2pa.C2paSigningAlg[name]
        return c2pa.Signer.from_info(c2pa.C2paSignerInfo(algorithm, chain, secret, None))
    except (OSError, ValueError, KeyError, TypeError, c2pa.C2paError) as error:
        raise ConfigError(f"cannot sign with it ({error})", where=f"{certificate}, {key}", remedy=_REMEDY) from error


def sign_movie(path: Path, *, certificate: Path, key: Path, title: str, tool: str) -> None:
    """Put a manifest into a .mov or .mp4, saying that it was generated; atomic.

    The signed file must hold the same movie (`movie_facts`) and a manifest that validates. Raises `FootageError` when
    it does not, `ConfigError` as `check_signer`.
    """
    c2pa = _libraries()
    name, _, version = tool.partition(" ")
    action = {"action": "c2pa.created", "digitalSourceType": _GENERATED}
    manifest = {
        "claim_generator_info": [{"name": name, "version": version or "0"}],
        "title": title,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }
    signer = _signer(certificate, key)
    with atomic_write(path) as temporary:
        temporary.unlink()
        try:
            with c2pa.Builder(json.dumps(manifest)) as builder:
                builder.sign_file(str(path), str(temporary), signer)
        except c2pa.C2paError as error:
            raise FootageError(f"it could not be signed ({error})", where=str(path), remedy=_REMEDY) from error
        finally:
            signer.close()
        state = read_manifest(temporary)["validation_state"]
        if state not in ("Valid", "Trusted") or movie_facts(temporary) != movie_facts(path):
            raise FootageError(f"the signed file does not read back (manifest {state})", where=str(path))


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest store of a file as the C2PA library reports it, with its `validation_state`: `Valid`, `Trusted`, or
    `Invalid`. Raises `FootageError` when there is none.
    """
    c2pa = _libraries()
    try:
        with c2pa.Reader(str(path)) as reader:
            return {**json.loads(reader.json()), "validation_state": reader.get_validation_state()}
    except c2pa.C2paError as error:
        raise FootageError(f"it carries no readable manifest ({error})", where=str(path)) from error
