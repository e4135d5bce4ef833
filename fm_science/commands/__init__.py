"""The commands, one module each: ``usage(rest)`` is the text of ``--help``, ``main(args)`` does the work."""

#: what each command does, in the order of the help
COMMANDS = {
    "prepare": "read many files once into one, from which training starts at once",
    "train": "train a flow on a domain's data",
    "tune": "go on from a trained run or model towards a reward of your own",
    "sample": "draw new samples from a trained run or model",
    "evaluate": "measure samples beside held-out data and an untrained network",
    "report": "write a run as one page that opens anywhere",
    "domains": "list the domains that are installed, or every option of one",
    "models": "list the models that are installed, or add one",
    "export": "write a trained run as one file, a model",
    "config": "the options in which two runs differ",
    "show": "draw a picture of the lectures, by running what it shows",
    "info": "versions, devices and plugins, or the summary of a run",
    "doctor": "check this installation, and a domain, and say what to mend",
    "completion": "completion by the tabulator key for bash, zsh or fish",
    "new-domain": "write a package with a domain of your own, to install and to change",
    "new-space": "write a package with a space of your own, and the tests it must pass",
}
