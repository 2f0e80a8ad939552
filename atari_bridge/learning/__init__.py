"""How a network learns from remembered play: targets, losses, augmentation, updates."""
