"""RewardBench and RewardBench 2, scored by their own rules."""
