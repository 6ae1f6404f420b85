"""From evidence and judgements to one verdict: a pure function, in a fixed order, with its reasons in words.

1. A trusted signature that says how the picture came to be. 2. Our watermark with a valid authentication code.
3. An exact registry match. 4. Calibrated detectors. Else unknown.
Signatures of strangers, unsigned labels, near matches, fingerprints and everything of kind `protected` are claims: they
are told in the reasons and decide nothing. That a picture carries no mark is never evidence of anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from countermark.core.text import printable
from countermark.forensics.judgement import Judgement, Verdict

# Last parts of IPTC's digital source types (cv.iptc.org/newscodes/digitalsourcetype).
SYNTHETIC_SOURCES = {
    "trainedAlgorithmicMedia",
    "compositeWithTrainedAlgorithmicMedia",
    "algorithmicMedia",
    "compositeSynthetic",
}
CAPTURED_SOURCES = {"digitalCapture", "computationalCapture"}
TRAIN_ONE = "countermark train npr --data REAL --against RUN --out DETECTOR, then --detector DETECTOR"

Evidence = Mapping[str, Any]


@dataclass(frozen=True)
class Ruling:
    """A verdict, who gave it, and why."""

    verdict: Verdict
    decided_by: Literal["credentials", "watermark", "registry", "detector", "none"]
    reason: str


NO_DETECTOR_OF_CLIPS = Ruling("unknown", "none", "clips are judged by their marks alone: detectors know pictures only")


def decide(evidence: Evidence, judgements: Sequence[Judgement]) -> dict[str, Any]:
    """verdict, decided_by, p_synthetic, detectors, reasons, generator (None when it can't be told).

    evidence: what `provenance.verify` found. judgements: one for each detector that was asked; p_synthetic is the mean
    over those in whose domain the picture lies, or over all that could look, or None.
    """
    marks = (by_credentials(evidence), by_watermark(evidence), by_registry(evidence))
    without = by_detectors(judgements) if evidence["media"] == "image" else NO_DETECTOR_OF_CLIPS
    ruling = next((found for found in marks if found), None) or without
    said = [f"{judgement.name}: {reason}" for judgement in judgements for reason in judgement.reasons]
    return {
        "verdict": ruling.verdict,
        "decided_by": ruling.decided_by,
        "p_synthetic": combined_probability(judgements),
        "detectors": [{"name": j.name, "p_synthetic": j.p_synthetic} for j in judgements],
        "reasons": [printable(reason) for reason in (ruling.reason, *contradictions(marks), *claims(evidence), *said)],
        "generator": generator(evidence, ruling),
    }


def by_credentials(evidence: Evidence) -> Ruling | None:
    """A trusted signature that names a digital source type, unless it signs somebody else's media (`protected`)."""
    credentials = evidence["credentials"]
    if credentials["state"] != "trusted" or is_protected(evidence):
        return None
    source, issuer = source_type(credentials), credentials["issuer"]
    if source in SYNTHETIC_SOURCES:
        return Ruling("synthetic", "credentials", f"signed by {issuer}, which is trusted, as {source}")
    if source in CAPTURED_SOURCES:
        return Ruling("authentic", "credentials", f"signed by {issuer}, which is trusted, as {source}")
    return None


def by_watermark(evidence: Evidence) -> Ruling | None:
    """Our watermark, its authentication code valid, of kind made or edited; in a clip, in most of what was read."""
    mark = evidence["watermark"]
    if mark["present"] and mark["authenticated"] and mark["kind"] in ("made", "edited") and _in_most(mark):
        reason = f"carries the watermark of this installation, kind {mark['kind']}, authentication code valid"
        return Ruling("synthetic", "watermark", reason)
    return None


def _in_most(mark: Evidence) -> bool:
    """Whether most frames that were read show the mark; of a picture there is one."""
    return 2 * mark.get("frames_marked", 1) > mark.get("frames_read", 1)


def by_registry(evidence: Evidence) -> Ruling | None:
    """A file that is byte for byte one that was released here, unless it was only protected."""
    match = evidence["registry"]
    if match["match"] == "exact" and not is_protected(evidence):
        return Ruling("synthetic", "registry", f"this very file was released here (registry entry {match['id']})")
    return None


def by_detectors(judgements: Sequence[Judgement]) -> Ruling:
    """What all detectors say in whose domain the picture lies; unknown when there is none or they differ.

    Agreement keeps the false-positive rate of each: no detector that is added can raise it.
    """
    inside = [judgement for judgement in judgements if judgement.in_domain]
    if not judgements:
        return Ruling("unknown", "none", f"no detector was asked; train one for such pictures: {TRAIN_ONE}")
    if not inside:
        return Ruling("unknown", "none", "outside the domain of every detector that was asked")
    verdicts = {judgement.verdict for judgement in inside}
    if len(verdicts) > 1:
        return Ruling("unknown", "none", "the detectors do not agree")
    verdict = verdicts.pop()
    if verdict == "unknown":
        return Ruling("unknown", "none", "no detector can tell")
    names = ", ".join(judgement.name for judgement in inside)
    return Ruling(verdict, "detector", f"judged by {names}: a statistical answer, not a proof")


def combined_probability(judgements: Sequence[Judgement]) -> float | None:
    """The mean p_synthetic of the detectors in whose domain the picture lies, else of all that looked, else None."""
    looked = [judgement for judgement in judgements if judgement.p_synthetic is not None]
    counted = [judgement for judgement in looked if judgement.in_domain] or looked
    values = [judgement.p_synthetic for judgement in counted if judgement.p_synthetic is not None]
    return sum(values) / len(values) if values else None


def contradictions(marks: Sequence[Ruling | None]) -> list[str]:
    """One sentence for each mark that says otherwise than the first one that decides."""
    rulings = [ruling for ruling in marks if ruling]
    return [f"contradicted: {r.reason}" for r in rulings[1:] if r.verdict != rulings[0].verdict]


def claims(evidence: Evidence) -> list[str]:
    """What is said of the picture without deciding anything, a sentence each."""
    found = [_credentials_claim(evidence), _watermark_claim(evidence), _fingerprint_claim(evidence)]
    gb45438, iptc = evidence["labels"]["gb45438"], evidence["labels"]["iptc"]
    if gb45438["present"]:
        found.append(f"claim: an unsigned GB 45438 label ({'well' if gb45438['valid'] else 'badly'} formed)")
    if iptc["present"]:
        found.append(f"claim: an unsigned IPTC label {iptc['value']}")
    registry = evidence["registry"]
    if registry["match"] == "near":
        what = "claim: resembles a picture" if registry.get("kind") is None else "its watermark is that of a file"
        found.append(f"{what} released here (registry entry {registry['id']})")
    told = [claim for claim in found if claim]
    unmarked = not told and not any((by_credentials(evidence), by_watermark(evidence), by_registry(evidence)))
    return ["no signature, watermark or label found, which says nothing of how it was made"] if unmarked else told


def _credentials_claim(evidence: Evidence) -> str | None:
    credentials = evidence["credentials"]
    state, issuer, source = credentials["state"], credentials["issuer"], source_type(credentials)
    if state == "invalid":
        return "its signature is broken: the file was changed after signing, or the signature was forged"
    if state == "valid":
        return f"claim: signed by {issuer}, who is not on your list of trusted issuers, as {source or 'nothing stated'}"
    if state == "trusted" and is_protected(evidence):
        return f"claim: protected by {issuer}, who says that it is {source or 'nothing stated'}"
    if state == "trusted" and by_credentials(evidence) is None:
        return f"signed by {issuer}, which is trusted, without a word on whether it is synthetic"
    return None


def _watermark_claim(evidence: Evidence) -> str | None:
    mark = evidence["watermark"]
    if not mark["present"]:
        return None
    if mark["kind"] == "protected":
        return "claim: carries a watermark of kind protected, the word of whoever protected it"
    if not mark["authenticated"]:
        return "claim: carries a watermark whose authentication code is not one of this installation"
    if not _in_most(mark):
        return f"the watermark of this installation in {mark['frames_marked']} of {mark['frames_read']} frames read"
    return None


def _fingerprint_claim(evidence: Evidence) -> str | None:
    fingerprint = evidence["fingerprint"]
    return f"claim: carries the fingerprint of generator {fingerprint['run']}" if fingerprint["present"] else None


def generator(evidence: Evidence, ruling: Ruling) -> str | None:
    """Who made a picture that was found synthetic: by the trusted signature, the registry, or the fingerprint."""
    if ruling.verdict != "synthetic":
        return None
    credentials, fingerprint = evidence["credentials"], evidence["fingerprint"]
    by_signature = credentials["generator"] if by_credentials(evidence) else None
    by_fingerprint = fingerprint["run"] if fingerprint["present"] else None
    return by_signature or _registered(evidence["registry"]) or by_fingerprint or None


def _registered(match: Evidence) -> str | None:
    """MODEL@RUN of a registry entry, or the one of them that it has."""
    return "@".join(part for part in (match.get("model"), match.get("run")) if part) or None


def is_protected(evidence: Evidence) -> bool:
    """Whether any mark says that somebody else's media were marked here or by a stranger."""
    return any(evidence[part].get("kind") == "protected" for part in ("watermark", "credentials", "registry"))


def source_type(credentials: Evidence) -> str | None:
    """The last part of the digital source type's address."""
    source = credentials["digital_source_type"]
    return str(source).rsplit("/", 1)[-1] if source else None
