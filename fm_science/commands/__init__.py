"""The commands, one module each: ``usage(rest)`` is the text of ``--help``, ``main(args)`` does the work."""

#: what each command does, in the order of the help
COMMANDS = {
    "prepare": "read many files once into one, from which training starts at once",
    "train": "train a flow on a domain's data",
    "tune": "tune a trained run or model towards your own reward",
    "sample": "draw new samples from a trained run or model",
    "evaluate": "measure samples, held-out data and an untrained network",
    "report": "write a run as one page that opens anywhere",
    "domains": "list the domains that are installed, or every option of one",
    "models": "list the models that are installed, or add one",
    "export": "write a trained run as one file, a model",
    "push": "put a model on the hub, so that others can add it",
    "config": "the options in which two runs differ",
    "show": "draw a picture of the lectures, by running what it shows",
    "info": "versions, devices and plugins, or the summary of a run",
    "doctor": "check this installation, and a domain, and say what to correct",
    "completion": "tab completion for bash, zsh or fish",
    "new-domain": "write a package with your own domain, to install and to change",
    "new-space": "write a package with your own space, and the tests it must pass",
}
