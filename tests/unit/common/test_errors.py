from intertie.common import errors
from intertie.common.errors import DomainError, NoCapacity, Shortfall


def test_every_error_has_a_reason_of_its_own() -> None:
    reasons = [error.reason for error in DomainError.__subclasses__()]
    assert len(reasons) == len(set(reasons))
    assert all(reason and reason == reason.upper() for reason in reasons)


def test_every_error_is_hashable_and_says_a_sentence() -> None:
    error = NoCapacity((Shortfall(site="north", resource="vcpus", wanted=4, unit="vCPU"),))
    assert {error}
    assert str(error) == "it does not fit: north: vcpus 4 vCPU wanted, 0 available"


def test_a_bug_is_no_domain_error() -> None:
    assert not issubclass(errors.IllegalMove, DomainError)
