"""The commands, a file each: `add(commands)` puts its words into the parser, `run(arguments)` calls one job.

Nothing heavy is imported before a command runs.
"""
