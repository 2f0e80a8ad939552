"""Vector environments: Atari games and Gymnasium environments."""
