from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark.forensics.judgement import Judgement
from countermark.forensics.verdict import decide

CV = "http://cv.iptc.org/newscodes/digitalsourcetype/"
BARE: dict[str, Any] = {
    "path": "a.png",
    "media": "image",
    "sha256": "00" * 32,
    "credentials": {
        "state": "absent", "generator": None, "issuer": None, "time": None, "digital_source_type": None, "reasons": [],
    },
    "watermark": {
        "present": False, "kind": None, "payload": None, "authenticated": False, "bit_agreement": 0.5,
        "false_positive_rate": 1e-7, "reason": None,
    },
    "fingerprint": {"present": False, "run": None, "bit_agreement": None},
    "labels": {
        "gb45438": {"present": False, "valid": False, "fields": {}, "reasons": []},
        "iptc": {"present": False, "value": None},
    },
    "registry": {"match": "none", "id": None},
    "standards": {},
}  # fmt: skip


def evidence(**parts: dict[str, Any]) -> dict[str, Any]:
    found = deepcopy(BARE)
    for part, changes in parts.items():
        for name, value in changes.items():
            found[part][name] = {**found[part][name], **value} if isinstance(value, dict) else value
    return found


def signed(state: str, source: str | None, **more: Any) -> dict[str, Any]:
    address = CV + source if source else None
    return {"state": state, "issuer": "Acme", "generator": "dcgan", "digital_source_type": address, **more}


MADE = {"present": True, "kind": "made", "authenticated": True, "payload": "00"}
EXACT = {"match": "exact", "id": "r1"}
ALGORITHM, CAMERA = "trainedAlgorithmicMedia", "digitalCapture"


def judged(verdict: str, p: float | None, *, inside: bool = True, name: str = "npr") -> Judgement:
    return Judgement(name, p, verdict, inside, ("because",))  # type: ignore[arg-type]


SAYS_SYNTHETIC, SAYS_AUTHENTIC = [judged("synthetic", 0.99)], [judged("authentic", 0.01)]

# What is found, what the detectors say, the verdict, and who decided.
TABLE = [
    # A trusted signature comes first, whatever the rest says.
    (evidence(credentials=signed("trusted", ALGORITHM)), SAYS_AUTHENTIC, "synthetic", "credentials"),
    (evidence(credentials=signed("trusted", "compositeWithTrainedAlgorithmicMedia")), [], "synthetic", "credentials"),
    (evidence(credentials=signed("trusted", "algorithmicMedia")), [], "synthetic", "credentials"),
    (evidence(credentials=signed("trusted", CAMERA)), SAYS_SYNTHETIC, "authentic", "credentials"),
    (evidence(credentials=signed("trusted", CAMERA), watermark=MADE), [], "authentic", "credentials"),
    # A trusted signature without a word on the matter leaves it to the others.
    (evidence(credentials=signed("trusted", None)), [], "unknown", "none"),
    (evidence(credentials=signed("trusted", "digitalArt")), SAYS_AUTHENTIC, "authentic", "detector"),
    (evidence(credentials=signed("trusted", None), watermark=MADE), [], "synthetic", "watermark"),
    # Strangers and broken signatures decide nothing.
    (evidence(credentials=signed("valid", ALGORITHM)), [], "unknown", "none"),
    (evidence(credentials=signed("valid", CAMERA)), SAYS_SYNTHETIC, "synthetic", "detector"),
    (evidence(credentials=signed("invalid", ALGORITHM)), SAYS_AUTHENTIC, "authentic", "detector"),
    (evidence(credentials=signed("invalid", CAMERA)), [], "unknown", "none"),
    # Our watermark, if authenticated and not of kind protected.
    (evidence(watermark=MADE), SAYS_AUTHENTIC, "synthetic", "watermark"),
    (evidence(watermark={**MADE, "kind": "edited"}), [], "synthetic", "watermark"),
    (evidence(watermark={**MADE, "authenticated": False}), [], "unknown", "none"),
    (evidence(watermark={**MADE, "kind": "protected"}), [], "unknown", "none"),
    (evidence(watermark={**MADE, "kind": "protected"}), SAYS_AUTHENTIC, "authentic", "detector"),
    (evidence(watermark=MADE, credentials=signed("invalid", CAMERA)), [], "synthetic", "watermark"),
    # What was only protected is a claim even under a trusted signature and with a registry match.
    (
        evidence(watermark={**MADE, "kind": "protected"}, credentials=signed("trusted", ALGORITHM), registry=EXACT),
        [], "unknown", "none",
    ),
    (evidence(credentials=signed("trusted", ALGORITHM, kind="protected"), registry=EXACT), [], "unknown", "none"),
    (evidence(registry={**EXACT, "kind": "protected"}), SAYS_AUTHENTIC, "authentic", "detector"),
    # The registry, if exact.
    (evidence(registry=EXACT), SAYS_AUTHENTIC, "synthetic", "registry"),
    (evidence(registry={"match": "near", "id": "r1"}), [], "unknown", "none"),
    # Labels and fingerprints are claims.
    (evidence(labels={"iptc": {"present": True, "value": CV + ALGORITHM}}), [], "unknown", "none"),
    (evidence(labels={"iptc": {"present": True, "value": CV + ALGORITHM}}), SAYS_AUTHENTIC, "authentic", "detector"),
    (evidence(labels={"gb45438": {"present": True, "valid": True}}), [], "unknown", "none"),
    (evidence(fingerprint={"present": True, "run": "abc"}), [], "unknown", "none"),
    # Nothing found: the detectors, if they agree inside their domain.
    (evidence(), [], "unknown", "none"),
    (evidence(), SAYS_SYNTHETIC, "synthetic", "detector"),
    (evidence(), SAYS_AUTHENTIC, "authentic", "detector"),
    (evidence(), [judged("unknown", 0.6)], "unknown", "none"),
    (evidence(), [judged("unknown", None, inside=False)], "unknown", "none"),
    (evidence(), SAYS_SYNTHETIC + SAYS_AUTHENTIC, "unknown", "none"),
    (evidence(), [*SAYS_SYNTHETIC, judged("unknown", 0.5)], "unknown", "none"),
    (evidence(), [*SAYS_SYNTHETIC, judged("unknown", None, inside=False)], "synthetic", "detector"),
]  # fmt: skip


