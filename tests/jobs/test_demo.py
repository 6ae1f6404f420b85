"""The whole demo, in small."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from countermark.jobs import demo as job
from countermark.jobs.demo import Show, demo


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attributes if name in ("src", "href") and tag != "use"]


def test_the_demo_makes_a_page_that_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "DATA", "digits")
    monkeypatch.setattr(job, "MODEL", "dcgan:tiny")
    monkeypatch.setattr(job, "DETECTOR", "npr:tiny")
    monkeypatch.setattr(job, "NUM_RELEASED", 4)
    monkeypatch.setattr(job, "NUM_JUDGED", 100)
    said: list[str] = []
    found = demo(tmp_path / "demo", minutes=0.05, show=Show(said.append))
    marks = found["marks"]
    assert (marks["num"], marks["trusted"], marks["watermarked"], marks["registered"]) == (4, 4, 4, 4)
    assert marks["tampered"]["credentials"]["state"] == "invalid"
    assert marks["again"]["credentials"]["state"] == "absent"
    assert [entry["decided_by"] for entry in marks["by_marks"]] == ["credentials", "watermark"]
    assert sum(found["verdicts"]["counts"]["real"].values()) == found["verdicts"]["num"]["real"]
    assert abs(sum(found["quality"]["class_shares"]) - 1) < 1e-9
    assert said[-1].endswith("report.html")

    text = (tmp_path / "demo" / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.tags.count("svg") == 5
    marks = len(list((tmp_path / "demo" / "run" / "samples").glob("mark*.png")))
    assert page.tags.count("img") == min(marks, 6) + 2
    assert page.sources
    assert all(source.startswith("data:image/png;base64,") for source in page.sources if not source.startswith("#"))
    assert "script" not in page.tags
    for words in ("Samples through training", "invalid", "eu-art50", "a trusted time stamp", "held-out real pictures"):
        assert words in text
    assert re.search(r"coverage</td><td class=\"number\">[\d.e-]+</td><td class=\"number\">[\d.e-]+ to", text)
