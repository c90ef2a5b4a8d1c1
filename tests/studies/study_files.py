"""The text of a study file that several tests change in one place or another."""


def two_cohorts(
    first: tuple[str, str], second: tuple[str, str], *, scheme: str, seeds: int, margin: float = 0.01,
    examples: str = "digits", recipe: str = "digits", more: str = "",
) -> str:  # fmt: skip
    """Two cohorts, each with a name and settings; the only rule says that the first loses less under the scheme."""
    return f"""
question = "Do {first[0]} nets lose less at {scheme}?"
examples = "{examples}"
[cohorts.{first[0]}]
recipe = "{recipe}"
settings = {{{first[1]}}}
seeds = {seeds}{more}
role = "studied"
[cohorts.{second[0]}]
recipe = "{recipe}"
settings = {{{second[1]}}}
seeds = {seeds}{more}
role = "compared"
[metrics.loss]
audit = "deployment"
settings = {{schemes = "{scheme}"}}
scheme = "{scheme}"
toward = "low"
[[rules]]
metric = "loss"
cohorts = ["{first[0]}", "{second[0]}"]
statistic = "difference"
direction = "less"
margin = {margin}
"""
