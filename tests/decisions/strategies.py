"""What the state machines draw: versions, policies, plans of rollouts."""

from __future__ import annotations

from hypothesis import strategies as st

from events.catalogue.endpoints import Policy, Rule, Shadow, Step, When

VERSIONS = [f"{major}.0.0" for major in range(1, 6)]
versions = st.sampled_from(VERSIONS)
nodes = st.integers(0, 1)
plans = st.sets(st.sampled_from([0.0, 5.0, 10.0, 50.0, 100.0]), min_size=1, max_size=4).map(
    lambda weights: tuple(Step(weight=weight, hold_s=60) for weight in sorted(weights))
)
"""Of rollouts; one in a few cannot be carried out."""
few_ids = st.integers(1, 9).map(str)
weights = st.sampled_from([1.0, 9.0, 1.0, 9.0, 0.0])


def policies(of: st.SearchStrategy[str]) -> st.SearchStrategy[Policy]:
    """Policies over some versions; one in a few has no meaning."""
    splits = st.dictionaries(of, weights, min_size=1, max_size=3)
    whens = st.just(When(attributes={"tier": "beta"}))
    rules = st.builds(Rule, name=st.just("beta"), when=whens, split=splits)
    shadows = st.builds(Shadow, version=of)
    return st.builds(
        Policy,
        split=splits,
        sticky=st.booleans(),
        rules=st.lists(rules, max_size=1).map(tuple),
        shadow=st.lists(shadows, max_size=1).map(tuple),
        fallback=st.lists(of, max_size=2).map(tuple),
    )
