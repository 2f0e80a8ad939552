"""How a search is evaluated: divergence from the policy, equal cost, scaling fits and figures."""
