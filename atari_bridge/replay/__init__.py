"""Remembered play: rows of many lanes, drawn by priority, and their files."""

from atari_bridge.replay.config import ReplayConfig
from atari_bridge.replay.files import load_replay, save_replay
from atari_bridge.replay.replay import Replay
from atari_bridge.replay.rows import FrameWindow, Rows, Sample, Window

__all__ = [
    "FrameWindow",
    "Replay",
    "ReplayConfig",
    "Rows",
    "Sample",
    "Window",
    "load_replay",
    "save_replay",
]
