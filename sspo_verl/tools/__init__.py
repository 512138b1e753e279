"""The command `sspo`: a folder per subcommand, each with a click command named `command` in command.py."""
