"""The commands, one module each: ``usage(rest)`` is the text of ``--help``, ``main(args)`` does the work."""
