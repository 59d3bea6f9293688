"""The champion that a run compares its model with: the one that `resolve` found at its start."""

from __future__ import annotations

from regraft_core.formats.published_versions import locate_version
from regraft_core.formats.run_outcome import LastPublication, last_publication_of
from regraft_core.runtime.errors import InputError


def compared_version(location: str, digest: str, inputs: str) -> str:
    """Return the version at `location`, which must be the one that the run found at its start.

    A run that repeats the one that published the current champion expects the champion before,
    so that the cache returns its evaluation; without that, it is compared with the current one.

    Args:
        location: where the champion is published; may be empty.
        digest: of the version that `resolve` found; empty if it found none.
        inputs: digest of the run's inputs.

    Raises:
        InputError: the champion has changed since then, or cannot be read.
    """
    try:
        version, found = (locate_version(location) if location else None) or ("", "")
        if found == digest:
            return version
        last = last_publication_of(location)
    except InputError as error:
        raise InputError(f"champion: {error}") from error
    if last == LastPublication(inputs=inputs, champion_digest=digest, saved_model_digest=found):
        return version
    raise InputError(
        f"champion: expected {digest[:12] or 'none'}, as at the start of the run, got "
        f"{found[:12] or 'none'}{f' at {version}' if version else ''}, because it was changed "
        "meanwhile; repeat or resume the run, which then compares with it"
    )
