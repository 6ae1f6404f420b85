"""Content credentials (C2PA): what is said about a file, signed; and what a file's credentials are worth.

Nothing here uses the network: no time stamp authority is asked, no remote manifest is fetched.
"""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from typing import Any

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.files import sha256_hex
from countermark.core.media import sniff
from countermark.provenance import keys, seal
from countermark.provenance.containers import Malformed
from countermark.provenance.payload import KINDS

SYSTEM = "Countermark"
GENERATION = "org.countermark.generation"
SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
MADE = SOURCE_TYPES + "trainedAlgorithmicMedia"
EDITED = SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia"
MIME = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp", "mp4": "video/mp4"}
_MAX_TEXT = 300
_MAX_REASONS = 20
_MAX_SEED = 2**63


@dataclass(frozen=True)
class Origin:
    """Where a file comes from, as its credentials say it.

    kind: 'made' by a model here; 'edited': a parent's media changed here; 'protected': made elsewhere, marked here.
    model: the generator's name. run: the run's id, never a path. seed: one whole number, or several for one picture
    made of several. truncation: of the seeds' codes, if any. lineage: what it rests on, nearest first (run ids, the
    generator's name for `protected`).
    parent: the bytes of the file that was edited or protected, which the credentials then refer to.
    """

    kind: str
    model: str
    run: str | None = None
    seed: int | tuple[int, ...] | None = None
    truncation: float | None = None
    lineage: tuple[str, ...] = ()
    parent: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"kind {self.kind!r} is unknown; choose one of {', '.join(KINDS)}")
        if self.kind == "protected" and self.parent is None:
            raise UsageError("kind 'protected' says that the media were made elsewhere; give the parent's bytes")
        if any(not -_MAX_SEED <= seed < _MAX_SEED for seed in self.seeds):
            raise UsageError(f"seed {self.seed} is out of range; give whole numbers of 63 bits")
        if any(separator in (self.run or "") for separator in "/\\"):
            raise UsageError(
                f"run {self.run!r} looks like a path; give the run's id, which tells nothing of the machine"
            )

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, of which there may be none."""
        if self.seed is None:
            return ()
        return self.seed if isinstance(self.seed, tuple) else (self.seed,)

    @property
    def seeds_text(self) -> str:
        """The seeds with commas between them; empty when there are none."""
        return ",".join(map(str, self.seeds))

    @property
    def source_type(self) -> str:
        """The IPTC digital source type."""
        return EDITED if self.kind == "edited" else MADE


@dataclass(frozen=True)
class Credentials:
    """What a file's credentials are worth. The texts come from the file: escape them wherever they are shown.

    state: 'trusted' (signed under the trust list, and not a byte of the file changed), 'valid' (the same by a signer
    whom the list does not name, or with a limit that `reasons` gives), 'invalid' (broken or not canonical), 'absent'.
    time: of the time stamp, or else the one that the signer claims. generation: the assertion of this package.
    """

    state: str
    generator: str | None = None
    issuer: str | None = None
    time: str | None = None
    digital_source_type: str | None = None
    reasons: tuple[str, ...] = ()
    generation: dict[str, Any] = field(default_factory=dict)
    identifier: str | None = None
    time_stamped: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The shape that `verify --json` prints; kind is one of KINDS as this package signed it, else None."""
        names = ("state", "generator", "issuer", "time", "digital_source_type", "kind")
        return {**{name: getattr(self, name) for name in names}, "reasons": list(self.reasons)}

    @property
    def kind(self) -> str | None:
        """What the generation assertion says of the media: one of KINDS, or None where it says nothing known."""
        said = self.generation.get("kind")
        return next((kind for kind in KINDS if kind == said), None)


def system_version() -> str:
    """The version of this package; a source tree that was never installed says so."""
    try:
        return metadata.version("countermark")
    except metadata.PackageNotFoundError:
        return "0+source"


