"""Optuna on the objective that pawl evaluates: asked and answered a line of JSON at a time, on stdin and stdout.

usage: optuna_search.py [tpe | tpe-multivariate | random]

The first configuration is the recipe as it is, so that a search knows what it starts from. What gave no score is told
to the study as a failed trial.
"""

import json
import sys

import optuna


def sampler(name, seed):
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    if name == "tpe-multivariate":
        return optuna.samplers.TPESampler(seed=seed, multivariate=True)
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    sys.exit(f"there is no sampler {name}: tpe, tpe-multivariate, random")


def drawn(trial, setting):
    name = setting["name"]
    if setting["kind"] == "choice":
        # By place: options of one setting may be of several types.
        options = setting["options"]
        return options[trial.suggest_categorical(name, range(len(options)))]
    if setting["whole"]:
        return trial.suggest_int(name, round(setting["low"]), round(setting["high"]), log=setting["log"])
    return trial.suggest_float(name, setting["low"], setting["high"], log=setting["log"])


def main():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    told = json.loads(sys.stdin.readline())
    space = told["space"]
    study = optuna.create_study(sampler=sampler((sys.argv[1:] or ["tpe"])[0], told["seed"]))
    place = lambda s: s["options"].index(s["default"]) if s["kind"] == "choice" else s["default"]
    study.enqueue_trial({setting["name"]: place(setting) for setting in space})
    while True:
        trial = study.ask()
        settings = {setting["name"]: drawn(trial, setting) for setting in space}
        print(json.dumps({"settings": settings}), flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        score = json.loads(line)["val_bpb"]
        if score is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, score)


main()
