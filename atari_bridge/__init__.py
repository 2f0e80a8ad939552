"""Games: the planning core with learned dynamics, where published agents can be compared.

This tenant is not built yet; DESIGN in `docs/architecture.md` says what it will hold. The core that
it will plan with is `search`, and any game that implements `search.PlanningModel` can be planned
with today.
"""
