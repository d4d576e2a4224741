"""The commands, one file each: arguments in, one call, errors to one line."""
