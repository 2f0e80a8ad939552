"""Learning from the replay: targets, losses, augmentation, updates."""
