from __future__ import annotations

from benchmarks.client import Answer
from benchmarks.datasets import Case, Turn
from benchmarks.goals import Goal
from benchmarks.report import Outcome, failures, outcome, summarize, table, wrong_cases


def made(
    text: str, reference: str, task: str, language: str = "en", metric: str = "exact", error: str | None = None
) -> Outcome:
    case = Case(f"{task}:{reference}", task, language, metric, (Turn("user", "?"),), (reference,), {})
    reason = "error" if error else "length" if text == "cut" else "stop"
    return outcome(case, Answer("", text, reason, 0.1, error))


OUTCOMES = [
    made("one", "one", "count"),
    made("two", "three", "count"),
    made("", "four", "count", error="InternalServerError: no"),
    made("cut", "cut", "count", "zh"),
    made("a b c d e f g h i", "a b c d e f g h i", "speech", metric="wer"),
    made("x", "a", "speech", metric="wer"),
    made("", "b c d e f", "speech", metric="wer", error="Timeout: no"),
]


def test_scores() -> None:
    en, zh, speech = summarize(OUTCOMES, {})
    assert (en.n, en.score, en.errors, en.cut) == (3, 1 / 3, 1, 0)
    assert (zh.n, zh.score, zh.errors, zh.cut) == (1, 1, 0, 1)
    assert speech.score == 6 / 15  # edits of words, not (0 + 1 + 1) / 3
    assert (en.goal, en.verdict) == (None, None)


def test_table() -> None:
    assert table(summarize(OUTCOMES, {})) == (
        "task    language  n  metric  score   errors  cut\n"
        "------  --------  -  ------  ------  ------  ---\n"
        "count   en        3  exact   0.3333  1       0\n"
        "count   zh        1  exact   1.0000  0       1\n"
        "speech  en        3  wer     0.4000  1       0"
    )


def test_table_with_goals() -> None:
    goals = {"count": Goal("exact", 0.5)}
    assert table(summarize([*OUTCOMES[:4], made("a", "a", "other", "")], goals)) == (
        "task   language  n  metric  score   errors  cut  goal   verdict\n"
        "-----  --------  -  ------  ------  ------  ---  -----  -------\n"
        "count  en        3  exact   0.3333  1       0    ≥ 0.5  fail\n"
        "count  zh        1  exact   1.0000  0       1    ≥ 0.5  pass\n"
        "other  -         1  exact   1.0000  0       0    -      -"
    )
    (speech,) = summarize(OUTCOMES[4:], {"speech": Goal("wer", 0.4)})
    assert speech.verdict == "pass"
    assert "≤ 0.4" in table([speech])


def test_nothing_wrong_is_left_out() -> None:
    assert [w["id"] for w in wrong_cases(OUTCOMES, 9)] == ["count:three", "speech:a"]
    assert wrong_cases(OUTCOMES, 9)[0]["expected"] == ["three"]
    assert wrong_cases(OUTCOMES, 9)[0]["got"] == "two"
    assert wrong_cases(OUTCOMES, 0) == []
    assert [f["id"] for f in failures(OUTCOMES)] == ["count:four", "speech:b c d e f"]


def test_a_failed_request_is_never_right() -> None:
    assert not made("um", "um", "speech", metric="wer", error="no").right
    assert summarize([made("", "um", "speech", metric="wer", error="no")], {})[0].score == 1
