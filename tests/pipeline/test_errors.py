"""Errors cross process borders: each one comes back as it was."""

from __future__ import annotations

import pickle

import pytest

from pipeline import errors


@pytest.mark.parametrize(
    "error",
    [
        errors.MegrezError("a"),
        errors.CheckpointError("a"),
        errors.InvalidRequest("a", "messages"),
        errors.InvalidMedia("a"),
        errors.MediaTooLarge("a", "messages"),
        errors.ContextOverflow("a", "max_tokens"),
        errors.Overloaded("a"),
        errors.Cancelled("a"),
        errors.GenerationFailed("a"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_pickling(error: errors.MegrezError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error) == "a"
    assert getattr(copy, "param", None) == getattr(error, "param", None)
