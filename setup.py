"""Installs stilts_jax: `pip install .`; extras are explained in README.md."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="stilts-jax",
    version="0.2.0",
    description="Intermediate-task training for zero-shot cross-lingual transfer (STILTs, XTREME) in JAX",
    long_description=Path(__file__).with_name("README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    # The configs lie beside the package in a checkout, inside it in an installation: `--config=xstilts` finds both.
    packages=[*find_packages(include=["stilts_jax", "stilts_jax.*"]), "stilts_jax.configs"],
    package_dir={"stilts_jax.configs": "configs"},
    package_data={"stilts_jax": ["py.typed", "report/*.css", "report/*.csv", "report/*.jinja"]},
    install_requires=[
        "jax>=0.10.2,<0.13",
        "flax>=0.12.8,<0.13",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12.8,<0.13",
        "etils[epath]>=1.12",
        "filelock>=3.20.1",
        "tqdm>=4.66",
        "transformers>=5.17,<6",
        "tokenizers>=0.23.2,<0.24",
        "sentencepiece>=0.2.2,<0.3",
        "safetensors>=0.8,<0.9",
        "pyarrow>=24",
        "numpy>=2.0",
        "scipy>=1.14",
        "pandas>=2.2.2",
        "jinja2>=3.1.6",  # which pandas needs for LaTeX
        "matplotlib>=3.9",
        "pillow>=11",
        "ml-collections>=1.1,<2",
    ],
    extras_require={
        "tpu": ["jax[tpu]>=0.10.2,<0.13"],
        "cuda": ["jax[cuda13]>=0.10.2,<0.13"],
        "gcs": ["gcsfs"],
        "hub": ["datasets>=5.2,<6", "huggingface_hub>=1"],
        # importlib_resources: tensorflow-datasets needs it and does not say so.
        "tfds": ["tensorflow-datasets>=4.9.10,<5", "importlib_resources", "array-record>=0.8.1"],
        "tfds-prepare": [
            "tensorflow"
        ],  # some builders can't be prepared without it; none needs it to be read
        "tensorboard": ["tensorboardX>=2.6"],
        "parity": ["torch>=2.8"],
        "test": ["pytest>=9", "hypothesis>=6", "datasets>=5.2,<6"],
        "lint": ["ruff==0.17.5", "mypy==2.4.1"],
    },
    entry_points={"console_scripts": ["stilts=stilts_jax.main:main"]},
)
