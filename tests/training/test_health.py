"""The rules, by rows made for them."""

import pytest

from countermark.training.health import (
    ADVICE,
    DEAD,
    PATIENCE,
    SLOW_REPORTS,
    WARM_UP_REPORTS,
    WILD,
    Finding,
    Gradients,
    Health,
    copies,
    summary,
)

WARM = [{"D/grad_norm": 1.0, "G/grad_norm": 1.0}] * WARM_UP_REPORTS


def look(coverage: float = 0.9, duplicates: float = 0.0, memorised: float = 0.0, **more: float) -> dict[str, float]:
    figures = {"coverage": coverage, "duplicates": duplicates, "identical": 0.0, "memorised": memorised, **more}
    return {f"health/{name}": figure for name, figure in figures.items()}


def named(rows: list[dict]) -> list[str]:
    """What is named, in order, each time that it begins."""
    health = Health()
    return [finding.name for row in rows for finding in health.observe(row)]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (look(duplicates=0.9), "mode_collapse"),
        (look(memorised=0.5), "memorisation"),
        (look(r_v=0.8, r_v_low=0.5), "overfitting"),
        ({"G/grad_norm": 1e-3}, "vanishing_gradients"),
        ({"D/grad_norm": 1e-3}, "vanishing_gradients"),
        ({"D_reg/grad_norm": 1e6}, "exploding_gradients"),
        ({"G/grad_norm": 150.0}, "exploding_gradients"),
    ],
)
def test_a_symptom_is_named_once_it_has_stayed_and_again_once_it_was_over(row: dict, name: str) -> None:
    sound = {"D/grad_norm": 1.0, "G/grad_norm": 1.0, **look(r_v=0.0, r_v_low=-0.1)}
    sick = {**sound, **row}
    start = [*WARM, sound]
    assert named([*start, *[sick] * (PATIENCE - 1), sound, *[sick] * (PATIENCE - 1)]) == []
    assert named([*start, *[sick] * 20]) == [name]
    assert named([*start, *[sick] * 5, *[sound] * (PATIENCE - 1), *[sick] * 5]) == [name]
    assert named([*start, *[sick] * 5, *[sound] * PATIENCE, *[sick] * 5]) == [name, name]


def test_what_holds_stands_and_what_is_over_does_not() -> None:
    health = Health([*WARM, look(), *[look(duplicates=0.9)] * PATIENCE])
    assert health.standing == {"mode_collapse": Finding("mode_collapse", 0.9)}
    for _ in range(PATIENCE):
        health.observe(look())
    assert health.standing == {}


def test_pictures_all_alike_are_no_collapse_before_the_networks_have_learnt() -> None:
    early = [{"G/grad_norm": 1.0, **look(coverage=0.04, duplicates=0.98)}] * (WARM_UP_REPORTS - 1)
    assert named([*early, *[look()] * PATIENCE]) == []


def test_a_slow_start_is_no_collapse_unless_pictures_are_identical() -> None:
    row = {"G/grad_norm": 1.0, **look(coverage=0.04, duplicates=0.98)}
    assert named([row] * (SLOW_REPORTS + PATIENCE - 2)) == []
    assert named([row] * (SLOW_REPORTS + PATIENCE)) == ["mode_collapse"]
    assert named([{**row, "health/identical": 0.98}] * (WARM_UP_REPORTS + PATIENCE)) == ["mode_collapse"]


def test_a_fall_of_coverage_is_a_collapse_and_low_coverage_alone_is_not() -> None:
    assert named([*WARM, *[look(coverage=0.15)] * 9]) == []
    assert named([*WARM, look(coverage=0.9), *[look(coverage=0.3)] * PATIENCE]) == ["mode_collapse"]
    assert named([*WARM, look(coverage=0.9), *[look(coverage=0.4)] * PATIENCE]) == []


def test_gradients_that_grow_from_almost_nothing_do_not_explode() -> None:
    assert named([{"G/grad_norm": 1e-4 * 1.5**i} for i in range(30)]) == []


def test_gradients_are_dead_or_wild_from_the_first() -> None:
    assert named([{"G/grad_norm": DEAD / 2}] * PATIENCE) == ["vanishing_gradients"]
    assert named([{"D/grad_norm": WILD * 2}] * PATIENCE) == ["exploding_gradients"]


def test_weights_that_grow_threefold_at_once_explode_and_slow_growth_is_learning() -> None:
    start = {"G/weight_norm": 10.0}
    report = {"G/grad_norm": 1.0}
    assert named([start, *[{**report, "G/weight_norm": 35.0}] * PATIENCE]) == ["exploding_gradients"]
    assert named([start, *[{**report, "G/weight_norm": 10 * 1.1**i} for i in range(50)]]) == []


def test_where_no_picture_is_held_out_r_t_speaks() -> None:
    sure = {**look(), "D/r_t": 1.0}
    assert named([*WARM, *[{**sure, "health/held_out": 0.0}] * PATIENCE]) == ["overfitting"]
    assert named([*WARM, *[{**sure, "health/held_out": 9.0}] * PATIENCE]) == []  # D could not be asked, and that is all
    assert named([*WARM, *[{**look(r_v=0.0, r_v_low=-0.2), "D/r_t": 1.0}] * PATIENCE]) == []


def test_one_outlier_does_not_change_what_is_typical() -> None:
    gradients = Gradients()
    for norm in [1.0] * 6 + [1e3] + [1.0] * 6:
        gradients.add(norm)
    assert gradients.typical == 1.0


def test_regularisers_may_vanish() -> None:
    assert named([*[{"G_reg/grad_norm": 1.0}] * 20, *[{"G_reg/grad_norm": 1e-4}] * 20]) == []


def test_models_without_such_terms_have_no_findings() -> None:
    assert named([{"F/loss": 0.1, "metrics/fd": 3.0, "nimg": 20}] * 50) == []


def test_rows_of_findings_are_read_back() -> None:
    finding = Finding("nan", 640.0)
    row = finding.row(320)
    assert row == {"nimg": 320, "health": "nan", "figure": 640.0, "advice": ADVICE["nan"]}
    assert Health([row]).standing == {"nan": finding}
    assert Health([{**row, "health": "a stranger's"}]).standing == {}


def test_copies_in_the_data_count_from_a_twentieth_on() -> None:
    assert copies(0.04) == []
    assert copies(0.3) == [Finding("duplicates", 0.3)]


def test_a_finding_and_a_run_in_words() -> None:
    assert str(Finding("mode_collapse", 0.1234)).startswith("mode collapse (0.123): samples are twins")
    rows = [{"nimg": 20}, Finding("nan", 9).row(1000), Finding("mode_collapse", 0.1).row(2000)]
    assert summary(rows) == ["health: nan at 9 images, mode collapse at 2,000 images; metrics.jsonl has the advice"]
    assert summary(rows[:1]) == []


def test_advice_is_one_sentence_that_names_a_setting_or_a_deed() -> None:
    for text in ADVICE.values():
        assert "\n" not in text
        assert not text.endswith(".")
