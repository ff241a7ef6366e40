"""What a user does about each reason that a service may give."""

from __future__ import annotations

REMEDIES = {
    "FIELD_INVALID": "Correct that field.",
    "NOT_FOUND": "Check the name: `intertie cluster list` and `intertie image list` show what"
    " there is.",
    "NAME_TAKEN": "Take another name (--name), or delete the cluster that has it.",
    "REQUEST_ID_REUSE": "Leave --request-id out, or give a new one.",
    "NO_CAPACITY": "Ask for less, allow more sites, or let it start later (lease.max_delay).",
    "PLAN_STALE": "Plan again: `intertie cluster plan -f FILE`, and accept one of those.",
    "IMAGE_NOT_READY": "Put the image first: `intertie image put NAME FILE`.",
    "CLOCK_SKEW": "The sites' clocks differ: tell their operators.",
    "HOLD_EXPIRED": "Try again.",
    "PART_OVER": "It is over already; nothing is left to do.",
    "DECISION_PENDING": "Wait until the decision is made, then try again.",
    "DECISION_INVALID": "Tell the operator of the meta-scheduler.",
    "ETAG_STALE": "It has changed since you looked: look again, then decide.",
    "CLUSTER_OVER": "Make a new cluster: `intertie cluster create -f FILE`.",
    "LEASE_ENDING": "Make a new cluster; give less in the last two minutes, or change it earlier.",
    "ACTION_ILLEGAL": "Do one of those that its state allows, or wait until it runs.",
    "AMEND_PENDING": "Another change of it is under way: look again, then decide.",
    "TERMS_STALE": "Try again: a site has not heard of the last change yet.",
    "STALE_WRITE": "Try again.",
    "ABORTED": "Everything was given back. Try again.",
    "NOT_LEADING": "Try again in a moment, with the same --request-id if it was a create.",
    "SITE_UNREACHABLE": "Everything was given back. Try again, or leave that site out"
    " (placement.deny_sites).",
    "SOLVER_FAILED": "Ask for fewer groups or for some sites only, or tell the operator of the"
    " meta-scheduler.",
    "STORE_UNAVAILABLE": "The service's own store does not answer: try again, or tell the"
    " operator.",
    "IDENTITY_UNKNOWN": "Get a certificate from an authority that this service trusts.",
    "ROLE_DENIED": "Use a certificate of the right role and tenant (--endpoint chooses it).",
    "WORKSPACE_NOT_RUNNING": "Wait until it runs: `intertie cluster watch NAME`.",
    "CONNECTION_REFUSED": "Wait until the workspace is ready, or check what listens in it.",
    "CONSOLE_TAKEN": "Attach again to take it back.",
    "DIGEST_MISMATCH": "Put the image again.",
    "OFFSET_MISMATCH": "Put the image again.",
    "PUT_IN_PROGRESS": "Wait until the other upload has ended.",
    "STORE_FULL": "Delete images that nobody needs, or ask the operator for room.",
}
"""By reason. A test holds it against the types in intertie.common.errors."""
