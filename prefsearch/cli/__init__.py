"""The command line: commands, arguments, configuration files, signals, the console."""
