"""How a user is told of room that others make for a lease, and of what that costs."""


def give_way(*, vcpus: int, memory_mib: int, site: str, amount: float) -> str:
    said = [f"{vcpus} vCPU{'s' if vcpus > 1 else ''}"] if vcpus else []
    said += [f"{memory_mib} MiB of memory"] if memory_mib else []
    give = "give" if len(said) > 1 or vcpus > 1 else "gives"
    return f"{' and '.join(said)} of best-effort leases at {site} {give} way: {plus(amount)}"


def plus(amount: float) -> str:
    """What is to be paid beside the rest: to the cent, and closer where that says nothing."""
    return f"+{amount:.2f}" if amount >= 0.01 else f"+{amount:.2g}"
