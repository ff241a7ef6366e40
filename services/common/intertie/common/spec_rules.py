"""What may be asked for: one function a rule, each refusal with the field's path and a remedy."""

from datetime import datetime

from intertie.common.terms import ClusterSpec


def validate(spec: ClusterSpec, *, now: datetime) -> None:
    """Refuses, with FieldInvalid, the first thing that may not be asked for."""
