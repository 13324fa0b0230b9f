"""The exceptions that leave `pipeline`.

MegrezError
├── CheckpointError        a checkpoint directory is missing something or contradicts itself
├── InvalidRequest         the caller's request can't be served; the message says what to change
│   ├── InvalidMedia       a picture or a recording can't be used
│   │   └── MediaTooLarge  it is over a configured limit
│   └── ContextOverflow    prompt plus answer don't fit into the context
├── Overloaded             a queue is full; the same request may succeed later
├── Cancelled              the caller gave the work up
└── GenerationFailed       the model failed on this sequence only (non-finite logits, say)

They cross process borders, so each one pickles: all state is in `args`.
"""


class MegrezError(Exception):
    """Base of everything that this package raises on purpose."""


class CheckpointError(MegrezError):
    """A checkpoint can't be loaded; the message names the file, key or tensor."""


class InvalidRequest(MegrezError):
    """A request can't be served as it is. `param` names the field, where one is known."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message, param)

    @property
    def message(self) -> str:
        return str(self.args[0])

    @property
    def param(self) -> str | None:
        return self.args[1] if len(self.args) > 1 else None

    def __str__(self) -> str:
        return self.message


class InvalidMedia(InvalidRequest):
    """A picture or recording that can't be decoded or isn't supported."""


class MediaTooLarge(InvalidMedia):
    """A picture or recording over a configured limit (pixels, seconds, bytes)."""


class ContextOverflow(InvalidRequest):
    """Prompt plus requested answer are longer than the context, or than the whole KV cache."""


class Overloaded(MegrezError):
    """A bounded queue is full."""


class Cancelled(MegrezError):
    """Nobody waits for this work any more."""


class GenerationFailed(MegrezError):
    """One sequence could not be continued; its neighbours go on."""
