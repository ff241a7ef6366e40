"""What a plan must keep of items, for CP-SAT: one function a rule, as in model. Whether transfers
fit beside one another is not among it: see solver."""

from intertie.metasched.domain.link_times import NEVER
from intertie.metasched.domain.problem import Problem
from intertie.metasched.domain.transfers import Staging
from intertie.metasched.domain.variables import Model


def _staging(model: Model, problem: Problem) -> Staging:
    """Made once for all rules."""
    if model.staging is None:
        model.staging = Staging(problem)
    return model.staging


def _be_there_in_time(model: Model, problem: Problem) -> None:
    """A group is only where all that it needs can be before the start."""
    staging = _staging(model, problem)
    for group in problem.groups:
        for at, site in enumerate(problem.sites):
            ready_us = staging.ready_us(group.name, at)
            if ready_us > min(staging.until_us):
                late_enough = [
                    start
                    for start, until_us in zip(model.start, staging.until_us, strict=True)
                    if until_us >= ready_us
                ]
                model.cp.add(sum(late_enough) >= model.present[group.name, site.name])


def _bring_what_is_needed(model: Model, problem: Problem) -> None:
    """An item is brought to each site where a group needs it and it is not."""
    staging = _staging(model, problem)
    for group in problem.groups:
        for at, site in enumerate(problem.sites):
            for item in staging.missing(group.name, at):
                if (item, at) not in model.brought:
                    name = f"{problem.items[item].name} to {site.name}"
                    model.brought[item, at] = model.cp.new_bool_var(name)
                model.cp.add_implication(
                    model.present[group.name, site.name], model.brought[item, at]
                )


def _bring_it_from_who_has_it(model: Model, problem: Problem) -> None:
    """What is brought comes from one site that has it, or that it is brought to before."""
    staging, count = _staging(model, problem), len(problem.sites)
    last = len(problem.windows) - 1
    turn = {
        key: model.cp.new_int_var(0, count, f"turn of {key[0]} at {key[1]}")
        for key in model.brought
    }
    for (item, at), brought in model.brought.items():
        ways = []
        for source in range(count):
            onward = model.brought.get((item, source))
            price = staging.price(item, last, at, source) if source != at else NEVER
            if price >= NEVER or (onward is None and source not in staging.at[item]):
                continue
            way = model.cp.new_bool_var(f"{item} from {source} to {at}")
            ways.append(way)
            model.sent[item, source, at] = way
            if onward is not None and source not in staging.at[item]:
                model.cp.add_implication(way, onward)
                model.cp.add(turn[item, source] < turn[item, at]).only_enforce_if(way)
        model.cp.add(sum(ways) == brought)


STAGING_RULES = (_be_there_in_time, _bring_what_is_needed, _bring_it_from_who_has_it)
