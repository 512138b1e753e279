"""Packaging of sspo_verl. How verl, vLLM and Hydra find the plugin is in `entry_points` and `packages`."""

from pathlib import Path

from setuptools import find_namespace_packages, setup

HERE = Path(__file__).parent

setup(
    name="sspo_verl",
    version=(HERE / "sspo_verl" / "VERSION").read_text().strip(),
    description="SSPO (Subsentence-level Policy Optimization, arXiv 2511.04256) as a plugin for verl",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    project_urls={"Paper": "https://arxiv.org/abs/2511.04256", "verl": "https://github.com/verl-project/verl"},
    keywords=["reinforcement learning", "large language models", "policy optimization", "SSPO", "GRPO", "GSPO", "verl"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.10,<3.13",
    packages=find_namespace_packages(include=["sspo_verl", "sspo_verl.*", "hydra_plugins", "hydra_plugins.*"]),
    package_data={
        "sspo_verl": [
            "VERSION",
            "py.typed",
            "conf/algorithm/*.yaml",
            "tools/report/assets/*",
            "tools/quickstart/*.safetensors",
        ]
    },
    # The method and the plugin.
    install_requires=[
        "verl>=0.9.1,<0.10",
        "torch>=2.8",
        "hydra-core>=1.3",
        "omegaconf>=2.3",
        "jaxtyping>=0.3",
        "typing-extensions>=4.6",
    ],
    # What says that one is missing is in sspo_verl/extras.py.
    extras_require={
        # The reward. omegaconf pins the antlr runtime, and math-verify's parser comes with a grammar for that version.
        "math": [
            "math-verify[antlr4_9_3]>=0.9.0,<0.10",
            "regex",  # unlike re, its search can be ended
        ],
        # Domains other than mathematics. Its own pins are exact, and none of them touches torch, numpy or transformers.
        "gym": ["reasoning-gym>=0.1.25,<0.2", "regex"],
        # The command `sspo` and the quickstart. Jinja2 writes the pages of `sspo report` and `sspo analyze --html`.
        "tools": ["click>=8.1", "rich>=13", "matplotlib>=3.8", "jinja2>=3.1"],
    },
    entry_points={
        "console_scripts": ["sspo = sspo_verl.tools.__main__:sspo"],
        # verl imports this module at the end of `import verl`: in the driver and in every Ray worker.
        "verl.plugins": ["sspo_verl = sspo_verl.plugin.load"],
        # vLLM calls this in each of its processes; it does nothing where there is an accelerator.
        "vllm.general_plugins": ["sspo_verl_cpu = sspo_verl.plugin.cpu.for_vllm:register"],
    },
)