@pytest.mark.parametrize(("found", "judgements", "verdict", "decided_by"), TABLE)
def test_order_of_decision(found: dict, judgements: list[Judgement], verdict: str, decided_by: str) -> None:
    before = deepcopy(found)
    result = decide(found, judgements)
    assert (result["verdict"], result["decided_by"]) == (verdict, decided_by)
    assert set(result) == {"verdict", "decided_by", "p_synthetic", "detectors", "reasons", "generator"}
    assert result["reasons"]
    assert all(isinstance(reason, str) and reason for reason in result["reasons"])
    assert found == before


def test_probability_is_the_mean_over_the_detectors_that_know_such_pictures() -> None:
    asked = [judged("synthetic", 0.9), judged("synthetic", 0.8), judged("unknown", 0.1, inside=False)]
    result = decide(evidence(), asked)
    assert result["p_synthetic"] == pytest.approx(0.85)
    assert result["detectors"] == [{"name": "npr", "p_synthetic": p} for p in (0.9, 0.8, 0.1)]
    assert decide(evidence(), [judged("unknown", 0.1, inside=False)])["p_synthetic"] == pytest.approx(0.1)


@pytest.mark.parametrize("judgements", [[], [judged("unknown", None, inside=False)]])
def test_probability_is_null_when_no_detector_looked(judgements: list[Judgement]) -> None:
    for found in (evidence(), evidence(watermark=MADE), evidence(credentials=signed("trusted", ALGORITHM))):
        assert decide(found, judgements)["p_synthetic"] is None


def test_reasons_tell_claims_contradictions_and_what_to_do() -> None:
    def reasons(**parts: Any) -> str:
        return "\n".join(decide(evidence(**parts), [])["reasons"])

    assert "countermark train npr" in reasons()
    assert "says nothing" in reasons()
    assert "not on your list" in reasons(credentials=signed("valid", CAMERA))
    assert "broken" in reasons(credentials=signed("invalid", CAMERA))
    assert "IPTC" in reasons(labels={"iptc": {"present": True, "value": "x"}})
    assert "GB 45438" in reasons(labels={"gb45438": {"present": True, "valid": False}})
    assert "claim: resembles" in reasons(registry={"match": "near", "id": "r1"})
    assert "r1" in reasons(registry={"match": "near", "id": "r1"})
    assert "claim" not in reasons(registry={"match": "near", "id": "r1", "kind": "made"}, watermark=MADE)
    assert "contradicted" in reasons(credentials=signed("trusted", CAMERA), watermark=MADE)
    assert "says nothing" not in reasons(watermark=MADE)


def test_words_from_the_file_cannot_steer_a_terminal() -> None:
    hostile = evidence(
        credentials={**signed("valid", None), "issuer": "\x1b[31mACME\n", "digital_source_type": "a/\u202eb"},
        labels={"iptc": {"present": True, "value": "\x07"}},
    )
    assert all(reason.isprintable() for reason in decide(hostile, [])["reasons"])


