"""What is asked for where a cluster is created or planned."""

from dataclasses import dataclass

from intertie.common.names import ClusterName, uid_of
from intertie.common.spec import ClusterSpec
from intertie.metasched.domain.parts import digest_of, said


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A request to create or to plan a cluster. Who asks is who it is for: of a request that a
    broker handed on, the user."""

    name: ClusterName
    """Under this meta-scheduler."""
    spec: ClusterSpec
    caller: str
    request_id: str = ""
    plan_token: str = ""
    """Of the plan that is accepted; empty: the best there is."""

    @property
    def request_key(self) -> str:
        return f"{uid_of(self.caller)}/{self.request_id}"

    @property
    def asked(self) -> str:
        """Digest of what is asked for, by whichever plan."""
        return digest_of(self._body)

    @property
    def digest(self) -> str:
        """Of all of the request."""
        token = {"plan_token": self.plan_token} if self.plan_token else {}
        return digest_of(self._body | token)

    @property
    def _body(self) -> dict[str, object]:
        return {"name": str(self.name), "spec": said(self.spec)}
