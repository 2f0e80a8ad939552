"""RewardBench and RewardBench 2."""
