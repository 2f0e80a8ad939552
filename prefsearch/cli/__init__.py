"""The command line: arguments, configuration files, signals, the console."""
