"""Checks that `algorithm=sspo` composes, as in `python -m verl.trainer.main_ppo algorithm=sspo`."""

from __future__ import annotations

from sspo_verl.tools.doctor.check import FAILED, OK, Check
from sspo_verl.tools.doctor.processes import Notes

NAME = "algorithm=sspo"
EXPECTED = {
    "adv_estimator": "sspo",
    "loss_mode": "sspo",
    "settings": "sspo_verl.config.SSPOPolicyLossConfig",
}


def check_composition(driver: Notes) -> list[Check]:
    found = driver.value("composed")
    if found is None:
        fix = (
            "If Hydra knows no `algorithm`, its plugin was not found: is there a package hydra_plugins with an "
            "__init__.py on the path, which hides the others? Otherwise fix what the message names."
        )
        return [Check(NAME, FAILED, f"does not compose: {driver.why_not('composed')}", fix)]
    wrong = [f"{key} is {found[key]}, not {value}" for key, value in EXPECTED.items() if found[key] != value]
    if wrong:
        fix = "Another config of that name comes first on Hydra's search path: python -m verl.trainer.main_ppo --info."
        return [Check(NAME, FAILED, "; ".join(wrong), fix)]
    return [Check(NAME, OK, "composes on ppo_trainer: loss_mode and adv_estimator are sspo")]