def manifest(origin: Origin, generation: dict[str, Any], created: str) -> dict[str, Any]:
    """The C2PA manifest definition of a file.

    generation: what GENERATION says besides the origin (id, provider, watermark, size ...); no lists of numbers, which
    the library would write as bytes. created: ISO 8601, UTC.
    """
    agent = {"name": SYSTEM, "version": system_version()}
    assertion = {
        "kind": origin.kind,
        "model": origin.model,
        "run": origin.run,
        "seeds": origin.seeds_text,
        "truncation": origin.truncation,
        "lineage": "; ".join(origin.lineage),
        "parent_sha256": None if origin.parent is None else sha256_hex(origin.parent),
        "created": created,
        "system": SYSTEM,
        "system_version": agent["version"],
        **generation,
    }
    return {
        "claim_generator_info": [agent],
        "title": generation.get("id", SYSTEM),
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": _actions(origin, agent, created, generation)}},
            {"label": GENERATION, "data": assertion},
        ],
    }


def _actions(origin: Origin, agent: dict[str, str], created: str, generation: dict[str, Any]) -> list[dict[str, Any]]:
    common = {"softwareAgent": agent, "when": created}
    if origin.parent is None:
        actions = [{"action": "c2pa.created", "digitalSourceType": origin.source_type, **common}]
    else:
        actions = [{"action": "c2pa.opened", "parameters": {"ingredientIds": ["parent"]}, **common}]
        if origin.kind == "edited":
            actions.append({"action": "c2pa.edited", "digitalSourceType": origin.source_type, **common})
    if generation.get("watermark", {}).get("present"):
        actions.append({"action": "c2pa.watermarked.unbound", **common})
    return actions


def sign(
    data: bytes, container: str, definition: dict[str, Any], identity: keys.Identity, parent: bytes | None
) -> bytes:
    """A copy of an encoded file with `definition` signed and embedded. Raises CountermarkError when it can't be.

    parent: the file that the manifest's `c2pa.opened` refers to, with the credentials that it may have.
    """
    import c2pa

    signed = io.BytesIO()
    try:
        with c2pa.Builder(json.dumps(definition), context=_context(os.getpid(), "")) as builder:
            if parent is not None:
                container_of_parent = sniff(parent)
                if container_of_parent is None:
                    raise CountermarkError("the parent is not a PNG, JPEG or WebP picture, nor an MP4 clip")
                ingredient = {"title": "parent", "relationship": "parentOf", "instance_id": "parent"}
                builder.add_ingredient(ingredient, MIME[container_of_parent], io.BytesIO(parent))
            builder.sign(_signer(os.getpid(), identity), MIME[container], io.BytesIO(data), signed)
    except (c2pa.C2paError, ValueError, TypeError) as error:  # the last two: a key file that is damaged
        raise CountermarkError(f"cannot sign the file: {_short(error)}; check the certificate and its key") from error
    return signed.getvalue()


def read(data: bytes, container: str, trust: str) -> Credentials:
    """The credentials of a file, judged by the PEM roots in `trust`. Never raises for what the file holds."""
    if not seal.has_store(data, container):
        return Credentials("absent")
    try:
        sealed = seal.check(data, container)
    except (Malformed, seal.NotCanonical) as error:
        return Credentials("invalid", reasons=(f"not in canonical form: {_short(error)}",))
    return _read_sealed(data, container, trust, sealed)


def _read_sealed(data: bytes, container: str, trust: str, sealed: seal.Seal) -> Credentials:
    import c2pa

    try:
        with c2pa.Reader(MIME[container], io.BytesIO(data), context=_context(os.getpid(), trust)) as reader:
            report = json.loads(reader.json())
    except (c2pa.C2paError, ValueError, RecursionError) as error:
        return Credentials("invalid", reasons=(_short(error),))
    return _judge(report, sealed)


def _judge(report: dict[str, Any], sealed: seal.Seal) -> Credentials:
    active = report.get("manifests", {}).get(report.get("active_manifest"), {})
    state, reasons, stamped = _state(report, sealed)
    signature = active.get("signature_info") or {}
    said = next((a.get("data") for a in active.get("assertions", []) if a.get("label") == GENERATION), None)
    generation: dict[str, Any] = said if isinstance(said, dict) else {}
    actions = _listed_actions(active)
    claimed = generation.get("created") or next((a["when"] for a in actions if a.get("when")), None)
    source_types = [a["digitalSourceType"] for a in actions if a.get("digitalSourceType")]
    parent_types = [MADE] if generation.get("kind") == "protected" else []
    return Credentials(
        state,
        generator=_generator(active),
        issuer=_text(signature.get("issuer") or signature.get("common_name")),
        time=_text(signature.get("time") or claimed),
        digital_source_type=_text(next(iter(source_types + parent_types), None)),
        reasons=reasons,
        generation=generation,
        identifier=_text(generation.get("id") or report.get("active_manifest")),
        time_stamped=stamped,
    )