def test_generator_is_told_by_what_can_be_trusted_only() -> None:
    def told(**parts: Any) -> str | None:
        return decide(evidence(**parts), SAYS_SYNTHETIC)["generator"]

    assert told(credentials=signed("trusted", ALGORITHM)) == "dcgan"
    assert told(credentials=signed("valid", ALGORITHM)) is None
    assert told(registry={**EXACT, "run": "run1"}) == "run1"
    assert told(registry={**EXACT, "model": "dcgan", "run": "run1"}) == "dcgan@run1"
    assert told(registry={**EXACT, "model": "dcgan", "run": None}) == "dcgan"
    assert told(fingerprint={"present": True, "run": "run2"}) == "run2"
    assert told() is None
    assert decide(evidence(fingerprint={"present": True, "run": "run2"}), [])["generator"] is None


states = st.sampled_from(["trusted", "valid", "invalid", "absent"])
sources = st.sampled_from([None, ALGORITHM, CAMERA, "compositeSynthetic", "digitalArt"])
kinds = st.sampled_from([None, "made", "edited", "protected"])
claims = st.fixed_dictionaries(
    {
        "state": st.sampled_from(["valid", "invalid", "absent"]),
        "source": sources,
        "kind": kinds,
        "present": st.booleans(),
        "match": st.sampled_from(["near", "none"]),
        "iptc": st.booleans(),
        "gb": st.booleans(),
        "fingerprint": st.booleans(),
    }
)
anything = st.lists(
    st.builds(
        judged,
        st.sampled_from(["synthetic", "authentic", "unknown"]),
        st.floats(0, 1),
        inside=st.just(True),
    ),
    max_size=3,
)


def claimed(drawn: dict[str, Any]) -> dict[str, Any]:
    return evidence(
        credentials=signed(drawn["state"], drawn["source"]),
        watermark={"present": drawn["present"], "kind": drawn["kind"], "authenticated": False},
        labels={
            "iptc": {"present": drawn["iptc"], "value": CV + ALGORITHM},
            "gb45438": {"present": drawn["gb"], "valid": True},
        },
        registry={"match": drawn["match"], "id": "r1"},
        fingerprint={"present": drawn["fingerprint"], "run": "r"},
    )


@given(claims, anything)
def test_claims_never_change_a_verdict(drawn: dict, judgements: list[Judgement]) -> None:
    with_claims, without = decide(claimed(drawn), judgements), decide(evidence(), judgements)
    for name in ("verdict", "decided_by", "p_synthetic", "detectors"):
        assert with_claims[name] == without[name]


@given(claims)
def test_claims_alone_decide_nothing(drawn: dict) -> None:
    assert decide(claimed(drawn), [])["verdict"] == "unknown"


@given(states, sources, st.booleans(), kinds, st.sampled_from(["exact", "near", "none"]), anything)
def test_what_is_protected_is_never_decided_by_its_marks(
    state: str, source: str | None, authenticated: bool, kind: str | None, match: str, judgements: list[Judgement]
) -> None:
    mark = {"present": True, "kind": "protected", "authenticated": authenticated}
    result = decide(
        evidence(credentials=signed(state, source, kind=kind), watermark=mark, registry={"match": match, "id": "r"}),
        judgements,
    )
    assert result["decided_by"] in ("detector", "none")


@given(anything)
def test_missing_provenance_is_never_evidence_of_fakery(judgements: list[Judgement]) -> None:
    """Without marks a picture is synthetic only if every detector says so."""
    result = decide(evidence(), judgements)
    if result["verdict"] == "synthetic":
        assert result["decided_by"] == "detector"
        assert {judgement.verdict for judgement in judgements} == {"synthetic"}


@given(states, sources, st.booleans(), kinds, anything)
def test_authentic_comes_only_from_a_trusted_capture_or_from_detectors(
    state: str, source: str | None, present: bool, kind: str | None, judgements: list[Judgement]
) -> None:
    mark = {"present": present, "kind": kind, "authenticated": present}
    result = decide(evidence(credentials=signed(state, source), watermark=mark), judgements)
    if result["verdict"] == "authentic" and result["decided_by"] != "detector":
        assert (result["decided_by"], state, source) == ("credentials", "trusted", CAMERA)


# Clips


def test_a_mark_in_most_frames_decides_and_one_in_few_is_told() -> None:
    for num, decided in ((20, "watermark"), (13, "watermark"), (12, "none"), (1, "none")):
        found = evidence(watermark={**MADE, "frames_read": 24, "frames_marked": num})
        ruling = decide({**found, "media": "video"}, [])
        assert (ruling["verdict"], ruling["decided_by"]) == ("synthetic" if num > 12 else "unknown", decided)
        told = f"the watermark of this installation in {num} of 24 frames read"
        assert (told in ruling["reasons"]) == (decided == "none")


def test_no_detector_is_asked_about_a_clip() -> None:
    ruling = decide({**evidence(), "media": "video"}, [])
    assert (ruling["verdict"], ruling["decided_by"], ruling["p_synthetic"]) == ("unknown", "none", None)
    assert "marks alone" in ruling["reasons"][0]
