"""The commands of `prefsearch`, by name: where their arguments and their functions are defined.

Modules of arguments import no torch, so that help and mistakes are answered at once; the module of
a function is imported once the arguments are checked. A new subcommand is one line here.
"""

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Command:
    """A command, each of its two parts as `module:name`.

    Attributes:
        args: The dataclass of its arguments, whose docstring is the help.
        run: The function, called with an instance of it.
    """

    args: str
    run: str

    def load_args(self) -> type:
        """Imports the dataclass of the arguments."""
        return pkgutil.resolve_name(self.args)

    def load_run(self) -> Callable[[Any], None]:
        """Imports the function."""
        return pkgutil.resolve_name(self.run)


@dataclass(frozen=True)
class Group:
    """Commands on one subject; one named "" stands for the group itself.

    Attributes:
        help: One line.
        subcommands: By name.
    """

    help: str
    subcommands: Mapping[str, Command]


def _commands(package: str, **modules: str) -> dict[str, Command]:
    """Commands from NAME="args_module:Args module:function", modules below a package."""
    parts = {name: text.split() for name, text in modules.items()}
    return {
        name: Command(f"{package}.{args}", f"{package}.{run}")
        for name, (args, run) in parts.items()
    }


COMMANDS = {
    "demo": Group(
        "train, search, fine-tune and report, in minutes",
        {"": Command("policies.cli.demo_args:DemoArgs", "policies.demo:run_demo")},
    ),
    "reward": Group(
        "reward models: data, training, evaluation",
        _commands(
            "rewardmodel.cli",
            inspect="data_args:InspectArgs data:inspect_data",
            convert="data_args:ConvertArgs data:convert",
            split="data_args:SplitArgs data:split",
            train="model_args:RewardTrainArgs train:train",
            train_prm="model_args:TrainPrmArgs models:train_prm",
            evaluate="model_args:RewardEvaluateArgs evaluate:evaluate",
            score="model_args:ScoreArgs models:score",
            average="model_args:AverageArgs models:average",
            ensemble="model_args:EnsembleArgs models:ensemble",
            world="data_args:WorldArgs world:world",
            label="data_args:LabelArgs world:label",
        ),
    ),
    "policy": Group(
        "policies: fine-tuning, sampling, search, evaluation",
        _commands(
            "policies.cli",
            sft="args:SftArgs train:sft",
            sample="args:SampleArgs search:sample",
            value="args:ValueArgs train:value",
            plan="args:PlanArgs search:plan",
            finetune="args:FinetuneArgs train:finetune",
            evaluate="evaluate_args:PolicyEvaluateArgs evaluate:evaluate",
            combine="evaluate_args:CombineArgs combine:combine",
        ),
    ),
    "atari": Group(
        "games: agents of the MuZero family on Atari and Gymnasium",
        _commands(
            "atari_bridge.cli",
            train="args:AtariTrainArgs train:train",
            evaluate="args:AtariEvaluateArgs evaluate:evaluate",
            play="args:AtariPlayArgs play:play",
        ),
    ),
    "tree": Group(
        "search trees: how often each action was tried, and what it was found to be worth",
        {"show": Command("search.viewer.args:TreeShowArgs", "search.viewer.cli:show")},
    ),
}