def _state(report: dict[str, Any], sealed: seal.Seal) -> tuple[str, tuple[str, ...], bool]:
    results = report.get("validation_results") or {}
    findings = results.get("activeManifest") or {}
    deltas = [delta.get("validationDeltas") or {} for delta in results.get("ingredientDeltas") or []]
    failures = [_finding(f) for part in (findings, *deltas) for f in part.get("failure") or []]
    untrusted = [f for f in failures if f.startswith("signingCredential.untrusted")]
    successes = {f.get("code") for f in findings.get("success") or []}
    stamped = bool(sealed.time_stamped and successes & {"timeStamp.trusted", "timeStamp.validated"})
    limits = list(sealed.limits)
    if sealed.time_stamped and not stamped:
        limits.append("the time stamp cannot be validated")
    state = {"Trusted": "trusted", "Valid": "valid"}.get(str(report.get("validation_state")), "invalid")
    if len(failures) > len(untrusted):
        state = "invalid"
    elif state == "trusted" and (untrusted or limits):
        state = "valid"
    reasons = [*failures, *limits]
    if state != "invalid" and not stamped:
        reasons.append("no trusted time stamp: the time is the signer's word")
    return state, tuple(reasons[:_MAX_REASONS]), stamped and "timeStamp.trusted" in successes


def _finding(finding: dict[str, Any]) -> str:
    return _short(f"{finding.get('code')}: {finding.get('explanation') or ''}".rstrip(": "))


def _listed_actions(active: dict[str, Any]) -> list[dict[str, Any]]:
    listed = []
    for assertion in active.get("assertions", []):
        if str(assertion.get("label", "")).startswith("c2pa.actions") and isinstance(assertion.get("data"), dict):
            listed += [action for action in assertion["data"].get("actions") or [] if isinstance(action, dict)]
    return listed


def _generator(active: dict[str, Any]) -> str | None:
    for info in active.get("claim_generator_info") or []:
        if info.get("name"):
            return _text(f"{info['name']} {info.get('version') or ''}".strip())
    return _text(active.get("claim_generator"))


def _text(value: object) -> str | None:
    return None if value is None else str(value)[:_MAX_TEXT]


def _short(value: object) -> str:
    return " ".join(str(value).split())[:_MAX_TEXT]


# Native handles do not survive a fork, so that the process belongs to the key.


@lru_cache(maxsize=8)
def _context(process: int, trust: str) -> Any:
    import c2pa

    settings: dict[str, Any] = {
        "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_after_sign": False},
        "builder": {"thumbnail": {"enabled": False}},
    }
    if trust:
        settings["trust"] = {"user_anchors": trust}
    try:
        return c2pa.Context.from_dict(settings)
    except c2pa.C2paError as error:
        raise CountermarkError(f"the trust list cannot be used: {_short(error)}; mend home()/trust") from error


@lru_cache(maxsize=8)
def _signer(process: int, identity: keys.Identity) -> Any:
    import c2pa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    algorithm, signature_of = _algorithm(load_pem_private_key(identity.key, password=None))
    return c2pa.Signer.from_callback(signature_of, getattr(c2pa.C2paSigningAlg, algorithm), identity.chain, None)


def _algorithm(key: Any) -> tuple[str, Any]:
    """The C2PA name of the algorithm for `key`, and the function that signs bytes with it."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

    curves = {256: ("ES256", hashes.SHA256()), 384: ("ES384", hashes.SHA384())}
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size in curves:
        name, digest = curves[key.curve.key_size]
        return name, lambda message: key.sign(message, ec.ECDSA(digest))
    if isinstance(key, rsa.RSAPrivateKey):
        masked = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)
        return "PS256", lambda message: key.sign(message, masked, hashes.SHA256())
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ED25519", key.sign
    raise UsageError(f"a {type(key).__name__} cannot sign credentials; use P-256, P-384, RSA or Ed25519")
